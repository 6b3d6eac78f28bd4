"""The inspector's own cases, beside the task layer's (`cases.py`); their rules hold here.

`snapshot` needs Rondel; the others are plain asyncio.
"""

from __future__ import annotations

import asyncio
import json
import time

from cases import Case, settled

STEPS = 20
"""Steps of each task in `work`."""

DOCUMENT = {"id": 7, "name": "a shelf", "tags": ["one", "two"], "books": list(range(100))}


async def work(n: int) -> None:
    """Steps that do something: some 15 µs of JSON each, less than a small request takes."""

    async def client() -> None:
        for _ in range(STEPS):
            assert json.loads(json.dumps(DOCUMENT))["id"] == 7
            await asyncio.sleep(0)

    await asyncio.gather(*[client() for _ in range(n // STEPS)])


async def snapshot(n: int) -> list[float]:
    """Nanoseconds per task of a picture of `n` tasks, as `rondel tree` asks for it."""
    from rondel import _rondel

    loop = asyncio.get_running_loop()

    async def waiting() -> None:
        await loop.create_future()

    tasks = await settled([asyncio.create_task(waiting()) for _ in range(n)])
    values = []
    for _ in range(3):
        start = time.process_time_ns()
        text = _rondel._inspect_tasks()
        values.append((time.process_time_ns() - start) / n)
        assert len(json.loads(text)["tasks"]) == n + 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return values


CASES: tuple[Case, ...] = (
    Case("work", "`sleep(0)` after 15 µs of JSON", work, 10_000),
    Case("snapshot", "snapshot of 100 000 tasks, each", snapshot, 100_000, 1, measures=True),
)
