"""The harness itself: it must see what it is there to see.

A test of CPython's is run on loops that are broken on purpose.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

from scripts import tally
from tests.conformance.__main__ import main
from tests.conformance.compare import compare
from tests.conformance.process import Patience
from tests.conformance.run import Request, Run, measure

needs_cpython_tests = pytest.mark.skipif(
    importlib.util.find_spec("test.test_asyncio") is None,
    reason="this interpreter comes without CPython's own tests",
)
SHORT = Patience(test=3)

LOOPS = """
import asyncio, os

Stock = asyncio.SelectorEventLoop

class Deaf(Stock):
    def run_in_executor(self, *args):
        raise RuntimeError("deaf")

class Deadly(Stock):
    def run_in_executor(self, *args):
        os.abort()

class Stuck(Stock):
    def run_in_executor(self, *args):
        return self.create_future()
"""


def run(
    outcomes: dict[str, str], *, loop: str, suite: str = "cpython", touched: bool = True
) -> Run:
    request = Request(suite=suite, python=sys.executable, loop=loop)
    results = {
        name: {"unit": "u", "outcome": outcome, "touched": touched, "msg": "", "secs": 0}
        for name, outcome in outcomes.items()
    }
    return Run(request, "3.11.0", results)


@pytest.mark.parametrize(
    ("control", "here", "what"),
    [
        ("passed", "failed", "failed"),
        ("passed", "error", "error"),
        ("passed", "timeout", "timeout"),
        ("passed", "crashed", "crashed"),
        ("passed", "notrun", "notrun"),
        ("passed", "skipped", "skipped"),
        ("passed", "excluded", "excluded"),
        ("passed", None, "missing"),
        ("skipped", "failed", "failed"),
        (None, "crashed", "crashed"),
        ("passed", "passed", None),
        ("skipped", "skipped", None),
        ("failed", "failed", None),
        ("failed", "passed", None),
        ("excluded", "excluded", None),
    ],
)
def test_what_the_control_passes_must_pass(
    control: str | None, here: str | None, what: str | None
) -> None:
    stock = {"other": "passed", **({"t": control} if control else {})}
    mine = {"other": "passed", **({"t": here} if here else {})}
    found = compare(run(stock, loop="stdlib"), run(mine, loop="l"))
    assert [row.what for row in found.regressions] == ([what] if what else [])
    assert found.passed == 1 + (control == "passed" and here == "passed")
    assert found.problems == []


def test_a_test_that_never_made_the_loop_has_not_passed() -> None:
    stock, mine = run({"t": "passed"}, loop="stdlib"), run({"t": "passed"}, loop="l", touched=False)
    (found,) = compare(stock, mine).regressions
    assert found.what == "never made the loop"
    assert compare(stock, mine).passed == 0


def test_a_control_that_ran_nothing_is_a_problem() -> None:
    assert compare(run({}, loop="stdlib"), run({}, loop="l")).problems
    assert compare(run({"t": "notrun"}, loop="stdlib"), run({"t": "passed"}, loop="l")).problems


@needs_cpython_tests
@pytest.mark.parametrize(
    ("loop", "outcome"), [("Deaf", "error"), ("Deadly", "crashed"), ("Stuck", "timeout")]
)
def test_a_broken_loop_is_found_out(loop: str, outcome: str, tmp_path: Path) -> None:
    (tmp_path / "brokenloops.py").write_text(LOOPS)
    requests = [
        Request(
            suite="cpython",
            python=sys.executable,
            loop=name,
            units=["threads"],
            only="*.test_to_thread",
            path=[str(tmp_path)],
            patience=SHORT,
        )
        for name in ("stdlib", f"brokenloops:{loop}")
    ]
    control, subject = measure(requests, 2, lambda _text: None)
    found = compare(control, subject)
    assert found.control_failures == {}
    assert found.passed == 0
    assert {row.what for row in found.regressions} == {outcome}


@needs_cpython_tests
def test_the_closing_line_and_the_tally(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["cpython-primitives", "--unit", "queues"])
    told = capsys.readouterr().out
    assert status == 0, told
    passed, failed = tally.tally(told)
    assert passed >= 40
    assert failed == 0
    assert told.splitlines()[-1].startswith(f"conformance: {passed} passed, 0 failed (CPython 3.")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["cpython-primitives", "--unit", "nosuch"], "there are: tasks, futures"),
        (["nosuch"], "no suite 'nosuch'; there are: cpython, "),
        (["cpython", "--version", "2.7"], "make dev PYTHON=python2.7"),
        (["cpython", "--python", "/nonexistent/python"], "/nonexistent/python cannot be run"),
    ],
)
@needs_cpython_tests
def test_what_cannot_be_run_is_told(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert told in capsys.readouterr().err


def test_an_interpreter_without_cpythons_tests_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test/__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert main(["cpython"]) == 2
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"libpython{version}-testsuite" in capsys.readouterr().err
