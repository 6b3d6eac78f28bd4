"""A program to be looked at from outside: does what its arguments say, tells when it is there.

python -m tests.inspect.child tasks N | ticks N | mixed N | records X | pydll FLAG | python FLAG
"""

import ctypes
import sys
import time
from pathlib import Path

import rondel
from rondel.inspect.recording import record


def says(word: str) -> None:
    print(word, flush=True)


async def worker(queue: "rondel.Queue[int]") -> None:
    await queue.get()


async def tasks(count: int) -> None:
    queue: rondel.Queue[int] = rondel.Queue()
    workers = [rondel.create_task(worker(queue), name=f"worker-{i}") for i in range(count)]
    for _ in range(5):
        await rondel.sleep(0)
    says("there")
    # Until stdin ends.
    await rondel.to_thread(sys.stdin.read)
    for one in workers:
        one.cancel()


async def tick() -> None:
    while True:
        await rondel.sleep(0.01)


async def ticks(count: int) -> None:
    tickers = [rondel.create_task(tick(), name=f"tick-{i}") for i in range(count)]
    await rondel.sleep(0)
    says("there")
    await rondel.to_thread(sys.stdin.read)
    for one in tickers:
        one.cancel()


async def mixed(count: int) -> None:
    """Some of everything: tasks that wait alike, one that ticks, one with a bad name, a thread."""
    waits = rondel.create_task(rondel.sleep(3600), name="bad\x1b[2J\x07name")
    below = rondel.create_task(creates(count), name="creator")
    ticks = rondel.create_task(tick(), name="ticker")
    await rondel.sleep(0.05)
    says("there")
    await rondel.to_thread(sys.stdin.read)
    for one in (waits, below, ticks):
        one.cancel()


async def creates(count: int) -> None:
    queue: rondel.Queue[int] = rondel.Queue()
    async with rondel.TaskGroup() as group:
        for i in range(count):
            group.create_task(worker(queue), name=f"worker-{i}")


async def records() -> None:
    recorder = record()
    await rondel.create_task(rondel.sleep(0), name="mine")
    says("there")
    await rondel.to_thread(sys.stdin.read)
    if "mine" in [task.name for task in recorder.stop().tasks]:
        sys.exit(5)


def blocks_in_python(flag: Path) -> None:
    while not flag.exists():
        time.sleep(0.005)


def blocks_natively(flag: Path) -> None:
    usleep = ctypes.PyDLL(None).usleep
    # It has the GIL meanwhile; the flag is for a machine on which nobody looks in time.
    while not flag.exists():
        usleep(800_000)


async def stalls(how: str, flag: Path) -> None:
    says("there")
    (blocks_in_python if how == "python" else blocks_natively)(flag)
    await rondel.sleep(0)
    await rondel.to_thread(sys.stdin.read)


async def main() -> None:
    what, argument = sys.argv[1:3]
    if what == "tasks":
        await tasks(int(argument))
        return
    if what == "ticks":
        await ticks(int(argument))
        return
    if what == "mixed":
        await mixed(int(argument))
        return
    if what == "records":
        await records()
        return
    await rondel.create_task(stalls(what, Path(argument)), name="blocker")


if __name__ == "__main__":
    rondel.run(main())
