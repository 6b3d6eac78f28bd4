"""The task layer's cases: plain asyncio code, written once, the same for every runtime.

Invariants:

* Nothing here knows which runtime it runs on.  Names are looked up on ``asyncio`` at call time, as
  programs do, so whatever a runtime has put there is what is measured.
* A case is an ``async def`` of one number and does exactly that many operations (`worker.py`
  divides by it), or, for a memory case, leaves that many tasks suspended and returns them.
* Sizes are chosen so that stock asyncio needs about 0.1 s for a small case: long against the
  clock's resolution, short enough for many interleaved rounds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

CROWD = 1_000
"""Tasks in `switch_many`."""

BATCH = 100
"""Awaitables in one call of `wait` and `as_completed`."""


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    title: str
    run: Callable[[int], Coroutine[Any, Any, Any]]
    operations: int
    """What `run` gets in a full run."""
    repeats: int = 3
    """Measurements in one process; the heavy cases, whose rounds agree anyway, take one."""
    memory: bool = False
    """Measured in resident bytes per task, in a process of its own."""
    measures: bool = False
    """`run` measures for itself and returns the figures."""

    def scaled(self, quick: bool) -> int:
        """`operations`, or a tenth of it for a quick look; memory needs the full crowd."""
        return self.operations if self.memory or not quick else max(1_000, self.operations // 10)


async def nothing() -> None:
    """The smallest coroutine: what a case costs beyond it is the runtime's."""


async def switch(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def switch_many(n: int) -> None:
    await asyncio.gather(*[switch(n // CROWD) for _ in range(CROWD)])


async def create_await(n: int) -> None:
    for _ in range(n):
        await asyncio.create_task(nothing())


async def gather_small(n: int) -> None:
    for _ in range(n // 3):
        await asyncio.gather(nothing(), nothing(), nothing())


async def gather(n: int) -> None:
    await asyncio.gather(*[nothing() for _ in range(n)])


async def taskgroup(n: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(n):
            group.create_task(nothing())


async def timeout(n: int) -> None:
    for _ in range(n):
        async with asyncio.timeout(10):
            pass


async def future(n: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(n):
        waiter: asyncio.Future[None] = loop.create_future()
        loop.call_soon(waiter.set_result, None)
        await waiter


async def call_soon(n: int) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    left = n

    def step() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(step)
        else:
            done.set_result(None)

    loop.call_soon(step)
    await done


async def call_later(n: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(n):
        loop.call_later(10, step_never).cancel()


def step_never() -> None:
    raise AssertionError("a cancelled timer fired")


async def sleepers(n: int) -> None:
    delays = random.Random(1)
    await asyncio.gather(*[asyncio.sleep(delays.random() * 0.1) for _ in range(n)])


async def wait(n: int) -> None:
    for _ in range(n // BATCH):
        done, pending = await asyncio.wait([asyncio.create_task(nothing()) for _ in range(BATCH)])
        assert len(done) == BATCH and not pending


async def as_completed(n: int) -> None:
    for _ in range(n // BATCH):
        for earliest in asyncio.as_completed([nothing() for _ in range(BATCH)]):
            await earliest


async def wait_for(n: int) -> None:
    for _ in range(n):
        await asyncio.wait_for(nothing(), 10)


async def shield(n: int) -> None:
    for _ in range(n):
        await asyncio.shield(nothing())


async def queue(n: int) -> None:
    """A producer and a consumer with room for one item: each item is one hand-off."""
    items: asyncio.Queue[int] = asyncio.Queue(maxsize=1)

    async def produce() -> None:
        for item in range(n):
            await items.put(item)

    async def consume() -> None:
        for item in range(n):
            assert await items.get() == item

    await asyncio.gather(produce(), consume())


async def lock(n: int) -> None:
    """Two tasks that always find the lock taken: each acquisition is a hand-off."""
    mutex = asyncio.Lock()

    async def contend() -> None:
        for _ in range(n // 2):
            async with mutex:
                await asyncio.sleep(0)

    await asyncio.gather(contend(), contend())


async def event(n: int) -> None:
    """Two tasks that wake each other in turn; an operation is one wake-up."""
    ping, pong = asyncio.Event(), asyncio.Event()

    async def player(mine: asyncio.Event, other: asyncio.Event) -> None:
        for _ in range(n // 2):
            await mine.wait()
            mine.clear()
            other.set()

    ping.set()
    await asyncio.gather(player(ping, pong), player(pong, ping))


async def condition(n: int) -> None:
    """Two tasks that notify each other in turn; an operation is one hand-off."""
    turn = asyncio.Condition()
    whose = 0

    async def player(mine: int) -> None:
        nonlocal whose
        for _ in range(n // 2):
            async with turn:
                while whose != mine:
                    await turn.wait()
                whose = 1 - mine
                turn.notify()

    await asyncio.gather(player(0), player(1))


async def barrier(n: int) -> None:
    """Two tasks that meet again and again; an operation is one party's passage."""
    meeting = asyncio.Barrier(2)

    async def party() -> None:
        for _ in range(n // 2):
            await meeting.wait()

    await asyncio.gather(party(), party())


async def to_thread(n: int) -> None:
    for _ in range(n):
        await asyncio.to_thread(int)


async def pending_future(n: int) -> list[Any]:
    """`n` tasks, each suspended in a Future of its own."""
    loop = asyncio.get_running_loop()

    async def waiting() -> None:
        await loop.create_future()

    return await settled([asyncio.create_task(waiting()) for _ in range(n)])


async def pending_sleep(n: int) -> list[Any]:
    """`n` tasks, each suspended in a sleep that does not end while we look."""
    return await settled([asyncio.create_task(asyncio.sleep(30)) for _ in range(n)])


async def settled(tasks: list[Any]) -> list[Any]:
    """The tasks after every one of them had its first step: the queue is first in, first out."""
    await asyncio.create_task(nothing())
    assert not any(task.done() for task in tasks)
    return tasks


CASES: tuple[Case, ...] = (
    Case("switch", "`sleep(0)` in one task", switch, 50_000),
    Case("switch_many", "`sleep(0)` among 1000 tasks", switch_many, 100_000),
    Case("create_await", "`create_task` + await", create_await, 20_000),
    Case("gather_small", "`gather` of 3, each", gather_small, 21_000),
    Case("gather", "`gather` of 100 000, each", gather, 100_000, repeats=1),
    Case("taskgroup", "`TaskGroup` of 100 000, each", taskgroup, 100_000, repeats=1),
    Case("timeout", "`async with timeout()`", timeout, 30_000),
    Case("future", "Future + `call_soon` + await", future, 30_000),
    Case("call_soon", "`call_soon` chain", call_soon, 50_000),
    Case("call_later", "`call_later` + cancel", call_later, 50_000),
    Case("sleepers", "100 000 sleepers, each", sleepers, 100_000, repeats=1),
    Case("wait", "`wait` for 100, each", wait, 20_000),
    Case("as_completed", "`as_completed` of 100, each", as_completed, 10_000),
    Case("wait_for", "`wait_for`", wait_for, 10_000),
    Case("shield", "`shield`", shield, 10_000),
    Case("queue", "`Queue` hand-off", queue, 20_000),
    Case("lock", "`Lock` hand-off", lock, 20_000),
    Case("event", "`Event` wake-up", event, 20_000),
    Case("condition", "`Condition` hand-off", condition, 10_000),
    Case("barrier", "`Barrier` passage", barrier, 5_000),
    Case("to_thread", "`to_thread`", to_thread, 2_000),
    Case("pending_future", "pending in a Future", pending_future, 100_000, 1, memory=True),
    Case("pending_sleep", "pending in `sleep(30)`", pending_sleep, 200_000, 1, memory=True),
)
