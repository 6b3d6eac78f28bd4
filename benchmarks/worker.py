"""One process of the task layer's benchmark: one runtime, the cases it is told, one round.

Usage: ``python worker.py RUNTIME [--quick] [--freeze] [--record | --details] CASE...``; Rondel's
inspector can record each measurement, with details or without.  Prints one JSON line per case
as soon as it has one, so that a runtime that dies in a case keeps the figures before it:

    {"case": ..., "begin": true}                  the case starts now
    {"case": ..., "values": [ns or bytes, ...]}   per operation
    {"case": ..., "error": "..."}                 it raised

Invariants: CPU time of the whole process (all threads, user and system), never wall time; the
collector runs as users have it, and starts each measurement with nothing to collect; a short
warm-up precedes, so that specialised bytecode, freelists and thread pools are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from floor import FLOORS

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
Around = Callable[[], contextlib.AbstractContextManager[None]]

RECORDED = 3_000_000
"""Events of a recording: some cases have more than the default million."""


def report(case: str, **fields: Any) -> None:
    print(json.dumps({"case": case, **fields}), flush=True)


def loop_factory(runtime: str) -> LoopFactory:
    """The runtime's loop; for Rondel also asyncio's names, as `rondel run` has it."""
    module = importlib.import_module(runtime)
    if runtime == "rondel":
        module.install()
    factory: LoopFactory = module.new_event_loop
    return factory


@contextlib.contextmanager
def recorded(details: bool) -> Iterator[None]:
    """The block is recorded by Rondel's inspector; that no event was lost is part of the figure."""
    from rondel.inspect.recording import record

    # Recorded from its beginning to its end: what is made of it afterwards is not measured.
    recorder = record(limit=RECORDED, details=details)
    yield
    if recorder.stop().lost:
        raise RuntimeError("the recording had no room for all events")


def measure(
    run: Callable[[int], Any],
    operations: int,
    repeats: int,
    around: Around = contextlib.nullcontext,
) -> list[float]:
    """CPU nanoseconds per operation, one value per repeat.

    `around` makes what is entered before a measurement begins and left after it has ended.
    """
    run(max(300, operations // 20 // 1_000 * 1_000))
    values: list[float] = []
    for _ in range(repeats):
        with around():
            gc.collect()
            start = time.process_time_ns()
            run(operations)
            values.append((time.process_time_ns() - start) / operations)
    return values


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure_memory(runner: asyncio.Runner, run: Callable[[int], Any], tasks: int) -> list[float]:
    """Growth of the resident size per suspended task, its Future or timer included.

    The list that keeps the tasks is not the runtime's, so its eight bytes a task are taken off.
    """
    kept: list[Any] = []

    async def grow(n: int) -> int:
        gc.collect()
        before = resident_bytes()
        kept.extend(await run(n))
        gc.collect()
        return resident_bytes() - before - 2 * 8 * n

    return [runner.run(grow(tasks)) / tasks]


def run_floor(floor: str, names: list[str], quick: bool) -> None:
    from cases import CASES

    floors = FLOORS[floor]()
    for case in CASES:
        if case.name in names and case.name in floors:
            report(case.name, begin=True)
            values = measure(floors[case.name], case.scaled(quick), case.repeats)
            report(case.name, values=values)


def run_runtime(
    runtime: str, names: list[str], quick: bool, around: Around = contextlib.nullcontext
) -> None:
    factory = loop_factory(runtime)
    # After install(): the cases must see the installed names.
    import inspect_cases
    from cases import CASES

    for case in (*CASES, *inspect_cases.CASES):
        if case.name not in names:
            continue
        report(case.name, begin=True)
        # A runner per case: a leftover timer or thread pool is not the next one's cost.
        runner = asyncio.Runner(loop_factory=factory)
        try:
            if case.memory:
                values = measure_memory(runner, case.run, case.scaled(quick))
            elif case.measures:
                values = runner.run(case.run(case.scaled(quick)))
            else:
                values = measure(
                    lambda n, case=case, runner=runner: runner.run(case.run(n)),  # type: ignore[misc]
                    case.scaled(quick),
                    case.repeats,
                    around,
                )
        except Exception as error:  # a peer may lack a feature: its cell says so
            report(case.name, error=f"{type(error).__name__}: {error}")
            continue
        report(case.name, values=values)
        if case.memory:
            # Cancelling 200 000 tasks costs seconds and measures nothing.
            sys.stdout.flush()
            os._exit(0)
        runner.close()


def main() -> None:
    runtime, *rest = sys.argv[1:]
    names = [word for word in rest if not word.startswith("--")]
    if "--freeze" in rest:
        gc.collect()
        gc.freeze()
    if runtime in FLOORS:
        run_floor(runtime, names, "--quick" in rest)
    else:
        around: Around = contextlib.nullcontext
        if "--record" in rest or "--details" in rest:
            around = functools.partial(recorded, "--details" in rest)
        run_runtime(runtime, names, "--quick" in rest, around)


if __name__ == "__main__":
    main()
