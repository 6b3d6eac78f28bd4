"""The process's size over a million operations of one workload."""

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from tests.safety import measures
from tests.safety.workloads import Workload

CHECKPOINTS = 10

ALLOWED = 2 << 20
"""Bytes that the size may grow after the first tenth: two for each of a million operations."""


@dataclass(frozen=True)
class Soaked:
    operations: int
    seconds: float
    sizes: list[int]
    """After each tenth."""

    @property
    def grown(self) -> int:
        return self.sizes[-1] - self.sizes[0]

    def leaks(self) -> bool:
        return self.grown > ALLOWED


def soak(
    aio: ModuleType,
    workload: Workload,
    operations: int,
    show: Callable[[int, int], None] = lambda _done, _size: None,
) -> Soaked:
    """Runs `operations` operations (fewer of a dear workload) and looks at the size meanwhile."""
    each = max(1, operations // workload.weight // CHECKPOINTS)
    sizes: list[int] = []
    start = time.monotonic()
    loop: asyncio.AbstractEventLoop = aio.new_event_loop()
    with aio.Runner(loop_factory=lambda: loop) as runner:
        for _ in range(CHECKPOINTS):
            runner.run(workload.body(aio, each))
            gc.collect()
            sizes.append(measures.resident())
            show(len(sizes) * each, sizes[-1])
    return Soaked(each * CHECKPOINTS, time.monotonic() - start, sizes)
