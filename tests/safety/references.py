"""Runs a workload over and over and counts what is there after each round.

A leak shows in every round; what a cache or a table takes as it grows shows in some, at times in
several on end: glibc's caches count as used, and hold up to seven chunks of each of 64 sizes for a
thread. So a workload leaks what the *least* of its rounds has added, and is run on until a round
has added nothing, up to a bound that no cache outlasts.
"""

import asyncio
import gc
import importlib
import sys
from array import array
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tests.safety import measures
from tests.safety.workloads import Workload

COUNT = 200
"""Operations of a round: some workloads do ten at a time, and each ten must show."""

WARM_UP = 3
LEAST_ROUNDS = 5
MOST_ROUNDS = 40

NOISE = 10
"""Blocks that come and go with the measuring: less than one for each of twenty lots."""

NOISE_BYTES = 160
"""The same in bytes: what one thread takes and another gives back waits in glibc's caches, 32 bytes
a round for some rounds. Twenty lots are 320 at least.
"""


@dataclass(frozen=True)
class Growth:
    """What the least of the rounds has added."""

    references: int | None
    blocks: int
    bytes: int | None
    descriptors: int

    def leaks(self) -> bool:
        some = self.bytes is not None and self.bytes > NOISE_BYTES
        rest = (self.references, self.descriptors)
        return self.blocks > NOISE or some or any(n is not None and n > 0 for n in rest)

    def __str__(self) -> str:
        return ", ".join(f"{n:+} {name}" for name, n in vars(self).items() if n is not None)


def new_loop(aio: ModuleType) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = aio.new_event_loop()
    return loop


def growth(aio: ModuleType, workload: Workload, count: int = COUNT) -> Growth:
    """How much a round of `count` operations leaves behind."""
    # Numbers in an array: as objects they would be what grows.
    before, least = array("q", _measured()), array("q", [sys.maxsize] * len(METERS))
    loop = new_loop(aio)
    with aio.Runner(loop_factory=lambda: loop) as runner:
        for at in range(-WARM_UP, MOST_ROUNDS):
            runner.run(_finished(aio, workload, count))
            gc.collect()
            for which, now in enumerate(_measured()):
                if at >= 0:
                    least[which] = min(least[which], now - before[which])
                before[which] = now
            if at + 1 >= LEAST_ROUNDS and not _grown(least).leaks():
                break
    return _grown(least)


METERS = (measures.references, measures.blocks, measures.malloced, measures.descriptors)


def _measured() -> list[int]:
    return [meter() if meter is not None else 0 for meter in METERS]


def _grown(least: "array[int]") -> Growth:
    rows: list[Any] = [
        n if meter is not None else None for n, meter in zip(least, METERS, strict=True)
    ]
    return Growth(*rows)


async def _finished(aio: ModuleType, workload: Workload, count: int) -> None:
    await workload.body(aio, count)
    await aio.sleep(0)  # callbacks of what the workload awaited last


def runtime(name: str) -> ModuleType:
    return importlib.import_module(name)
