"""The task layer's part: one process per (runtime, round), rounds interleaved over runtimes.

Why so: a process's figures share its memory layout, and a machine's speed drifts; many short
processes in turn spread both over all runtimes alike.  The minimum over rounds is reported: noise
only ever adds CPU time.  A memory case gets a process of its own, so that no earlier case has left
free pages behind.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from cases import CASES

from harness.environment import BENCHMARKS, Environment, progress
from harness.figures import Figures

RUNTIMES = ("rondel", "asyncio", "uvloop", "rloop", "zuvloop", "bare", "send")
MEMORY_ROUNDS = 2
PROCESS_TIMEOUT = 240.0
"""Seconds; far over the slowest full process (asyncio: about 8)."""


def available(environment: Environment, wanted: set[str] | None) -> list[str]:
    """The runtimes that are installed and asked for, in the table's order."""

    def there(runtime: str) -> bool:
        if runtime == "rondel":
            return environment.rondel
        if runtime == "bare":
            return environment.has_bare
        return runtime in ("asyncio", "send") or runtime in environment.packages

    return [
        name
        for name in RUNTIMES
        if there(name) and (wanted is None or name == "rondel" or name in wanted)
    ]


def run(
    environment: Environment,
    runtimes: list[str],
    only: set[str],
    *,
    rounds: int,
    quick: bool,
    freeze: bool,
    results: Figures,
) -> None:
    """All the cases asked for, on all the runtimes, `rounds` times."""
    cases = [case for case in CASES if not only or case.name in only]
    timed = [case.name for case in cases if not case.memory]
    memory = [case.name for case in cases if case.memory]
    flags = ["--quick"] * quick + ["--freeze"] * freeze
    for number in range(rounds):
        start = time.monotonic()
        # Each round begins with another runtime, so that none is always first or last.
        shift = number % len(runtimes)
        for runtime in runtimes[shift:] + runtimes[:shift]:
            if timed:
                run_process(environment, runtime, timed, flags, results)
            if number < MEMORY_ROUNDS and runtime not in ("bare", "send"):
                for name in memory:
                    run_process(environment, runtime, [name], flags, results)
        progress(f"tasks: round {number + 1} of {rounds}, {time.monotonic() - start:.0f} s")


def run_process(
    environment: Environment,
    runtime: str,
    names: list[str],
    flags: list[str],
    results: Figures,
    variables: Mapping[str, str] | None = None,
) -> None:
    """One process; if it dies in a case, that case is an error and a new one does the rest.

    `variables` are added to its environment.
    """
    left = [name for name in names if not results.failed(name, runtime)]
    while left:
        current, ending = read_process(environment, runtime, left, flags, results, variables or {})
        if current is None:
            if ending:
                for name in left:
                    results.fail(name, runtime, ending)
                progress(f"tasks: {runtime}: {ending}")
            return
        results.fail(current, runtime, ending)
        progress(f"tasks: {runtime} {current}: {ending}")
        left = left[left.index(current) + 1 :]


def read_process(
    environment: Environment,
    runtime: str,
    names: list[str],
    flags: list[str],
    results: Figures,
    variables: Mapping[str, str],
) -> tuple[str | None, str]:
    """The case that the process died in, if any, and how it ended if not well."""
    process = subprocess.Popen(
        [str(environment.python), str(BENCHMARKS / "worker.py"), runtime, *flags, *names],
        env=environment.variables() | dict(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=PROCESS_TIMEOUT)
        hung = False
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        hung = True
    current: str | None = None
    for line in out.splitlines():
        message = json.loads(line)
        case = message["case"]
        if "values" in message:
            results.add(case, runtime, message["values"])
            current = None
        elif "error" in message:
            results.fail(case, runtime, message["error"])
            progress(f"tasks: {runtime} {case}: {message['error']}")
            current = None
        else:
            current = case
    return current, describe_ending(process.returncode, hung, err)


def describe_ending(code: int, hung: bool, err: str) -> str:
    if hung:
        return f"no end within {PROCESS_TIMEOUT:.0f} s"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if code:
        last = err.strip().splitlines()[-1:] or ["no message"]
        return f"exit {code}: {last[0]}"
    if err.strip():
        print(err.strip(), file=sys.stderr)
    return ""
