"""Locks, conditions and barriers in the tests that look at them closely."""

from collections.abc import Awaitable
from types import ModuleType
from typing import Any

from tests.support import spin


async def asleep(aio: ModuleType, *awaitables: Awaitable[Any]) -> list[Any]:
    """A task for each, all of them started in order and waiting by now."""
    tasks = [aio.create_task(awaitable) for awaitable in awaitables]
    await spin(aio)
    return tasks


def noisy(aio: ModuleType, seen: list[str]) -> Any:
    """A lock of a subclass, which notes what is called."""

    class Noisy(aio.Lock):  # type: ignore[misc, name-defined]
        async def acquire(self) -> bool:
            seen.append("acquire")
            return bool(await super().acquire())

        def release(self) -> None:
            seen.append("release")
            super().release()

    return Noisy()
