"""Contexts of tasks and handles: each its own copy, gone when its owner is, whatever becomes of it.

Rondel makes copies out of contexts that nobody refers to any more; nothing of their earlier life
may show, and nobody may find one that is not whole.
"""

import asyncio
import contextvars
import gc
import weakref
from types import ModuleType
from typing import Any

from tests.support import Runtime

Loop = asyncio.AbstractEventLoop

var: contextvars.ContextVar[Any] = contextvars.ContextVar("var", default="unset")
other: contextvars.ContextVar[Any] = contextvars.ContextVar("other", default="unset")


class Thing:
    """Something that can be waited for to go."""

    owner: Any = None


async def test_a_variable_set_in_a_task_is_not_seen_by_later_tasks(aio: ModuleType) -> None:
    seen = []

    async def sets(value: int) -> None:
        seen.append(var.get())
        var.set(value)
        await aio.sleep(0)
        assert var.get() == value

    for value in range(200):
        await aio.create_task(sets(value))
    assert seen == ["unset"] * 200
    assert var.get() == "unset"


async def test_tasks_see_what_their_creator_had_set_at_that_moment(aio: ModuleType) -> None:
    async def reads() -> Any:
        return var.get(), other.get()

    tasks = []
    for value in range(100):
        var.set(value)
        tasks.append(aio.create_task(reads()))
        other.set(-value)
    found = [await task for task in tasks]
    assert found == [(0, "unset")] + [(value, 1 - value) for value in range(1, 100)]


async def test_the_variables_of_a_task_go_with_it(aio: ModuleType) -> None:
    async def sets() -> weakref.ref[Thing]:
        thing = Thing()
        var.set(thing)
        return weakref.ref(thing)

    for _ in range(10):
        thing = await aio.create_task(sets())
        await aio.sleep(0)  # the wake-up holds what was awaited
        gc.collect()
        assert thing() is None


async def test_the_variables_of_a_callback_go_with_it(aio: ModuleType) -> None:
    things: list[weakref.ref[Thing]] = []

    def sets(done: Any) -> None:
        thing = Thing()
        var.set(thing)
        things.append(weakref.ref(thing))
        done.set_result(None)

    loop = aio.get_running_loop()
    for _ in range(10):
        done = loop.create_future()
        loop.call_soon(sets, done)
        await done
        await aio.sleep(0)
        gc.collect()
        assert things[-1]() is None


async def test_a_context_that_somebody_keeps_stays_as_it_was(aio: ModuleType) -> None:
    async def sets(value: int) -> contextvars.Context:
        var.set(value)
        return contextvars.copy_context()

    kept = []
    for value in range(50):
        task = aio.create_task(sets(value))
        own = task.get_context() if hasattr(task, "get_context") else None
        kept.append((value, await task, own))
        del task
    for value, copied, own in kept:
        assert copied[var] == value
        assert own is None or own[var] == value


async def test_a_handles_context_is_of_the_moment_of_the_call_and_always_the_same(
    aio: ModuleType,
) -> None:
    loop = aio.get_running_loop()
    seen = []

    def run() -> None:
        seen.append(var.get())
        var.set("within")
        if len(seen) == 1 and hasattr(soon, "get_context"):  # 3.12 and later
            assert soon.get_context()[var] == "within"

    var.set("then")
    soon = loop.call_soon(run)
    timer = loop.call_later(3600, int)
    threaded = [loop.call_soon_threadsafe(run) for _ in range(3)]
    var.set("now")
    await aio.sleep(0)
    assert seen == ["then"] * 4
    assert var.get() == "now"
    if hasattr(timer, "get_context"):
        context = timer.get_context()
        assert context is timer.get_context()
        assert context[var] == "then"
    timer.cancel()
    del threaded


async def test_a_context_with_a_weak_reference_is_not_used_again(aio: ModuleType) -> None:
    references = []

    def look(handle: Any) -> None:
        references.append(weakref.ref(handle.get_context() if handle else contextvars.Context()))

    loop = aio.get_running_loop()
    for _ in range(20):
        handle = loop.call_soon(int)
        if hasattr(handle, "get_context"):
            look(handle)
        await aio.sleep(0)
        del handle
        await aio.sleep(0)
        gc.collect()
        assert all(reference() is None for reference in references)


async def test_a_context_taken_apart_by_the_collector_is_not_used_again(aio: ModuleType) -> None:
    async def ties_a_knot() -> Thing:
        # Two cycles: the context goes first, the task when its result does.
        value, result = Thing(), Thing()
        value.owner = result.owner = aio.current_task()
        var.set(value)
        return result

    async def reads() -> Any:
        return var.get()

    for _ in range(30):
        await aio.gather(*[aio.create_task(ties_a_knot()) for _ in range(10)])
        await aio.sleep(0)
        gc.collect()
        assert await aio.gather(*[aio.create_task(reads()) for _ in range(20)]) == ["unset"] * 20
        gc.collect()


async def test_every_context_that_the_collector_knows_is_whole(aio: ModuleType) -> None:
    async def sets(value: int) -> None:
        var.set(value)

    for value in range(100):
        await aio.create_task(sets(value))
    contexts = [found for found in gc.get_objects() if type(found) is contextvars.Context]
    # Taken hold of, none of them may serve anybody else.
    for context in contexts:
        list(context.items())
    await aio.gather(*[aio.create_task(sets(value)) for value in range(100)])
    assert not any(context.get(other) == "mine" for context in contexts)
    for context in contexts:
        list(context.items())


async def test_contexts_nest_inside_a_task(aio: ModuleType) -> None:
    async def reads() -> Any:
        return var.get()

    def inside(value: int) -> Any:
        var.set(value)
        return aio.create_task(reads())

    var.set("outer")
    tasks = [contextvars.copy_context().run(inside, value) for value in range(10)]
    empty = contextvars.Context().run(aio.create_task, reads())
    assert [await task for task in tasks] == list(range(10))
    assert await empty == "unset"
    assert var.get() == "outer"


async def test_a_variable_s_cache_follows_the_tasks_that_take_turns(aio: ModuleType) -> None:
    async def takes_turns(value: int) -> None:
        var.set(value)
        for step in range(20):
            assert var.get() == (value if step == 0 else (value, step))
            var.set((value, step + 1))
            await aio.sleep(0)

    await aio.gather(*[takes_turns(value) for value in range(20)])


def test_a_callback_whose_context_is_entered_already_is_reported(runtime: Runtime) -> None:
    loop = runtime.new_event_loop()
    context = contextvars.copy_context()
    ran: list[int] = []

    def schedule() -> None:
        loop.call_soon(ran.append, 1, context=context)
        loop.call_soon(ran.append, 2)
        loop.call_soon(loop.stop)
        loop.run_forever()

    if runtime.native:
        context.run(schedule)
        assert ran == [2]
        [report] = runtime.take_errors()
        assert "is already entered" in str(report["exception"])
    # asyncio ends its run there: the error comes out of run_forever().
