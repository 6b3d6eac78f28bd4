"""sleep, gather and shield."""

import inspect
import sys
import time
import warnings
from types import ModuleType
from typing import Any

import pytest

from tests.support import Runtime, elapsed_at_least, spin


async def give(aio: ModuleType, value: Any, turns: int = 0) -> Any:
    await spin(aio, turns)
    return value


async def fail(aio: ModuleType, error: BaseException, turns: int = 0) -> None:
    await spin(aio, turns)
    raise error


# -- sleep ---------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0, 0.0, 0.001, -1])
async def test_sleep_gives_its_result(aio: ModuleType, delay: float) -> None:
    assert await aio.sleep(delay, "result") == "result"
    assert await aio.sleep(delay, result="result") == "result"
    assert await aio.sleep(delay) is None


async def test_sleep_sleeps(aio: ModuleType) -> None:
    with elapsed_at_least(0.05):
        await aio.sleep(0.05)


async def test_sleep_zero_lets_everything_that_is_ready_run_first(aio: ModuleType) -> None:
    seen: list[int] = []
    for number in range(3):
        aio.get_running_loop().call_soon(seen.append, number)
    await aio.sleep(0)
    assert seen == [0, 1, 2]


async def test_sleepers_wake_in_the_order_of_their_delays(aio: ModuleType) -> None:
    seen: list[int] = []
    clock = aio.get_running_loop().time
    # On a busy machine one can begin later than the next would end.
    start = clock() + 0.1

    async def nap(step: int) -> None:
        await aio.sleep(start + step / 500 - clock())
        seen.append(step)

    await aio.gather(*(nap(step) for step in (3, 1, 4, 2)))
    assert seen == [1, 2, 3, 4]


async def test_a_cancelled_sleep_leaves_no_timer(aio: ModuleType) -> None:
    task = aio.create_task(aio.sleep(3600))
    await aio.sleep(0)
    task.cancel()
    with pytest.raises(aio.CancelledError):
        await task


@pytest.mark.parametrize("delay", ["1", None, [1]])
async def test_sleep_needs_a_number(aio: ModuleType, delay: Any) -> None:
    with pytest.raises(TypeError):
        await aio.sleep(delay)


async def test_sleep_is_a_coroutine_and_does_nothing_until_awaited(aio: ModuleType) -> None:
    coro = aio.sleep(3600)
    assert aio.iscoroutine(coro)
    assert inspect.iscoroutinefunction(aio.sleep)
    coro.close()
    task = aio.create_task(aio.sleep(0, "as a task"))
    assert await task == "as a task"


async def test_a_sleep_that_is_never_awaited_warns(aio: ModuleType) -> None:
    with pytest.warns(RuntimeWarning, match="was never awaited"):
        aio.sleep(0)


async def test_one_sleep_cannot_be_awaited_twice(aio: ModuleType) -> None:
    coro = aio.sleep(0)
    await coro
    with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
        await coro


async def test_sleep_of_nan_is_refused_from_3_13_on(aio: ModuleType) -> None:
    if sys.version_info < (3, 13):
        pytest.skip("earlier versions take it for a time")
    with pytest.raises(ValueError, match="NaN"):
        await aio.sleep(float("nan"))


# -- gather --------------------------------------------------------------------------------


async def test_gather_gives_results_in_the_order_given(aio: ModuleType) -> None:
    assert await aio.gather(give(aio, "a", 3), give(aio, "b"), give(aio, "c", 1)) == ["a", "b", "c"]


async def test_gather_runs_concurrently(aio: ModuleType) -> None:
    begin = time.monotonic()
    await aio.gather(*(aio.sleep(0.05) for _ in range(20)))
    assert time.monotonic() - begin < 0.5


async def test_gather_of_nothing_gives_an_empty_list(aio: ModuleType) -> None:
    future = aio.gather()
    assert aio.isfuture(future)
    assert await future == []


async def test_gather_raises_the_first_error_and_lets_the_others_run(aio: ModuleType) -> None:
    late = aio.create_task(give(aio, "late", 5))
    with pytest.raises(KeyError, match="first"):
        await aio.gather(late, fail(aio, KeyError("first"), 1), fail(aio, ValueError("second"), 2))
    assert not late.done()
    assert await late == "late"


async def test_gather_can_return_exceptions(aio: ModuleType) -> None:
    error = KeyError("kept")
    task = aio.create_task(aio.sleep(60))
    aio.get_running_loop().call_soon(task.cancel)
    results = await aio.gather(
        give(aio, 1), fail(aio, error), task, give(aio, 2), return_exceptions=True
    )
    assert results[0] == 1
    assert results[1] is error
    assert isinstance(results[2], aio.CancelledError)
    assert results[3] == 2


async def test_gather_takes_the_same_awaitable_twice(aio: ModuleType) -> None:
    coro = give(aio, "once", 1)
    future = aio.get_running_loop().create_future()
    aio.get_running_loop().call_soon(future.set_result, "f")
    assert await aio.gather(coro, future, coro, future) == ["once", "f", "once", "f"]


async def test_a_crowd_with_the_same_awaitables_in_it_is_awaited_once_each(
    aio: ModuleType,
) -> None:
    begun: list[int] = []

    async def once(i: int) -> int:
        begun.append(i)
        return i

    kept = [once(i) for i in range(10)]
    futures = [aio.ensure_future(once(i)) for i in range(10, 20)]
    # What only the call refers to stands among what stands there twice.
    crowd = await aio.gather(*kept, *(once(i) for i in range(20, 40)), *futures, *kept, *futures)
    assert crowd == [*range(10), *range(20, 40), *range(10, 20), *range(20)]
    assert sorted(begun) == list(range(40))


async def test_gather_makes_its_tasks_at_the_call(aio: ModuleType) -> None:
    seen: list[str] = []

    async def note() -> None:
        seen.append("ran")

    gathered = aio.gather(note(), note())
    assert seen == []
    await aio.sleep(0)
    assert seen == ["ran", "ran"]
    await gathered


async def test_cancelling_gather_cancels_all_its_children(aio: ModuleType) -> None:
    children = [aio.create_task(aio.sleep(60)) for _ in range(3)]
    gathered = aio.gather(*children)
    await aio.sleep(0)
    assert gathered.cancel("why") is True
    assert not gathered.done()
    with pytest.raises(aio.CancelledError, match="why"):
        await gathered
    assert all(child.cancelled() for child in children)


async def test_cancelling_the_task_that_awaits_gather_does_too(aio: ModuleType) -> None:
    children = [aio.create_task(aio.sleep(60)) for _ in range(3)]

    async def wait() -> None:
        await aio.gather(*children)

    task = aio.create_task(wait())
    await spin(aio)
    task.cancel()
    with pytest.raises(aio.CancelledError):
        await task
    assert all(child.cancelled() for child in children)


async def test_gather_with_return_exceptions_still_raises_its_own_cancel(aio: ModuleType) -> None:
    gathered = aio.gather(aio.sleep(60), aio.sleep(60), return_exceptions=True)
    await aio.sleep(0)
    gathered.cancel()
    with pytest.raises(aio.CancelledError):
        await gathered


async def test_a_cancelled_child_makes_gather_raise_cancelled(aio: ModuleType) -> None:
    child = aio.create_task(aio.sleep(60))
    other = aio.create_task(give(aio, "other", 3))
    gathered = aio.gather(child, other)
    await aio.sleep(0)
    child.cancel()
    with pytest.raises(aio.CancelledError):
        await gathered
    assert await other == "other"


async def test_cancelling_a_finished_gather_does_nothing(aio: ModuleType) -> None:
    gathered = aio.gather(give(aio, 1))
    await gathered
    assert gathered.cancel() is False


async def test_a_later_error_of_a_failed_gather_is_not_reported(runtime: Runtime) -> None:
    aio = runtime.aio
    with pytest.raises(KeyError):
        await aio.gather(fail(aio, KeyError()), fail(aio, ValueError(), 2))
    await spin(aio, 6)
    assert runtime.errors == []


async def test_gather_nests(aio: ModuleType) -> None:
    inner = aio.gather(give(aio, 1), give(aio, 2))
    assert await aio.gather(inner, aio.gather(), give(aio, 3)) == [[1, 2], [], 3]


async def test_cancel_goes_through_nested_gathers(aio: ModuleType) -> None:
    leaf = aio.create_task(aio.sleep(60))
    outer = aio.gather(aio.gather(aio.gather(leaf)))
    await aio.sleep(0)
    outer.cancel()
    with pytest.raises(aio.CancelledError):
        await outer
    assert leaf.cancelled()


async def test_gather_of_done_futures_finishes_within_a_turn(aio: ModuleType) -> None:
    done = aio.get_running_loop().create_future()
    done.set_result(1)
    gathered = aio.gather(done, done)
    await aio.sleep(0)
    await aio.sleep(0)
    assert gathered.result() == [1, 1]


async def test_gather_of_many(aio: ModuleType) -> None:
    results = await aio.gather(*(give(aio, number, number % 3) for number in range(5000)))
    assert results == list(range(5000))


async def test_gather_refuses_what_cannot_be_awaited(aio: ModuleType) -> None:
    with pytest.raises(TypeError):
        await aio.gather(3)


async def test_base_exceptions_come_out_of_gather(aio: ModuleType) -> None:
    class Special(BaseException):
        pass

    with pytest.raises(Special):
        await aio.gather(fail(aio, Special()), give(aio, 1))
    (result,) = await aio.gather(fail(aio, Special()), return_exceptions=True)
    assert isinstance(result, Special)


def test_gather_of_coroutines_outside_a_loop_is_an_error(runtime: Runtime) -> None:
    coro = give(runtime.aio, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(RuntimeError, match="no (running|current) event loop"):
            runtime.aio.gather(coro)
    coro.close()


async def test_a_dropped_gather_lets_its_children_go_on(aio: ModuleType) -> None:
    child = aio.create_task(give(aio, "on", 3))
    aio.gather(child)
    assert await child == "on"


# -- shield --------------------------------------------------------------------------------


async def test_shield_passes_results_and_errors(aio: ModuleType) -> None:
    assert await aio.shield(give(aio, 1)) == 1
    with pytest.raises(KeyError):
        await aio.shield(fail(aio, KeyError()))


async def test_shield_keeps_a_cancel_from_the_inner_task(aio: ModuleType) -> None:
    inner = aio.create_task(give(aio, "kept", 5))

    async def wait() -> None:
        await aio.shield(inner)

    outer = aio.create_task(wait())
    await spin(aio, 2)
    outer.cancel()
    with pytest.raises(aio.CancelledError):
        await outer
    assert await inner == "kept"


async def test_a_cancelled_inner_task_cancels_the_shield(aio: ModuleType) -> None:
    inner = aio.create_task(aio.sleep(60))
    shielded = aio.shield(inner)
    await aio.sleep(0)
    inner.cancel()
    with pytest.raises(aio.CancelledError):
        await shielded


async def test_shield_of_a_done_future_is_that_future(aio: ModuleType) -> None:
    future = aio.get_running_loop().create_future()
    future.set_result(1)
    assert aio.shield(future) is future


async def test_an_error_behind_a_cancelled_shield_is_reported(runtime: Runtime) -> None:
    aio = runtime.aio
    inner = aio.create_task(fail(aio, KeyError("behind"), 3))
    shielded = aio.shield(inner)
    await aio.sleep(0)
    shielded.cancel()
    await aio.wait([inner])
    await spin(aio)
    del inner, shielded
    # 3.13.? reports it through the handler at once, earlier ones mark it as seen or not at all.
    contexts = runtime.take_errors()
    assert len(contexts) <= 1
    assert all(isinstance(context["exception"], KeyError) for context in contexts)
