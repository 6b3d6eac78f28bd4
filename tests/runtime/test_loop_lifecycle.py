"""Running, stopping and closing a loop, and misusing one."""

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest

from tests.support import RUNTIMES, Runtime, open_descriptors, python

Loop = asyncio.AbstractEventLoop


def test_run_until_complete_returns_the_result(runtime: Runtime, loop: Loop) -> None:
    async def main() -> str:
        await runtime.aio.sleep(0)
        return "done"

    assert loop.run_until_complete(main()) == "done"


def test_run_until_complete_raises_the_exception(loop: Loop) -> None:
    async def main() -> None:
        raise KeyError("key")

    with pytest.raises(KeyError, match="key"):
        loop.run_until_complete(main())


def test_run_until_complete_takes_a_future(loop: Loop) -> None:
    future = loop.create_future()
    loop.call_soon(future.set_result, 3)
    assert loop.run_until_complete(future) == 3
    assert loop.run_until_complete(future) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_keyboard_interrupt_and_system_exit_leave_the_loop(
    runtime: Runtime, loop: Loop, error: type[BaseException]
) -> None:
    async def main() -> None:
        raise error

    with pytest.raises(error):
        loop.run_until_complete(main())
    assert not loop.is_running()
    with pytest.raises(error):  # from a plain callback, too
        loop.call_soon(raiser, error())
        loop.run_forever()
    assert not loop.is_running()
    assert runtime.take_errors() == []


def raiser(error: BaseException) -> None:
    raise error


def test_stopping_before_the_future_is_done_is_an_error(loop: Loop) -> None:
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
        loop.run_until_complete(future)


def test_run_until_complete_leaves_no_callback_on_the_future(loop: Loop) -> None:
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError):
        loop.run_until_complete(future)
    future.set_result(None)
    ran: list[str] = []
    loop.call_later(0.001, ran.append, "still running")
    loop.call_later(0.002, loop.stop)
    loop.run_forever()  # a forgotten callback would have stopped it at once
    assert ran == ["still running"]


def test_stop_before_running_stops_after_one_turn(loop: Loop) -> None:
    seen: list[str] = []
    loop.stop()
    loop.call_soon(seen.append, "one turn")
    loop.run_forever()
    assert seen == ["one turn"]


def test_a_loop_runs_again_after_stop(loop: Loop) -> None:
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()


def test_is_running_tells_the_truth(loop: Loop) -> None:
    seen: list[bool] = []
    loop.call_soon(lambda: seen.append(loop.is_running()))
    loop.call_soon(loop.stop)
    assert not loop.is_running()
    loop.run_forever()
    assert seen == [True]
    assert not loop.is_running()


# One call a test: CPython 3.13.0's loop forgets that it runs once it has refused.
async def test_a_running_loop_cannot_be_run_again(aio: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="already running"):
        aio.get_running_loop().run_forever()


async def test_a_running_loop_cannot_run_until_complete(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    future = loop.create_future()
    with pytest.raises(RuntimeError, match="already running"):
        loop.run_until_complete(future)


async def test_another_loop_cannot_run_while_one_runs(runtime: Runtime) -> None:
    other = runtime.new_event_loop()
    with pytest.raises(RuntimeError, match="another loop is running"):
        other.run_forever()
    other.close()


async def test_a_running_loop_cannot_be_closed(aio: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="running"):
        aio.get_running_loop().close()


def test_closing_is_final_and_may_be_repeated(runtime: Runtime) -> None:
    loop = runtime.new_event_loop()
    assert not loop.is_closed()
    loop.close()
    assert loop.is_closed()
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_forever()


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_a_closed_loop_refuses_callbacks(runtime: Runtime, method: str) -> None:
    loop = runtime.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        getattr(loop, method)(print)


def test_a_closed_loop_refuses_tasks_and_executors(runtime: Runtime) -> None:
    async def never() -> None: ...

    loop = runtime.new_event_loop()
    loop.close()
    coro = never()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.create_task(coro)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_until_complete(coro)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_in_executor(None, print)
    coro.close()


def test_what_was_scheduled_is_dropped_by_close(runtime: Runtime) -> None:
    class Thing:
        def __call__(self) -> None:
            raise AssertionError("ran on a closed loop")

    thing = Thing()
    gone = weakref.ref(thing)
    loop = runtime.new_event_loop()
    loop.call_soon(thing)
    loop.call_later(60, thing)
    loop.close()
    del thing
    gc.collect()
    assert gone() is None  # though the runtime still holds the loop


def test_close_closes_every_descriptor_though_the_loop_is_still_held(runtime: Runtime) -> None:
    before = open_descriptors()
    loop = runtime.new_event_loop()
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    assert open_descriptors() > before
    loop.close()
    assert open_descriptors() == before


def test_a_loop_is_freed_with_its_cycles(runtime: Runtime) -> None:
    loop = runtime.new_event_loop()
    gone = weakref.ref(loop)
    loop.call_soon(loop.stop)
    loop.call_later(60, loop.stop)
    loop.run_forever()
    loop.close()
    runtime.finish()
    del loop
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_unclosed_loop_warns_when_it_is_freed(name: str) -> None:
    module = "asyncio" if name == "asyncio" else "rondel"
    ended = python(f"import {module} as aio; loop = aio.new_event_loop(); del loop")
    assert "ResourceWarning: unclosed event loop <" in ended.stderr
    assert ended.returncode == 0


@pytest.mark.no_debug_mode
def test_the_repr_tells_the_state(loop: Loop) -> None:
    assert "running=False" in repr(loop)
    assert "closed=False" in repr(loop)
    assert "debug=False" in repr(loop)
    loop.close()
    assert "closed=True" in repr(loop)


def test_a_loop_may_run_in_any_thread(runtime: Runtime) -> None:
    seen: list[Any] = []

    async def main() -> None:
        await runtime.aio.sleep(0.001)
        seen.append(threading.current_thread())

    thread = threading.Thread(target=lambda: runtime.run(main()))
    thread.start()
    thread.join()
    assert seen == [thread]


def test_two_loops_run_in_two_threads_at_once(runtime: Runtime) -> None:
    met = threading.Barrier(2, timeout=10)

    async def main() -> None:
        loop = runtime.aio.get_running_loop()
        await loop.run_in_executor(None, met.wait)

    threads = [threading.Thread(target=lambda: runtime.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not met.broken


async def test_a_stopped_async_generator_is_closed_by_shutdown_asyncgens(
    aio: ModuleType,
) -> None:
    closed: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await aio.sleep(0)
            closed.append("closed")

    generator = numbers()
    assert await generator.__anext__() == 1
    await aio.get_running_loop().shutdown_asyncgens()
    assert closed == ["closed"]


async def test_a_dropped_async_generator_is_closed_by_the_loop(aio: ModuleType) -> None:
    closed = aio.get_running_loop().create_future()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await aio.sleep(0)
            closed.set_result(None)

    async for _ in numbers():
        break
    gc.collect()
    await aio.wait_for(closed, 5)


def test_an_error_in_an_async_generators_close_is_reported(runtime: Runtime) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise ZeroDivisionError

    async def main() -> None:
        generator = numbers()
        await generator.__anext__()
        await runtime.aio.get_running_loop().shutdown_asyncgens()

    runtime.run(main())
    (context,) = runtime.take_errors()
    assert isinstance(context["exception"], ZeroDivisionError)
    assert "closing of asynchronous generator" in context["message"]


def test_iterating_a_new_async_generator_after_shutdown_warns(runtime: Runtime) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        await runtime.aio.get_running_loop().shutdown_asyncgens()
        with pytest.warns(ResourceWarning, match="was scheduled after"):
            async for _ in numbers():
                pass

    runtime.run(main())
