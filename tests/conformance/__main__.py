"""Rondel against tests that its authors did not write: python -m tests.conformance [SUITE ...].

Each suite runs twice, on Rondel and on the stock loop (the control), and the two are compared:
what the control passes must pass. Each regression is printed with the command that repeats it. The
last line is "conformance: N passed, N failed (...)". Exit status: 0 without regressions, 1 with,
2 if a suite could not be run.

examples:
  python -m tests.conformance                           all suites, this interpreter's rondel
  python -m tests.conformance --task-layer              tasks, futures, locks, queues ...: CI's part
  python -m tests.conformance --task-layer --version 3.11 --version 3.13
  python -m tests.conformance cpython-primitives --unit locks --unit queues
  python -m tests.conformance cpython --unit tasks --only '*.test_wait_for*' -v

suites:
  cpython             the interpreter's own asyncio tests, on Rondel's loop
  cpython-primitives  its tests of tasks, locks, queues ... with rondel's names for asyncio's
  anyio               anyio's tests on its asyncio backend (set up once, in .cache/conformance)
  anyio-eager         those with the eager task factory (Python 3.12 and later)
"""

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

from tests.conformance import interpreters
from tests.conformance.compare import Comparison, compare
from tests.conformance.prepare import prepare
from tests.conformance.process import Patience
from tests.conformance.run import Request, default_interrupt, last_line, measure
from tests.conformance.suites import SUITES, TASK_LAYER, SuiteError, output, status

LOOP = "rondel"
CACHE = interpreters.ROOT / ".cache/conformance"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("suites", nargs="*", metavar="SUITE", help="default: all that the Python version has")
    add("--task-layer", action="store_true", help=f"only the cpython units {' '.join(TASK_LAYER)}")
    add("--unit", action="append", default=[], metavar="GLOB", help="only this file of tests")
    add("--only", metavar="GLOB", help="cpython suites: only tests whose id matches")
    add("--version", action="append", default=[], metavar="X.Y", help="that Python's environment")
    add("--python", action="append", default=[], metavar="PATH", help="a Python that has rondel")
    add(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="units at a time (default: one per core)",
    )
    add("--timeout", type=float, default=Patience.test, metavar="S", help="seconds per test")
    add("--no-exclude", action="store_true", help="run what exclude.txt lists, too")
    add("--json", type=Path, metavar="DIR", help="write all outcomes there, for report.py")
    add("-v", "--verbose", action="store_true", help="whole tracebacks, and each unit as it ends")
    return made


def requests(suite: str, python: str, options: argparse.Namespace) -> list[Request]:
    """The control, and the run under test."""
    path, sources, runner = [], None, python
    if suite.startswith("anyio"):
        version = output(python, "import platform; print(platform.python_version())")
        directory = CACHE / version
        # anyio's environment has no rondel, and gets nothing else of ours.
        path = [str(interpreters.alone(interpreters.package(python), directory))]
        runner, sources = prepare(python, directory)
    made = []
    for loop in ("stdlib", LOOP):
        primitives = "asyncio" if loop == "stdlib" else LOOP
        made.append(
            Request(
                suite=suite,
                python=runner,
                loop=loop,
                primitives=primitives if suite == "cpython-primitives" else None,
                sources=sources,
                units=options.unit or (TASK_LAYER if options.task_layer else ()),
                only=options.only,
                exclude=not options.no_exclude,
                path=path,
                patience=Patience(test=options.timeout),
            )
        )
    return made


def tell(suite: str, version: str, python: str, found: Comparison, *, whole: bool) -> None:
    print(
        f"\n== {suite}, CPython {version}: {found.passed} passed, {found.excluded} in exclude.txt"
    )
    for name, outcome in found.control_failures.items():
        print(f"control  {outcome}: {name}")
    for problem in found.problems:
        print(f"PROBLEM  {problem}")
    for regression in found.regressions:
        print(f"{regression.what.upper():8} {regression.test}{last_line(regression.message)}")
        only = "" if suite.startswith("anyio") else f" --only '{regression.test}'"
        print(
            f"         python -m tests.conformance {suite} --python {python} "
            f"--unit '{regression.unit}'{only} -v"
        )
        if whole and regression.message:
            print(regression.message)


def chosen(options: argparse.Namespace, python: str) -> list[str]:
    """The suites to run under this Python.

    Raises:
        SuiteError: a name is none, or the Python has no such suite.
    """
    for suite in options.suites:
        if suite not in SUITES:
            raise SuiteError(f"no suite {suite!r}; there are: {', '.join(SUITES)}")
    eager = output(python, "import asyncio; print(hasattr(asyncio, 'eager_task_factory'))")
    if "anyio-eager" in options.suites and eager != "True":
        raise SuiteError(f"anyio-eager needs Python 3.12 or later, which {python} is not")
    if options.suites:
        return list(options.suites)
    if options.task_layer:
        return ["cpython", "cpython-primitives"]
    return [suite for suite in SUITES if suite != "anyio-eager" or eager == "True"]


def run(options: argparse.Namespace) -> bool:
    """Measure and report; true without regressions.

    Raises:
        SuiteError: a suite cannot be run.
    """
    pythons = [os.path.abspath(path) for path in options.python]
    pythons += [interpreters.by_version(version) for version in options.version]
    if options.json:
        options.json.mkdir(parents=True, exist_ok=True)
    begin, totals, versions, suites = time.monotonic(), Counter[str](), [], 0

    def log(text: str) -> None:
        if options.verbose:
            print(text, flush=True)

    for python in pythons or [sys.executable]:
        interpreters.package(python)
        for suite in chosen(options, python):
            control, subject = measure(requests(suite, python, options), options.jobs, log)
            found = compare(control, subject)
            tell(suite, subject.version, python, found, whole=options.verbose)
            sys.stdout.flush()
            totals += Counter(
                passed=found.passed, failed=len(found.regressions) + len(found.problems)
            )
            suites += 1
            if options.json:
                for measured in (control, subject):
                    name = f"{suite}-{measured.version}-{measured.request.loop}.json"
                    measured.write(options.json / name)
        versions.append(subject.version)
    seconds = time.monotonic() - begin
    print(
        f"\nconformance: {totals['passed']} passed, {totals['failed']} failed "
        f"(CPython {', '.join(versions)}; {suites} suites, {seconds:.0f} s)"
    )
    return totals["failed"] == 0


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    default_interrupt()
    return status("conformance", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
