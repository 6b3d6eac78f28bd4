#!/usr/bin/env python3
"""Run a suite on a loop: run.py SUITE --python PYTHON --loop MODULE[:FACTORY] (see README.md)."""

import argparse
import fnmatch
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # as a script, too

from tests.conformance.process import Patience, Results, run_unit
from tests.conformance.suites import (
    CHILD,
    OUTCOMES,
    SUITES,
    Exclusion,
    SuiteError,
    exclusions,
    output,
    units,
)


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
    add("--unit", action="append", help="only these units (glob)")
    add("--only", help="unittest suites: only tests whose id matches this glob")
    add("--timeout", type=float, default=Patience.test, help="seconds per test")
    add("--unit-timeout", type=float, default=Patience.unit, help="seconds per unit")
    add("--ignore-leaks", action="store_true", help="anyio: unclosed sockets are no failure")
    add("--no-exclude", action="store_true")
    add("-q", "--quiet", action="store_true")
    return made


def environment(options: argparse.Namespace, excluded: list[Exclusion]) -> dict[str, str]:
    path = [str(CHILD)]
    path += [os.path.abspath(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    made = {
        **os.environ,
        "CONF_LOOP": options.loop,
        "CONF_EXCLUDE": json.dumps([row.pattern for row in excluded]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(path),
    }
    made.pop("VIRTUAL_ENV", None)
    if options.primitives:
        made["CONF_PRIMITIVES"] = options.primitives
    if options.no_virtual:
        made["CONF_NO_VIRTUAL"] = "1"
    if options.only:
        made["CONF_ONLY"] = options.only
    return made


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


def report(options: argparse.Namespace, version: str, seconds: float, results: Results) -> bool:
    """Print the summary; true if everything passed."""
    kept = counted(results, options.suite)
    counts = Counter(result["outcome"] for result in kept.values())
    ran = sum(counts.values()) - counts["skipped"]
    print(
        f"\n== {options.suite} loop={options.loop} primitives={options.primitives} "
        f"python={version} {seconds}s"
    )
    rate = 100 * counts["passed"] / max(ran, 1)
    print("  ".join(f"{kind}={counts[kind]}" for kind in OUTCOMES) + f"  {rate:.1f}% of {ran}")
    excluded = sum(result["outcome"] == "excluded" for result in results.values())
    untouched = len(results) - len(kept) - excluded
    print(f"not counted: {untouched} never made the loop, {excluded} are in exclude.txt")
    bad = {name: r for name, r in kept.items() if r["outcome"] not in ("passed", "skipped")}
    for name, result in sorted(bad.items()):
        print(f"{result['outcome'].upper():8} {name}{last_line(result['msg'])}")
    if not ran:
        print("nothing was run: see --unit and --only")
    return ran > 0 and not bad


def run(options: argparse.Namespace, log: Callable[[str], None]) -> bool:
    if options.suite == "cpython-primitives" and not options.primitives:
        raise SuiteError("cpython-primitives needs --primitives MODULE")
    python = os.path.abspath(options.python)
    version = output(python, "import platform; print(platform.python_version())")
    rows = [] if options.no_exclude else exclusions(options.suite, version)
    child_environment = environment(options, rows)
    patience = Patience(test=options.timeout, unit=options.unit_timeout)
    results: Results = {}
    begin = time.time()
    for unit in units(options.suite, python, options.src, ignore_leaks=options.ignore_leaks):
        if options.unit and not any(fnmatch.fnmatch(unit.name, glob) for glob in options.unit):
            continue
        before = set(results)
        took = run_unit(unit, child_environment, results, patience, log)
        counts = Counter(r["outcome"] for name, r in results.items() if name not in before)
        told = " ".join(f"{kind}={counts[kind]}" for kind in OUTCOMES if counts[kind])
        log(f"{unit.name:42} {took:6.1f}s {told}")
    seconds = round(time.time() - begin, 1)
    if options.json:
        found: dict[str, Any] = {
            "suite": options.suite,
            "python": version,
            "loop": options.loop,
            "primitives": options.primitives,
            "seconds": seconds,
            "tests": results,
        }
        options.json.write_text(json.dumps(found, indent=1))
    return report(options, version, seconds, results)


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    # A background job of a shell inherits SIG_IGN, and tests of SIGINT would fail in it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def log(text: str) -> None:
        if not options.quiet:
            print(text, flush=True)

    try:
        return 0 if run(options, log) else 1
    except SuiteError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
