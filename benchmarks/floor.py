"""The floor under the table: the same shapes of code with nothing around the coroutines.

``bare`` drives coroutines from C by PyIter_Send (bare/bare.c); ``send`` is what Python code itself
pays for ``coro.send(None)`` and the StopIteration.  Both lack everything a runtime is for, so a
figure near them has nothing left to save.  Cases that make no sense without a loop are absent.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from cases import CROWD, nothing


def bare_cases() -> dict[str, Callable[[int], None]]:
    """The cases over the C module; imported here because only this floor needs it built."""
    import bare

    async def switch(n: int) -> None:
        for _ in range(n):
            await bare.pause()

    async def switch_many(n: int) -> None:
        await bare.gather(*[switch(n // CROWD) for _ in range(CROWD)])

    async def create_await(n: int) -> None:
        for _ in range(n):
            await bare.spawn(nothing())

    async def gather_small(n: int) -> None:
        for _ in range(n // 3):
            await bare.gather(nothing(), nothing(), nothing())

    async def gather(n: int) -> None:
        await bare.gather(*[nothing() for _ in range(n)])

    def run(case: Callable[[int], Coroutine[Any, Any, None]]) -> Callable[[int], None]:
        return lambda n: bare.run(case(n))

    return {
        "switch": run(switch),
        "switch_many": run(switch_many),
        "create_await": run(create_await),
        "gather_small": run(gather_small),
        "gather": run(gather),
        "taskgroup": run(gather),
    }


def send_cases() -> dict[str, Callable[[int], None]]:
    """The cases over ``coro.send``: no C of ours."""

    def finish(coro: Coroutine[Any, Any, None]) -> None:
        try:
            coro.send(None)
        except StopIteration:
            return
        raise AssertionError("the smallest coroutine suspended")

    def create_await(n: int) -> None:
        for _ in range(n):
            finish(nothing())

    def gather(n: int) -> None:
        for coro in [nothing() for _ in range(n)]:
            finish(coro)

    return {"create_await": create_await, "gather_small": create_await, "gather": gather}


FLOORS: dict[str, Callable[[], dict[str, Callable[[int], None]]]] = {
    "bare": bare_cases,
    "send": send_cases,
}
