"""Futures of threads beside futures of the loop: wrap_future and run_coroutine_threadsafe.

Also what to_thread refuses, and what happens when the loop or the thread's future is gone first.
"""

import asyncio
import concurrent.futures
import gc
import threading
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.support import PATIENCE, Runtime, spin


async def give(value: Any) -> Any:
    return value


async def boom(error: BaseException) -> None:
    raise error


def in_thread(work: Callable[[], object]) -> None:
    """Run it in a thread of its own, to its end."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


# -- wrap_future ---------------------------------------------------------------------------


async def test_a_wrapped_future_takes_over_every_outcome(aio: ModuleType) -> None:
    error = KeyError("there")
    for outcome in ("value", error):
        thread: concurrent.futures.Future[Any] = concurrent.futures.Future()
        wrapped = aio.wrap_future(thread, loop=aio.get_running_loop())
        assert wrapped.get_loop() is aio.get_running_loop()
        if isinstance(outcome, str):
            in_thread(lambda thread=thread: thread.set_result("value"))
            assert not wrapped.done()
            assert await wrapped == "value"
        else:
            in_thread(lambda thread=thread: thread.set_exception(error))
            with pytest.raises(KeyError) as caught:
                await wrapped
            assert caught.value is error


async def test_a_wrapped_future_has_asyncios_exceptions(aio: ModuleType) -> None:
    thread: concurrent.futures.Future[Any] = concurrent.futures.Future()
    wrapped = aio.wrap_future(thread)
    thread.set_exception(concurrent.futures.InvalidStateError("theirs"))
    with pytest.raises(aio.InvalidStateError, match="theirs"):
        await wrapped


async def test_cancels_go_both_ways(aio: ModuleType) -> None:
    thread: concurrent.futures.Future[Any] = concurrent.futures.Future()
    wrapped = aio.wrap_future(thread)
    in_thread(thread.cancel)
    with pytest.raises(aio.CancelledError):
        await wrapped
    thread = concurrent.futures.Future()
    wrapped = aio.wrap_future(thread)
    wrapped.cancel()
    assert not thread.cancelled()
    await spin(aio, 2)
    assert thread.cancelled()


async def test_a_result_that_comes_too_late_is_dropped(runtime: Runtime) -> None:
    thread: concurrent.futures.Future[Any] = concurrent.futures.Future()
    thread.set_running_or_notify_cancel()
    wrapped = runtime.aio.wrap_future(thread)
    wrapped.cancel()
    thread.set_result("late")
    await spin(runtime.aio)
    assert wrapped.cancelled()
    assert runtime.take_errors() == []


async def test_a_wrapped_future_that_somebody_has_set(runtime: Runtime) -> None:
    thread: concurrent.futures.Future[Any] = concurrent.futures.Future()
    wrapped = runtime.aio.wrap_future(thread)
    wrapped.set_result("by hand")
    thread.set_result("theirs")
    await spin(runtime.aio)
    assert wrapped.result() == "by hand"
    (error,) = runtime.take_errors()
    assert isinstance(error["exception"], AssertionError)


async def test_wrap_future_refuses_what_is_none(aio: ModuleType) -> None:
    for bad in (5, None, object()):
        with pytest.raises(AssertionError, match="is expected"):
            aio.wrap_future(bad)
    with pytest.raises(TypeError):
        aio.wrap_future()
    own = aio.get_running_loop().create_future()
    stock: asyncio.Future[Any] = asyncio.Future()
    task = aio.create_task(give(1))
    for future in (own, stock, task):
        assert aio.wrap_future(future) is future
    await task


def test_a_closed_loop_hears_nothing(runtime: Runtime) -> None:
    loop = runtime.new_event_loop()
    thread: concurrent.futures.Future[Any] = concurrent.futures.Future()
    wrapped = runtime.aio.wrap_future(thread, loop=loop)
    loop.close()
    in_thread(lambda: thread.set_result("late"))
    assert not wrapped.done()


async def test_what_is_chained_is_let_go(aio: ModuleType) -> None:
    class Result:
        pass

    thread: concurrent.futures.Future[Any] = concurrent.futures.Future()
    result = Result()
    ref = weakref.ref(result)
    thread.set_result(result)
    wrapped = aio.wrap_future(thread)
    assert await wrapped is result
    del thread, wrapped, result
    await spin(aio)  # the callback that woke this task holds its future for the turn
    gc.collect()
    assert ref() is None


# -- run_coroutine_threadsafe -----------------------------------------------------------------


async def submitted(aio: ModuleType, coro: Any) -> Any:
    """What a thread gets that submits the coroutine and waits for its end."""
    loop = aio.get_running_loop()

    def work() -> Any:
        return aio.run_coroutine_threadsafe(coro, loop).result(PATIENCE)

    return await loop.run_in_executor(None, work)


async def test_a_thread_gets_value_or_exception(aio: ModuleType) -> None:
    assert await submitted(aio, give("value")) == "value"
    with pytest.raises(KeyError, match="there"):
        await submitted(aio, boom(KeyError("there")))
    assert await submitted(aio, aio.sleep(0, "slept")) == "slept"
    assert await submitted(aio, aio.wait_for(give("in time"), PATIENCE)) == "in time"


async def test_a_cancelled_task_cancels_the_threads_future(aio: ModuleType) -> None:
    async def cancel_me() -> None:
        aio.current_task().cancel()
        await aio.sleep(0)

    loop = aio.get_running_loop()

    def work() -> None:
        with pytest.raises(concurrent.futures.CancelledError):
            aio.run_coroutine_threadsafe(cancel_me(), loop).result(PATIENCE)

    await loop.run_in_executor(None, work)


async def test_a_threads_future_cancelled_before_the_loop_sees_it(aio: ModuleType) -> None:
    coro = aio.sleep(60)
    loop = aio.get_running_loop()
    future = aio.run_coroutine_threadsafe(coro, loop)
    future.cancel()
    await spin(aio)
    assert len(aio.all_tasks()) == 1


async def test_a_factory_that_fails_tells_the_thread_and_the_loop(runtime: Runtime) -> None:
    aio = runtime.aio
    loop = aio.get_running_loop()

    def factory(loop: Any, coro: Any, **options: Any) -> Any:
        coro.close()
        raise RuntimeError("no tasks today")

    loop.set_task_factory(factory)
    future = aio.run_coroutine_threadsafe(give(1), loop)
    await spin(aio)
    loop.set_task_factory(None)
    with pytest.raises(RuntimeError, match="no tasks today"):
        future.result(0)
    (error,) = runtime.take_errors()
    assert str(error["exception"]) == "no tasks today"


async def test_a_factory_of_stock_tasks(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))
    assert await submitted(aio, give("stock")) == "stock"
    assert [await coro for coro in aio.as_completed([give("stock")])] == ["stock"]
    assert await aio.shield(give("stock")) == "stock"
    assert await aio.wait_for(give("stock"), 60) == "stock"
    with pytest.raises(TimeoutError):
        await aio.wait_for(aio.sleep(60), 0.001)
    loop.set_task_factory(None)


async def test_run_coroutine_threadsafe_refuses_what_is_no_coroutine(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    for bad in (5, None, loop.create_future(), give):
        with pytest.raises(TypeError, match="coroutine object is required"):
            aio.run_coroutine_threadsafe(bad, loop)
    coro = give(1)
    for arguments in ((), (coro,), (coro, loop, 1)):
        with pytest.raises(TypeError):
            aio.run_coroutine_threadsafe(*arguments)
    future = aio.run_coroutine_threadsafe(loop=loop, coro=coro)
    assert await aio.wrap_future(future) == 1


def test_submitting_to_a_closed_loop(runtime: Runtime) -> None:
    loop = runtime.new_event_loop()
    loop.close()
    coro = give(1)
    with pytest.raises(RuntimeError, match="closed"):
        runtime.aio.run_coroutine_threadsafe(coro, loop)
    coro.close()


def test_what_ends_the_loop_ends_it(runtime: Runtime) -> None:
    loop = runtime.new_event_loop()
    future = runtime.aio.run_coroutine_threadsafe(boom(SystemExit(3)), loop)
    with pytest.raises(SystemExit):
        loop.run_forever()
    # The task has its outcome; the next run tells the thread.
    loop.call_soon(lambda: loop.call_soon(loop.stop))
    loop.run_forever()
    assert isinstance(future.exception(0), SystemExit)


# -- to_thread -------------------------------------------------------------------------------


async def test_to_thread_starts_when_it_is_awaited(aio: ModuleType) -> None:
    ran: list[int] = []
    coro = aio.to_thread(ran.append, 1)
    await aio.sleep(0.002)
    assert ran == []
    await coro
    assert ran == [1]


async def test_to_thread_passes_any_keyword(aio: ModuleType) -> None:
    def work(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    assert await aio.to_thread(work, 1, func=2, loop=3) == ((1,), {"func": 2, "loop": 3})
    with pytest.raises(TypeError):
        aio.to_thread()
    with pytest.raises(TypeError):
        aio.to_thread(func=work)


async def test_to_thread_is_cancelled_without_its_thread(aio: ModuleType) -> None:
    began, gate, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        gate.wait(PATIENCE)
        done.set()

    task = aio.create_task(aio.to_thread(work))
    await aio.to_thread(began.wait, PATIENCE)
    task.cancel()
    with pytest.raises(aio.CancelledError):
        await task
    gate.set()
    assert await aio.to_thread(done.wait, PATIENCE)
