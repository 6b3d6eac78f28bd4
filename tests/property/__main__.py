"""`python -m tests.property --trees 1000000 --seed 1`: many trees, with progress.

Each tree has a seed of its own, `seed + number`. The first one on which the runtimes differ is
reduced and printed, and the exit status is 1.
"""

import argparse
import gc
import sys
import time

from tests.property import compare
from tests.property.programs import from_seed

EVERY = 10.0
"""Seconds between two lines of progress."""

FULL = 200
"""Trees between two full collections: a run collects the youngest objects only, and the cycles of a
program that got stuck outlive it."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.property",
        description="Random trees of tasks on asyncio and on Rondel, under a virtual clock.",
    )
    parser.add_argument("--trees", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--seed", type=int, default=1, help="of the first tree (1)")
    args = parser.parse_args()
    if args.trees < 1:
        parser.error("--trees must be at least 1")
    start = shown = time.monotonic()
    for number in range(args.trees):
        if number % FULL == 0:
            gc.collect()
        program = from_seed(args.seed + number)
        if compare.differ(program):
            print(f"seed {args.seed + number} differs; reducing ...", flush=True)
            print(compare.report(compare.reduce(program)))
            return 1
        now = time.monotonic()
        if now - shown >= EVERY:
            shown = now
            rate = (number + 1) / (now - start)
            left = (args.trees - number - 1) / rate
            print(
                f"{number + 1} of {args.trees} trees, {rate:.0f}/s, {left:.0f} s left", flush=True
            )
    spent = time.monotonic() - start
    print(
        f"{args.trees} trees from seed {args.seed}: no difference "
        f"(CPython {sys.version.split()[0]}, {spent:.0f} s)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
