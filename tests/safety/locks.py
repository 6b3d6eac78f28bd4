"""Workloads of locks and queues."""

import asyncio
import contextlib
from types import ModuleType

from tests.safety.workloads import batches, workload


@workload()
async def lock(aio: ModuleType, count: int) -> None:
    shared = aio.Lock()

    async def enter() -> None:
        async with shared:
            await aio.sleep(0)

    for _ in range(batches(count, 10)):
        await aio.gather(*[enter() for _ in range(10)])


@workload()
async def lock_cancelled(aio: ModuleType, count: int) -> None:
    shared = aio.Lock()
    for _ in range(batches(count, 2)):
        async with shared:
            task = aio.create_task(shared.acquire())
            await aio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@workload()
async def event(aio: ModuleType, count: int) -> None:
    for _ in range(batches(count, 10)):
        shared = aio.Event()
        tasks = [aio.create_task(shared.wait()) for _ in range(10)]
        await aio.sleep(0)
        shared.set()
        await aio.gather(*tasks)
        shared.clear()


@workload()
async def semaphore(aio: ModuleType, count: int) -> None:
    shared = aio.BoundedSemaphore(2)

    async def enter() -> None:
        async with shared:
            await aio.sleep(0)

    for _ in range(batches(count, 10)):
        await aio.gather(*[enter() for _ in range(10)])


@workload(2)
async def condition(aio: ModuleType, count: int) -> None:
    shared = aio.Condition()

    async def enter() -> None:
        async with shared:
            await shared.wait()

    for _ in range(batches(count, 5)):
        tasks = [aio.create_task(enter()) for _ in range(5)]
        await aio.sleep(0)
        tasks[0].cancel()
        await aio.sleep(0)
        async with shared:
            shared.notify_all()
        await aio.gather(*tasks, return_exceptions=True)


@workload(2)
async def barrier(aio: ModuleType, count: int) -> None:
    for _ in range(batches(count, 3)):
        shared = aio.Barrier(3)
        await aio.gather(*[shared.wait() for _ in range(3)])


@workload()
async def queue(aio: ModuleType, count: int) -> None:
    shared = aio.Queue(3)

    async def put() -> None:
        for number in range(10):
            await shared.put(number)

    async def get() -> None:
        for _ in range(10):
            await shared.get()
            shared.task_done()

    for _ in range(batches(count, 10)):
        await aio.gather(get(), put(), shared.join())


@workload()
async def queues_of_kinds(aio: ModuleType, count: int) -> None:
    for _ in range(batches(count, 4)):
        for kind in (aio.PriorityQueue, aio.LifoQueue):
            shared = kind()
            shared.put_nowait(2)
            shared.put_nowait(1)
            await shared.get()
            shared.get_nowait()
        task = aio.create_task(shared.get())
        await aio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
