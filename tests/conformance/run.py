#!/usr/bin/env python3
"""Measure one loop with one suite: run.py SUITE --python PYTHON --loop MODULE[:FACTORY].

For any loop, and for a look at one test; `python -m tests.conformance` compares Rondel with the
control. See README.md.

`measure` runs the units of several requests side by side. Its order of results is that of the
requests whatever finishes first.
"""

import argparse
import fnmatch
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # as a script, too

from tests.conformance.process import Patience, Results, run_unit
from tests.conformance.suites import (
    CHILD,
    OUTCOMES,
    SUITES,
    SuiteError,
    Unit,
    exclusions,
    output,
    units,
)

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be measured, and how."""

    suite: str
    python: str
    loop: str = "stdlib"
    primitives: str | None = None
    virtual: bool = True  # with tests on CPython's virtual-time loop
    sources: Path | None = None
    units: Sequence[str] = ()  # globs; none: all
    only: str | None = None
    ignore_leaks: bool = False
    exclude: bool = True
    path: Sequence[str] = ()  # directories the child imports from, besides its own
    patience: Patience = field(default_factory=Patience)

    @property
    def title(self) -> str:
        return self.loop if self.primitives is None else f"{self.loop}+{self.primitives}"


@dataclass
class Run:
    """The outcomes of a request. `seconds` are its units' own, added up."""

    request: Request
    version: str
    results: Results = field(default_factory=dict)
    seconds: float = 0
    empty: list[str] = field(default_factory=list)  # units in which nothing was found

    def write(self, path: Path) -> None:
        found: dict[str, Any] = {
            "suite": self.request.suite,
            "python": self.version,
            "loop": self.request.loop,
            "primitives": self.request.primitives,
            "seconds": round(self.seconds, 1),
            "tests": self.results,
        }
        path.write_text(json.dumps(found, indent=1))


def environment(request: Request, version: str) -> dict[str, str]:
    rows = exclusions(request.suite, version) if request.exclude else []
    path = [str(CHILD), *request.path]
    path += [os.path.abspath(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    made = {
        **os.environ,
        "CONF_LOOP": request.loop,
        "CONF_EXCLUDE": json.dumps([row.pattern for row in rows]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(path),
    }
    made.pop("VIRTUAL_ENV", None)
    if request.primitives:
        made["CONF_PRIMITIVES"] = request.primitives
    if not request.virtual:
        made["CONF_NO_VIRTUAL"] = "1"
    if request.only:
        made["CONF_ONLY"] = request.only
    return made


def selected(request: Request) -> list[Unit]:
    """The request's units.

    Raises:
        SuiteError: there are none.
    """
    if request.suite == "cpython-primitives" and not request.primitives:
        raise SuiteError("cpython-primitives needs --primitives MODULE")
    found = units(request.suite, request.python, request.sources, ignore_leaks=request.ignore_leaks)
    kept = [
        unit
        for unit in found
        if not request.units or any(fnmatch.fnmatch(unit.name, glob) for glob in request.units)
    ]
    if not kept:
        names = ", ".join(unit.name for unit in found)
        raise SuiteError(f"no such unit in {request.suite}; there are: {names}")
    return kept


def measure(requests: Sequence[Request], jobs: int, log: Log) -> list[Run]:
    """Run all units of all requests, `jobs` at a time; one Run per request, in their order.

    Raises:
        SuiteError: one of them cannot be run.
    """
    stop = threading.Event()
    runs, plans = [], []
    for request in requests:
        version = output(request.python, "import platform; print(platform.python_version())")
        run = Run(request, version)
        runs.append(run)
        plans += [(run, unit, environment(request, version)) for unit in selected(request)]

    def work(run: Run, unit: Unit, made: dict[str, str]) -> tuple[Results, float]:
        found, took = run_unit(unit, made, run.request.patience, log, stop)
        counts = Counter(result["outcome"] for result in found.values())
        told = " ".join(f"{kind}={counts[kind]}" for kind in OUTCOMES if counts[kind])
        log(f"{run.request.title:16} {unit.name:34} {took:6.1f}s {told}")
        return found, took

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures: list[Future[tuple[Results, float]]] = []
        try:
            futures += [pool.submit(work, *plan) for plan in plans]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # Ctrl-C, or a bug: the children must not outlive us
            if not all(future.done() and not future.exception() for future in futures):
                stop.set()
                pool.shutdown(cancel_futures=True)
    for (run, unit, _), future in zip(plans, futures, strict=True):
        found, took = future.result()
        run.results.update(found)
        run.seconds += took
        if not found:
            run.empty.append(unit.name)
    return runs


def counted(results: Results, suite: str) -> Results:
    """Without what was excluded, and what passed without ever making the loop under test."""
    return {
        name: result
        for name, result in results.items()
        if result["outcome"] != "excluded"
        and (
            suite == "cpython-primitives"
            or result["touched"]
            or result["outcome"] not in ("passed", "skipped")
        )
    }


def last_line(message: str) -> str:
    lines = [line for line in message.strip().splitlines() if line.strip()]
    return f"   # {lines[-1][:150]}" if lines else ""


def report(run: Run, seconds: float, *, whole: bool) -> bool:
    """Print the summary; true if everything passed."""
    suite, results = run.request.suite, run.results
    kept = counted(results, suite)
    counts = Counter(result["outcome"] for result in kept.values())
    ran = sum(counts.values()) - counts["skipped"]
    print(f"\n== {suite} loop={run.request.title} python={run.version} {seconds:.1f}s")
    rate = 100 * counts["passed"] / max(ran, 1)
    print("  ".join(f"{kind}={counts[kind]}" for kind in OUTCOMES) + f"  {rate:.1f}% of {ran}")
    excluded = sum(result["outcome"] == "excluded" for result in results.values())
    untouched = len(results) - len(kept) - excluded
    print(f"not counted: {untouched} never made the loop, {excluded} are in exclude.txt")
    bad = {name: r for name, r in kept.items() if r["outcome"] not in ("passed", "skipped")}
    for name, result in sorted(bad.items()):
        print(f"{result['outcome'].upper():8} {name}{last_line(result['msg'])}")
        if whole:
            print(result["msg"])
    if not ran:
        print("nothing was run: see --unit and --only")
    return ran > 0 and not bad


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="run.py", description=__doc__)
    add = made.add_argument
    add("suite", choices=SUITES)
    add("--python", default=sys.executable, help="the interpreter to measure under")
    add("--loop", default="stdlib", help="MODULE[:FACTORY]; stdlib is the control")
    add("--primitives", help="module whose Task, Future, gather ... replace asyncio's")
    add("--no-virtual", action="store_true", help="skip tests that need the virtual-time loop")
    add("--src", type=Path, help="the suites' sources (prepare.py)")
    add("--json", type=Path, help="write all outcomes there")
    add("--unit", action="append", default=[], help="only these units (glob)")
    add("--only", help="unittest suites: only tests whose id matches this glob")
    add("--jobs", type=int, default=1, help="units at a time")
    add("--timeout", type=float, default=Patience.test, help="seconds per test")
    add("--unit-timeout", type=float, default=Patience.unit, help="seconds per unit")
    add("--ignore-leaks", action="store_true", help="anyio: unclosed sockets are no failure")
    add("--no-exclude", action="store_true")
    add("-q", "--quiet", action="store_true")
    add("-v", "--verbose", action="store_true", help="whole tracebacks")
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    request = Request(
        suite=options.suite,
        python=os.path.abspath(options.python),
        loop=options.loop,
        primitives=options.primitives,
        virtual=not options.no_virtual,
        sources=options.src,
        units=options.unit,
        only=options.only,
        ignore_leaks=options.ignore_leaks,
        exclude=not options.no_exclude,
        patience=Patience(test=options.timeout, unit=options.unit_timeout),
    )
    default_interrupt()

    def log(text: str) -> None:
        if not options.quiet:
            print(text, flush=True)

    begin = time.monotonic()
    try:
        (run,) = measure([request], options.jobs, log)
    except SuiteError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    if options.json:
        run.write(options.json)
    passed = report(run, time.monotonic() - begin, whole=options.verbose)
    return 0 if passed else 1


def default_interrupt() -> None:
    """A background job of a shell inherits SIG_IGN, and tests of SIGINT would fail in it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main())
