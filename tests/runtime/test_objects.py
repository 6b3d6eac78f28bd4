"""What foreign code does with asyncio's objects without running them: copy, pickle, inspect.

Libraries send functions to processes by pickle, copy configured objects and read signatures; all of
that goes by what asyncio's objects allow.
"""

import asyncio
import copy
import inspect
import pickle
from types import ModuleType
from typing import Any

import pytest

FUNCTIONS = ("sleep", "wait", "wait_for", "to_thread", "gather", "shield", "create_task", "timeout")
METHODS = (
    ("Lock", "acquire"),
    ("Event", "wait"),
    ("Condition", "wait_for"),
    ("Barrier", "wait"),
    ("Queue", "put"),
)
SIGNED = {
    "Future": ("cancel", "done", "remove_done_callback", "result", "set_exception", "set_result"),
    "Task": ("cancel", "cancelling", "get_stack", "print_stack", "set_name", "set_result"),
    "TaskGroup": ("create_task",),
    "Timeout": ("reschedule", "when", "expired", "__aexit__"),
    "Queue": ("put", "get", "put_nowait", "join", "task_done"),
    "Condition": ("wait", "wait_for", "notify", "notify_all"),
    "Barrier": ("wait", "reset", "abort"),
    "Semaphore": ("acquire", "release", "locked"),
}
CLASSES = ("Queue", "LifoQueue", "PriorityQueue", "Timeout", "Condition", "Barrier", "Semaphore")


def parameters(what: Any) -> list[tuple[str, Any]]:
    given = inspect.signature(what).parameters.values()
    return [(parameter.name, parameter.default) for parameter in given]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_pickled_by_name(aio: ModuleType, name: str, protocol: int) -> None:
    function = getattr(aio, name)
    assert pickle.loads(pickle.dumps(function, protocol)) is function
    assert copy.deepcopy(function) is function


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_a_method_is_pickled_by_name(aio: ModuleType, kind: str, name: str) -> None:
    method = getattr(getattr(aio, kind), name)
    again = pickle.loads(pickle.dumps(method))
    assert again is method


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
async def test_locks_and_queues_are_pickled_by_any_protocol(aio: ModuleType, protocol: int) -> None:
    def again(one: Any) -> Any:
        return pickle.loads(pickle.dumps(one, protocol))

    lock, event, queue = aio.Lock(), aio.Event(), aio.PriorityQueue(3)
    await lock.acquire()
    event.set()
    queue.put_nowait(2)
    queue.put_nowait(1)
    assert again(lock).locked()
    assert again(event).is_set()
    assert again(aio.Semaphore(4))._value == 4
    assert again(aio.Barrier(5)).parties == 5
    assert not again(aio.Condition()).locked()
    twin = again(queue)
    assert twin.maxsize == 3
    assert [twin.get_nowait(), twin.get_nowait()] == [1, 2]
    assert inspect.iscoroutinefunction(again(lock.acquire))
    assert await again(aio.Lock().acquire)() is True


async def test_a_group_that_was_not_entered_can_be_copied(aio: ModuleType) -> None:
    async def give(value: int) -> int:
        return value

    for again in (copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one, 0))):
        async with again(aio.TaskGroup()) as group:
            task = group.create_task(give(1))
        assert task.result() == 1


async def test_a_timeout_that_was_not_entered_can_be_copied(aio: ModuleType) -> None:
    now = aio.get_running_loop().time()
    for again in (copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        assert again(aio.timeout_at(None)).when() is None
        with pytest.raises(TimeoutError):
            async with again(aio.timeout_at(now)) as scope:
                assert scope.when() == now
                await aio.sleep(60)


async def test_a_timeout_that_is_running_cannot_be_pickled(aio: ModuleType) -> None:
    async with aio.timeout(60) as scope:
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(scope)


async def test_what_is_bound_to_a_loop_cannot_be_pickled(aio: ModuleType) -> None:
    async def nothing() -> None: ...

    future = aio.get_running_loop().create_future()
    task = aio.create_task(nothing())
    for one in (future, task):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot pickle"):
                attempt(one)
    await task


@pytest.mark.parametrize(("kind", "name"), [(k, name) for k in SIGNED for name in SIGNED[k]])
def test_a_signature_names_what_asyncios_does(aio: ModuleType, kind: str, name: str) -> None:
    ours, theirs = getattr(getattr(aio, kind), name), getattr(getattr(asyncio, kind), name)
    assert parameters(ours) == parameters(theirs)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_constructors_signature_is_asyncios(aio: ModuleType, kind: str) -> None:
    assert parameters(getattr(aio, kind)) == parameters(getattr(asyncio, kind))


async def test_the_state_of_a_coroutine_can_be_asked_for(aio: ModuleType) -> None:
    lock, queue = aio.Lock(), aio.Queue()
    await lock.acquire()
    for make in (lambda: aio.sleep(1000), lock.acquire, queue.get, aio.Event().wait):
        coroutine = make()
        task = aio.create_task(coroutine)
        await aio.sleep(0)
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_SUSPENDED
        task.cancel()
        await aio.wait([task])
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
