"""The harness itself: it must see what it is there to see.

Small suites made here are run with packages named `rondel` that are broken on purpose, and with the
real one. Nothing is downloaded.
"""

import platform
import sys
from pathlib import Path

import pytest

from scripts import tally
from tests.conformance import interpreters
from tests.conformance.process import Patience, Results
from tests.conformance.suites import SuiteError
from tests.upstream import __main__ as program
from tests.upstream import redis, run
from tests.upstream import settle as settling
from tests.upstream.compare import Comparison, compare
from tests.upstream.prepare import Prepared
from tests.upstream.releases import ASGIREF, DJANGO, Target, targets

ASGIREF_TARGET = Target("asgiref", "0", "0")
DJANGO_TARGET = Target("django", "0", "0", "5.2")
# Each measurement starts several interpreters, and a busy machine is slow at that.
pytestmark = pytest.mark.timeout(180)
SHORT = Patience(test=5, startup=30, restarts=3)

TESTS = """
import asyncio, subprocess, sys

def test_without_a_loop():
    pass

def test_loop():
    asyncio.run(asyncio.sleep(0))

def test_thread():
    assert asyncio.run(asyncio.to_thread(int)) == 0

def test_process():
    code = "import asyncio; print(type(asyncio.new_event_loop()).__module__)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    found = subprocess.run(command, capture_output=True, text=True).stdout
    assert ("rondel" in found) == ("rondel" in sys.modules), found

def test_that_fails():
    assert False
"""

UNSTABLE = """
import os, pathlib, sys

def first_time_with_rondel(name):
    seen = pathlib.Path(__file__).with_name(name)
    if "rondel" in sys.modules and not seen.exists():
        seen.touch()
        return True
    return False

def test_once():
    assert not first_time_with_rondel("once")

def test_once_listed():
    assert not first_time_with_rondel("listed")

def test_always_listed():
    assert "rondel" not in sys.modules

def test_crash():
    if first_time_with_rondel("crash"):
        os.abort()
"""

FAKE = """
import asyncio, os

class EventLoop(asyncio.SelectorEventLoop):
    {body}

class Policy(asyncio.DefaultEventLoopPolicy):
    _loop_factory = {factory}

done = False

def install():
    global done
    {install}
    asyncio.set_event_loop_policy(Policy())
    done = True

def installed():
    return done
"""

RUNTESTS = """
import sys, django
from django.conf import settings
settings.configure(DATABASES={}, INSTALLED_APPS=[])
django.setup()
from django.test.runner import DiscoverRunner
sys.exit(bool(DiscoverRunner(verbosity=0).run_tests([sys.argv[-1]])))
"""

DJANGO_TESTS = """
import asyncio
from django.test import SimpleTestCase
from asgiref.sync import sync_to_async

class Tests(SimpleTestCase):
    def test_without_a_loop(self):
        pass

    async def test_bridge(self):
        self.assertEqual(await sync_to_async(int)(), 0)

    def test_that_fails(self):
        for number in range(2):
            with self.subTest(number=number):
                self.assertEqual(number, 0)
"""


def fake(
    directory: Path, *, body: str = "pass", factory: str = "EventLoop", setup: str = ""
) -> Path:
    package = directory / "rondel"
    package.mkdir()
    text = FAKE.format(body=body, factory=factory, install=setup or "pass")
    (package / "__init__.py").write_text(text)
    return package


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with TESTS; the directory of links is not that of a run beside us."""
    monkeypatch.setattr(run, "CACHE", tmp_path / "cache")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_sample.py").write_text(TESTS)
    return tmp_path


def measured(
    sources: Path, package: Path, target: Target = ASGIREF_TARGET, *, settled: bool = False
) -> Comparison:
    prepared = Prepared(target, platform.python_version(), sys.executable, sources)
    choice = run.Choice(jobs=2, patience=SHORT)
    stock, rondel = run.measure(prepared, package, choice, lambda _text: None)
    found = compare(stock.results, rondel.results, stock.empty + rondel.empty)
    if settled:
        return settling.settle(found, prepared, package, choice, lambda _text: None)
    return found


def differences(found: Comparison) -> dict[str, str]:
    return {row.test.rpartition("::")[2]: row.what for row in found.regressions}


def test_with_rondel_all_that_stock_passes_passes(suite: Path) -> None:
    found = measured(suite, interpreters.package(sys.executable))
    assert differences(found) == {}
    assert found.problems == []
    assert found.passed == 4
    assert list(found.control_failures.values()) == ["failed"]
    assert (found.stock.loops, found.rondel.loops) == (2, 2)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("def run_in_executor(self, *_): raise RuntimeError('deaf')", "failed"),
        ("def run_in_executor(self, *_): os.abort()", "crashed"),
        ("def run_in_executor(self, *_): return self.create_future()", "timeout"),
    ],
)
def test_a_broken_loop_is_found_out(suite: Path, body: str, what: str) -> None:
    found = measured(suite, fake(suite, body=body))
    assert differences(found) == {"test_thread": what}
    assert found.passed == 3


def test_only_a_listed_failure_that_goes_away_is_unstable(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (suite / "timing.txt").write_text("asgiref | *_listed | reason\nasgiref | *crash | reason\n")
    monkeypatch.setattr(settling, "LISTED", str(suite / "timing.txt"))
    (suite / "tests/test_sample.py").write_text(UNSTABLE)
    found = measured(suite, interpreters.package(sys.executable), settled=True)
    assert differences(found) == {
        "test_always_listed": "failed",
        "test_crash": "crashed",
        "test_once": "failed",
    }
    assert [row.test.rpartition("::")[2] for row in found.unstable] == ["test_once_listed"]
    assert found.passed == 1


def test_tests_that_ran_on_another_loop_are_found_out(suite: Path) -> None:
    found = measured(suite, fake(suite, factory="asyncio.SelectorEventLoop"))
    no_loop = "no loop of Rondel's ran"
    assert differences(found) == {
        "test_loop": no_loop,
        "test_thread": no_loop,
        "test_process": "failed",  # the child's loop is of asyncio's module
    }


def test_an_installation_that_fails_is_found_out(suite: Path) -> None:
    found = measured(suite, fake(suite, setup="raise RuntimeError('broken')"))
    assert found.passed == 0
    assert sorted(differences(found).values()).count("missing") == 4


def test_djangos_runner_is_streamed(suite: Path) -> None:
    labels = suite / "tests/asgi"
    labels.mkdir()
    (suite / "tests/runtests.py").write_text(RUNTESTS)
    (labels / "__init__.py").write_text("")
    (labels / "tests.py").write_text(DJANGO_TESTS)
    found = measured(suite, interpreters.package(sys.executable), DJANGO_TARGET)
    assert differences(found) == {}
    assert found.problems == []
    assert found.passed == 2
    assert found.control_failures == {"asgi.tests.Tests.test_that_fails": "failed"}
    assert (found.stock.loops, found.rondel.loops) == (1, 1)


def outcomes(**named: str) -> Results:
    return {
        name: {"unit": "u", "outcome": outcome, "touched": False, "msg": "", "secs": 0}
        for name, outcome in named.items()
    }


@pytest.mark.parametrize(
    ("stock", "rondel", "what"),
    [
        ("passed", "failed", "failed"),
        ("passed", "skipped", "skipped"),
        ("passed", "excluded", "excluded"),
        ("passed", "notrun", "notrun"),
        ("passed", None, "missing"),
        ("skipped", "failed", "failed"),
        (None, "crashed", "crashed"),
        ("passed", "passed", None),
        ("failed", "failed", None),
        ("skipped", "skipped", None),
    ],
)
def test_what_stock_passes_must_pass(
    stock: str | None, rondel: str | None, what: str | None
) -> None:
    control = outcomes(other="passed", **({"t": stock} if stock else {}))
    subject = outcomes(other="passed", **({"t": rondel} if rondel else {}))
    found = compare(control, subject, [])
    assert [row.what for row in found.regressions] == ([what] if what else [])
    assert found.problems == []


def test_a_comparison_that_shows_nothing_is_a_problem() -> None:
    assert compare({}, {}, []).problems
    passed = outcomes(t="passed")
    assert compare(passed, passed, ["tests/test_x.py (rondel)"]).problems
    ours = {"t": {**outcomes(t="failed")["t"], "unit": "channels_checks/check_http.py"}}
    assert compare(passed | {"u": ours["t"]}, passed, []).problems == ["ours fails on stock: u"]


def test_what_a_python_has_not_got_is_left_out() -> None:
    made, without = targets(["asgiref", "django"], [], [], "3.11")
    assert [target.release for target in made if target.suite == "asgiref"] == list(ASGIREF)
    series = [target.django for target in made if target.suite == "django"]
    assert series == ["4.2", "5.2"]
    assert len(without) == len(DJANGO) - 2
    (target,), without = targets(["django"], ["3.8.0", "3.8.1"], ["5.2"], "3.13")
    assert target.asgiref == "3.8.1"
    assert without == ["Django 5.2 needs asgiref 3.8.1"]


@pytest.mark.parametrize(
    ("asgiref", "django", "told"),
    [(["3.7.2"], [], "there are: 3.8.0, "), ([], ["3.2"], "there are: 4.2, ")],
)
def test_an_unknown_release_is_told(asgiref: list[str], django: list[str], told: str) -> None:
    with pytest.raises(SuiteError, match=told):
        targets(["asgiref", "django"], asgiref, django, "3.12")


def test_the_quick_part_is_asgirefs_ends_and_one_django() -> None:
    options = program.parser().parse_args(["--quick"])
    made = program.plan(options, "3.13")
    assert [target.title for target in made] == [
        f"asgiref {ASGIREF[0]}",
        f"asgiref {ASGIREF[-1]}",
        f"django {DJANGO['5.2'].release} with asgiref {ASGIREF[-1]}",
    ]
    assert program.choice(options, made[-1]).units == ("asgi", "async", "handlers", "signals")


def test_without_redis_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SuiteError, match="apt-get install redis-server"), redis.redis():
        pass


def test_the_tally_reads_the_closing_line() -> None:
    line = "upstream: 193 passed, 2 failed (CPython 3.11.2; 2 suites, 35 s)"
    assert tally.tally(line) == (193, 2)
