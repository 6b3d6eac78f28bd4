"""timeout, timeout_at and wait_for."""

import asyncio
from types import ModuleType
from typing import Any

import pytest

from tests.support import elapsed_at_least, spin


async def give(value: Any) -> Any:
    return value


async def test_a_block_that_is_quick_enough_is_left_alone(aio: ModuleType) -> None:
    async with aio.timeout(10) as scope:
        await aio.sleep(0)
    assert not scope.expired()
    assert aio.current_task().cancelling() == 0


@pytest.mark.later_asyncio
async def test_a_block_that_is_too_slow_raises_timeout_error(aio: ModuleType) -> None:
    with elapsed_at_least(0.01), pytest.raises(TimeoutError) as caught:
        async with aio.timeout(0.01) as scope:
            await aio.sleep(60)
    assert scope.expired()
    assert isinstance(caught.value.__cause__, aio.CancelledError)
    assert aio.current_task().cancelling() == 0
    await aio.sleep(0)


async def test_deadlines_count_from_the_call_and_never_go_back(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    last = 0.0
    end = loop.time() + 0.05
    while (before := loop.time()) < end:
        for _ in range(20):
            when = aio.timeout(5).when()
            assert before <= when - 5 + 1e-8, "earlier than the call"
            assert when >= last
            last = when
        # A native clock may be some hundred nanoseconds ahead of what a later reading finds.
        assert last - 5 <= loop.time() + 1e-6, "later than the call"


async def test_timeout_error_is_the_built_in_one(aio: ModuleType) -> None:
    assert aio.TimeoutError is TimeoutError


@pytest.mark.parametrize("delay", [0, -1, 0.0])
async def test_no_time_at_all_times_out_at_the_first_wait(aio: ModuleType, delay: float) -> None:
    seen: list[str] = []
    with pytest.raises(TimeoutError):
        async with aio.timeout(delay):
            seen.append("body runs")
            await aio.sleep(60)
    assert seen == ["body runs"]


async def test_an_expired_block_without_an_await_ends_normally(aio: ModuleType) -> None:
    async with aio.timeout(0) as scope:
        pass
    assert not scope.expired()


async def test_none_never_expires(aio: ModuleType) -> None:
    async with aio.timeout(None) as scope:
        assert scope.when() is None
        await aio.sleep(0.001)
    async with aio.timeout_at(None):
        await aio.sleep(0)


async def test_timeout_at_takes_the_loops_time(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    deadline = loop.time() + 0.01
    with pytest.raises(TimeoutError):
        async with aio.timeout_at(deadline) as scope:
            assert scope.when() == deadline
            await aio.sleep(60)


async def test_a_past_timeout_at_expires_at_the_first_wait(aio: ModuleType) -> None:
    with pytest.raises(TimeoutError):
        async with aio.timeout_at(0):
            await aio.sleep(60)


async def test_reschedule_moves_the_deadline_both_ways(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    async with aio.timeout(0.005) as scope:
        scope.reschedule(loop.time() + 60)
        await aio.sleep(0.01)
        scope.reschedule(None)
        await aio.sleep(0)
    assert not scope.expired()
    with pytest.raises(TimeoutError):
        async with aio.timeout(60) as scope:
            scope.reschedule(loop.time())
            await aio.sleep(60)


async def test_an_outer_cancel_is_not_a_timeout(aio: ModuleType) -> None:
    scopes: list[Any] = []

    async def work() -> None:
        async with aio.timeout(60) as scope:
            scopes.append(scope)
            await aio.sleep(60)

    task = aio.create_task(work())
    await aio.sleep(0)
    task.cancel()
    with pytest.raises(aio.CancelledError):
        await task
    assert not scopes[0].expired()


async def test_an_error_of_the_body_comes_out(aio: ModuleType) -> None:
    with pytest.raises(KeyError):
        async with aio.timeout(60):
            raise KeyError


async def test_the_inner_of_two_nested_timeouts(aio: ModuleType) -> None:
    async with aio.timeout(60) as outer:
        with pytest.raises(TimeoutError):
            async with aio.timeout(0.005) as inner:
                await aio.sleep(60)
    assert inner.expired()
    assert not outer.expired()


async def test_the_outer_of_two_nested_timeouts(aio: ModuleType) -> None:
    with pytest.raises(TimeoutError):
        async with aio.timeout(0.005) as outer, aio.timeout(60) as inner:
            await aio.sleep(60)
    assert outer.expired()
    assert not inner.expired()


async def test_both_nested_timeouts_at_once(aio: ModuleType) -> None:
    deadline = aio.get_running_loop().time() + 0.005
    with pytest.raises(TimeoutError):
        async with aio.timeout_at(deadline) as outer:
            try:
                async with aio.timeout_at(deadline) as inner:
                    await aio.sleep(60)
            finally:
                assert inner.expired()
    # Whether the outer one saw it too differs; what may not happen is a cancel left over.
    assert outer.expired() in (True, False)
    assert aio.current_task().cancelling() == 0
    await aio.sleep(0.01)


async def test_a_timeout_around_a_task_group(aio: ModuleType) -> None:
    with pytest.raises(TimeoutError):
        async with aio.timeout(0.005), aio.TaskGroup() as group:
            task = group.create_task(aio.sleep(60))
    assert task.cancelled()


async def test_a_timeout_that_is_caught_inside_still_counts_as_expired(aio: ModuleType) -> None:
    async with aio.timeout(0.005) as scope:
        with pytest.raises(aio.CancelledError):
            await aio.sleep(60)
    assert scope.expired()
    assert aio.current_task().cancelling() == 0


@pytest.mark.later_asyncio
async def test_misuse_is_refused(aio: ModuleType) -> None:
    scope = aio.timeout(60)
    with pytest.raises((RuntimeError, AssertionError)):  # 3.11's first releases assert it
        scope.reschedule(1)
    async with scope:
        with pytest.raises(RuntimeError):
            await scope.__aenter__()
    with pytest.raises(RuntimeError):
        async with scope:
            pass
    with pytest.raises(RuntimeError):
        scope.reschedule(None)


async def test_repr_tells_the_state(aio: ModuleType) -> None:
    scope = aio.timeout(60)
    assert "created" in repr(scope)
    async with scope:
        assert "active" in repr(scope)
    assert "finished" in repr(scope)


async def test_reschedule_takes_its_name(aio: ModuleType) -> None:
    async with aio.timeout(60) as scope:
        scope.reschedule(when=None)
        assert scope.when() is None
        with pytest.raises(TypeError):
            scope.reschedule()


# -- the class, by name ----------------------------------------------------------------------


async def test_the_class_makes_a_deadline_on_the_loops_clock(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    scope = aio.Timeout(loop.time() + 60)
    assert repr(scope) == "<Timeout [created]>"
    async with scope as entered:
        assert entered is scope
        assert not scope.expired()
        scope.reschedule(loop.time() - 1)
        with pytest.raises(aio.CancelledError):
            await aio.sleep(60)
        assert scope.expired()
        assert repr(scope).startswith("<Timeout [expiring]")
    assert repr(scope) == "<Timeout [expired]>"
    with pytest.raises(RuntimeError, match="expired Timeout"):
        scope.reschedule(None)


@pytest.mark.later_asyncio
async def test_the_class_raises_timeout_error(aio: ModuleType) -> None:
    with pytest.raises(TimeoutError) as caught:
        async with aio.Timeout(when=aio.get_running_loop().time()):
            await aio.sleep(60)
    assert isinstance(caught.value.__cause__, aio.CancelledError)
    assert aio.current_task().cancelling() == 0


@pytest.mark.later_asyncio
async def test_the_class_without_a_deadline(aio: ModuleType) -> None:
    async with aio.Timeout(None) as scope:
        assert scope.when() is None
        assert repr(scope) == "<Timeout [active] when=None>"
        with pytest.raises(RuntimeError, match="already been entered"):
            await scope.__aenter__()


async def test_the_class_in_a_task_of_asyncios_own(aio: ModuleType) -> None:
    loop = aio.get_running_loop()

    async def work() -> bool:
        scope = aio.Timeout(loop.time())
        try:
            async with scope:
                await aio.sleep(60)
        except TimeoutError:
            return bool(scope.expired())
        return False

    assert await asyncio.Task(work(), loop=loop) is True


# -- wait_for ------------------------------------------------------------------------------


async def test_wait_for_gives_the_result(aio: ModuleType) -> None:
    assert await aio.wait_for(give(1), 60) == 1
    assert await aio.wait_for(give(1), None) == 1
    assert await aio.wait_for(aio.create_task(give(2)), timeout=60) == 2


async def test_wait_for_raises_the_error(aio: ModuleType) -> None:
    async def broken() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await aio.wait_for(broken(), 60)


async def test_wait_for_times_out_and_cancels(aio: ModuleType) -> None:
    task = aio.create_task(aio.sleep(60))
    with elapsed_at_least(0.01), pytest.raises(TimeoutError):
        await aio.wait_for(task, 0.01)
    assert task.cancelled()


async def test_wait_for_waits_until_the_cancelled_task_has_ended(aio: ModuleType) -> None:
    seen: list[str] = []

    async def slow_to_stop() -> None:
        try:
            await aio.sleep(60)
        finally:
            await aio.sleep(0.01)
            seen.append("stopped")

    with pytest.raises(TimeoutError):
        await aio.wait_for(slow_to_stop(), 0.005)
    assert seen == ["stopped"]


async def test_wait_for_with_no_time_takes_what_is_done(aio: ModuleType) -> None:
    future = aio.get_running_loop().create_future()
    future.set_result("done")
    assert await aio.wait_for(future, 0) == "done"
    pending = aio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        await aio.wait_for(pending, 0)
    assert pending.cancelled()
    with pytest.raises(TimeoutError):
        await aio.wait_for(pending_forever(aio), -1)


async def pending_forever(aio: ModuleType) -> None:
    await aio.get_running_loop().create_future()


async def test_cancelling_wait_for_cancels_the_inner_task(aio: ModuleType) -> None:
    inner = aio.create_task(aio.sleep(60))
    outer = aio.create_task(aio.wait_for(inner, 60))
    await spin(aio)
    outer.cancel()
    with pytest.raises(aio.CancelledError):
        await outer
    assert inner.cancelled()


async def test_a_cancel_of_the_inner_task_comes_out_as_cancelled(aio: ModuleType) -> None:
    inner = aio.create_task(aio.sleep(60))
    aio.get_running_loop().call_soon(inner.cancel)
    with pytest.raises(aio.CancelledError):
        await aio.wait_for(inner, 60)


async def test_an_error_in_the_cleanup_of_a_timed_out_task_comes_out(aio: ModuleType) -> None:
    async def fail_on_cancel() -> None:
        try:
            await aio.sleep(60)
        finally:
            raise KeyError("cleanup")

    with pytest.raises(KeyError):
        await aio.wait_for(fail_on_cancel(), 0.005)


async def test_a_result_given_in_spite_of_the_timeout(aio: ModuleType) -> None:
    async def stubborn() -> str:
        try:
            await aio.sleep(60)
        except aio.CancelledError:
            return "stubborn"
        return "slept"

    # 3.11 returns the result, 3.12 and later too (the timeout only cancels), none hangs.
    assert await aio.wait_for(stubborn(), 0.005) == "stubborn"


async def test_equal_times_end_in_a_timeout(aio: ModuleType) -> None:
    # wait_for(sleep(d), d): its timer is armed first, so it fires first.
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await aio.wait_for(aio.sleep(0.01), 0.01)


async def test_wait_for_of_many_leaves_no_timers_behind(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    for _ in range(200):
        await aio.wait_for(give(1), 3600)
    if isinstance(scheduled := getattr(loop, "_scheduled", None), list):
        assert len(scheduled) <= 200
    assert asyncio.isfuture(loop.create_future())


async def test_nested_wait_for(aio: ModuleType) -> None:
    assert await aio.wait_for(aio.wait_for(give(3), 60), 60) == 3
    with pytest.raises(TimeoutError):
        await aio.wait_for(aio.wait_for(aio.sleep(60), 60), 0.005)
