"""`timed` changes nothing else: kinds, signatures, exceptions, generators, methods."""

import asyncio
import functools
import gc
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest

from tests.support import ONLY_ASYNCIO, Runtime, spin

if ONLY_ASYNCIO:
    pytest.skip("Rondel's own names", allow_module_level=True)

import rondel
from rondel import timed
from tests.runtime.timing import Boom, Taken


async def test_the_kind_and_the_signature_stay(aio: ModuleType) -> None:
    def function(a: int, *, b: str = "x") -> None:
        """Its doc."""

    async def coroutine(a: int, *, b: str = "x") -> None:
        """Its doc."""

    def generator(a: int, *, b: str = "x") -> Generator[None, None, None]:
        """Its doc."""
        yield

    async def async_generator(a: int, *, b: str = "x") -> AsyncGenerator[None, None]:
        """Its doc."""
        yield

    kinds = [
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    ]
    for original in (function, coroutine, generator, async_generator):
        for decorated in (timed(original), timed()(original), timed("name")(original)):
            assert [is_(decorated) for is_ in kinds] == [is_(original) for is_ in kinds]
            assert inspect.signature(decorated) == inspect.signature(original)
            assert decorated.__name__ == original.__name__
            assert decorated.__qualname__ == original.__qualname__
            assert decorated.__doc__ == "Its doc."
            assert decorated.__wrapped__ is original  # type: ignore[attr-defined]
    task = aio.create_task(timed(to=lambda _: None)(coroutine)(1))
    assert asyncio.iscoroutine(task.get_coro())
    await task


async def test_native_and_partial_coroutine_functions(aio: ModuleType, taken: Taken) -> None:
    assert await taken.timed(rondel.sleep)(0, "value") == "value"
    assert await taken.timed(functools.partial(rondel.sleep, 0.001))(result="late") == "late"
    assert [timing.name for timing in taken] == ["sleep", "sleep"]
    assert [timing.steps for timing in taken] == [2, 2]


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="inspect.markcoroutinefunction is new in 3.12"
)
async def test_a_marked_function_may_return_any_awaitable(aio: ModuleType, taken: Taken) -> None:
    class Plain:
        def __await__(self) -> Any:
            return iter([None, None])

    mark = getattr(inspect, "markcoroutinefunction")  # noqa: B009  (not there on 3.11)

    @taken.timed
    @mark
    def future() -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_result("value")
        return future

    assert await future() == "value"
    assert await taken.timed(mark(lambda: Plain()))() is None
    assert [timing.steps for timing in taken] == [1, 3]


async def test_exceptions_and_cancellation_go_on(aio: ModuleType, taken: Taken) -> None:
    @taken.timed
    async def work(error: BaseException | None) -> None:
        if error is not None:
            raise error
        await aio.sleep(30)

    with pytest.raises(Boom, match="text"):
        await work(Boom("text"))
    task = aio.create_task(work(None))
    await aio.sleep(0)
    task.cancel("reason")
    with pytest.raises(aio.CancelledError):
        await task
    assert task.cancelled()
    with pytest.raises(TimeoutError):
        async with aio.timeout(0.001):
            await work(None)
    suspended = work(None)
    suspended.send(None)
    suspended.close()
    assert [(timing.outcome, timing.error) for timing in taken] == [
        ("raised", "Boom('text')"),
        ("cancelled", None),
        ("cancelled", None),
        ("closed", None),
    ]


async def test_what_is_thrown_in_arrives_and_may_be_caught(aio: ModuleType, taken: Taken) -> None:
    @taken.timed
    async def stubborn() -> str:
        try:
            await aio.sleep(30)
        except aio.CancelledError:
            await aio.sleep(0)
        return "stayed"

    task = aio.create_task(stubborn())
    await aio.sleep(0)
    task.cancel()
    assert await task == "stayed"
    assert taken.one().outcome == "returned"
    assert taken.one().steps == 3


def test_a_coroutine_that_is_never_awaited_warns_in_its_name(taken: Taken) -> None:
    @taken.timed
    async def forgotten() -> None: ...

    with pytest.warns(RuntimeWarning, match="forgotten' was never awaited"):
        forgotten()
        gc.collect()
    assert taken == []


class Both:
    """A generator function, and the same timed, to be driven alike."""

    def __init__(self, function: Callable[..., Any], taken: Taken) -> None:
        self.functions = [function, taken.timed(function)]

    def play(self, *moves: Callable[[Any], Any]) -> list[list[str]]:
        """What each move gives, on the original and on the timed one."""

        def attempt(move: Callable[[Any], Any], target: Any) -> str:
            try:
                return repr(move(target))
            except BaseException as error:
                return repr(error)

        games = []
        for function in self.functions:
            target = function()
            games.append([attempt(move, target) for move in moves])
        return games


def test_a_generator_is_driven_as_without(taken: Taken) -> None:
    def echo() -> Generator[Any, Any, str]:
        got: Any = "start"
        while got != "stop":
            try:
                got = yield got
            except Boom as error:
                got = error
        return "end"

    def ignores() -> Generator[Any, Any, None]:
        with suppress(GeneratorExit):
            yield 1
        yield 2

    def cleans() -> Generator[Any, Any, None]:
        try:
            yield 1
        finally:
            raise Boom("cleaning")

    both = Both(echo, taken)
    one, other = both.play(
        next,
        lambda g: g.send(5),
        lambda g: g.throw(Boom("in")),
        lambda g: g.send("stop"),
        lambda g: g.send(None),
    )
    assert one == other
    one, other = both.play(next, lambda g: g.throw(KeyError("out")), next)
    assert one == other
    one, other = both.play(next, lambda g: g.close(), next, lambda g: g.close())
    assert one == other
    one, other = both.play(lambda g: g.send(5))
    assert one == other
    one, other = Both(ignores, taken).play(next, lambda g: g.close())
    assert one == other == ["1", "RuntimeError('generator ignored GeneratorExit')"]
    one, other = Both(cleans, taken).play(next, lambda g: g.close())
    assert one == other == ["1", "Boom('cleaning')"]
    assert [timing.outcome for timing in taken[:3]] == ["returned", "raised", "closed"]


async def test_an_async_generator_is_driven_as_without(aio: ModuleType, taken: Taken) -> None:
    async def echo() -> AsyncGenerator[Any, Any]:
        got: Any = "start"
        while got != "stop":
            try:
                await aio.sleep(0)
                got = yield got
            except Boom as error:
                got = error

    async def ignores() -> AsyncGenerator[Any, Any]:
        with suppress(GeneratorExit):
            yield 1
        await aio.sleep(0)
        yield 2

    async def cleans() -> AsyncGenerator[Any, Any]:
        try:
            yield 1
        finally:
            await aio.sleep(0)
            raise Boom("cleaning")

    async def play(function: Any, *moves: Callable[[Any], Any]) -> list[str]:
        target = function()
        results = []
        for move in moves:
            try:
                results.append(repr(await move(target)))
            except BaseException as error:
                results.append(repr(error))
        return results

    first = anext
    games: list[tuple[Any, list[Callable[[Any], Any]]]] = [
        (
            echo,
            [
                first,
                lambda g: g.asend(5),
                lambda g: g.athrow(Boom("in")),
                lambda g: g.asend("stop"),
                lambda g: g.asend(None),
                lambda g: g.aclose(),
            ],
        ),
        (echo, [first, lambda g: g.athrow(KeyError("out")), first]),
        (echo, [first, lambda g: g.aclose(), first, lambda g: g.aclose()]),
        (echo, [first, lambda g: g.athrow(StopAsyncIteration("odd"))]),
        (echo, [lambda g: g.asend(5)]),
        (echo, [lambda g: g.aclose(), first]),
        (ignores, [first, lambda g: g.aclose()]),
        (cleans, [first, lambda g: g.aclose(), first]),
    ]
    for function, moves in games:
        assert await play(taken.timed(function), *moves) == await play(function, *moves)
    assert [timing.outcome for timing in taken[:3]] == ["returned", "raised", "closed"]


def test_an_unfinished_async_generator_is_closed_by_the_loop(
    runtime: Runtime, taken: Taken
) -> None:
    """By its shutdown, and when it is dropped: once, with everything in it awaited."""
    closed: list[str] = []

    @taken.timed
    async def numbers(name: str) -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await runtime.aio.sleep(0)
            await runtime.aio.sleep(0)
            closed.append(name)

    kept: list[Any] = []

    async def main() -> None:
        dropped = numbers("dropped")
        await anext(dropped)
        del dropped
        gc.collect()
        await spin(runtime.aio, 10)
        assert closed == ["dropped"]
        kept.append(numbers("kept"))
        await anext(kept[0])

    runtime.run(main())
    assert closed == ["dropped", "kept"]
    assert runtime.take_errors() == []
    assert [timing.outcome for timing in taken] == ["closed", "closed"]


async def test_methods_of_every_kind(aio: ModuleType, taken: Taken) -> None:
    class Service:
        @timed(to=taken.append)
        async def fetch(self, n: int) -> int:
            return n

        @classmethod
        @timed(to=taken.append)
        def make(cls, n: int) -> int:
            return n

        @staticmethod
        @timed(to=taken.append)
        def add(n: int) -> int:
            return n

        def __repr__(self) -> str:
            return "<service>"

    service = Service()
    assert await service.fetch(1) + service.make(2) + service.add(3) == 6
    assert [timing.name for timing in taken] == ["Service.fetch", "Service.make", "Service.add"]
    assert taken[0].arguments == "(<service>, 1), {}"
