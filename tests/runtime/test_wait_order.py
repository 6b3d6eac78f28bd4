"""The turn of the loop in which each waiter goes on: asyncio's, hop for hop.

Each scenario is plain asyncio code that writes into a trace, beside a ticker that writes a line
each turn. Its trace on stock asyncio is what every runtime must give.
"""

import concurrent.futures
import sys
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest

from tests.support import Runtime

Trace = list[Any]
Scenario = Callable[[ModuleType, Trace], Awaitable[None]]

SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


async def ticker(aio: ModuleType, trace: Trace, turns: int = 25) -> None:
    for turn in range(turns):
        trace.append(turn)
        await aio.sleep(0)


async def worker(
    aio: ModuleType,
    trace: Trace,
    name: str,
    turns: int,
    *,
    error: type[Exception] | None = None,
    stubborn: int = 0,
) -> str:
    """Takes some turns; `stubborn`: takes as many again when it is cancelled, then gives in."""
    try:
        for _ in range(turns):
            await aio.sleep(0)
    except aio.CancelledError:
        trace.append(f"{name} cancelled")
        for _ in range(stubborn):
            await aio.sleep(0)
        trace.append(f"{name} gives in")
        raise
    trace.append(f"{name} ends")
    if error is not None:
        raise error(name)
    return name


async def told(aio: ModuleType, trace: Trace, name: str, awaitable: Any) -> None:
    """Awaits it and writes down what came out, and in which turn."""
    try:
        trace.append((name, show(await awaitable)))
    except (Exception, aio.CancelledError) as error:
        trace.append((name, type(error).__name__, str(error), type(error.__cause__).__name__))


def show(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(show(each) for each in value)
    if isinstance(value, set):
        return sorted(task.get_name() for task in value)
    return value


# -- wait ----------------------------------------------------------------------------------


@scenario
async def wait_all(aio: ModuleType, trace: Trace) -> None:
    tasks = [aio.create_task(worker(aio, trace, f"w{n}", n), name=f"w{n}") for n in (3, 0, 5)]
    await told(aio, trace, "wait", aio.wait(tasks))


@scenario
async def wait_for_what_is_done(aio: ModuleType, trace: Trace) -> None:
    task = aio.create_task(worker(aio, trace, "w", 0), name="w")
    await task
    await told(aio, trace, "wait", aio.wait([task]))


@scenario
async def wait_first_completed(aio: ModuleType, trace: Trace) -> None:
    tasks = [aio.create_task(worker(aio, trace, f"w{n}", n), name=f"w{n}") for n in (4, 2, 2, 9)]
    await told(aio, trace, "wait", aio.wait(tasks, return_when=aio.FIRST_COMPLETED))
    await told(aio, trace, "rest", aio.wait(tasks))


@scenario
async def wait_first_exception(aio: ModuleType, trace: Trace) -> None:
    tasks = [
        aio.create_task(worker(aio, trace, "good", 1), name="good"),
        aio.create_task(worker(aio, trace, "bad", 3, error=KeyError), name="bad"),
        aio.create_task(worker(aio, trace, "late", 8), name="late"),
    ]
    await told(aio, trace, "wait", aio.wait(tasks, return_when=aio.FIRST_EXCEPTION))
    await tasks[2]


@scenario
async def wait_without_time(aio: ModuleType, trace: Trace) -> None:
    tasks = [aio.create_task(worker(aio, trace, f"w{n}", n), name=f"w{n}") for n in (0, 9)]
    await told(aio, trace, "wait", aio.wait(tasks, timeout=0))
    await told(aio, trace, "again", aio.wait(tasks, timeout=-1))
    await tasks[1]


@scenario
async def two_wait_for_one(aio: ModuleType, trace: Trace) -> None:
    task = aio.create_task(worker(aio, trace, "w", 3), name="w")
    first = aio.create_task(told(aio, trace, "first", aio.wait([task])), name="first")
    second = aio.create_task(told(aio, trace, "second", aio.wait([task, first])))
    await second


@scenario
async def wait_is_cancelled_when_it_is_over(aio: ModuleType, trace: Trace) -> None:
    task = aio.create_task(worker(aio, trace, "w", 2), name="w")
    waiting = aio.create_task(told(aio, trace, "wait", aio.wait([task])))
    # In the turn in which the task's end is told to wait(), which has not gone on yet.
    task.add_done_callback(lambda _: aio.get_running_loop().call_soon(waiting.cancel))
    await aio.wait([waiting])


@scenario
async def wait_is_cancelled(aio: ModuleType, trace: Trace) -> None:
    task = aio.create_task(worker(aio, trace, "w", 7), name="w")
    waiting = aio.create_task(told(aio, trace, "wait", aio.wait([task])))
    await aio.sleep(0)
    await aio.sleep(0)
    waiting.cancel("enough")
    await waiting
    await task


# -- wait_for ------------------------------------------------------------------------------


def with_timeouts(body: Callable[[ModuleType, Trace, float | None], Awaitable[None]]) -> None:
    for timeout in (None, 100, 0, -1):

        async def run(aio: ModuleType, trace: Trace, timeout: float | None = timeout) -> None:
            await body(aio, trace, timeout)

        SCENARIOS[f"{body.__name__} timeout={timeout}"] = run


@with_timeouts
async def wait_for_a_coroutine(aio: ModuleType, trace: Trace, timeout: float | None) -> None:
    await told(aio, trace, "got", aio.wait_for(worker(aio, trace, "w", 3), timeout))


@with_timeouts
async def wait_for_nothing_much(aio: ModuleType, trace: Trace, timeout: float | None) -> None:
    await told(aio, trace, "got", aio.wait_for(worker(aio, trace, "w", 0), timeout))


@with_timeouts
async def wait_for_an_error(aio: ModuleType, trace: Trace, timeout: float | None) -> None:
    failing = worker(aio, trace, "w", 2, error=KeyError)
    await told(aio, trace, "got", aio.wait_for(failing, timeout))


@with_timeouts
async def wait_for_a_task(aio: ModuleType, trace: Trace, timeout: float | None) -> None:
    task = aio.create_task(worker(aio, trace, "w", 4, stubborn=2))
    await aio.sleep(0)
    await aio.sleep(0)
    await told(aio, trace, "got", aio.wait_for(task, timeout))
    trace.append(task.cancelled())


@with_timeouts
async def wait_for_a_done_future(aio: ModuleType, trace: Trace, timeout: float | None) -> None:
    future = aio.get_running_loop().create_future()
    future.set_result("there")
    await told(aio, trace, "got", aio.wait_for(future, timeout))


@with_timeouts
async def wait_for_a_failed_future(aio: ModuleType, trace: Trace, timeout: float | None) -> None:
    future = aio.get_running_loop().create_future()
    future.set_exception(KeyError("there"))
    await told(aio, trace, "got", aio.wait_for(future, timeout))


@with_timeouts
async def wait_for_is_cancelled(aio: ModuleType, trace: Trace, timeout: float | None) -> None:
    inner = worker(aio, trace, "w", 9, stubborn=2)
    waiting = aio.create_task(told(aio, trace, "got", aio.wait_for(inner, timeout)))
    for _ in range(3):
        await aio.sleep(0)
    trace.append(waiting.cancel("enough"))
    await waiting
    trace.append(waiting.cancelling())


@with_timeouts
async def wait_for_is_cancelled_at_the_end(
    aio: ModuleType, trace: Trace, timeout: float | None
) -> None:
    future = aio.get_running_loop().create_future()
    waiting = aio.create_task(told(aio, trace, "got", aio.wait_for(future, timeout)))
    await aio.sleep(0)
    await aio.sleep(0)
    if not future.done():
        future.set_result("there")
    trace.append(waiting.cancel())
    await waiting


@with_timeouts
async def wait_for_what_is_cancelled(aio: ModuleType, trace: Trace, timeout: float | None) -> None:
    task = aio.create_task(worker(aio, trace, "w", 9))
    aio.get_running_loop().call_soon(task.cancel, "by others")
    await told(aio, trace, "got", aio.wait_for(task, timeout))


@with_timeouts
async def wait_for_in_wait_for(aio: ModuleType, trace: Trace, timeout: float | None) -> None:
    task = aio.create_task(worker(aio, trace, "w", 3))
    await told(aio, trace, "got", aio.wait_for(aio.wait_for(task, 100), timeout))
    await aio.wait([task])


@with_timeouts
async def wait_for_a_stubborn_task(aio: ModuleType, trace: Trace, timeout: float | None) -> None:
    async def keeps_going() -> str:
        for attempt in range(6):
            try:
                await aio.sleep(0)
            except aio.CancelledError:
                trace.append(f"ignored in {attempt}")
        return "done all the same"

    task = aio.create_task(keeps_going())
    await aio.sleep(0)
    await told(aio, trace, "got", aio.wait_for(task, timeout))


@scenario
async def wait_for_is_cancelled_while_it_cancels(aio: ModuleType, trace: Trace) -> None:
    task = aio.create_task(worker(aio, trace, "w", 9, stubborn=5))
    await aio.sleep(0)
    waiting = aio.create_task(told(aio, trace, "got", aio.wait_for(task, 0)))
    for _ in range(3):
        await aio.sleep(0)
    waiting.cancel()
    await waiting
    await aio.wait([task])


@scenario
async def wait_for_runs_out_of_time(aio: ModuleType, trace: Trace) -> None:
    async def inner() -> None:
        try:
            await aio.sleep(60)
        except aio.CancelledError:
            trace.append("cancelled")
            # The turns from here on are counted, the time before is not.
            ticking.append(aio.create_task(ticker(aio, trace, 10)))
            await aio.sleep(0)
            raise

    ticking: list[Any] = []
    await told(aio, trace, "got", aio.wait_for(inner(), 0.001))
    await ticking[0]


# -- as_completed --------------------------------------------------------------------------


@scenario
async def as_they_complete(aio: ModuleType, trace: Trace) -> None:
    tasks = [aio.create_task(worker(aio, trace, f"w{n}", n)) for n in (5, 0, 2, 8)]
    for coro in aio.as_completed(tasks):
        await told(aio, trace, "got", coro)


@scenario
async def as_completed_without_time(aio: ModuleType, trace: Trace) -> None:
    tasks = [aio.create_task(worker(aio, trace, f"w{n}", n)) for n in (0, 7)]
    for coro in aio.as_completed(tasks, timeout=0):
        await told(aio, trace, "got", coro)
    await tasks[1]


@scenario
async def as_completed_by_several(aio: ModuleType, trace: Trace) -> None:
    tasks = [aio.create_task(worker(aio, trace, f"w{n}", n)) for n in (3, 4, 6)]
    takers = [
        aio.create_task(told(aio, trace, f"taker {number}", coro))
        for number, coro in enumerate(aio.as_completed(tasks))
    ]
    await aio.sleep(0)
    await aio.sleep(0)
    takers[0].cancel()
    await aio.wait(takers)


@scenario
async def a_taker_is_cancelled_after_it_was_woken(aio: ModuleType, trace: Trace) -> None:
    loop = aio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    coros = list(aio.as_completed([first, second]))
    takers = [
        aio.create_task(told(aio, trace, f"taker {number}", coro))
        for number, coro in enumerate(coros)
    ]
    await aio.sleep(0)
    await aio.sleep(0)
    first.set_result("one")
    # After the future's done callback has woken the first taker, before that takes its step.
    loop.call_soon(lambda: loop.call_soon(trace.append, "later"))
    loop.call_soon(takers[0].cancel)
    await aio.wait([takers[1]])
    second.set_result("two")
    await aio.wait(takers)


@scenario
async def a_quick_taker_gets_what_another_was_woken_for(aio: ModuleType, trace: Trace) -> None:
    loop = aio.get_running_loop()
    futures = [loop.create_future() for _ in range(2)]
    coros = list(aio.as_completed(futures))
    slow = aio.create_task(told(aio, trace, "slow", coros[0]))
    await aio.sleep(0)
    quick = told(aio, trace, "quick", coros[1])
    futures[0].set_result("one")
    loop.call_soon(lambda: trace.append("quick starts") or drive(quick))
    await aio.sleep(0)
    await aio.sleep(0)
    futures[1].set_result("two")
    await slow


def drive(coro: Any) -> None:
    with pytest.raises(StopIteration):
        coro.send(None)


# -- shield --------------------------------------------------------------------------------


@scenario
async def shield_passes_on(aio: ModuleType, trace: Trace) -> None:
    await told(aio, trace, "value", aio.shield(worker(aio, trace, "w", 2)))
    await told(aio, trace, "error", aio.shield(worker(aio, trace, "w", 1, error=KeyError)))


@scenario
async def shield_is_cancelled(aio: ModuleType, trace: Trace) -> None:
    task = aio.create_task(worker(aio, trace, "w", 6))
    outer = aio.shield(task)
    waiting = aio.create_task(told(aio, trace, "outer", outer))
    await aio.sleep(0)
    await aio.sleep(0)
    waiting.cancel("enough")
    await waiting
    await told(aio, trace, "inner", task)


@scenario
async def what_is_shielded_is_cancelled(aio: ModuleType, trace: Trace) -> None:
    task = aio.create_task(worker(aio, trace, "w", 6))
    waiting = aio.create_task(told(aio, trace, "outer", aio.shield(task)))
    await aio.sleep(0)
    await aio.sleep(0)
    task.cancel("by others")
    await waiting


@scenario
async def shield_in_wait_for(aio: ModuleType, trace: Trace) -> None:
    task = aio.create_task(worker(aio, trace, "w", 6))
    await aio.sleep(0)
    await told(aio, trace, "got", aio.wait_for(aio.shield(task), 0))
    await told(aio, trace, "inner", task)


# -- threads -------------------------------------------------------------------------------


@scenario
async def a_done_thread_future(aio: ModuleType, trace: Trace) -> None:
    thread: concurrent.futures.Future[str] = concurrent.futures.Future()
    thread.set_result("there")
    await told(aio, trace, "got", aio.wrap_future(thread))


@scenario
async def a_thread_future_that_is_cancelled(aio: ModuleType, trace: Trace) -> None:
    for cancel_inner in (True, False):
        thread: concurrent.futures.Future[str] = concurrent.futures.Future()
        future = aio.wrap_future(thread)
        waiting = aio.create_task(told(aio, trace, "got", future))
        await aio.sleep(0)
        thread.cancel() if cancel_inner else future.cancel()
        await waiting
        trace.append((thread.cancelled(), future.cancelled()))


@scenario
async def a_coroutine_submitted_from_the_loop(aio: ModuleType, trace: Trace) -> None:
    loop = aio.get_running_loop()
    thread = aio.run_coroutine_threadsafe(worker(aio, trace, "w", 2), loop)
    thread.add_done_callback(lambda _: trace.append("thread future done"))
    await told(aio, trace, "got", aio.wrap_future(thread))


# -- the tests -----------------------------------------------------------------------------


def traced(runtime: Runtime, run: Scenario) -> Trace:
    trace: Trace = []

    async def main() -> None:
        ticking = runtime.aio.create_task(ticker(runtime.aio, trace))
        await run(runtime.aio, trace)
        trace.append("over")
        await ticking

    runtime.run(main())
    return trace


def traced_untimed(runtime: Runtime, run: Scenario) -> Trace:
    trace: Trace = []

    async def main() -> None:
        await run(runtime.aio, trace)

    runtime.run(main())
    return trace


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_goes_on_in_asyncios_turn(runtime: Runtime, name: str) -> None:
    if runtime.name == "asyncio":
        pytest.skip("the oracle")
    oracle = Runtime("asyncio")
    untimed = name == "wait_for_runs_out_of_time"
    run = traced_untimed if untimed else traced
    expected = run(oracle, SCENARIOS[name])
    oracle.finish()
    assert run(runtime, SCENARIOS[name]) == expected


@pytest.mark.skipif(sys.version_info < (3, 13), reason="an async iterator since Python 3.13")
def test_async_iteration_goes_on_in_asyncios_turn(runtime: Runtime) -> None:
    async def iterate(aio: ModuleType, trace: Trace) -> None:
        tasks = [
            aio.create_task(worker(aio, trace, f"w{n}", n), name=f"w{n}") for n in (5, 0, 2, 30)
        ]
        try:
            async for task in aio.as_completed(tasks, timeout=0.2):
                trace.append(task.get_name())
        except TimeoutError:
            trace.append("timeout")

    oracle = Runtime("asyncio")
    expected = traced(oracle, iterate)
    oracle.finish()
    assert traced(runtime, iterate) == expected
