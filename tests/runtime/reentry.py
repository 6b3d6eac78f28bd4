"""Coroutines by which the children of the safety tests pass values on."""

import types
from typing import Any


async def wait_on(future: Any) -> Any:
    return await future


async def give(value: Any) -> Any:
    return value


async def hand_over(value: Any) -> Any:
    """Yield something to the task, as an awaitable's iterator would."""

    @types.coroutine
    def iterate() -> Any:
        return (yield value)

    return await iterate()
