"""wait and as_completed."""

import sys
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


async def test_wait_returns_when_all_are_done(aio: ModuleType) -> None:
    tasks = {aio.create_task(give(aio, number, number)) for number in range(5)}
    done, pending = await aio.wait(tasks)
    assert done == tasks
    assert pending == set()


async def test_wait_does_not_raise(aio: ModuleType) -> None:
    task = aio.create_task(fail(aio, KeyError()))
    done, _ = await aio.wait([task])
    assert done == {task}
    assert isinstance(task.exception(), KeyError)


async def test_first_completed(aio: ModuleType) -> None:
    quick = aio.create_task(give(aio, 1))
    slow = aio.create_task(aio.sleep(60))
    done, pending = await aio.wait([quick, slow], return_when=aio.FIRST_COMPLETED)
    assert (done, pending) == ({quick}, {slow})
    slow.cancel()


async def test_first_exception(aio: ModuleType) -> None:
    good = aio.create_task(give(aio, 1))
    bad = aio.create_task(fail(aio, KeyError(), 3))
    slow = aio.create_task(aio.sleep(60))
    done, pending = await aio.wait([good, bad, slow], return_when=aio.FIRST_EXCEPTION)
    assert (done, pending) == ({good, bad}, {slow})
    bad.exception()
    slow.cancel()


async def test_first_exception_ignores_cancellation(aio: ModuleType) -> None:
    cancelled = aio.create_task(aio.sleep(60))
    good = aio.create_task(give(aio, 1, 5))
    aio.get_running_loop().call_soon(cancelled.cancel)
    done, _ = await aio.wait([cancelled, good], return_when=aio.FIRST_EXCEPTION)
    assert done == {cancelled, good}


async def test_a_timeout_returns_what_is_done_and_cancels_nothing(aio: ModuleType) -> None:
    quick = aio.create_task(give(aio, 1))
    slow = aio.create_task(aio.sleep(60))
    with elapsed_at_least(0.01):
        done, pending = await aio.wait([quick, slow], timeout=0.01)
    assert (done, pending) == ({quick}, {slow})
    assert not slow.done()
    slow.cancel()


async def test_wait_with_no_time_returns_at_the_next_chance(aio: ModuleType) -> None:
    slow = aio.create_task(aio.sleep(60))
    done, pending = await aio.wait([slow], timeout=0)
    assert (done, pending) == (set(), {slow})
    slow.cancel()


async def test_cancelling_wait_leaves_the_tasks_alone(aio: ModuleType) -> None:
    inner = aio.create_task(give(aio, "untouched", 5))

    async def waiting() -> None:
        await aio.wait([inner])

    outer = aio.create_task(waiting())
    await spin(aio, 2)
    outer.cancel()
    with pytest.raises(aio.CancelledError):
        await outer
    assert await inner == "untouched"


async def test_wait_of_nothing_or_of_one_task_is_refused(aio: ModuleType) -> None:
    with pytest.raises(ValueError, match="[Ee]mpty"):
        await aio.wait([])
    task = aio.create_task(give(aio, 1))
    with pytest.raises(TypeError):
        await aio.wait(task)
    await task


async def test_wait_refuses_coroutines_and_unknown_conditions(aio: ModuleType) -> None:
    coro = give(aio, 1)
    with pytest.raises(TypeError):
        await aio.wait([coro])
    coro.close()
    task = aio.create_task(give(aio, 1))
    with pytest.raises(ValueError, match="return_when"):
        await aio.wait([task], return_when="SOMETIME")
    await task


async def test_wait_leaves_no_callbacks_on_pending_tasks(aio: ModuleType) -> None:
    slow = aio.get_running_loop().create_future()
    for _ in range(10):
        await aio.wait([slow], timeout=0)
    assert "cb=" not in repr(slow)
    slow.cancel()


async def test_wait_takes_any_iterable_and_duplicates(aio: ModuleType) -> None:
    task = aio.create_task(give(aio, 1))
    done, _ = await aio.wait(iter([task, task]))
    assert done == {task}


# -- as_completed --------------------------------------------------------------------------


async def test_as_completed_gives_results_as_they_come(aio: ModuleType) -> None:
    seen = []
    for coro in aio.as_completed([give(aio, "slow", 6), give(aio, "quick"), give(aio, "mid", 3)]):
        seen.append(await coro)
    assert seen == ["quick", "mid", "slow"]


async def test_as_completed_raises_each_tasks_error_in_its_turn(aio: ModuleType) -> None:
    seen: list[Any] = []
    for coro in aio.as_completed([give(aio, 1), fail(aio, KeyError(), 3)]):
        try:
            seen.append(await coro)
        except KeyError:
            seen.append("error")
    assert seen == [1, "error"]


async def test_as_completed_of_nothing(aio: ModuleType) -> None:
    assert list(aio.as_completed([])) == []


async def test_as_completed_times_out_for_what_is_missing(aio: ModuleType) -> None:
    slow = aio.create_task(aio.sleep(60))
    seen: list[Any] = []
    for coro in aio.as_completed([slow, give(aio, "quick")], timeout=0.01):
        try:
            seen.append(await coro)
        except TimeoutError:
            seen.append("timeout")
    assert seen == ["quick", "timeout"]
    assert not slow.done()
    slow.cancel()


async def test_as_completed_counts_a_duplicate_once(aio: ModuleType) -> None:
    task = aio.create_task(give(aio, 1))
    assert [await coro for coro in aio.as_completed([task, task])] == [1]


async def test_as_completed_refuses_a_single_future(aio: ModuleType) -> None:
    task = aio.create_task(give(aio, 1))
    with pytest.raises(TypeError):
        list(aio.as_completed(task))
    await task


async def test_as_completed_may_be_left_early(aio: ModuleType) -> None:
    tasks = [aio.create_task(give(aio, number, number)) for number in range(3)]
    for coro in aio.as_completed(tasks):
        assert await coro == 0
        break
    await aio.wait(tasks)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="an async iterator since Python 3.13")
async def test_as_completed_as_an_async_iterator_gives_the_tasks_themselves(
    aio: ModuleType,
) -> None:
    tasks = [aio.create_task(give(aio, number, 3 - number)) for number in range(3)]
    seen = [task async for task in aio.as_completed(tasks)]
    assert seen == tasks[::-1]


def test_wait_and_as_completed_need_a_loop(runtime: Runtime) -> None:
    with pytest.raises(RuntimeError, match="loop"):
        list(runtime.aio.as_completed([runtime.aio.Future()]))
