"""TaskGroup: errors, cancellation from in- and outside, nesting and misuse."""

import contextvars
import gc
import sys
import weakref
from types import ModuleType
from typing import Any

import pytest

from tests.support import spin


async def give(value: Any) -> Any:
    return value


async def fail(error: BaseException) -> None:
    raise error


class Special(BaseException):
    pass


async def test_a_group_waits_for_its_tasks(aio: ModuleType) -> None:
    async with aio.TaskGroup() as group:
        first = group.create_task(give(1))
        second = group.create_task(aio.sleep(0.001, 2))
    assert (first.result(), second.result()) == (1, 2)


async def test_an_empty_group_ends_at_once(aio: ModuleType) -> None:
    seen: list[str] = []
    aio.get_running_loop().call_soon(seen.append, "a turn passed")
    async with aio.TaskGroup():
        pass
    assert seen == []


async def test_create_task_takes_name_and_context(aio: ModuleType) -> None:
    context = contextvars.copy_context()
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var")

    async def change() -> None:
        var.set(7)

    async with aio.TaskGroup() as group:
        task = group.create_task(change(), name="named", context=context)
        assert task.get_name() == "named"
    assert context[var] == 7


async def test_a_failing_task_cancels_the_others_and_the_body(aio: ModuleType) -> None:
    seen: list[str] = []

    async def wait(name: str) -> None:
        try:
            await aio.sleep(60)
        except aio.CancelledError:
            seen.append(name)
            raise

    with pytest.raises(ExceptionGroup) as caught:
        async with aio.TaskGroup() as group:
            group.create_task(wait("sibling"))
            group.create_task(fail(KeyError("k")))
            await wait("body")
    assert sorted(seen) == ["body", "sibling"]
    assert [repr(error) for error in caught.value.exceptions] == ["KeyError('k')"]
    assert "unhandled errors in a TaskGroup" in str(caught.value)
    assert aio.current_task().cancelling() == 0


async def test_all_errors_are_in_the_group_in_order(aio: ModuleType) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with aio.TaskGroup() as group:
            group.create_task(fail(KeyError()))
            group.create_task(fail(ValueError()))
            await spin(aio)
    assert [type(error) for error in caught.value.exceptions] == [KeyError, ValueError]


async def test_an_error_in_the_body_cancels_the_tasks_and_is_in_the_group(aio: ModuleType) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with aio.TaskGroup() as group:
            task = group.create_task(aio.sleep(60))
            await aio.sleep(0)
            raise KeyError("body")
    assert task.cancelled()
    assert [str(error) for error in caught.value.exceptions] == ["'body'"]


async def test_an_error_while_a_sibling_is_being_cancelled_is_collected(aio: ModuleType) -> None:
    async def fail_on_cancel() -> None:
        try:
            await aio.sleep(60)
        finally:
            raise ValueError("cleanup")

    with pytest.raises(ExceptionGroup) as caught:
        async with aio.TaskGroup() as group:
            group.create_task(fail_on_cancel())
            await aio.sleep(0)
            group.create_task(fail(KeyError()))
    assert {type(error) for error in caught.value.exceptions} == {KeyError, ValueError}


async def test_a_cancelled_task_alone_is_no_error(aio: ModuleType) -> None:
    async with aio.TaskGroup() as group:
        task = group.create_task(aio.sleep(60))
        other = group.create_task(aio.sleep(0.001, "other"))
        await aio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert other.result() == "other"


async def test_cancelling_the_parent_cancels_the_tasks_and_raises_cancelled(
    aio: ModuleType,
) -> None:
    tasks: list[Any] = []

    async def parent() -> None:
        async with aio.TaskGroup() as group:
            tasks.extend(group.create_task(aio.sleep(60)) for _ in range(3))

    task = aio.create_task(parent())
    await spin(aio)
    task.cancel("from outside")
    with pytest.raises(aio.CancelledError):
        await task
    assert task.cancelled()
    assert all(child.cancelled() for child in tasks)


async def test_errors_win_over_a_cancel_from_outside(aio: ModuleType) -> None:
    async def fail_on_cancel() -> None:
        try:
            await aio.sleep(60)
        finally:
            raise ValueError

    async def parent() -> None:
        async with aio.TaskGroup() as group:
            group.create_task(fail_on_cancel())

    task = aio.create_task(parent())
    await spin(aio)
    task.cancel()
    with pytest.raises(ExceptionGroup):
        await task
    assert not task.cancelled()


async def test_a_cancel_during_the_wait_at_the_end_reaches_slow_children(aio: ModuleType) -> None:
    finished: list[str] = []

    async def slow_to_stop() -> None:
        try:
            await aio.sleep(60)
        finally:
            await aio.sleep(0.005)
            finished.append("stopped")

    async def parent() -> None:
        async with aio.TaskGroup() as group:
            group.create_task(slow_to_stop())

    task = aio.create_task(parent())
    await spin(aio)
    task.cancel()
    with pytest.raises(aio.CancelledError):
        await task
    assert finished == ["stopped"]


async def test_nested_groups_nest_their_errors(aio: ModuleType) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with aio.TaskGroup() as outer:
            outer.create_task(aio.sleep(60))
            async with aio.TaskGroup() as inner:
                inner.create_task(fail(KeyError("deep")))
    (nested,) = caught.value.exceptions
    assert isinstance(nested, ExceptionGroup)
    assert [type(error) for error in nested.exceptions] == [KeyError]


async def test_a_task_may_add_tasks_to_its_own_group(aio: ModuleType) -> None:
    seen: list[int] = []

    async def spawn(depth: int) -> None:
        seen.append(depth)
        if depth:
            group.create_task(spawn(depth - 1))
            await aio.sleep(0)

    async with aio.TaskGroup() as group:
        group.create_task(spawn(4))
    assert seen == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_exit_errors_of_the_body_come_out_bare(
    aio: ModuleType, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        async with aio.TaskGroup() as group:
            task = group.create_task(aio.sleep(60))
            await aio.sleep(0)
            raise error
    assert task.cancelled()


async def test_other_base_exceptions_make_a_base_exception_group(aio: ModuleType) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with aio.TaskGroup() as group:
            group.create_task(fail(Special()))
            await aio.sleep(60)
    assert not isinstance(caught.value, ExceptionGroup)
    assert isinstance(caught.value.exceptions[0], Special)


async def test_a_group_cannot_be_entered_twice(aio: ModuleType) -> None:
    group = aio.TaskGroup()
    async with group:
        with pytest.raises(RuntimeError, match="already"):
            await group.__aenter__()
    with pytest.raises(RuntimeError, match="already"):
        async with group:
            pass


@pytest.mark.parametrize("when", ["before", "after"])
async def test_create_task_outside_the_block_is_refused(aio: ModuleType, when: str) -> None:
    group = aio.TaskGroup()
    if when == "after":
        async with group:
            pass
    coro = give(1)
    with pytest.raises(RuntimeError, match="entered" if when == "before" else "finished"):
        group.create_task(coro)
    coro.close()


async def test_create_task_in_a_group_that_shuts_down_is_refused(aio: ModuleType) -> None:
    with pytest.raises(ExceptionGroup):
        async with aio.TaskGroup() as group:
            group.create_task(fail(KeyError()))
            try:
                await aio.sleep(60)
            finally:
                coro = give(1)
                with pytest.raises(RuntimeError, match="shutting down"):
                    group.create_task(coro)
                coro.close()


async def test_a_group_ended_by_an_error_in_its_body_lets_go_of_it(aio: ModuleType) -> None:
    class Mine(Exception):
        pass

    async def scope() -> weakref.ref[Any]:
        error = Mine()
        gone = weakref.ref(error)
        try:
            async with aio.TaskGroup():
                raise error
        except* Mine:
            pass
        return gone

    gone = await scope()
    gc.collect()
    assert gone() is None


async def test_a_large_group(aio: ModuleType) -> None:
    async with aio.TaskGroup() as group:
        tasks = [group.create_task(aio.sleep(0, number)) for number in range(5000)]
    assert [task.result() for task in tasks] == list(range(5000))


async def test_repr_tells_the_state(aio: ModuleType) -> None:
    group = aio.TaskGroup()
    assert repr(group).startswith("<TaskGroup")
    async with group:
        group.create_task(give(1))
        assert "tasks=1" in repr(group)
        assert "entered" in repr(group)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio loses it before Python 3.13")
async def test_an_external_cancel_that_meets_an_internal_one_is_not_lost(aio: ModuleType) -> None:
    # The child fails in the turn in which the parent is cancelled.
    gate = aio.get_running_loop().create_future()

    async def fail_later() -> None:
        await gate
        raise KeyError

    async def parent() -> None:
        try:
            async with aio.TaskGroup() as group:
                group.create_task(fail_later())
        except* KeyError:
            pass
        await aio.sleep(60)  # the external cancel has to arrive here or above

    task = aio.create_task(parent())
    await spin(aio)
    gate.set_result(None)
    task.cancel()
    await aio.wait([task], timeout=5)
    assert task.cancelled()
