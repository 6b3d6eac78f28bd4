"""Calls to threads and from threads."""

from __future__ import annotations

import asyncio
import threading

from net.case import Own

ORDER = 80
TITLE = "Threads"
NOTE = "CPU time of the whole process, its threads included."


def nothing() -> None:
    pass


async def to_thread(count: int) -> None:
    for _ in range(count):
        await asyncio.to_thread(nothing)


async def to_thread_10(count: int) -> None:
    for _ in range(count // 10):
        await asyncio.gather(*[asyncio.to_thread(nothing) for _ in range(10)])


async def run_in_executor(count: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(count):
        await loop.run_in_executor(None, nothing)


async def threadsafe(count: int) -> None:
    """Calls from another thread, each when the one before it was run: every one wakes the loop."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    turn = threading.Semaphore(0)

    def call() -> None:
        for _ in range(count):
            loop.call_soon_threadsafe(turn.release)
            turn.acquire()
        loop.call_soon_threadsafe(over.set_result, None)

    thread = threading.Thread(target=call)
    thread.start()
    await over
    thread.join()


async def threadsafe_many(count: int) -> None:
    """Calls from another thread as fast as it can: most find the loop awake."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()

    def call() -> None:
        for _ in range(count):
            loop.call_soon_threadsafe(nothing)
        loop.call_soon_threadsafe(over.set_result, None)

    thread = threading.Thread(target=call)
    thread.start()
    await over
    thread.join()


async def threadsafe_here(count: int) -> None:
    """From the loop's own thread."""
    loop = asyncio.get_running_loop()
    for start in range(0, count, 100):
        for _ in range(start, start + 100):
            loop.call_soon_threadsafe(nothing)
        await asyncio.sleep(0)


CASES = (
    Own("to_thread", "`to_thread`, one by one", to_thread, 3_000),
    Own("to_thread-10", "`to_thread`, ten at once", to_thread_10, 3_000),
    Own("run_in_executor", "`run_in_executor`, one by one", run_in_executor, 3_000),
    Own("call_soon_threadsafe", "`call_soon_threadsafe`, the loop asleep", threadsafe, 3_000),
    Own("call_soon_threadsafe-many", "`call_soon_threadsafe`, many", threadsafe_many, 20_000),
    Own(
        "call_soon_threadsafe-here",
        "`call_soon_threadsafe`, its own thread",
        threadsafe_here,
        20_000,
    ),
)
