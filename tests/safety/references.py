"""Runs a workload over and over and counts what is there after each round.

A leak shows in every round; what a cache or a table takes as it grows shows in some. So a workload
leaks what the *least* of its rounds has added.
"""

import asyncio
import gc
import importlib
from array import array
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import Any

from tests.safety import measures
from tests.safety.workloads import Workload

COUNT = 200
"""Operations of a round: some workloads do ten at a time, and each ten must show."""

WARM_UP = 3
ROUNDS = 5

NOISE = 10
"""Blocks that come and go with the measuring: less than one for each of twenty lots."""


@dataclass(frozen=True)
class Growth:
    """What the least of the rounds has added."""

    references: int | None
    blocks: int
    bytes: int | None
    descriptors: int

    def leaks(self) -> bool:
        rest = (self.references, self.bytes, self.descriptors)
        return self.blocks > NOISE or any(n is not None and n > 0 for n in rest)

    def __str__(self) -> str:
        return ", ".join(f"{n:+} {name}" for name, n in vars(self).items() if n is not None)


def new_loop(aio: ModuleType) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = aio.new_event_loop()
    return loop


def growth(aio: ModuleType, workload: Workload, count: int = COUNT) -> Growth:
    """How much a round of `count` operations leaves behind."""
    meters = (measures.references, measures.blocks, measures.malloced, measures.descriptors)
    # Numbers in arrays: as objects they would be what grows.
    rows = [array("q", [0] * len(meters)) for _ in range(ROUNDS + 1)]
    loop = new_loop(aio)
    with aio.Runner(loop_factory=lambda: loop) as runner:
        for at in range(-WARM_UP, ROUNDS + 1):
            runner.run(_finished(aio, workload, count))
            gc.collect()
            if at >= 0:
                row = rows[at]
                for which, meter in enumerate(meters):
                    if meter is not None:
                        row[which] = meter()
    least: list[Any] = [
        min(after[which] - before[which] for before, after in pairwise(rows))
        if meter is not None
        else None
        for which, meter in enumerate(meters)
    ]
    return Growth(*least)


async def _finished(aio: ModuleType, workload: Workload, count: int) -> None:
    await workload.body(aio, count)
    await aio.sleep(0)  # callbacks of what the workload awaited last


def runtime(name: str) -> ModuleType:
    return importlib.import_module(name)
