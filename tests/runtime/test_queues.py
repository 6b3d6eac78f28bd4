"""Queues as objects, their hand-offs, and items and subclasses with a will of their own.

`test_sync` has what every program uses.
"""

import asyncio
import copy
import gc
import heapq
import inspect
import pickle
import re
import sys
import weakref
from collections import deque
from types import ModuleType
from typing import Any

import pytest

from tests.support import Runtime, spin

KINDS = ["Queue", "LifoQueue", "PriorityQueue"]
each_kind = pytest.mark.parametrize("kind", KINDS)
needs_shutdown = pytest.mark.skipif(
    sys.version_info < (3, 13), reason="Queue.shutdown came with Python 3.13"
)


async def tasks_of(aio: ModuleType, *coroutines: Any) -> list[Any]:
    """A task for each, all of them started in order and waiting by now."""
    tasks = [aio.create_task(coroutine) for coroutine in coroutines]
    await spin(aio)
    return tasks


async def stop(aio: ModuleType, *tasks: Any) -> None:
    for task in tasks:
        task.cancel()
    await aio.wait(tasks)


# Objects.


@each_kind
def test_a_queue_is_one_of_asyncios(aio: ModuleType, kind: str) -> None:
    queue = getattr(aio, kind)(3)
    assert isinstance(queue, getattr(asyncio, kind))
    assert isinstance(queue, aio.Queue)
    assert queue.maxsize == 3
    assert (queue.empty(), queue.full(), queue.qsize()) == (True, False, 0)


def test_a_queue_class_takes_a_type(aio: ModuleType) -> None:
    assert aio.Queue[int].__origin__ is aio.Queue


@each_kind
def test_repr_is_asyncios(aio: ModuleType, kind: str) -> None:
    def show(aio: ModuleType) -> list[str]:
        queue = getattr(aio, kind)(maxsize=2)
        texts = [repr(queue), str(queue)]
        queue.put_nowait(1)
        texts += [repr(queue), str(queue)]
        return [re.sub(r"0x[0-9a-f]+", "0x", text) for text in texts]

    assert show(aio) == show(asyncio)


async def test_repr_tells_who_waits(aio: ModuleType) -> None:
    queue = aio.Queue(1)
    getters = await tasks_of(aio, queue.get(), queue.get())
    assert "_getters[2]" in repr(queue)
    await stop(aio, *getters)
    queue.put_nowait(1)
    putters = await tasks_of(aio, queue.put(2))
    assert "_putters[1]" in repr(queue)
    assert "tasks=1" in repr(queue)
    await stop(aio, *putters)


@each_kind
def test_copies_and_pickles_keep_the_items(aio: ModuleType, kind: str) -> None:
    queue = getattr(aio, kind)(5)
    for item in (2, 1, 3):
        queue.put_nowait(item)
    for again in (copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        twin = again(queue)
        assert [twin.get_nowait() for _ in range(3)] == [
            copy.deepcopy(queue).get_nowait() if number == 0 else item
            for number, item in enumerate(
                {"Queue": [2, 1, 3], "LifoQueue": [3, 1, 2], "PriorityQueue": [1, 2, 3]}[kind]
            )
        ]
        assert twin.maxsize == 5
        for _ in range(3):
            twin.task_done()
    assert queue.qsize() == 3
    assert copy.copy(queue)._queue is queue._queue


@each_kind
def test_a_queue_in_a_cycle_is_collected(aio: ModuleType, kind: str) -> None:
    queue = getattr(aio, kind)()
    queue.put_nowait(queue)
    reference = weakref.ref(queue)
    del queue
    gc.collect()
    assert reference() is None


async def test_the_private_fields_are_asyncios(aio: ModuleType) -> None:
    fifo, heap = aio.Queue(2), aio.PriorityQueue()
    fifo.put_nowait("a")
    for item in (3, 1, 2):
        heap.put_nowait(item)
    assert fifo._queue == deque(["a"])
    assert heap._queue[0] == 1
    assert sorted(heap._queue) == [1, 2, 3]
    assert fifo._maxsize == 2
    assert fifo._unfinished_tasks == 1
    assert not fifo._finished.is_set()
    assert (len(fifo._getters), len(fifo._putters)) == (0, 0)
    fifo._queue.append("by hand")
    assert fifo.full()
    assert [fifo.get_nowait(), fifo.get_nowait()] == ["a", "by hand"]


async def test_a_container_of_ones_own(aio: ModuleType) -> None:
    queue = aio.Queue()
    queue._queue = deque([1, 2])
    assert queue.qsize() == 2
    assert await queue.get() == 1
    await queue.put(3)
    assert [await queue.get(), await queue.get()] == [2, 3]
    assert queue.empty()


# Arguments.


def test_arguments_that_asyncio_refuses(aio: ModuleType) -> None:
    for wrong in (
        lambda: aio.Queue(1, 2),
        lambda: aio.Queue(loop=None),
        lambda: aio.Queue().put_nowait(),
        lambda: aio.Queue().get_nowait(1),
        lambda: aio.Queue().put(),
        lambda: aio.Queue().get(block=True),
        lambda: aio.Queue().join(1),
    ):
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize("size", [0, -1])
async def test_zero_and_less_is_no_limit(aio: ModuleType, size: int) -> None:
    queue = aio.Queue(maxsize=size)
    for number in range(100):
        await queue.put(number)
    assert not queue.full()


async def test_any_number_is_a_size(aio: ModuleType) -> None:
    queue = aio.Queue(2.5)
    queue.put_nowait(1)
    queue.put_nowait(2)
    assert not queue.full()
    queue.put_nowait(3)
    assert queue.full()
    with pytest.raises(aio.QueueFull):
        queue.put_nowait(4)


async def test_put_takes_its_item_by_name(aio: ModuleType) -> None:
    queue = aio.Queue()
    await queue.put(item=1)
    queue.put_nowait(item=2)
    assert [queue.get_nowait(), queue.get_nowait()] == [1, 2]


# What counts as a coroutine.


@pytest.mark.parametrize("method", ["put", "get", "join"])
def test_what_waits_is_a_coroutine_function(aio: ModuleType, method: str) -> None:
    assert inspect.iscoroutinefunction(getattr(aio.Queue, method))
    assert inspect.iscoroutinefunction(getattr(aio.Queue(), method))


@pytest.mark.parametrize("method", ["put", "get", "join"])
def test_a_wait_that_nobody_awaits_warns(aio: ModuleType, method: str) -> None:
    with pytest.warns(RuntimeWarning, match=f"coroutine 'Queue.{method}' was never awaited"):
        getattr(aio.Queue(), method)(*(["item"] if method == "put" else []))
        gc.collect()


async def test_a_put_happens_when_it_is_awaited(aio: ModuleType) -> None:
    queue = aio.Queue()
    put = queue.put(1)
    assert asyncio.iscoroutine(put)
    assert queue.empty()
    await put
    assert queue.get_nowait() == 1


# Hand-offs.


async def test_getters_are_served_in_order(aio: ModuleType) -> None:
    queue = aio.Queue()
    tasks = await tasks_of(aio, *(queue.get() for _ in range(4)))
    for item in "abcd":
        queue.put_nowait(item)
    assert await aio.gather(*tasks) == list("abcd")


async def test_putters_are_served_in_order(aio: ModuleType) -> None:
    queue = aio.Queue(1)
    tasks = await tasks_of(aio, *(queue.put(item) for item in "abcd"))
    assert [await queue.get() for _ in range(4)] == list("abcd")
    await aio.gather(*tasks)


async def test_a_woken_getter_may_find_the_item_gone(aio: ModuleType) -> None:
    queue = aio.Queue()
    (task,) = await tasks_of(aio, queue.get())
    queue.put_nowait("first")
    assert queue.get_nowait() == "first"  # before the getter runs
    await spin(aio)
    assert not task.done()
    queue.put_nowait("second")
    assert await task == "second"


async def test_a_cancelled_put_leaves_nothing(aio: ModuleType) -> None:
    queue = aio.Queue(1)
    await queue.put("kept")
    (task,) = await tasks_of(aio, queue.put("never"))
    await stop(aio, task)
    assert await queue.get() == "kept"
    assert queue.empty()
    assert len(queue._putters) == 0


async def test_a_putter_woken_and_cancelled_passes_the_room_on(aio: ModuleType) -> None:
    queue = aio.Queue(1)
    await queue.put("a")
    first, second = await tasks_of(aio, queue.put("b"), queue.put("c"))
    assert queue.get_nowait() == "a"
    first.cancel()
    await aio.wait_for(second, 5)
    assert queue.get_nowait() == "c"


async def test_every_getter_may_be_cancelled_in_the_turn_of_the_put(aio: ModuleType) -> None:
    queue = aio.Queue()
    tasks = await tasks_of(aio, *(queue.get() for _ in range(3)))
    queue.put_nowait("kept")
    for task in tasks:
        task.cancel()
    await aio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert await aio.wait_for(queue.get(), 5) == "kept"
    assert len(queue._getters) == 0


async def test_a_timeout_around_get_takes_no_item(aio: ModuleType) -> None:
    queue = aio.Queue()
    with pytest.raises(TimeoutError):
        await aio.wait_for(queue.get(), 0.001)
    queue.put_nowait(1)
    assert await queue.get() == 1


async def test_several_joins_end_together(aio: ModuleType) -> None:
    queue = aio.Queue()
    await queue.put(1)
    tasks = await tasks_of(aio, queue.join(), queue.join())
    queue.get_nowait()
    queue.task_done()
    await aio.gather(*tasks)
    await queue.join()  # nothing is unfinished: at once
    await queue.put(2)
    (task,) = await tasks_of(aio, queue.join())
    assert not task.done()
    await stop(aio, task)


# Items with a will of their own.


async def test_items_that_do_not_compare(aio: ModuleType) -> None:
    queue = aio.PriorityQueue()
    queue.put_nowait((1, object()))
    with pytest.raises(TypeError, match="not supported"):
        queue.put_nowait((1, object()))
    with pytest.raises(TypeError, match="not supported"):
        await queue.put((1, object()))
    # heappush appends before it compares: the items are in, as with asyncio.
    stock: list[Any] = [(1, object())]
    with pytest.raises(TypeError):
        heapq.heappush(stock, (1, object()))
    assert queue.qsize() == 2 * len(stock) - 1


async def test_comparing_may_use_the_queue(aio: ModuleType) -> None:
    queue = aio.PriorityQueue()

    class Item:
        def __init__(self, key: int) -> None:
            self.key = key

        def __lt__(self, other: "Item") -> bool:
            queue.qsize()
            repr(queue)
            return self.key < other.key

    for key in (3, 1, 2):
        await queue.put(Item(key))
    assert [(await queue.get()).key for _ in range(3)] == [1, 2, 3]


async def test_comparing_may_empty_the_queue(aio: ModuleType) -> None:
    queue = aio.PriorityQueue()

    class Rude:
        def __lt__(self, other: object) -> bool:
            queue._queue.clear()
            return True

    for _ in range(2):
        try:
            queue.put_nowait(Rude())
        except (IndexError, RuntimeError):
            continue  # heapq noticed; which of the two it says is heapq's
    assert queue.qsize() <= 2


async def test_an_items_end_may_use_the_queue(aio: ModuleType) -> None:
    queue = aio.Queue()
    seen: list[int] = []

    class Item:
        def __del__(self) -> None:
            seen.append(queue.qsize())
            queue.put_nowait("again")

    queue.put_nowait(Item())
    await queue.get()
    gc.collect()
    assert seen == [0]
    assert queue.get_nowait() == "again"


# Subclasses.


async def test_a_subclass_with_its_own_container(aio: ModuleType) -> None:
    class Unique(aio.Queue):  # type: ignore[misc, name-defined]
        def _init(self, maxsize: int) -> None:
            self.made_with = maxsize
            self._queue: dict[Any, None] = {}

        def _put(self, item: Any) -> None:
            self._queue[item] = None

        def _get(self) -> Any:
            return self._queue.popitem()[0]

    queue = Unique(4)
    assert queue.made_with == 4
    for item in (1, 2, 1):
        await queue.put(item)
    assert queue.qsize() == 2
    assert [await queue.get(), await queue.get()] == [2, 1]
    (task,) = await tasks_of(aio, queue.get())
    queue.put_nowait(7)
    assert await task == 7


@each_kind
async def test_put_and_get_use_what_a_subclass_overrides(aio: ModuleType, kind: str) -> None:
    seen: list[str] = []

    class Noisy(getattr(aio, kind)):  # type: ignore[misc]
        def put_nowait(self, item: Any) -> None:
            seen.append("put_nowait")
            super().put_nowait(item)

        def get_nowait(self) -> Any:
            seen.append("get_nowait")
            return super().get_nowait()

        def full(self) -> bool:
            seen.append("full")
            return bool(super().full())

    queue = Noisy(1)
    await queue.put(1)
    assert await queue.get() == 1
    assert {"put_nowait", "get_nowait", "full"} <= set(seen)


async def test_a_subclass_that_overrides_qsize(aio: ModuleType) -> None:
    class Heavy(aio.Queue):  # type: ignore[misc, name-defined]
        def qsize(self) -> int:
            return sum(self._queue)

    queue = Heavy(5)
    queue.put_nowait(3)
    assert not queue.full()
    queue.put_nowait(2)
    assert queue.full()
    with pytest.raises(aio.QueueFull):
        queue.put_nowait(1)


def test_a_class_that_mixes_in(aio: ModuleType) -> None:
    class Named:
        def __init__(self, *args: Any, name: str = "", **kwargs: Any) -> None:
            self.name = name
            super().__init__(*args, **kwargs)

    class NamedQueue(Named, aio.Queue):  # type: ignore[misc, name-defined]
        pass

    queue = NamedQueue(3, name="q")
    assert (queue.name, queue.maxsize) == ("q", 3)


# Shutdown (3.13).


@needs_shutdown
async def test_shutdown_lets_what_is_there_be_taken(aio: ModuleType) -> None:
    queue = aio.Queue()
    queue.put_nowait(1)
    queue.shutdown()
    with pytest.raises(aio.QueueShutDown):
        queue.put_nowait(2)
    with pytest.raises(aio.QueueShutDown):
        await queue.put(2)
    assert await queue.get() == 1
    with pytest.raises(aio.QueueShutDown):
        await queue.get()
    with pytest.raises(aio.QueueShutDown):
        queue.get_nowait()


@needs_shutdown
async def test_an_immediate_shutdown_empties_and_ends_joins(aio: ModuleType) -> None:
    queue = aio.Queue(2)
    queue.put_nowait(1)
    queue.put_nowait(2)
    joined, putter = await tasks_of(aio, queue.join(), queue.put(3))
    queue.shutdown(immediate=True)
    await joined
    with pytest.raises(aio.QueueShutDown):
        await putter
    assert queue.empty()


@needs_shutdown
async def test_shutdown_wakes_putters_and_getters(aio: ModuleType) -> None:
    full, empty = aio.Queue(1), aio.Queue()
    full.put_nowait(0)
    tasks = await tasks_of(aio, full.put(1), full.put(2), empty.get(), empty.get())
    full.shutdown()
    empty.shutdown()
    results = await aio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [aio.QueueShutDown] * 4


# Loops.


def test_a_queue_moves_between_loops_while_nobody_waits(runtime: Runtime) -> None:
    queue = runtime.aio.Queue()

    async def put() -> None:
        await queue.put(1)

    async def get() -> int:
        return int(await queue.get())

    runtime.run(put())
    assert runtime.run(get()) == 1


def test_a_queue_waited_for_on_one_loop_is_refused_by_another(runtime: Runtime) -> None:
    aio = runtime.aio
    queue = aio.Queue()

    async def wait() -> None:
        (task,) = await tasks_of(aio, queue.get())
        await stop(aio, task)

    async def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="is bound to a different event loop"):
            await queue.get()

    runtime.run(wait())
    runtime.run(elsewhere())


@each_kind
def test_native_queues_work_on_a_stock_loop(kind: str) -> None:
    rondel = pytest.importorskip("rondel")

    async def main() -> list[int]:
        queue = getattr(rondel, kind)(1)
        getting = asyncio.gather(*(queue.get() for _ in range(5)))
        await asyncio.gather(*(queue.put(number) for number in range(5)))
        return sorted(await getting)

    assert asyncio.run(main()) == list(range(5))
