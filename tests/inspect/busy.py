"""A program with something of everything, for the page: crowds, a lock, threads, cancels, a stall,
and a name that would be markup if it were not text. Runs until it is killed.

python -m rondel run --inspect 0 -m tests.inspect.busy
"""

import asyncio
import time

MARKUP = '<img src=x onerror="window.hacked=1">'


async def worker(queue: "asyncio.Queue[int]") -> None:
    await queue.get()


async def holder(lock: asyncio.Lock) -> None:
    async with lock:
        await asyncio.sleep(3600)


async def child() -> None:
    await asyncio.sleep(0.05)


async def cancelled() -> None:
    await asyncio.sleep(3600)


async def rounds() -> None:
    while True:
        doomed = asyncio.create_task(cancelled(), name="doomed")
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(child(), name=f"child-{number}")
        await asyncio.to_thread(time.sleep, 0.05)
        doomed.cancel()
        await asyncio.gather(doomed, return_exceptions=True)


async def blocker() -> None:
    time.sleep(0.3)
    await asyncio.sleep(3600)


async def main() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    lock = asyncio.Lock()
    async with asyncio.TaskGroup() as group:
        for number in range(300):
            group.create_task(worker(queue), name=f"worker-{number}")
        for number in range(3):
            group.create_task(holder(lock), name=f"holder-{number}")
        group.create_task(asyncio.sleep(3600), name=MARKUP)
        group.create_task(blocker(), name="blocker")
        group.create_task(rounds(), name="rounds")


if __name__ == "__main__":
    asyncio.run(main())
