"""Conditions, looked at closely: foreign locks, subclasses, waits that are cut off.

`test_sync` has what every program uses, `test_locks` what they share with the other locks, and
`test_barriers` barriers; the random trees (`tests/property`) compare the order of their steps. The
private fields are asyncio's own: libraries read them.
"""

import asyncio
import copy
import gc
import inspect
import math
import pickle
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest

from tests.runtime.locks import asleep, noisy
from tests.support import Runtime, spin

PASSES_ON = hasattr(asyncio.Condition, "_notify")
"""A wait that fails notifies another: 3.13, and later patches of 3.12."""

Waits = Callable[[Any], Awaitable[Any]]
COROUTINES: dict[str, tuple[str, Waits]] = {
    "Condition.wait": ("Condition", lambda condition: condition.wait()),
    "Condition.wait_for": ("Condition", lambda condition: condition.wait_for(bool)),
    "_ContextManagerMixin.__aenter__": ("Condition", lambda condition: condition.__aenter__()),
    "_ContextManagerMixin.__aexit__": (
        "Condition",
        lambda condition: condition.__aexit__(None, None, None),
    ),
    "Barrier.wait": ("Barrier", lambda barrier: barrier.wait()),
    "Barrier.reset": ("Barrier", lambda barrier: barrier.reset()),
    "Barrier.abort": ("Barrier", lambda barrier: barrier.abort()),
    "Barrier.__aenter__": ("Barrier", lambda barrier: barrier.__aenter__()),
    "Barrier.__aexit__": ("Barrier", lambda barrier: barrier.__aexit__(None, None, None)),
}
each_coroutine = pytest.mark.parametrize("name", COROUTINES)


def make(aio: ModuleType, name: str) -> Any:
    """The coroutine of that name, of a new object."""
    kind, wait = COROUTINES[name]
    return wait(aio.Condition() if kind == "Condition" else aio.Barrier(1))


async def waiting(condition: Any, seen: list[Any] | None = None, name: object = None) -> Any:
    """Waits once with the lock; notes its name when it goes on."""
    async with condition:
        result = await condition.wait()
        if seen is not None:
            seen.append(name)
        return result


# What counts as a coroutine.


@each_coroutine
def test_a_coroutine_is_asyncios_by_name(aio: ModuleType, name: str) -> None:
    coro = make(aio, name)
    assert asyncio.iscoroutine(coro)
    assert inspect.isawaitable(coro)
    assert coro.__qualname__ == name
    assert coro.__name__ == name.split(".")[-1]
    assert repr(coro).startswith(f"<coroutine object {name} at 0x")
    coro.close()


@each_coroutine
def test_a_coroutine_that_nobody_awaits_warns(aio: ModuleType, name: str) -> None:
    with pytest.warns(RuntimeWarning, match=f"coroutine '{name}' was never awaited"):
        make(aio, name)
        gc.collect()


@pytest.mark.parametrize(("name", "result"), [("Barrier.wait", 0), ("Barrier.reset", None)])
async def test_a_task_can_be_made_of_it(aio: ModuleType, name: str, result: object) -> None:
    assert await aio.create_task(make(aio, name)) == result


@pytest.mark.parametrize("name", ["wait", "wait_for", "notify", "notify_all"])
def test_the_signatures_are_asyncios(aio: ModuleType, name: str) -> None:
    ours, theirs = getattr(aio.Condition, name), getattr(asyncio.Condition, name)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


async def test_arguments_go_by_name_too(aio: ModuleType) -> None:
    condition = aio.Condition()
    async with condition:
        assert await condition.wait_for(predicate=lambda: "yes") == "yes"
        condition.notify(n=2)
        with pytest.raises(TypeError):
            condition.notify(m=2)
        with pytest.raises(TypeError):
            await condition.wait(1)
        with pytest.raises(TypeError):
            await condition.wait_for()
        with pytest.raises(TypeError, match="not callable"):
            await condition.wait_for(None)
    with pytest.raises(TypeError):
        await aio.Barrier(1).wait(1)


# Fields and copies.


async def test_the_private_fields_of_a_condition_are_asyncios(aio: ModuleType) -> None:
    condition = aio.Condition()
    assert isinstance(condition._lock, aio.Lock)
    assert len(condition._waiters) == 0
    assert condition._loop is None
    (task,) = await asleep(aio, waiting(condition))
    (waiter,) = condition._waiters
    assert isinstance(waiter, asyncio.Future)
    assert not waiter.done()
    assert condition._loop is aio.get_running_loop()
    async with condition:
        condition.notify()
    await task
    assert waiter.result() is False


async def test_the_methods_of_the_lock_are_the_conditions(aio: ModuleType) -> None:
    lock = aio.Lock()
    condition = aio.Condition(lock)
    for name in ("acquire", "release", "locked"):
        assert getattr(condition, name) == getattr(lock, name)
    assert await condition.acquire() is True
    assert lock.locked()
    assert condition.locked()
    condition.release()
    assert not lock.locked()
    with pytest.raises(RuntimeError, match="not acquired"):
        condition.release()


async def test_a_shallow_copy_shares_the_lock(aio: ModuleType) -> None:
    condition = aio.Condition()
    twin = copy.copy(condition)
    assert twin._lock is condition._lock
    async with twin:
        assert condition.locked()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
async def test_a_deep_copy_has_a_lock_of_its_own(aio: ModuleType, again: Any) -> None:
    condition = aio.Condition()
    async with condition:
        twin = again(condition)
    assert twin.locked()
    assert not condition.locked()
    twin.release()
    assert not twin._lock.locked()
    (task,) = await asleep(aio, waiting(twin))
    async with twin:
        twin.notify()
    assert await task is True


async def test_a_deep_copy_of_a_condition_on_a_stock_lock(aio: ModuleType) -> None:
    condition = aio.Condition(asyncio.Lock())
    twin = copy.deepcopy(condition)
    async with twin:
        assert twin.locked()
        assert twin._lock.locked()
        assert not condition.locked()


# Who is notified.


@pytest.mark.parametrize(
    ("count", "woken"), [(0, 0), (-1, 0), (2, 2), (2.5, 3), (True, 1), (10**30, 4), (math.inf, 4)]
)
async def test_notify_takes_any_number(aio: ModuleType, count: Any, woken: int) -> None:
    condition, seen = aio.Condition(), []
    tasks = await asleep(aio, *(waiting(condition, seen, name) for name in range(4)))
    async with condition:
        condition.notify(count)
    await spin(aio, 12)
    assert seen == list(range(woken))
    async with condition:
        condition.notify_all()
    await aio.gather(*tasks)


async def test_notify_passes_over_those_that_were_notified(aio: ModuleType) -> None:
    condition, seen = aio.Condition(), []
    tasks = await asleep(aio, *(waiting(condition, seen, name) for name in range(3)))
    async with condition:
        condition.notify()
        condition.notify()
    await spin(aio, 12)
    assert seen == [0, 1]
    async with condition:
        condition.notify()
    await aio.gather(*tasks)


async def test_a_notified_one_queues_for_the_lock_behind_those_who_wait_for_it(
    aio: ModuleType,
) -> None:
    condition, seen = aio.Condition(), []

    async def take() -> None:
        async with condition:
            seen.append("taker")

    tasks = await asleep(aio, waiting(condition, seen, "waiter"))
    async with condition:
        tasks += await asleep(aio, take())
        condition.notify()
    await aio.gather(*tasks)
    assert seen == ["taker", "waiter"]


async def test_the_predicate_is_asked_with_the_lock_held(aio: ModuleType) -> None:
    condition, seen = aio.Condition(), []

    def ready() -> bool:
        seen.append(condition.locked())
        return len(seen) == 3

    async def wait() -> Any:
        async with condition:
            return await condition.wait_for(ready)

    (task,) = await asleep(aio, wait())
    for _ in range(2):
        async with condition:
            condition.notify_all()
        await spin(aio)
    assert await task is True
    assert seen == [True] * 3


async def test_a_predicate_may_have_no_truth(aio: ModuleType) -> None:
    class Neither:
        def __bool__(self) -> bool:
            raise LookupError("neither")

    condition = aio.Condition()
    async with condition:
        with pytest.raises(LookupError, match="neither"):
            await condition.wait_for(Neither)


# Waits that are cut off.


async def test_the_error_of_a_cancel_is_kept(aio: ModuleType) -> None:
    condition = aio.Condition()
    (task,) = await asleep(aio, waiting(condition))
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError, match="why"):
        await task
    assert len(condition._waiters) == 0
    assert not condition.locked()


async def test_a_second_cancel_while_it_takes_the_lock_back(aio: ModuleType) -> None:
    condition, caught = aio.Condition(), []

    async def wait() -> None:
        try:
            await waiting(condition)
        except asyncio.CancelledError as exc:
            caught.append(exc)

    (task,) = await asleep(aio, wait())
    async with condition:
        for message in ("first", "second", "third"):
            task.cancel(message)
            await spin(aio)
    await task
    # Up to 3.12 a new error takes the place of the last one.
    assert caught[0].args == (("third",) if PASSES_ON else ())
    assert caught[0].__context__.args == ("first",)
    assert not condition.locked()


async def test_a_notified_one_that_is_cancelled_takes_the_lock_first(aio: ModuleType) -> None:
    condition, seen = aio.Condition(), []
    first, second = await asleep(
        aio, waiting(condition, seen, "first"), waiting(condition, seen, "second")
    )
    async with condition:
        condition.notify()
        await spin(aio)  # the first is woken and waits for the lock
        first.cancel()
    await spin(aio, 12)
    assert first.cancelled()
    # The notification would be lost: since 3.13 it goes to the next.
    assert seen == (["second"] if PASSES_ON else [])
    second.cancel()
    await aio.wait([second])
    assert not condition.locked()


async def test_a_waiter_that_somebody_took_out_is_an_error(aio: ModuleType) -> None:
    condition = aio.Condition()
    (task,) = await asleep(aio, waiting(condition))
    condition._waiters.pop().set_result(None)
    with pytest.raises(ValueError, match="not in deque"):
        await task
    assert not condition.locked()


async def test_a_closed_wait_takes_the_lock_back(aio: ModuleType) -> None:
    condition = aio.Condition()
    await condition.acquire()
    coro = condition.wait()
    coro.send(None)
    assert not condition.locked()
    coro.close()
    assert condition.locked()
    assert len(condition._waiters) == 0


async def test_a_wait_cannot_be_closed_while_another_has_the_lock(aio: ModuleType) -> None:
    condition = aio.Condition()
    await condition.acquire()
    coro = condition.wait()
    coro.send(None)
    await condition.acquire()
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        coro.close()
    condition.release()
    with pytest.raises(GeneratorExit):
        coro.throw(GeneratorExit)
    assert not condition.locked()


async def test_an_error_thrown_in_passes_through_the_lock(aio: ModuleType) -> None:
    condition = aio.Condition()
    await condition.acquire()
    coro = condition.wait()
    coro.send(None)
    with pytest.raises(LookupError, match="thrown"):
        coro.throw(LookupError("thrown"))
    assert condition.locked()


def test_a_wrong_loop_leaves_the_lock_with_its_holder(runtime: Runtime) -> None:
    aio = runtime.aio
    condition = aio.Condition()

    async def contend() -> None:
        (task,) = await asleep(aio, waiting(condition))
        task.cancel()
        await aio.wait([task])

    async def elsewhere() -> None:
        async with condition:
            with pytest.raises(RuntimeError, match="is bound to a different event loop"):
                await condition.wait()
            assert condition.locked()
        assert not condition.locked()

    runtime.run(contend())
    runtime.run(elsewhere())


# Other locks, and methods that somebody has replaced.


class Noted:
    """A lock that is nobody's class; it notes what is asked of it."""

    def __init__(self, aio: ModuleType) -> None:
        self.lock = aio.Lock()
        self.seen: list[str] = []

    def locked(self) -> bool:
        return bool(self.lock.locked())

    async def acquire(self) -> bool:
        self.seen.append("acquire")
        return bool(await self.lock.acquire())

    def release(self) -> None:
        self.seen.append("release")
        self.lock.release()


async def test_a_condition_takes_anything_that_locks(aio: ModuleType) -> None:
    lock = Noted(aio)
    condition = aio.Condition(lock)
    (task,) = await asleep(aio, waiting(condition))
    assert lock.seen == ["acquire", "release"]
    async with condition:
        condition.notify()
    assert await task is True
    assert lock.seen == ["acquire", "release"] * 3


@pytest.mark.parametrize("stock", [False, True])
async def test_a_cancelled_wait_over_another_lock(aio: ModuleType, stock: bool) -> None:
    condition = aio.Condition(asyncio.Lock() if stock else Noted(aio))
    (task,) = await asleep(aio, waiting(condition))
    async with condition:
        task.cancel()
        await spin(aio)
        task.cancel()
        await spin(aio)
        assert not task.done()
    await aio.wait([task])
    assert task.cancelled()
    assert not condition.locked()


async def test_a_lock_that_fails_ends_the_wait(aio: ModuleType) -> None:
    class Once(Noted):
        async def acquire(self) -> bool:
            if self.seen:
                raise LookupError("no more")
            return await super().acquire()

    condition = aio.Condition(Once(aio))
    await condition.acquire()
    task = aio.create_task(condition.wait())
    await spin(aio)
    condition._waiters[0].set_result(False)
    with pytest.raises(LookupError, match="no more"):
        await task


async def test_a_lock_of_a_subclass_is_asked(aio: ModuleType) -> None:
    seen: list[str] = []

    condition = aio.Condition(noisy(aio, seen))
    (task,) = await asleep(aio, waiting(condition))
    async with condition:
        condition.notify_all()
    assert await task is True
    assert seen == ["acquire", "release"] * 3


async def test_a_method_that_is_replaced_is_used(aio: ModuleType) -> None:
    condition, seen = aio.Condition(), []
    release = condition.release

    def noted() -> None:
        seen.append("release")
        release()

    condition.release = noted
    (task,) = await asleep(aio, waiting(condition))
    assert seen == ["release"]
    async with condition:
        condition.notify()
    await task
    assert seen == ["release"] * 3


async def test_a_lock_that_is_replaced_leaves_the_methods(aio: ModuleType) -> None:
    first, second = aio.Lock(), aio.Lock()
    condition = aio.Condition(first)
    condition._lock = second
    async with condition:
        assert first.locked()
        assert not second.locked()
    condition.__init__(second)
    async with condition:
        assert second.locked()
        assert not first.locked()


# Subclasses.


async def test_a_subclass_may_override_what_the_others_call(aio: ModuleType) -> None:
    seen: list[str] = []

    class Noisy(aio.Condition):  # type: ignore[misc, name-defined]
        async def wait(self) -> bool:
            seen.append("wait")
            return bool(await super().wait())

        def notify(self, n: int = 1) -> None:
            seen.append(f"notify {n}")
            super().notify(n)

    condition, ready = Noisy(), []

    async def wait() -> Any:
        async with condition:
            return await condition.wait_for(lambda: ready)

    (task,) = await asleep(aio, wait())
    async with condition:
        ready.append(1)
        condition.notify_all()
    assert await task == [1]
    assert seen == ["wait", "notify 1"]


async def test_the_constructors_methods_hide_a_subclasss(aio: ModuleType) -> None:
    class Hidden(aio.Condition):  # type: ignore[misc, name-defined]
        def release(self) -> None:
            raise AssertionError("the lock's own is called")

    condition = Hidden()
    (task,) = await asleep(aio, waiting(condition))
    async with condition:
        condition.notify()
    assert await task is True


# A loop that is not Rondel's.


def test_native_conditions_work_on_a_stock_loop() -> None:
    rondel = pytest.importorskip("rondel")

    async def main() -> None:
        condition, seen = rondel.Condition(), []
        tasks = await asleep(asyncio, *(waiting(condition, seen, name) for name in range(3)))
        tasks[1].cancel()
        await spin(asyncio)
        async with condition:
            condition.notify_all()
        await asyncio.gather(tasks[0], tasks[2])
        assert seen == [0, 2]

    asyncio.run(main())
