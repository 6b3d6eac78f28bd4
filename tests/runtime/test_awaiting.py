"""Awaiting a future: what iterates, what is handed on, and what is left when it is over."""

import asyncio
import collections.abc
import gc
import weakref
from types import ModuleType
from typing import Any

import pytest

Loop = asyncio.AbstractEventLoop


class Waits:
    """An awaitable that hands its future to the task by itself, and keeps it."""

    def __init__(self) -> None:
        self.future: Any = None

    def __await__(self) -> Any:
        self.future._asyncio_future_blocking = True
        yield self.future
        return self.future.result()


async def test_a_task_that_an_awaitable_keeps_is_collected_with_it(aio: ModuleType) -> None:
    async def gives(value: Any) -> Any:
        return value

    async def once() -> weakref.ref[Waits]:
        waits = Waits()
        waits.future = aio.create_task(gives(waits))
        assert await waits is waits
        return weakref.ref(waits)

    left = [await once() for _ in range(3)]
    await aio.sleep(0)
    gc.collect()
    assert [reference() for reference in left] == [None] * 3


async def test_a_task_awaited_where_it_is_made_is_gone_after_the_next_step(aio: ModuleType) -> None:
    class Result:
        pass

    async def gives() -> Any:
        return Result()

    # No collection: the last reference goes.
    result = weakref.ref(await aio.create_task(gives()))
    await aio.sleep(0)
    await aio.sleep(0)
    assert result() is None


def test_a_future_is_awaitable_and_iterable_but_no_iterator(loop: Loop) -> None:
    future = loop.create_future()
    assert isinstance(future, collections.abc.Awaitable)
    assert isinstance(future, collections.abc.Iterable)
    assert not isinstance(future, collections.abc.Iterator)
    assert not hasattr(future, "send")
    for made in (iter(future), future.__await__()):
        assert isinstance(made, collections.abc.Iterator)
        made.close()  # type: ignore[attr-defined]


def test_a_future_resumed_before_it_is_done_was_not_awaited_as_one(loop: Loop) -> None:
    future = loop.create_future()

    async def wait() -> Any:
        return await future

    coro = wait()
    assert coro.send(None) is future
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        coro.send(None)
    coro = wait()
    future._asyncio_future_blocking = False
    assert coro.send(None) is future
    future.set_result(3)
    with pytest.raises(StopIteration) as stopped:
        coro.send(None)
    assert stopped.value.value == 3


def test_an_error_thrown_into_an_await_comes_out_of_it(loop: Loop) -> None:
    future = loop.create_future()

    async def wait() -> Any:
        try:
            await future
        except KeyError as error:
            return error

    error = KeyError("thrown")
    coro = wait()
    coro.send(None)
    with pytest.raises(StopIteration) as stopped:
        coro.throw(error)
    assert stopped.value.value is error
    coro = wait()
    future._asyncio_future_blocking = False
    coro.send(None)
    coro.close()
    assert not future.done()


async def test_a_subclass_may_await_in_its_own_way(aio: ModuleType) -> None:
    class Told(aio.Future):  # type: ignore[misc,name-defined]
        def __await__(self) -> Any:
            value = yield from super().__await__()
            return "told", value

    future = Told(loop=aio.get_running_loop())
    aio.get_running_loop().call_soon(future.set_result, 1)
    assert await future == ("told", 1)
    assert await aio.gather(future) == [1]


def resume(awaitable: Any) -> StopIteration:
    """The exception that ends an await of something done."""
    try:
        next(awaitable.__await__())
    except StopIteration as stopped:
        return stopped
    raise AssertionError("it suspended")


async def test_exceptions_that_somebody_keeps_keep_their_values(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    kept = []
    for value in range(5):
        future = loop.create_future()
        future.set_result([value])
        assert await future == [value]
        kept.append(resume(future))
    event = aio.Event()
    event.set()
    assert await event.wait() is True
    assert [(stopped.value, stopped.args) for stopped in kept] == [
        ([value], ([value],)) for value in range(5)
    ]
    assert all(stopped.__traceback__ is not None for stopped in kept)
    assert len({id(stopped) for stopped in kept}) == 5


async def test_an_exception_that_was_kept_and_marked_is_not_used_again(aio: ModuleType) -> None:
    future = aio.get_running_loop().create_future()
    future.set_result("value")
    stopped = resume(future)
    stopped.add_note("mine")
    stopped.__context__ = KeyError()
    stopped.mine = True  # type: ignore[attr-defined]
    del stopped
    found = resume(future)
    assert found.value == "value"
    assert found.__context__ is None
    assert not hasattr(found, "mine")
    assert not hasattr(found, "__notes__")


async def test_a_value_that_was_awaited_lives_no_longer_than_the_step(aio: ModuleType) -> None:
    class Value:
        pass

    loop = aio.get_running_loop()
    future = loop.create_future()
    value = Value()
    reference = weakref.ref(value)
    future.set_result(value)
    assert await future is value
    del value, future
    await aio.sleep(0)
    assert reference() is None


async def test_a_destructor_in_an_await_may_await_by_hand(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    seen = []

    class Value:
        def __del__(self) -> None:
            future = loop.create_future()
            future.set_result(("inner",))
            seen.append(resume(future).value)

    for number in range(10):
        future = loop.create_future()
        future.set_result(Value())
        await future
        other = loop.create_future()
        other.set_result(number)
        del future
        assert await other == number
    await aio.sleep(0)
    assert seen == [("inner",)] * 10
