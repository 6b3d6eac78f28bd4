"""Other projects' own tests with `rondel.install()`: python -m tests.upstream [--suite SUITE ...].

Each release's tests run twice, on stock asyncio and with Rondel installed before anything else is
imported, and the two are compared test by test: what stock passes must pass. The last line is
"upstream: N passed, N failed (...)". Exit status: 0 without differences, 1 with, 2 if a suite could
not be run.

examples:
  python -m tests.upstream                               all suites and releases, this interpreter
  python -m tests.upstream --quick                       CI's part
  python -m tests.upstream --suite asgiref --asgiref 3.8.1 --asgiref 3.13.0
  python -m tests.upstream --suite django --django 5.2 --unit asgi --unit handlers -v
  python -m tests.upstream --suite channels --channels-tests DIR

suites:
  asgiref         asgiref's own, every release from 3.8 on
  django          labels of Django's tests/runtests.py, on SQLite
  channels        ours of HTTP consumers and the in-memory layer; --channels-tests adds its own
  channels-redis  channels_redis' own, if redis-server is on PATH

The first run downloads and installs, into .cache/upstream; all outcomes are written there, too.
"""

import argparse
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.conformance import interpreters
from tests.conformance.process import Patience
from tests.conformance.run import default_interrupt, last_line
from tests.conformance.suites import SuiteError, output, status
from tests.upstream import redis
from tests.upstream.compare import Comparison, compare
from tests.upstream.prepare import CACHE, Prepared, prepare
from tests.upstream.releases import ASGIREF, DEFAULT_DJANGO, QUICK_LABELS, SUITES, Target, targets
from tests.upstream.run import Choice, measure
from tests.upstream.settle import settle

# A machine that others use too is slow; asgiref's slowest test takes 5 s, Django's 8 s.
TEST_SECONDS, START_SECONDS = 60, 120


@dataclass(frozen=True)
class Row:
    prepared: Prepared
    found: Comparison
    seconds: tuple[float, float]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tests.upstream",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--suite", action="append", default=[], choices=SUITES, help="default: all")
    add("--asgiref", action="append", default=[], metavar="X.Y.Z", help="default: see below")
    add("--django", action="append", default=[], metavar="X.Y", help="default: all for the Python")
    add("--quick", action="store_true", help="asgiref's oldest and newest, Django's core labels")
    add("--unit", action="append", default=[], metavar="GLOB", help="only this file or label")
    add("--channels-tests", type=Path, metavar="DIR", help="a checkout of Channels")
    add("--version", action="append", default=[], metavar="X.Y", help="that Python's environment")
    add("--python", action="append", default=[], metavar="PATH", help="a Python that has rondel")
    add("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="units at a time")
    add("--timeout", type=float, default=TEST_SECONDS, metavar="S", help="seconds per test")
    add("--strict", action="store_true", help="what timing.txt lists gets no second chance")
    add("--no-exclude", action="store_true", help="run what exclude.txt lists, too")
    add("-v", "--verbose", action="store_true", help="whole tracebacks, and each unit as it ends")
    return made


def plan(options: argparse.Namespace, python: str) -> list[Target]:
    """The targets under Python X.Y, saying what is left out.

    Raises:
        SuiteError: nothing is left, or a name is none.
    """
    suites = list(options.suite)
    if options.quick:
        made = [*targets(["asgiref"], options.asgiref or [ASGIREF[0], ASGIREF[-1]], [], python)[0]]
        return made + targets(["django"], [], options.django or [DEFAULT_DJANGO], python)[0]
    if not suites:
        suites = list(SUITES)
        if redis.program() is None:
            print(f"channels-redis is left out: no {redis.PROGRAM} on PATH")
            suites.remove("channels-redis")
    made, without = targets(suites, options.asgiref, options.django, python)
    for reason in without:
        print(f"left out: {reason}")
    if not made:
        raise SuiteError("nothing to run: " + "; ".join(without))
    return made


def choice(options: argparse.Namespace, target: Target) -> Choice:
    quick = QUICK_LABELS if options.quick and target.suite == "django" else ()
    return Choice(
        units=options.unit or quick,
        exclude=not options.no_exclude,
        tests=options.channels_tests.absolute() if options.channels_tests else None,
        jobs=options.jobs,
        patience=Patience(test=options.timeout, startup=START_SECONDS, restarts=10),
    )


def tell(row: Row, python: str, *, whole: bool) -> None:
    target, found = row.prepared.target, row.found
    print(f"\n== {target.title}, CPython {row.prepared.version}: {found.passed} passed")
    for name, outcome in found.control_failures.items():
        print(f"control  {outcome}: {name}")
    for shaky in found.unstable:
        print(f"unstable {shaky.what}, then passed alone: {shaky.test}{last_line(shaky.message)}")
    for problem in found.problems:
        print(f"PROBLEM  {problem}")
    for regression in found.regressions:
        print(f"{regression.what.upper():8} {regression.test}{last_line(regression.message)}")
        series = f" --django {target.django}" if target.django else ""
        print(
            f"         python -m tests.upstream --suite {target.suite} --asgiref {target.asgiref}"
            f"{series} --python {python} --unit '{regression.unit}' -v"
        )
        if whole and regression.message:
            print(regression.message)
    sys.stdout.flush()


def table(rows: list[Row]) -> None:
    titles = "suite", "CPython", "stock", "Rondel", "on a loop", "differences", "unstable", "s"
    print(f"\n| {' | '.join(titles)} |")
    print("|---" * len(titles) + "|")
    for row in rows:
        found, (stock, rondel) = row.found, row.seconds
        print(
            f"| {row.prepared.target.title} | {row.prepared.version} | {found.stock} "
            f"| {found.rondel} | {found.stock.loops}, {found.rondel.loops} "
            f"| {len(found.regressions)} | {len(found.unstable)} | {stock:.0f} + {rondel:.0f} |"
        )


def run(options: argparse.Namespace) -> bool:
    """Measure and report; true without differences.

    Raises:
        SuiteError: a suite cannot be run.
    """
    pythons = [os.path.abspath(path) for path in options.python]
    pythons += [interpreters.by_version(version) for version in options.version]
    begin, rows = time.monotonic(), list[Row]()

    def log(text: str) -> None:
        if options.verbose:
            print(text, flush=True)

    for python in pythons or [sys.executable]:
        package = interpreters.package(python)
        version = output(python, "import platform; print(platform.python_version())")
        for target in plan(options, version.rpartition(".")[0]):
            prepared = prepare(python, version, target)
            stock, rondel = measure(prepared, package, choice(options, target), log)
            for side in (stock, rondel):
                side.write(CACHE / "results")
            found = compare(stock.results, rondel.results, stock.empty + rondel.empty)
            if not options.strict:
                found = settle(found, prepared, package, choice(options, target), log)
            rows.append(Row(prepared, found, (stock.seconds, rondel.seconds)))
            tell(rows[-1], python, whole=options.verbose)
    table(rows)
    totals = Counter[str]()
    for row in rows:
        totals["passed"] += row.found.passed
        totals["failed"] += len(row.found.regressions) + len(row.found.problems)
    versions = ", ".join(sorted({row.prepared.version for row in rows}))
    print(
        f"\nupstream: {totals['passed']} passed, {totals['failed']} failed "
        f"(CPython {versions}; {len(rows)} suites, {time.monotonic() - begin:.0f} s)"
    )
    return totals["failed"] == 0


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    default_interrupt()
    return status("upstream", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
