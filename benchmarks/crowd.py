"""A million sleeping tasks: are they alive, and what does a turn cost beside them?

Usage: ``python benchmarks/crowd.py [--runtime asyncio] [--crowds 1000 1000000]``.  The figure is
the CPU time of a turn in which one timer is due (a task sleeps a nanosecond, again and again) while
the crowd sleeps, per size of the crowd; the exit status is 1 if the last size's is not under LIMIT
times the first's.  Each size has a process of its own; the crowd's deadlines are in random order,
so that they lie in the timers' heap.  At the end every sleeper is cancelled and has to say so.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import subprocess
import sys
import time
from typing import Any

from worker import loop_factory, resident_bytes

LIMIT = 5.0
TURNS = 20_000
ROUNDS = 5


async def turns(count: int) -> float:
    """CPU nanoseconds per turn, the best of some rounds: noise only adds."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time_ns()
        for _ in range(count):
            await asyncio.sleep(1e-9)
        best = min(best, (time.process_time_ns() - start) / count)
    return best


async def beside(crowd: int) -> tuple[float, float]:
    """Nanoseconds per turn and resident bytes per sleeper."""
    chance = random.Random(1)
    gc.collect()
    before = resident_bytes()
    start = time.process_time()
    tasks = [asyncio.create_task(asyncio.sleep(3600 + chance.random())) for _ in range(crowd)]
    await asyncio.sleep(0)
    started = time.process_time() - start
    size = (resident_bytes() - before) / crowd
    gc.collect()
    gc.freeze()  # a collection of the crowd itself is not the turn's
    cost = await turns(TURNS)
    assert len(asyncio.all_tasks()) == crowd + 1, "a sleeper is gone"
    for task in tasks:
        task.cancel()
    outcomes: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    print(f"{cost} {size} {started}", flush=True)
    return cost, size


def child(runtime: str, crowd: int) -> list[float]:
    done = subprocess.run(
        [sys.executable, __file__, "--runtime", runtime, "--one", str(crowd)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [float(word) for word in done.stdout.split()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runtime", default="rondel", help="rondel, asyncio or uvloop (rondel)")
    parser.add_argument("--crowds", type=int, nargs="+", default=[1_000, 1_000_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        with asyncio.Runner(loop_factory=loop_factory(args.runtime)) as runner:
            runner.run(beside(args.one))
        return 0
    print(f"{args.runtime}, CPython {sys.version.split()[0]}: a turn with one timer due")
    costs = []
    for crowd in args.crowds:
        cost, size, started = child(args.runtime, crowd)
        costs.append(cost)
        print(
            f"  {crowd:>9} sleepers: {cost:7.0f} ns a turn, {size:5.0f} bytes a sleeper, "
            f"started in {started:.2f} s",
            flush=True,
        )
    ratio = costs[-1] / costs[0]
    print(f"  ratio {ratio:.2f} (under {LIMIT:.0f})")
    return 0 if ratio < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
