"""wait and wait_for in every state they can be cancelled, closed or left in.

What goes in: futures that are not the runtime's own, iterables of all kinds, wrong arguments.
"""

import asyncio
import concurrent.futures
import gc
import inspect
import sys
import warnings
import weakref
from collections.abc import Iterator
from contextvars import copy_context
from types import ModuleType
from typing import Any

import pytest

from tests.support import Runtime, spin

COROUTINES = ("wait", "wait_for", "to_thread")


class Watched(asyncio.Future[Any]):
    """A Python subclass of asyncio's Future that counts its callbacks."""

    callbacks = 0

    def add_done_callback(self, fn: Any, *, context: Any = None) -> None:
        self.callbacks += 1
        super().add_done_callback(fn, context=context)

    def remove_done_callback(self, fn: Any) -> int:
        removed = super().remove_done_callback(fn)
        self.callbacks -= removed
        return removed


def futures(aio: ModuleType) -> list[Any]:
    """A pending future of each kind on the running loop."""
    loop = aio.get_running_loop()
    return [loop.create_future(), asyncio.Future(loop=loop), Watched(loop=loop), aio.Future()]


async def give(value: Any) -> Any:
    return value


# -- as coroutine functions -----------------------------------------------------------------


@pytest.mark.parametrize("name", COROUTINES)
def test_is_a_coroutine_function(runtime: Runtime, name: str) -> None:
    function = getattr(runtime.aio, name)
    assert inspect.iscoroutinefunction(function)
    assert asyncio.iscoroutinefunction(function)
    assert inspect.signature(function) == inspect.signature(getattr(asyncio, name))
    assert function.__name__ == name
    assert function.__doc__


@pytest.mark.parametrize("name", COROUTINES)
def test_warns_when_it_is_never_awaited(runtime: Runtime, name: str) -> None:
    arguments = {"wait": ([],), "wait_for": (None, 1), "to_thread": (int,)}[name]
    coro = getattr(runtime.aio, name)(*arguments)
    assert asyncio.iscoroutine(coro)
    assert coro.__name__ == name
    with pytest.warns(RuntimeWarning, match=f"coroutine '{name}' was never awaited"):
        del coro
        gc.collect()


async def test_is_taken_wherever_a_coroutine_is(aio: ModuleType) -> None:
    future = aio.get_running_loop().create_future()
    future.set_result("there")
    assert await aio.create_task(aio.wait_for(future, 1)) == "there"
    assert await aio.ensure_future(aio.wait_for(future, 1)) == "there"
    assert await aio.gather(aio.wait_for(future, 1), aio.wait([future])) == [
        "there",
        ({future}, set()),
    ]
    async with aio.TaskGroup() as group:
        task = group.create_task(aio.to_thread(str, 5))
    assert task.result() == "5"
    assert await aio.shield(aio.wait_for(future, 1)) == "there"
    assert await aio.wait_for(aio.wait_for(future, 1), 1) == "there"


@pytest.mark.parametrize("name", ["wait", "wait_for"])
async def test_runs_once(aio: ModuleType, name: str) -> None:
    future = aio.get_running_loop().create_future()
    future.set_result(1)
    coro = aio.wait([future]) if name == "wait" else aio.wait_for(future, 1)
    await coro
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await coro


def test_without_a_loop(runtime: Runtime) -> None:
    aio = runtime.aio
    future = runtime.new_event_loop().create_future()
    for coro in (aio.wait([future]), aio.to_thread(int)):
        with pytest.raises(RuntimeError, match="no running event loop"):
            coro.send(None)
    with pytest.raises(RuntimeError):
        aio.wait_for(future, 1).send(None)


# -- wait ----------------------------------------------------------------------------------


async def test_wait_takes_any_kind_of_future(aio: ModuleType) -> None:
    fs = futures(aio)
    loop = aio.get_running_loop()
    for future in fs:
        loop.call_soon(future.set_result, None)
    assert await aio.wait(fs) == (set(fs), set())


@pytest.mark.parametrize("last", range(4))
async def test_wait_for_the_first_of_any_kind_takes_its_callbacks_back(
    aio: ModuleType, last: int
) -> None:
    fs = futures(aio)
    aio.get_running_loop().call_soon(fs[last].set_result, None)
    done, pending = await aio.wait(fs, return_when=aio.FIRST_COMPLETED)
    assert done == {fs[last]}
    assert pending == set(fs) - done
    assert all(not future._callbacks for future in pending)


@pytest.mark.parametrize("bad", range(4))
async def test_wait_for_the_first_exception_of_any_kind(aio: ModuleType, bad: int) -> None:
    fs = futures(aio)
    loop = aio.get_running_loop()
    loop.call_soon(fs[bad - 1].set_result, None)
    loop.call_soon(fs[bad - 2].cancel)
    loop.call_soon(fs[bad].set_exception, KeyError())
    done, pending = await aio.wait(fs, return_when=aio.FIRST_EXCEPTION)
    assert done == {fs[bad], fs[bad - 1], fs[bad - 2]}
    assert pending == {fs[bad - 3]}


async def test_a_first_exception_counts_as_retrieved(runtime: Runtime) -> None:
    loop = runtime.aio.get_running_loop()
    bad, pending = loop.create_future(), loop.create_future()
    loop.call_soon(bad.set_exception, KeyError())
    await runtime.aio.wait([bad, pending], return_when=runtime.aio.FIRST_EXCEPTION)
    del bad
    gc.collect()
    assert runtime.take_errors() == []


async def test_an_exception_that_wait_did_not_look_at_is_reported(runtime: Runtime) -> None:
    loop = runtime.aio.get_running_loop()
    bad = loop.create_future()
    loop.call_soon(bad.set_exception, KeyError())
    await runtime.aio.wait([bad])
    del bad
    gc.collect()
    assert len(runtime.take_errors()) == 1


async def test_a_timeout_takes_callbacks_of_any_kind_back(aio: ModuleType) -> None:
    fs = futures(aio)
    assert await aio.wait(fs, timeout=0.001) == (set(), set(fs))
    assert all(not future._callbacks for future in fs)
    assert fs[2].callbacks == 0


async def test_wait_refuses_what_it_can_not_use(aio: ModuleType) -> None:
    future = aio.get_running_loop().create_future()
    with pytest.raises(TypeError, match="expect a list of futures, not"):
        await aio.wait(future)
    coro = give(1)
    with pytest.raises(TypeError, match="expect a list of futures, not coroutine"):
        await aio.wait(coro)
    with pytest.raises(TypeError, match="forbidden"):
        await aio.wait([future, coro])
    coro.close()
    with pytest.raises(ValueError, match="empty"):
        await aio.wait(())
    with pytest.raises(AssertionError, match="empty"):
        await aio.wait(iter([]))
    with pytest.raises(ValueError, match="Invalid return_when value: SOMETIME"):
        await aio.wait([future], return_when="SOMETIME")
    with pytest.raises(TypeError):
        await aio.wait([future], timeout="soon")
    with pytest.raises(TypeError):
        await aio.wait([[]])
    with pytest.raises(TypeError):
        await aio.wait(5)
    with pytest.raises(AttributeError, match="add_done_callback"):
        await aio.wait([5])
    with pytest.raises(TypeError):
        aio.wait([future], 1)
    with pytest.raises(TypeError):
        aio.wait()
    assert not future._callbacks


async def test_wait_takes_condition_and_futures_from_anywhere(aio: ModuleType) -> None:
    made = map(aio.create_task, [give(number) for number in range(3)])
    done, pending = await aio.wait(made, return_when="".join(["ALL_", "COMPLETED"]))
    assert {task.result() for task in done} == {0, 1, 2}
    assert pending == set()
    tasks = {aio.create_task(give(number)): number for number in range(3)}
    assert await aio.wait(fs=tasks) == (set(tasks), set())
    assert len(tasks) == 3


async def test_generators_were_coroutines_once(aio: ModuleType) -> None:
    def generate() -> Iterator[Any]:
        for number in range(3):
            yield aio.create_task(give(number))

    if sys.version_info >= (3, 12):
        done, _ = await aio.wait(generate())
        assert len(done) == 3
        assert len([await coro for coro in aio.as_completed(generate())]) == 3
        return
    with pytest.raises(TypeError, match="not generator"):
        await aio.wait(generate())
    with pytest.raises(TypeError, match="not generator"):
        list(aio.as_completed(generate()))


async def test_what_wait_returns_is_the_callers_own(aio: ModuleType) -> None:
    given = {aio.create_task(give(1))}
    done, pending = await aio.wait(given)
    done.clear()
    assert len(given) == 1
    assert pending == set()


@pytest.mark.parametrize("how", ["close", "drop", "throw"])
async def test_a_wait_that_is_given_up_takes_its_callbacks_back(aio: ModuleType, how: str) -> None:
    fs = futures(aio)
    coro = aio.wait(fs, timeout=60)
    waiter = coro.send(None)
    assert waiter._asyncio_future_blocking
    assert all(future._callbacks for future in fs)
    if how == "close":
        coro.close()
    elif how == "throw":
        with pytest.raises(KeyError):
            coro.throw(KeyError())
    del coro, waiter
    assert all(not future._callbacks for future in fs)
    if hasattr(aio.get_running_loop(), "_timer_count"):
        assert aio.get_running_loop()._timer_count() == 0


def test_a_wait_that_nobody_can_end_is_collected(runtime: Runtime) -> None:
    aio = runtime.aio

    async def main() -> weakref.ref[Any]:
        # The task, what it waits for, and the callbacks between them: one cycle.
        task = aio.create_task(aio.wait([aio.get_running_loop().create_future()]))
        await spin(aio)
        return weakref.ref(task)

    with runtime.Runner() as runner:
        ref = runner.run(main())
        gc.collect()
        assert ref() is None
        assert "destroyed but it is pending" in runtime.take_errors()[0]["message"]


# -- wait_for ------------------------------------------------------------------------------


async def test_a_timeout_error_says_where_it_comes_from(aio: ModuleType) -> None:
    for timeout in (0.001, 0):
        with pytest.raises(TimeoutError) as caught:
            await aio.wait_for(aio.create_task(aio.sleep(60)), timeout)
        assert isinstance(caught.value.__cause__, aio.CancelledError)
        assert caught.value.__context__ is caught.value.__cause__
        assert caught.value.args == ()


@pytest.mark.parametrize("timeout", [None, 60])
async def test_wait_for_takes_any_kind_of_future(aio: ModuleType, timeout: float | None) -> None:
    loop = aio.get_running_loop()
    for future in futures(aio):
        loop.call_soon(future.set_result, "there")
        assert await aio.wait_for(future, timeout) == "there"
    for future in futures(aio):
        loop.call_soon(future.set_exception, KeyError("there"))
        with pytest.raises(KeyError, match="there"):
            await aio.wait_for(future, timeout)


@pytest.mark.parametrize("timeout", [0.001, 0, -1])
async def test_wait_for_cancels_any_kind_of_future(aio: ModuleType, timeout: float) -> None:
    for future in futures(aio):
        with pytest.raises(TimeoutError):
            await aio.wait_for(future, timeout)
        assert future.cancelled()
        assert not future._callbacks


async def test_wait_for_takes_an_awaitable_object(aio: ModuleType) -> None:
    class Awaitable:
        def __await__(self) -> Any:
            return (yield from aio.sleep(0, "awaited").__await__())

    assert await aio.wait_for(Awaitable(), 60) == "awaited"
    assert await aio.wait_for(Awaitable(), None) == "awaited"
    with pytest.raises(TimeoutError):
        await aio.wait_for(Awaitable(), 0)


async def test_wait_for_refuses_what_it_can_not_use(aio: ModuleType) -> None:
    thread: concurrent.futures.Future[None] = concurrent.futures.Future()
    for bad in (5, None, [], thread):
        for timeout in (None, 0, 60):
            with pytest.raises(TypeError):
                await aio.wait_for(bad, timeout)
    future = aio.get_running_loop().create_future()
    with pytest.raises(TypeError):
        await aio.wait_for(future, "soon")
    for arguments in ((), (future,), (future, 1, 2)):
        with pytest.raises(TypeError):
            aio.wait_for(*arguments)
    with pytest.raises(TypeError):
        aio.wait_for(future, 1, timeout=1)
    assert not future.done()
    future.set_result(1)
    assert await aio.wait_for(timeout=1, fut=future) == 1


@pytest.mark.parametrize("timeout", [None, 60])
async def test_wait_for_refuses_another_loops_future(
    runtime: Runtime, timeout: float | None
) -> None:
    other = runtime.new_event_loop()
    future = other.create_future()
    # 3.11 makes it a future of this loop first, where there is a timeout.
    at_once = sys.version_info < (3, 12) and timeout is not None
    with pytest.raises(ValueError if at_once else RuntimeError, match="different loop"):
        await runtime.aio.wait_for(future, timeout)
    other.close()


@pytest.mark.parametrize("how", ["close", "drop", "throw"])
async def test_a_wait_for_that_is_given_up_leaves_no_timer(runtime: Runtime, how: str) -> None:
    aio = runtime.aio
    ended: list[str] = []

    async def inner() -> None:
        try:
            await aio.get_running_loop().create_future()
        finally:
            ended.append("ended")

    coro = aio.wait_for(inner(), 60)
    coro.send(None)
    await spin(aio)
    if how == "close":
        coro.close()
    elif how == "throw":
        with pytest.raises(KeyError):
            coro.throw(KeyError())
    del coro
    if sys.version_info >= (3, 12):
        assert ended == ["ended"]
    else:
        # It runs in a task of its own, which goes on; nobody refers to it but itself.
        gc.collect()
        assert "destroyed but it is pending" in runtime.take_errors()[0]["message"]
    if hasattr(aio.get_running_loop(), "_timer_count"):
        assert aio.get_running_loop()._timer_count() == 0
    await spin(aio)


async def test_wait_for_keeps_the_callers_cancel_count(aio: ModuleType) -> None:
    task = aio.current_task()
    with pytest.raises(TimeoutError):
        await aio.wait_for(aio.sleep(60), 0.001)
    assert task.cancelling() == 0
    await aio.sleep(0)


async def test_wait_for_inside_a_stock_task(runtime: Runtime) -> None:
    aio = runtime.aio
    loop = aio.get_running_loop()

    async def main() -> Any:
        with pytest.raises(TimeoutError):
            await aio.wait_for(aio.sleep(60), 0.001)
        done, _ = await aio.wait([aio.create_task(give(1))])
        results = [await coro for coro in aio.as_completed([give(2)])]
        return [task.result() for task in done], results, await aio.wait_for(give(3), 60)

    assert await asyncio.Task(main(), loop=loop) == ([1], [2], 3)


# -- names on a loop that is not theirs -------------------------------------------------------


def test_names_serve_a_stock_loop(runtime: Runtime) -> None:
    aio = runtime.aio

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(give(1))
        done, _ = await aio.wait([task], timeout=60, return_when=aio.FIRST_COMPLETED)
        with pytest.raises(TimeoutError):
            await aio.wait_for(asyncio.sleep(60), 0.001)
        thread = aio.run_coroutine_threadsafe(give(6), loop)
        return [
            [each.result() for each in done],
            await aio.wait_for(give(2), 60),
            [await coro for coro in aio.as_completed([give(3)])],
            await aio.shield(give(4)),
            await aio.to_thread(int, 5),
            await aio.wrap_future(thread),
        ]

    loop = asyncio.SelectorEventLoop()
    try:
        assert loop.run_until_complete(main()) == [[1], 2, [3], 4, 5, 6]
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("stock_loop", [False, True])
def test_the_eager_factory_on_either_loop(runtime: Runtime, stock_loop: bool) -> None:
    aio = runtime.aio
    loop = asyncio.SelectorEventLoop() if stock_loop else runtime.new_event_loop()
    loop.set_task_factory(aio.eager_task_factory)

    async def main() -> None:
        seen: list[Any] = []

        async def work(turns: int) -> str:
            seen.append(asyncio.current_task().get_name())  # type: ignore[union-attr]
            await spin(aio, turns)
            return "done"

        # create_task() names the task when it has it; then it has taken its first step.
        quick = aio.eager_task_factory(loop, work(0), name="quick")
        slow = aio.eager_task_factory(loop, work(2), name="slow", context=copy_context())
        assert seen == ["quick", "slow"]
        assert quick.done()
        assert not slow.done()
        assert asyncio.current_task().get_name() not in seen  # type: ignore[union-attr]
        named = asyncio.create_task(work(0), name="named")
        assert named.get_name() == "named"
        assert named.done()
        assert await quick == await slow == "done"
        assert [await coro for coro in aio.as_completed([work(1)])] == ["done"]
        done, _ = await aio.wait([asyncio.create_task(work(0)), asyncio.create_task(work(1))])
        assert len(done) == 2
        assert await aio.wait_for(work(1), 60) == "done"
        assert await aio.shield(work(0)) == "done"
        if runtime.name == "rondel" and not stock_loop:
            assert type(slow) is aio.Task

    loop.run_until_complete(main())
    loop.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_an_eager_factory_of_ones_own_tasks(runtime: Runtime) -> None:
    aio = runtime.aio

    class Mine(aio.Task):  # type: ignore[misc,name-defined]
        pass

    loop = aio.get_running_loop()
    loop.set_task_factory(aio.create_eager_task_factory(Mine))
    task = aio.create_task(give(1))
    assert type(task) is Mine
    assert await task == 1
    loop.set_task_factory(aio.create_eager_task_factory(aio.Task))
    task = aio.create_task(give(1), name="named")
    assert type(task) is aio.Task
    assert task.done()
    assert task.get_name() == "named"
    loop.set_task_factory(None)


def test_nothing_warns_here(runtime: Runtime) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runtime.run(runtime.aio.wait_for(give(1), 1))
