"""The tutorial's programs print under `rondel run` what they print under `python`.

Compared: every line and their order. Normalised: addresses, the order inside printed sets, and
total times, which may differ by what a busy machine adds but not by another schedule. Three
programs leave more to chance, under `python` too; `CHANCE` says what and why.

The programs sleep, so all of them run at once, under both interpreters.
"""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.support import Outcome, call

PROGRAMS = Path(__file__).parent / "programs"
NAMES = sorted(path.name for path in PROGRAMS.glob("*.py") if path.name != "utils.py")

# What a loaded two-core machine may add to a program's sleeps, in seconds. Less than the tutorial's
# unit of one second, so that a missing or an extra sleep still shows.
SLACK = 0.8

TOTAL = re.compile(r"total time: ([\d.]+)")


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, str], Outcome]:
    """(interpreter, program) -> how it ended."""
    commands = {"python": [sys.executable], "rondel": [sys.executable, "-m", "rondel"]}
    keys = [(interpreter, name) for name in NAMES for interpreter in commands]

    def run(key: tuple[str, str]) -> Outcome:
        return call([*commands[key[0]], key[1]], PROGRAMS)

    with ThreadPoolExecutor(len(keys)) as pool:
        return dict(zip(keys, pool.map(run, keys), strict=True))


def normalised(output: str) -> list[str]:
    """Lines without addresses and times, the members of each printed set in sorted order."""
    text = re.sub(r" at 0x[0-9a-f]+", " at 0x", output)
    text = TOTAL.sub("total time: T", text)
    return [
        re.sub(r"\{(<.*>)\}", lambda match: _sorted(match[1]), line) for line in text.split("\n")
    ]


def _sorted(members: str) -> str:
    return "{" + ", ".join(sorted(re.split(r", (?=<Task )", members))) + "}"


def _as_completed(lines: list[str]) -> list[str]:
    """It awaits the tasks left over in the order of a set: their results come in either order."""
    left = [line for line in lines if line.startswith("function res: ")]
    for line in left:
        who = line.removeprefix("function res: ")
        assert lines.index(line) > lines.index(f"i'am {who}!")
    return [line for line in lines if line not in left] + sorted(left)


def _wait(lines: list[str]) -> list[str]:
    """It gathers the members of a set, and so prints their results in a set's order."""
    head = "pending_tasks result : "
    return [
        head + str(sorted(line.removeprefix(head).strip("[]").split(", ")))
        if line.startswith(head)
        else line
        for line in lines
    ]


def _to_thread(lines: list[str]) -> list[str]:
    """A thread and the loop sleep for the same two seconds: the kernel decides who wakes first."""
    first = lines.index("start get url: {url}") + 1
    return lines[:first] + sorted(lines[first : first + 2]) + lines[first + 2 :]


CHANCE = {"as_completed.py": _as_completed, "to_thread.py": _to_thread, "wait.py": _wait}


def test_every_program_of_the_tutorial_is_here() -> None:
    assert len(NAMES) == 11
    assert {"main.py", "gather.py", "wait_for.py", "timeout_at.py"} <= set(NAMES)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", NAMES)
def test_it_prints_what_python_prints(outcomes: dict[tuple[str, str], Outcome], name: str) -> None:
    expected, got = outcomes["python", name], outcomes["rondel", name]
    assert expected.status == 0, expected.errors
    assert got.status == 0, got.errors
    settle = CHANCE.get(name, list)
    assert settle(normalised(got.output)) == settle(normalised(expected.output))
    assert normalised(got.errors) == normalised(expected.errors)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", NAMES)
def test_it_takes_about_as_long(outcomes: dict[tuple[str, str], Outcome], name: str) -> None:
    expected = [float(total) for total in TOTAL.findall(outcomes["python", name].output)]
    got = [float(total) for total in TOTAL.findall(outcomes["rondel", name].output)]
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert abs(ours - theirs) < SLACK


def test_the_comparison_can_fail() -> None:
    assert normalised("{<Task b>, <Task a>}") == normalised("{<Task a>, <Task b>}")
    assert normalised("[<Task b>, <Task a>]") != normalised("[<Task a>, <Task b>]")
    assert normalised("x\ny") != normalised("y\nx")
