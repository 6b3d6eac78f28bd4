"""Locks as objects: what code that looks closely sees.

`test_sync` has what every program uses, `test_lock_handoffs` what happens between those who wait.
Here: fields, `repr`, copies, subclasses, what counts as a coroutine function, and locks that belong
to another loop. The private fields are asyncio's own: libraries read them.
"""

import asyncio
import copy
import gc
import inspect
import pickle
import re
import sys
import warnings
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.runtime.locks import asleep, noisy
from tests.support import Runtime, spin

Make = Callable[[ModuleType], Any]
MAKERS: dict[str, Make] = {
    "Lock": lambda aio: aio.Lock(),
    "Event": lambda aio: aio.Event(),
    "Semaphore": lambda aio: aio.Semaphore(2),
    "BoundedSemaphore": lambda aio: aio.BoundedSemaphore(2),
    "Condition": lambda aio: aio.Condition(),
    "Barrier": lambda aio: aio.Barrier(2),
}
each_kind = pytest.mark.parametrize("kind", MAKERS)

COROUTINE_FUNCTIONS = [
    ("Lock", "acquire"),
    ("Event", "wait"),
    ("Semaphore", "acquire"),
    ("BoundedSemaphore", "acquire"),
    ("Condition", "acquire"),
    ("Condition", "wait"),
    ("Condition", "wait_for"),
    ("Barrier", "wait"),
    ("Barrier", "reset"),
    ("Barrier", "abort"),
    ("Lock", "__aenter__"),
    ("Lock", "__aexit__"),
    ("Semaphore", "__aenter__"),
    ("Condition", "__aexit__"),
]


# Objects.


@each_kind
def test_a_lock_is_one_of_asyncios(aio: ModuleType, kind: str) -> None:
    assert isinstance(MAKERS[kind](aio), getattr(asyncio, kind))


@each_kind
def test_a_lock_takes_attributes_and_weak_references(aio: ModuleType, kind: str) -> None:
    lock = MAKERS[kind](aio)
    lock.name = "mine"
    assert vars(lock)["name"] == "mine"
    gone: list[bool] = []
    reference = weakref.ref(lock, lambda _: gone.append(True))
    del lock
    gc.collect()
    assert reference() is None
    assert gone == [True]


@each_kind
def test_a_lock_in_a_cycle_is_collected(aio: ModuleType, kind: str) -> None:
    lock = MAKERS[kind](aio)
    lock.me = lock
    reference = weakref.ref(lock)
    del lock
    gc.collect()
    assert reference() is None


@each_kind
def test_repr_is_asyncios(aio: ModuleType, kind: str) -> None:
    def plain(lock: Any) -> str:
        text = re.sub(r"0x[0-9a-f]+", "0x", repr(lock))
        return re.sub(r"\b(rondel|asyncio)\.locks\.", "locks.", text)

    assert plain(MAKERS[kind](aio)) == plain(MAKERS[kind](asyncio))


async def test_repr_tells_the_state_and_who_waits(aio: ModuleType) -> None:
    lock, event, semaphore = aio.Lock(), aio.Event(), aio.Semaphore(1)
    assert repr(lock).endswith("[unlocked]>")
    await lock.acquire()
    await semaphore.acquire()
    tasks = await asleep(aio, lock.acquire(), lock.acquire(), event.wait(), semaphore.acquire())
    assert repr(lock).endswith("[locked, waiters:2]>")
    assert repr(event).endswith("[unset, waiters:1]>")
    assert repr(semaphore).endswith("[locked, waiters:1]>")
    for task in tasks:
        task.cancel()
    await spin(aio)
    assert repr(lock).endswith("[locked]>")
    event.set()
    assert repr(event).endswith("[set]>")
    semaphore.release()
    assert repr(semaphore).endswith("[unlocked, value:1]>")


async def test_copies_and_pickles_keep_the_state(aio: ModuleType) -> None:
    lock, event, semaphore = aio.Lock(), aio.Event(), aio.BoundedSemaphore(3)
    await lock.acquire()
    event.set()
    await semaphore.acquire()
    for again in (copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        assert again(lock).locked()
        assert again(event).is_set()
        twin = again(semaphore)
        assert twin._value == 2
        twin.release()
        with pytest.raises(ValueError, match="too many times"):
            twin.release()
    assert lock.locked()
    assert semaphore._value == 2


async def test_the_private_fields_are_asyncios(aio: ModuleType) -> None:
    lock, event, semaphore = aio.Lock(), aio.Event(), aio.Semaphore(0)
    assert (lock._locked, lock._waiters) == (False, None)
    assert event._value is False
    assert semaphore._value == 0
    await lock.acquire()
    assert lock._locked is True
    tasks = await asleep(aio, lock.acquire(), event.wait(), semaphore.acquire())
    for owner in (lock, event, semaphore):
        (waiter,) = owner._waiters
        assert isinstance(waiter, asyncio.Future)
        assert not waiter.done()
        assert owner._loop is aio.get_running_loop()
    for task in tasks:
        task.cancel()
    await aio.wait(tasks)


async def test_a_field_that_is_assigned_counts(aio: ModuleType) -> None:
    lock, event, semaphore = aio.Lock(), aio.Event(), aio.Semaphore()
    lock._locked = True
    event._value = True
    semaphore._value = 2
    assert lock.locked()
    assert await event.wait() is True
    await semaphore.acquire()
    await semaphore.acquire()
    assert semaphore.locked()
    with pytest.raises(TimeoutError):
        await aio.wait_for(lock.acquire(), 0)


# Arguments.


def test_constructors_refuse_what_asyncio_refuses(aio: ModuleType) -> None:
    for wrong in (
        lambda: aio.Semaphore(-1),
        lambda: aio.BoundedSemaphore(-1),
        lambda: aio.Barrier(0),
    ):
        with pytest.raises(ValueError, match=r">= 0|> 0|must be"):
            wrong()
    for kind in ("Lock", "Event", "Semaphore", "Condition"):
        with pytest.raises(TypeError):
            getattr(aio, kind)(loop=None)
    with pytest.raises(TypeError):
        aio.Lock().acquire(1)
    with pytest.raises(TypeError):
        aio.Event().wait(timeout=1)
    with pytest.raises(TypeError):
        aio.Lock().release(1)


def test_constructors_take_their_names(aio: ModuleType) -> None:
    assert aio.Semaphore(value=3)._value == 3
    assert aio.BoundedSemaphore(value=3)._value == 3
    lock = aio.Lock()
    assert aio.Condition(lock=lock)._lock is lock
    assert aio.Barrier(parties=4).parties == 4


def test_a_plain_with_is_an_error(aio: ModuleType) -> None:
    for kind in ("Lock", "Semaphore", "Condition"):
        with pytest.raises((TypeError, AttributeError)), MAKERS[kind](aio):
            pass


async def test_async_with_gives_nothing_and_lets_errors_out(aio: ModuleType) -> None:
    for lock in (aio.Lock(), aio.Semaphore(1), aio.Condition()):
        with pytest.raises(ZeroDivisionError):
            async with lock as value:
                assert value is None
                assert lock.locked()
                raise ZeroDivisionError
        assert not lock.locked()


# What counts as a coroutine.


@pytest.mark.parametrize(("kind", "method"), COROUTINE_FUNCTIONS)
def test_what_waits_is_a_coroutine_function(aio: ModuleType, kind: str, method: str) -> None:
    lock = MAKERS[kind](aio)
    assert inspect.iscoroutinefunction(getattr(lock, method))
    if (kind, method) != ("Condition", "acquire"):  # its lock's, on the instance alone
        assert inspect.iscoroutinefunction(getattr(type(lock), method))


@pytest.mark.parametrize(("kind", "method"), COROUTINE_FUNCTIONS[:4])
async def test_a_wait_can_be_given_to_create_task(aio: ModuleType, kind: str, method: str) -> None:
    lock = MAKERS[kind](aio)
    if kind == "Event":
        lock.set()
    waiting = getattr(lock, method)()
    assert asyncio.iscoroutine(waiting)
    assert inspect.isawaitable(waiting)
    assert await aio.create_task(waiting) is True


@pytest.mark.parametrize(("kind", "method"), COROUTINE_FUNCTIONS[:4])
def test_a_wait_that_nobody_awaits_warns(aio: ModuleType, kind: str, method: str) -> None:
    name = f"coroutine '(Bounded)?{kind.removeprefix('Bounded')}.{method}' was never awaited"
    with pytest.warns(RuntimeWarning, match=name):
        getattr(MAKERS[kind](aio), method)()
        gc.collect()


def test_a_wait_that_is_closed_does_not_warn(aio: ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aio.Lock().acquire().close()
        gc.collect()


async def test_a_wait_is_awaited_once(aio: ModuleType) -> None:
    taken = aio.Lock().acquire()
    await taken
    with pytest.raises(RuntimeError, match="already awaited"):
        await taken


# Subclasses.


async def test_async_with_uses_what_a_subclass_overrides(aio: ModuleType) -> None:
    seen: list[str] = []

    async with noisy(aio, seen) as nothing:
        assert nothing is None
    assert seen == ["acquire", "release"]


async def test_a_semaphore_subclass_that_counts(aio: ModuleType) -> None:
    class Counting(aio.Semaphore):  # type: ignore[misc, name-defined]
        def __init__(self, value: int) -> None:
            super().__init__(value)
            self.taken = 0

        async def acquire(self) -> bool:
            got = bool(await super().acquire())
            self.taken += 1
            return got

    semaphore = Counting(2)
    async with semaphore, semaphore:
        assert semaphore.locked()
    assert semaphore.taken == 2


async def test_an_event_subclass_may_override_is_set_and_set(aio: ModuleType) -> None:
    class Often(aio.Event):  # type: ignore[misc, name-defined]
        times = 0

        def set(self) -> None:
            self.times += 1
            super().set()

    event = Often()
    (task,) = await asleep(aio, event.wait())
    event.set()
    assert await task is True
    assert event.times == 1


# Loops.


def test_an_unused_lock_goes_to_whatever_loop_uses_it(runtime: Runtime) -> None:
    lock = runtime.aio.Lock()

    async def use() -> None:
        async with lock:  # uncontended: no loop is remembered
            pass

    runtime.run(use())
    runtime.run(use())


def test_a_lock_contended_on_one_loop_is_refused_by_another(runtime: Runtime) -> None:
    aio = runtime.aio
    lock, semaphore, event = aio.Lock(), aio.Semaphore(1), aio.Event()

    async def contend() -> None:
        await lock.acquire()
        await semaphore.acquire()
        tasks = await asleep(aio, lock.acquire(), semaphore.acquire(), event.wait())
        for task in tasks:
            task.cancel()
        await aio.wait(tasks)

    async def elsewhere() -> None:
        for wait in (lock.acquire, semaphore.acquire, event.wait):
            with pytest.raises(RuntimeError, match="is bound to a different event loop"):
                await wait()

    runtime.run(contend())
    runtime.run(elsewhere())


def test_outside_of_a_loop_only_waiting_fails(aio: ModuleType) -> None:
    lock, event, semaphore = aio.Lock(), aio.Event(), aio.Semaphore(1)
    for coro in (lock.acquire(), semaphore.acquire()):
        with pytest.raises(StopIteration):
            coro.send(None)
    event.set()
    event.clear()
    for coro in (lock.acquire(), semaphore.acquire(), event.wait()):
        with pytest.raises(AttributeError, match="create_future"):  # of no loop at all
            coro.send(None)
    lock.release()
    semaphore.release()


@each_kind
def test_native_locks_work_on_a_stock_loop(kind: str) -> None:
    rondel = pytest.importorskip("rondel")

    async def main() -> None:
        lock = MAKERS[kind](rondel)
        if kind == "Event":
            (task,) = await asleep(asyncio, lock.wait())
            lock.set()
            assert await task is True
        elif kind == "Barrier":
            assert sorted(await asyncio.gather(lock.wait(), lock.wait())) == [0, 1]
        else:
            inside: list[int] = []

            async def work(number: int) -> None:
                async with lock:
                    inside.append(number)
                    await spin(asyncio, 2)

            await asyncio.gather(*(work(number) for number in range(6)))
            assert inside == list(range(6))

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_an_eager_task_takes_a_free_lock_at_once(runtime: Runtime) -> None:
    aio = runtime.aio
    aio.get_running_loop().set_task_factory(aio.eager_task_factory)
    lock = aio.Lock()
    task = aio.create_task(lock.acquire())
    assert task.done()
    assert lock.locked()
    waiting = aio.create_task(lock.acquire())
    assert not waiting.done()
    lock.release()
    assert await waiting is True
