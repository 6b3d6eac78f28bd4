"""Locks, events, conditions, semaphores, barriers and queues over the runtime's tasks."""

import sys
from types import ModuleType

import pytest

from tests.support import spin


async def test_a_lock_lets_one_in_at_a_time_in_order(aio: ModuleType) -> None:
    lock, inside = aio.Lock(), 0
    seen: list[int] = []

    async def work(number: int) -> None:
        nonlocal inside
        async with lock:
            inside += 1
            assert inside == 1
            await spin(aio, 2)
            seen.append(number)
            inside -= 1

    await aio.gather(*(work(number) for number in range(5)))
    assert seen == list(range(5))
    assert not lock.locked()


async def test_a_cancelled_waiter_gives_its_turn_to_the_next(aio: ModuleType) -> None:
    lock = aio.Lock()
    await lock.acquire()

    async def wait() -> str:
        async with lock:
            return "got it"

    first, second = aio.create_task(wait()), aio.create_task(wait())
    await spin(aio)
    first.cancel()
    lock.release()
    assert await second == "got it"
    assert first.cancelled()
    assert not lock.locked()


async def test_a_waiter_cancelled_after_it_was_woken_passes_the_lock_on(aio: ModuleType) -> None:
    lock = aio.Lock()
    await lock.acquire()
    tasks = [aio.create_task(lock.acquire()) for _ in range(2)]
    await spin(aio)
    lock.release()  # wakes the first, which is cancelled before it runs
    tasks[0].cancel()
    assert await aio.wait_for(tasks[1], 5) is True
    lock.release()


async def test_releasing_a_free_lock_is_an_error(aio: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="not acquired"):
        aio.Lock().release()


async def test_an_event_wakes_everyone(aio: ModuleType) -> None:
    event = aio.Event()
    tasks = [aio.create_task(event.wait()) for _ in range(3)]
    await spin(aio)
    assert not event.is_set()
    event.set()
    assert await aio.gather(*tasks) == [True] * 3
    assert await event.wait() is True
    event.clear()
    assert not event.is_set()


async def test_a_condition_notifies_as_many_as_asked(aio: ModuleType) -> None:
    condition = aio.Condition()
    woken: list[int] = []

    async def wait(number: int) -> None:
        async with condition:
            await condition.wait()
            woken.append(number)

    tasks = [aio.create_task(wait(number)) for number in range(3)]
    await spin(aio)
    async with condition:
        condition.notify(2)
    await spin(aio, 8)
    assert woken == [0, 1]
    async with condition:
        condition.notify_all()
    await aio.gather(*tasks)
    assert woken == [0, 1, 2]


async def test_wait_for_a_predicate(aio: ModuleType) -> None:
    condition = aio.Condition()
    ready: list[int] = []

    async def wait() -> int:
        async with condition:
            await condition.wait_for(lambda: len(ready) == 2)
            return len(ready)

    task = aio.create_task(wait())
    for number in range(2):
        await spin(aio)
        async with condition:
            ready.append(number)
            condition.notify_all()
    assert await task == 2


async def test_a_semaphore_limits_how_many_are_inside(aio: ModuleType) -> None:
    semaphore, inside, most = aio.Semaphore(3), 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with semaphore:
            inside += 1
            most = max(most, inside)
            await spin(aio, 2)
            inside -= 1

    await aio.gather(*(work() for _ in range(12)))
    assert most == 3
    assert not semaphore.locked()


async def test_a_bounded_semaphore_refuses_a_release_too_many(aio: ModuleType) -> None:
    with pytest.raises(ValueError, match="too many times"):
        aio.BoundedSemaphore(1).release()


async def test_a_barrier_lets_all_through_together(aio: ModuleType) -> None:
    barrier = aio.Barrier(3)
    indices = await aio.gather(*(barrier.wait() for _ in range(3)))
    assert sorted(indices) == [0, 1, 2]


async def test_an_aborted_barrier_breaks_its_waiters(aio: ModuleType) -> None:
    barrier = aio.Barrier(2)
    task = aio.create_task(barrier.wait())
    await spin(aio)
    await barrier.abort()
    with pytest.raises(aio.BrokenBarrierError):
        await task


async def test_a_queue_keeps_order_between_producer_and_consumer(aio: ModuleType) -> None:
    queue = aio.Queue(maxsize=2)

    async def produce() -> None:
        for number in range(20):
            await queue.put(number)
            assert queue.qsize() <= 2

    async def consume() -> list[int]:
        return [await queue.get() for _ in range(20)]

    _, got = await aio.gather(produce(), consume())
    assert got == list(range(20))


async def test_a_full_and_an_empty_queue_say_so(aio: ModuleType) -> None:
    queue = aio.Queue(maxsize=1)
    with pytest.raises(aio.QueueEmpty):
        queue.get_nowait()
    queue.put_nowait(1)
    with pytest.raises(aio.QueueFull):
        queue.put_nowait(2)
    assert queue.full()


async def test_join_waits_for_every_task_done(aio: ModuleType) -> None:
    queue = aio.Queue()
    for number in range(3):
        queue.put_nowait(number)
    joined = aio.create_task(queue.join())
    for _ in range(3):
        assert not joined.done()
        await queue.get()
        queue.task_done()
        await spin(aio)
    await joined
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()


async def test_a_cancelled_get_loses_no_item(aio: ModuleType) -> None:
    queue = aio.Queue()
    first, second = aio.create_task(queue.get()), aio.create_task(queue.get())
    await spin(aio)
    queue.put_nowait("item")  # wakes the first
    first.cancel()
    assert await aio.wait_for(second, 5) == "item"


async def test_priority_and_lifo_queues(aio: ModuleType) -> None:
    priority, lifo = aio.PriorityQueue(), aio.LifoQueue()
    for number in (2, 3, 1):
        priority.put_nowait(number)
        lifo.put_nowait(number)
    assert [await priority.get() for _ in range(3)] == [1, 2, 3]
    assert [await lifo.get() for _ in range(3)] == [1, 3, 2]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Queue.shutdown came with Python 3.13")
async def test_a_queue_that_is_shut_down_wakes_its_waiters(aio: ModuleType) -> None:
    queue = aio.Queue()
    task = aio.create_task(queue.get())
    await spin(aio)
    queue.shutdown()
    with pytest.raises(aio.QueueShutDown):
        await task


async def test_a_lock_belongs_to_the_loop_that_first_waited(aio: ModuleType) -> None:
    lock = aio.Lock()
    await lock.acquire()
    task = aio.create_task(lock.acquire())
    await spin(aio)

    async def elsewhere() -> None:
        await lock.acquire()

    def other_thread() -> None:
        aio.run(elsewhere())

    with pytest.raises(RuntimeError, match="different event loop"):
        await aio.to_thread(other_thread)
    task.cancel()
