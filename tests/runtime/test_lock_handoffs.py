"""The hand-offs between a lock's waiters: who is next, and one that is cancelled at each point."""

import asyncio
from types import ModuleType

import pytest

from tests.runtime.locks import asleep
from tests.support import spin


async def test_a_free_lock_with_waiters_is_not_overtaken(aio: ModuleType) -> None:
    lock, seen = aio.Lock(), []

    async def take(name: str) -> None:
        async with lock:
            seen.append(name)

    await lock.acquire()
    tasks = await asleep(aio, take("first"), take("second"))
    lock.release()
    tasks += [aio.create_task(take("late"))]  # released, but promised to the first
    await aio.gather(*tasks)
    assert seen == ["first", "second", "late"]


async def test_every_waiter_may_be_cancelled_in_the_turn_of_the_release(aio: ModuleType) -> None:
    lock = aio.Lock()
    await lock.acquire()
    tasks = await asleep(aio, *(lock.acquire() for _ in range(4)))
    lock.release()
    for task in tasks:
        task.cancel()
    await aio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert not lock.locked()
    assert await aio.wait_for(lock.acquire(), 5) is True


async def test_a_cancel_before_the_release_skips_the_waiter(aio: ModuleType) -> None:
    lock = aio.Lock()
    await lock.acquire()
    first, second = await asleep(aio, lock.acquire(), lock.acquire())
    first.cancel()
    lock.release()
    assert await second is True
    assert first.cancelled()


async def test_a_semaphore_woken_and_cancelled_passes_on(aio: ModuleType) -> None:
    semaphore = aio.Semaphore(0)
    tasks = await asleep(aio, *(semaphore.acquire() for _ in range(3)))
    semaphore.release()
    semaphore.release()
    tasks[0].cancel()
    _, pending = await aio.wait(tasks, timeout=5)
    assert not pending
    assert tasks[0].cancelled()
    assert [task.result() for task in tasks[1:]] == [True, True]


async def test_a_semaphore_is_first_come_first_served(aio: ModuleType) -> None:
    semaphore, seen = aio.Semaphore(1), []

    async def work(number: int) -> None:
        async with semaphore:
            seen.append(number)
            await spin(aio, number % 3)

    await aio.gather(*(work(number) for number in range(12)))
    assert seen == list(range(12))


async def test_a_semaphore_released_often_wakes_as_many(aio: ModuleType) -> None:
    semaphore = aio.Semaphore(0)
    tasks = await asleep(aio, *(semaphore.acquire() for _ in range(5)))
    for _ in range(3):
        semaphore.release()
    await spin(aio)
    assert [task.done() for task in tasks] == [True] * 3 + [False] * 2
    for task in tasks[3:]:
        task.cancel()
    await aio.wait(tasks[3:])


async def test_an_event_set_and_cleared_at_once_still_wakes(aio: ModuleType) -> None:
    event = aio.Event()
    (task,) = await asleep(aio, event.wait())
    event.set()
    event.clear()
    assert await task is True
    assert not event.is_set()
    assert len(event._waiters) == 0


async def test_an_event_forgets_a_cancelled_waiter(aio: ModuleType) -> None:
    event = aio.Event()
    (task,) = await asleep(aio, event.wait())
    task.cancel()
    await aio.wait([task])
    assert len(event._waiters) == 0


async def test_a_done_callback_of_a_waiter_may_take_the_lock_apart(aio: ModuleType) -> None:
    event = aio.Event()
    tasks = await asleep(aio, *(event.wait() for _ in range(3)))
    for waiter in event._waiters:
        waiter.add_done_callback(lambda _: event.clear())
    event.set()
    assert await aio.gather(*tasks) == [True] * 3
    assert not event.is_set()


async def test_a_condition_needs_its_lock(aio: ModuleType) -> None:
    condition = aio.Condition()
    for call in (condition.notify, condition.notify_all):
        with pytest.raises(RuntimeError, match="un-acquired lock"):
            call()
    with pytest.raises(RuntimeError, match="un-acquired lock"):
        await condition.wait()


async def test_a_cancelled_condition_wait_holds_the_lock_again(aio: ModuleType) -> None:
    condition, seen = aio.Condition(), []

    async def wait() -> None:
        async with condition:
            try:
                await condition.wait()
            finally:
                seen.append(condition.locked())

    (task,) = await asleep(aio, wait())
    task.cancel()
    await aio.wait([task])
    assert task.cancelled()
    assert seen == [True]
    assert not condition.locked()


async def test_a_condition_waits_for_its_lock_though_cancelled(aio: ModuleType) -> None:
    condition = aio.Condition()

    async def wait() -> None:
        async with condition:
            await condition.wait()

    (task,) = await asleep(aio, wait())
    async with condition:
        task.cancel()
        await spin(aio)
        assert not task.done()  # it wants the lock back first
        task.cancel()  # again: the first is remembered
        await spin(aio)
        assert not task.done()
    await aio.wait([task])
    assert task.cancelled()
    assert not condition.locked()


async def test_two_conditions_share_a_lock(aio: ModuleType) -> None:
    lock = aio.Lock()
    filled, emptied = aio.Condition(lock), aio.Condition(lock)
    box: list[int] = []
    got: list[int] = []

    async def fill() -> None:
        for number in range(5):
            async with emptied:
                await emptied.wait_for(lambda: not box)
                box.append(number)
                filled.notify()

    async def empty() -> None:
        for _ in range(5):
            async with filled:
                await filled.wait_for(lambda: bool(box))
                got.append(box.pop())
                emptied.notify()

    await aio.gather(fill(), empty())
    assert got == list(range(5))


async def test_a_condition_takes_a_stock_lock(aio: ModuleType) -> None:
    condition = aio.Condition(asyncio.Lock())

    async def wait() -> bool:
        async with condition:
            return bool(await condition.wait())

    (task,) = await asleep(aio, wait())
    async with condition:
        condition.notify()
    assert await task is True


async def test_a_predicate_that_raises_leaves_the_lock_to_its_holder(aio: ModuleType) -> None:
    condition = aio.Condition()
    async with condition:
        with pytest.raises(ZeroDivisionError):
            await condition.wait_for(lambda: 1 / 0)
        assert condition.locked()
    assert not condition.locked()


async def test_wait_for_gives_what_the_predicate_gave(aio: ModuleType) -> None:
    condition = aio.Condition()
    async with condition:
        assert await condition.wait_for(lambda: "true") == "true"


async def test_a_barrier_is_used_again_and_again(aio: ModuleType) -> None:
    barrier, seen = aio.Barrier(3), []

    async def work(name: int) -> None:
        for lap in range(3):
            async with barrier as position:
                assert 0 <= position < 3
                seen.append((lap, name))

    await aio.gather(*(work(name) for name in range(3)))
    assert [lap for lap, _ in seen] == [0] * 3 + [1] * 3 + [2] * 3
    assert barrier.n_waiting == 0
    assert not barrier.broken


async def test_a_reset_barrier_breaks_those_who_wait(aio: ModuleType) -> None:
    barrier = aio.Barrier(2)
    (task,) = await asleep(aio, barrier.wait())
    assert barrier.n_waiting == 1
    await barrier.reset()
    with pytest.raises(aio.BrokenBarrierError):
        await task
    assert await aio.gather(barrier.wait(), barrier.wait()) is not None


async def test_a_cancelled_party_leaves_the_barrier_whole(aio: ModuleType) -> None:
    barrier = aio.Barrier(2)
    (task,) = await asleep(aio, barrier.wait())
    task.cancel()
    await aio.wait([task])
    assert barrier.n_waiting == 0
    assert sorted(await aio.gather(barrier.wait(), barrier.wait())) == [0, 1]
