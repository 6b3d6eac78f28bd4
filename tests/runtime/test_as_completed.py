"""as_completed and shield in every state they can be cancelled, closed or left in."""

import asyncio
import gc
import inspect
import sys
import weakref
from types import ModuleType
from typing import Any

import pytest

from tests.runtime.test_wait_states import Watched, futures, give
from tests.support import Runtime, spin

# -- as_completed --------------------------------------------------------------------------


async def test_as_completed_takes_any_kind_of_future(aio: ModuleType) -> None:
    fs = futures(aio)
    loop = aio.get_running_loop()
    for number, future in enumerate(fs):
        loop.call_soon(future.set_result, number)
    seen = [await coro for coro in aio.as_completed([*fs, give(4)])]
    assert sorted(seen) == [0, 1, 2, 3, 4]


async def test_a_timeout_of_as_completed_takes_callbacks_back(aio: ModuleType) -> None:
    fs = futures(aio)
    for coro in aio.as_completed(fs, timeout=0.001):
        with pytest.raises(TimeoutError):
            await coro
    assert all(not future._callbacks for future in fs)
    assert fs[2].callbacks == 0


async def test_as_completed_takes_any_iterable(aio: ModuleType) -> None:
    assert [await coro for coro in aio.as_completed(iter([give(0)]))] == [0]
    tasks = {aio.create_task(give(n)): n for n in range(3)}
    assert sorted([await coro for coro in aio.as_completed(tasks)]) == [0, 1, 2]
    iterator = aio.as_completed(fs=[give(5)], timeout=None)
    assert iter(iterator) is iterator
    assert await next(iterator) == 5
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(iterator)


async def test_as_completed_refuses_what_it_can_not_use(aio: ModuleType) -> None:
    future = aio.get_running_loop().create_future()
    with pytest.raises(TypeError, match="iterable of"):
        list(aio.as_completed(future))
    coro = give(1)
    with pytest.raises(TypeError, match="iterable of"):
        list(aio.as_completed(coro))
    coro.close()
    for bad in (5, [5], None):
        with pytest.raises(TypeError):
            list(aio.as_completed(bad))
    for arguments in ((), ([], 1)):
        with pytest.raises(TypeError):
            aio.as_completed(*arguments)


async def test_as_completed_refuses_another_loops_future(runtime: Runtime) -> None:
    other = runtime.new_event_loop()
    with pytest.raises(ValueError, match="different loop"):
        list(runtime.aio.as_completed([other.create_future()]))
    other.close()


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="a generator before Python 3.13")
async def test_as_completed_is_lazy_and_a_generator(aio: ModuleType) -> None:
    started: list[int] = []

    async def work() -> None:
        started.append(1)

    coro = work()
    iterator = aio.as_completed([coro])
    await spin(aio)
    assert started == []
    iterator.close()
    assert list(iterator) == []
    coro.close()
    iterator = aio.as_completed([])
    with pytest.raises(KeyError):
        iterator.throw(KeyError())
    with pytest.raises(StopIteration):
        iterator.send(None)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="an async iterator since Python 3.13")
async def test_as_completed_starts_at_once_and_iterates_both_ways(aio: ModuleType) -> None:
    started: list[int] = []

    async def work(number: int) -> int:
        started.append(number)
        return number

    iterator = aio.as_completed([work(1), work(2), aio.sleep(60)], timeout=0.01)
    await spin(aio)
    assert sorted(started) == [1, 2]
    assert aiter(iterator) is iterator
    first = await anext(iterator)
    assert isinstance(first, asyncio.Task)
    assert {await first, await next(iterator)} == {1, 2}
    with pytest.raises(TimeoutError):
        await anext(iterator)
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)
    with pytest.raises(StopIteration):
        next(iterator)
    never = iterator.__anext__()
    assert inspect.isawaitable(never)
    never.close()
    for task in aio.all_tasks() - {aio.current_task()}:
        task.cancel()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="an async iterator since Python 3.13")
async def test_async_iteration_gives_futures_of_any_kind_themselves(aio: ModuleType) -> None:
    fs = futures(aio)
    for future in fs:
        aio.get_running_loop().call_soon(future.set_result, None)
    assert {future async for future in aio.as_completed(fs)} == set(fs)


async def test_as_completed_lets_go_of_what_it_handed_out(aio: ModuleType) -> None:
    iterator = iter(aio.as_completed([give(1), give(2)]))
    coro = next(iterator)
    await spin(aio)
    await coro
    await next(iterator)
    refs = [weakref.ref(task) for task in aio.all_tasks()]
    await spin(aio)
    assert len([ref for ref in refs if ref() is not None]) == 1  # this test
    with pytest.raises(StopIteration):
        next(iterator)


async def test_coroutines_of_as_completed_that_nobody_awaits_warn(aio: ModuleType) -> None:
    coros = list(aio.as_completed([give(1)]))
    await spin(aio)
    with pytest.warns(RuntimeWarning, match="_wait_for_one' was never awaited"):
        coros.clear()


def test_an_abandoned_as_completed_is_collected(runtime: Runtime) -> None:
    aio = runtime.aio

    async def main() -> weakref.ref[Any]:
        future = Watched(loop=aio.get_running_loop())
        task = aio.create_task(drain(future))
        await spin(aio)
        assert not task.done()
        return weakref.ref(future)

    async def drain(future: Any) -> None:
        for coro in aio.as_completed([future]):
            await coro

    with runtime.Runner() as runner:
        ref = runner.run(main())
        gc.collect()
        assert ref() is None
        assert "destroyed but it is pending" in runtime.take_errors()[0]["message"]


# -- shield --------------------------------------------------------------------------------


async def test_shield_takes_any_kind_of_future(aio: ModuleType) -> None:
    for future in futures(aio):
        aio.get_running_loop().call_soon(future.set_result, "there")
        assert await aio.shield(future) == "there"
    for future in futures(aio):
        outer = aio.shield(future)
        outer.cancel()
        with pytest.raises(aio.CancelledError):
            await outer
        await spin(aio)
        assert not future.done()
        assert not future._callbacks


async def test_shield_takes_any_awaitable(aio: ModuleType) -> None:
    class Awaitable:
        def __await__(self) -> Any:
            return (yield from aio.sleep(0, "awaited").__await__())

    assert await aio.shield(Awaitable()) == "awaited"
    assert await aio.shield(arg=give(1)) == 1
    for bad in (5, None):
        with pytest.raises(TypeError):
            await aio.shield(bad)
    with pytest.raises(TypeError):
        aio.shield()


async def test_an_outer_future_that_somebody_has_set(runtime: Runtime) -> None:
    future = runtime.aio.get_running_loop().create_future()
    outer = runtime.aio.shield(future)
    outer.set_result("by hand")
    assert await outer == "by hand"
    await spin(runtime.aio)
    # The callback between them was taken back in time.
    future.set_result("inner")
    await spin(runtime.aio)
    assert runtime.take_errors() == []


async def test_an_outer_future_set_in_the_same_turn(runtime: Runtime) -> None:
    future = runtime.aio.get_running_loop().create_future()
    outer = runtime.aio.shield(future)
    future.set_result("inner")
    outer.set_result("by hand")
    await spin(runtime.aio)
    (error,) = runtime.take_errors()
    assert isinstance(error["exception"], runtime.aio.InvalidStateError)


def test_an_abandoned_shield_is_collected(runtime: Runtime) -> None:
    aio = runtime.aio

    async def main() -> list[weakref.ref[Any]]:
        inner = aio.get_running_loop().create_future()
        outer = aio.shield(inner)
        return [weakref.ref(inner), weakref.ref(outer)]

    with runtime.Runner() as runner:
        refs = runner.run(main())
        gc.collect()
        assert [ref() for ref in refs] == [None, None]
