"""The closing line of CI counts every runner's tests and never hides a failure."""

import subprocess
import sys
from pathlib import Path

import pytest

TALLY = Path(__file__).parents[2] / "scripts" / "tally.py"

PYTEST = "== 2 failed, 10 passed, 3 skipped, 1 error in 3.21s (0:00:03) =="
NEXTEST = "     Summary [   0.201s] 12 tests run: 11 passed, 1 failed, 2 skipped"
CONFORMANCE = "conformance: 974 passed, 2 failed (CPython 3.11.7; 2 suites, 40 s)"
COMPAT = "compat: 147 passed, 0 failed (6 skipped; CPython 3.13.0; 47 s)"
SOAK = "soak: 1 passed, 0 failed (CPython 3.13.0; 300 s)"
FUZZ = "fuzz: 7 passed, 1 failed (480 s; http1)"
CARGO = "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out"


@pytest.mark.parametrize(
    ("logs", "line", "status"),
    [
        ([("x\n" + PYTEST, 1)], "10 passed, 3 failed", 1),
        ([(NEXTEST, 1), (CARGO, 0)], "15 passed, 1 failed", 1),
        ([(CARGO, 0), ("==== 7 passed in 0.1s ====", 0)], "11 passed, 0 failed", 0),
        ([("\x1b[32m== \x1b[1m7 passed\x1b[0m in 0.1s ==\x1b[0m", 0)], "7 passed, 0 failed", 0),
        ([(CARGO, 0), ("error: no such crate", 2)], "4 passed, 1 failed", 1),
        ([(CONFORMANCE, 1), (CARGO, 0)], "978 passed, 2 failed", 1),
        ([(COMPAT, 0), (SOAK, 0)], "148 passed, 0 failed", 0),
        ([(FUZZ, 1)], "7 passed, 1 failed", 1),
        ([("", 0)], "0 passed, 0 failed", 1),
        ([(CARGO, 0), ("killed half-way, nothing written", None)], "4 passed, 1 failed", 1),
    ],
)
def test_sum(tmp_path: Path, logs: list[tuple[str, int | None]], line: str, status: int) -> None:
    names = []
    for index, (text, exit_status) in enumerate(logs):
        log = tmp_path / f"step{index}.log"
        log.write_text(text + "\n")
        if exit_status is not None:
            (tmp_path / f"step{index}.log.status").write_text(f"{exit_status}\n")
        names.append(str(log))
    ended = tally(*names)
    assert ended.stdout.splitlines()[-1] == line, ended.stderr
    assert ended.returncode == status


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("....\nFAILED tests/a.py::b - no\nmore\n" + PYTEST, ["FAILED tests/a.py::b - no"]),
        ("building\nerror: no such crate", ["building", "error: no such crate"]),
    ],
)
def test_a_failed_call_says_what_failed(tmp_path: Path, text: str, said: list[str]) -> None:
    log = tmp_path / "step.log"
    log.write_text(text + "\n")
    (tmp_path / "step.log.status").write_text("1\n")
    ended = tally(str(log))
    assert [line.strip() for line in ended.stdout.splitlines()[1:-1]] == said


def tally(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(TALLY), *arguments], capture_output=True, text=True, check=False
    )


def call(folder: Path, name: str, output: str, status: int) -> str:
    log = folder / name
    log.write_text(output)
    (folder / f"{name}.status").write_text(f"{status}\n")
    return str(log)


FLAKY = "FAILED tests/test_a.py::test_one - Timeout\n== 1 failed, 9 passed in 2.00s ==\n"


def test_what_passes_when_run_again_counts_as_passed_and_is_named(tmp_path: Path) -> None:
    log = call(tmp_path, "test-3.11.log", FLAKY, 2)
    call(tmp_path, "test-3.11.again.log", "== 1 passed in 1.00s ==\n", 0)
    outcome = tally(log)
    assert outcome.returncode == 0
    assert outcome.stdout.splitlines()[-1] == "10 passed, 0 failed"
    assert "passed when run again: test-3.11 (exit status 2, 1 failed)" in outcome.stdout
    assert "FAILED tests/test_a.py::test_one" in outcome.stdout


@pytest.mark.parametrize(
    ("output", "status"),
    [
        ("FAILED tests/test_a.py::test_one - again\n== 1 failed in 1.00s ==\n", 1),
        ("== 900 deselected in 1.00s ==\n", 5),
        ("make: *** [test] Error 2\n", 2),
    ],
    ids=["failed again", "found no test", "broken"],
)
def test_what_does_not_pass_when_run_again_has_failed(
    tmp_path: Path, output: str, status: int
) -> None:
    log = call(tmp_path, "test-3.11.log", FLAKY, 2)
    call(tmp_path, "test-3.11.again.log", output, status)
    outcome = tally(log)
    assert outcome.returncode == 1
    assert outcome.stdout.splitlines()[-1] == "9 passed, 1 failed"
    assert f"run again (exit status {status}):" in outcome.stdout


def test_few_tells_whether_it_is_worth_running_again(tmp_path: Path) -> None:
    few = call(tmp_path, "few.log", FLAKY, 2)
    many = call(tmp_path, "many.log", "== 40 failed, 9 passed in 2.00s ==\n", 2)
    none = call(tmp_path, "none.log", "== 9 passed in 2.00s ==\n", 0)
    assert tally("--few", "5", few).returncode == 0
    assert tally("--few", "5", many).returncode == 1
    assert tally("--few", "5", none).returncode == 1
