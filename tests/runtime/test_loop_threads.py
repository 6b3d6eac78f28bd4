"""call_soon_threadsafe, executors, to_thread and run_coroutine_threadsafe."""

import asyncio
import concurrent.futures
import contextvars
import gc
import threading
import time
from types import ModuleType
from typing import Any

import pytest

from tests.support import PATIENCE, Runtime, python

Loop = asyncio.AbstractEventLoop
var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


def test_a_thread_wakes_a_sleeping_loop(loop: Loop) -> None:
    started = threading.Event()

    def wake() -> None:
        started.wait(PATIENCE)
        time.sleep(0.05)  # let the loop go to sleep; woken or not is what is tested
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=wake)
    thread.start()
    loop.call_soon(started.set)
    begin = time.monotonic()
    guard = loop.call_later(PATIENCE, loop.stop)
    loop.run_forever()
    guard.cancel()
    thread.join()
    assert time.monotonic() - begin < PATIENCE / 2


def test_calls_of_one_thread_keep_their_order_and_none_is_lost(loop: Loop) -> None:
    each = 2000
    seen: list[tuple[int, int]] = []

    def post(thread: int) -> None:
        for number in range(each):
            loop.call_soon_threadsafe(seen.append, (thread, number))

    threads = [threading.Thread(target=post, args=(number,)) for number in range(4)]

    def finish() -> None:
        for thread in threads:
            thread.join()
        loop.call_soon_threadsafe(loop.stop)

    joiner = threading.Thread(target=finish)
    for thread in [*threads, joiner]:
        thread.start()
    loop.run_forever()
    joiner.join()
    assert len(seen) == 4 * each
    for number in range(4):
        assert [item for thread, item in seen if thread == number] == list(range(each))


async def test_call_soon_threadsafe_on_the_loops_thread_runs_next_turn(aio: ModuleType) -> None:
    seen: list[str] = []
    aio.get_running_loop().call_soon_threadsafe(seen.append, "ran")
    assert seen == []
    await aio.sleep(0)
    await aio.sleep(0)
    assert seen == ["ran"]


def test_a_call_from_a_thread_can_be_cancelled(loop: Loop) -> None:
    seen: list[str] = []

    def post() -> None:
        loop.call_soon_threadsafe(seen.append, "never").cancel()
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=post)
    thread.start()
    thread.join()
    loop.run_forever()
    assert seen == []


async def test_run_in_executor_runs_in_another_thread_and_returns(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
    assert name != threading.current_thread().name
    assert await loop.run_in_executor(None, divmod, 7, 2) == (3, 1)


async def test_run_in_executor_raises_what_the_function_raises(aio: ModuleType) -> None:
    with pytest.raises(ZeroDivisionError):
        await aio.get_running_loop().run_in_executor(None, divmod, 1, 0)


async def test_run_in_executor_uses_the_executor_it_is_given(aio: ModuleType) -> None:
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="given") as pool:
        name = await aio.get_running_loop().run_in_executor(
            pool, lambda: threading.current_thread().name
        )
    assert name.startswith("given")


async def test_the_default_executor_can_be_set(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1, "chosen"))
    name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
    assert name.startswith("chosen")
    with pytest.raises(TypeError):
        loop.set_default_executor(object())


async def test_shutdown_default_executor_waits_and_then_refuses(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    done: list[str] = []

    def work() -> None:
        time.sleep(0.02)
        done.append("done")

    future = loop.run_in_executor(None, work)
    await loop.shutdown_default_executor()
    assert done == ["done"]
    await future
    with pytest.raises(RuntimeError, match="shutdown"):
        loop.run_in_executor(None, print)


async def test_shutdown_without_an_executor_is_fine(aio: ModuleType) -> None:
    await aio.get_running_loop().shutdown_default_executor()
    await aio.get_running_loop().shutdown_default_executor()


async def test_the_loop_runs_while_an_executor_blocks(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    gate = threading.Event()
    blocked = loop.run_in_executor(None, gate.wait, PATIENCE)
    await aio.sleep(0.001)
    assert not blocked.done()
    gate.set()
    assert await blocked is True


async def test_cancelling_the_future_does_not_stop_the_thread(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    started, gate, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        gate.wait(PATIENCE)
        done.set()

    future = loop.run_in_executor(None, work)
    await loop.run_in_executor(None, started.wait, PATIENCE)
    future.cancel()
    with pytest.raises(aio.CancelledError):
        await future
    assert not done.is_set()
    gate.set()
    await loop.run_in_executor(None, done.wait, PATIENCE)
    assert done.is_set()


async def test_to_thread_carries_arguments_and_context(aio: ModuleType) -> None:
    var.set("carried")
    assert await aio.to_thread(lambda *args, **kw: (var.get(), args, kw), 1, two=2) == (
        "carried",
        (1,),
        {"two": 2},
    )


async def test_to_thread_does_not_leak_the_threads_context_back(aio: ModuleType) -> None:
    await aio.to_thread(var.set, "in the thread")
    assert var.get() == "unset"


async def test_to_thread_raises_base_exceptions_of_the_function(aio: ModuleType) -> None:
    class Special(BaseException):
        pass

    def work() -> None:
        raise Special

    with pytest.raises(Special):
        await aio.to_thread(work)


async def test_many_thread_calls_at_once_all_return(aio: ModuleType) -> None:
    results = await aio.gather(*(aio.to_thread(pow, number, 2) for number in range(200)))
    assert results == [number**2 for number in range(200)]


async def test_run_coroutine_threadsafe_returns_to_the_calling_thread(aio: ModuleType) -> None:
    loop = aio.get_running_loop()

    async def add(left: int, right: int) -> int:
        await aio.sleep(0)
        return left + right

    def call() -> Any:
        return aio.run_coroutine_threadsafe(add(2, 3), loop).result(PATIENCE)

    assert await loop.run_in_executor(None, call) == 5


async def test_run_coroutine_threadsafe_carries_the_exception(aio: ModuleType) -> None:
    loop = aio.get_running_loop()

    async def broken() -> None:
        raise KeyError("there")

    future = aio.run_coroutine_threadsafe(broken(), loop)
    with pytest.raises(KeyError):
        await loop.run_in_executor(None, future.result, PATIENCE)


async def test_cancelling_from_the_thread_cancels_the_task(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    started, cancelled = threading.Event(), loop.create_future()

    async def wait() -> None:
        started.set()
        try:
            await aio.sleep(PATIENCE)
        except aio.CancelledError:
            cancelled.set_result(None)
            raise

    future = aio.run_coroutine_threadsafe(wait(), loop)
    await loop.run_in_executor(None, started.wait, PATIENCE)
    future.cancel()
    await aio.wait_for(cancelled, PATIENCE)


async def test_wrap_future_follows_a_concurrent_future(aio: ModuleType) -> None:
    source: concurrent.futures.Future[int] = concurrent.futures.Future()
    wrapped = aio.wrap_future(source)
    assert aio.isfuture(wrapped)
    threading.Timer(0.005, source.set_result, (7,)).start()
    assert await wrapped == 7
    assert aio.wrap_future(wrapped) is wrapped


@pytest.mark.parametrize("turn", range(5))
def test_posting_to_a_loop_that_closes_never_crashes(runtime: Runtime, turn: int) -> None:
    # A thread that keeps posting sees RuntimeError once the loop is closed, nothing worse.
    loop = runtime.new_event_loop()
    errors: list[BaseException] = []
    posted = threading.Event()

    def post() -> None:
        try:
            while True:
                loop.call_soon_threadsafe(int)
                posted.set()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=post)
    thread.start()
    posted.wait(PATIENCE)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    thread.join(PATIENCE)
    assert [type(error) for error in errors] == [RuntimeError]


def test_a_flood_from_many_threads_arrives_whole_and_in_order(loop: Loop) -> None:
    threads, each = 8, 2_000
    seen: list[list[int]] = [[] for _ in range(threads)]

    def arrive(thread: int, number: int) -> None:
        seen[thread].append(number)
        if all(len(numbers) == each for numbers in seen):
            loop.stop()

    def send(thread: int) -> None:
        for number in range(each):
            loop.call_soon_threadsafe(arrive, thread, number)

    senders = [threading.Thread(target=send, args=(thread,)) for thread in range(threads)]
    for sender in senders:
        sender.start()
    loop.run_forever()
    for sender in senders:
        sender.join(PATIENCE)
    assert seen == [list(range(each))] * threads


def test_a_call_of_a_signals_handler_is_never_slept_over(runtime: Runtime) -> None:
    # asyncio sleeps over one that comes right before its sleep, if no handler of the loop is set.
    if runtime.name != "rondel":
        pytest.skip("the program names its runtime itself")
    # Each comes at another moment of the loop's turn; one that is lost is waited for without end.
    ended = python(
        """
import signal, rondel
loop = rondel.new_event_loop()
rounds = 300

def heard():
    global rounds
    rounds -= 1
    if rounds:
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + rounds % 50 * 1e-6)
    else:
        loop.stop()

signal.signal(signal.SIGALRM, lambda *_: loop.call_soon_threadsafe(heard))
loop.call_soon(heard)
loop.run_forever()
loop.close()
print("all heard")
"""
    )
    assert ended.stdout == "all heard\n", ended.stderr


async def test_call_soon_threadsafe_may_be_called_while_it_is_called(aio: ModuleType) -> None:
    # By a finaliser that runs within it.
    loop = aio.get_running_loop()
    ran: list[str] = []

    class Thing:
        def __del__(self) -> None:
            loop.call_soon_threadsafe(ran.append, "inner")

    def send() -> None:
        for _ in range(100):
            thing: Any = Thing()
            thing.itself = thing
            del thing
            loop.call_soon_threadsafe(ran.append, "outer")
        gc.collect()

    await aio.to_thread(send)
    await aio.sleep(0)
    gc.collect()
    await aio.sleep(0)
    assert (ran.count("outer"), ran.count("inner")) == (100, 100)
