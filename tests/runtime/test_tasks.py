"""Task: results, errors, names, contexts and what can be asked of one."""

import asyncio
import collections.abc
import contextvars
import gc
import io
import sys
import weakref
from collections.abc import Generator
from types import ModuleType
from typing import Any

import pytest

from tests.support import Runtime, spin

Loop = asyncio.AbstractEventLoop
var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


async def give(value: Any) -> Any:
    return value


async def test_a_task_runs_and_gives_the_result(aio: ModuleType) -> None:
    task = aio.create_task(give(3))
    assert not task.done()
    assert await task == 3
    assert task.done()
    assert task.result() == 3
    assert task.exception() is None


async def test_a_task_starts_on_the_next_turn_in_order_of_creation(aio: ModuleType) -> None:
    seen: list[int] = []

    async def note(number: int) -> None:
        seen.append(number)

    tasks = [aio.create_task(note(number)) for number in range(10)]
    assert seen == []
    await aio.sleep(0)
    assert seen == list(range(10))
    await aio.wait(tasks)


async def test_tasks_interleave_at_sleep_zero(aio: ModuleType) -> None:
    seen: list[str] = []

    async def note(name: str) -> None:
        for step in range(3):
            seen.append(f"{name}{step}")
            await aio.sleep(0)

    await aio.gather(note("a"), note("b"))
    assert seen == ["a0", "b0", "a1", "b1", "a2", "b2"]


async def test_an_exception_is_raised_to_the_one_who_awaits(aio: ModuleType) -> None:
    error = KeyError("it")

    async def broken() -> None:
        raise error

    task = aio.create_task(broken())
    with pytest.raises(KeyError) as caught:
        await task
    assert caught.value is error
    assert task.exception() is error


@pytest.mark.parametrize("value", [(1, 2), (), StopIteration(1), KeyError("a value"), None])
async def test_any_object_comes_out_of_a_task(aio: ModuleType, value: Any) -> None:
    assert await aio.create_task(give(value)) is value


async def test_stop_iteration_raised_by_a_coroutine_becomes_a_runtime_error(
    aio: ModuleType,
) -> None:
    async def stop() -> None:
        raise StopIteration

    with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
        await aio.create_task(stop())


class Special(BaseException):
    pass


def test_a_base_exception_is_the_tasks_result_like_any_other(runtime: Runtime) -> None:
    async def broken() -> None:
        raise Special

    async def main() -> None:
        task = runtime.aio.create_task(broken())
        with pytest.raises(Special):
            await task

    runtime.run(main())


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exit_errors_in_a_task_stop_the_loop_and_stay_in_the_task(
    runtime: Runtime, loop: Loop, error: type[BaseException]
) -> None:
    async def broken() -> None:
        raise error

    task = loop.create_task(broken())
    with pytest.raises(error):
        loop.run_forever()
    assert isinstance(task.exception(), error)


async def test_a_task_cannot_be_finished_from_outside(aio: ModuleType) -> None:
    task = aio.create_task(give(1))
    with pytest.raises(RuntimeError, match="does not support set_result"):
        task.set_result(2)
    with pytest.raises(RuntimeError, match="does not support set_exception"):
        task.set_exception(KeyError())
    assert await task == 1


@pytest.mark.parametrize("bad", [3, None, give, "text", [1]])
async def test_only_coroutines_become_tasks(aio: ModuleType, bad: Any) -> None:
    with pytest.raises(TypeError, match="coroutine"):
        aio.create_task(bad)


async def test_awaiting_what_is_not_a_future_is_a_runtime_error(aio: ModuleType) -> None:
    class Bad:
        def __await__(self) -> Generator[Any, Any, None]:
            yield 42

    async def wait() -> None:
        await Bad()

    with pytest.raises(RuntimeError, match="Task got bad yield: 42"):
        await aio.create_task(wait())


async def test_a_bare_yield_in_an_awaitable_gives_up_one_turn(aio: ModuleType) -> None:
    seen: list[str] = []

    class Once:
        def __await__(self) -> Generator[None, Any, str]:
            seen.append("before")
            yield
            return "after"

    aio.get_running_loop().call_soon(seen.append, "turn")
    assert await Once() == "after"
    assert seen == ["before", "turn"]


async def test_a_task_cannot_await_itself(aio: ModuleType) -> None:
    async def narcissus() -> None:
        await task

    task = aio.create_task(narcissus())
    with pytest.raises(RuntimeError, match="Task cannot await on itself"):
        await task


async def test_many_tasks_may_await_one(aio: ModuleType) -> None:
    gate = aio.get_running_loop().create_future()

    async def slow() -> Any:
        return await gate

    async def wait() -> Any:
        return await task

    task = aio.create_task(slow())
    waiters = [aio.create_task(wait()) for _ in range(5)]
    await spin(aio)
    gate.set_result("shared")
    assert await aio.gather(*waiters) == ["shared"] * 5


async def test_a_foreign_generator_coroutine_runs(aio: ModuleType) -> None:
    # collections.abc.Coroutine without being a native coroutine: Cython's are such.
    class Coro:
        def __init__(self) -> None:
            self.inner = aio.sleep(0, "slept")

        def send(self, value: Any) -> Any:
            return self.inner.send(value)

        def throw(self, *args: Any) -> Any:
            return self.inner.throw(*args)

        def close(self) -> None:
            self.inner.close()

        def __await__(self) -> Any:
            return self.inner.__await__()

    collections.abc.Coroutine.register(Coro)
    coro = Coro()
    assert aio.iscoroutine(coro) is True
    assert await aio.create_task(coro) == "slept"


def test_names_count_from_task_1_in_a_fresh_process_order(runtime: Runtime) -> None:
    async def main() -> list[str]:
        tasks = [runtime.aio.create_task(give(None)) for _ in range(3)]
        await runtime.aio.wait(tasks)
        return [task.get_name() for task in tasks]

    first, second, third = (int(name.removeprefix("Task-")) for name in runtime.run(main()))
    assert (second, third) == (first + 1, first + 2)


async def test_a_name_can_be_given_and_changed_to_any_object(aio: ModuleType) -> None:
    task = aio.create_task(give(None), name="given")
    assert task.get_name() == "given"
    task.set_name("changed")
    assert task.get_name() == "changed"
    task.set_name(42)
    assert task.get_name() == "42"
    await task
    assert task.get_name() == "42"


async def test_repr_shows_name_state_and_coroutine(aio: ModuleType) -> None:
    gate = aio.get_running_loop().create_future()

    async def waits_here() -> str:
        return str(await gate)

    task = aio.create_task(waits_here(), name="watched")
    await aio.sleep(0)
    text = repr(task)
    assert text.startswith("<Task pending name='watched' coro=<")
    assert "waits_here() running at" in text
    assert f"test_tasks.py:{waits_here.__code__.co_firstlineno + 1}" in text
    assert "wait_for=<Future pending" in text
    gate.set_result("x")
    await task
    assert "finished" in repr(task)
    assert "result='x'" in repr(task)


async def test_get_coro_and_get_loop(aio: ModuleType) -> None:
    coro = give(None)
    task = aio.create_task(coro)
    assert task.get_coro() is coro
    assert task.get_loop() is aio.get_running_loop()
    await task
    assert task.get_coro() is coro


async def test_the_stack_of_a_pending_task_ends_where_it_waits(aio: ModuleType) -> None:
    gate = aio.get_running_loop().create_future()

    async def outer() -> None:
        await gate

    task = aio.create_task(outer())
    await aio.sleep(0)
    (frame,) = task.get_stack()
    assert frame.f_code is outer.__code__
    printed = io.StringIO()
    task.print_stack(file=printed)
    assert "Stack for <Task" in printed.getvalue()
    assert "await gate" in printed.getvalue()
    gate.set_result(None)
    await task
    assert task.get_stack() == []


async def test_the_stack_of_a_failed_task_is_its_traceback(aio: ModuleType) -> None:
    async def broken() -> None:
        raise KeyError

    task = aio.create_task(broken())
    await aio.wait([task])
    assert [frame.f_code.co_name for frame in task.get_stack()] == ["broken"]
    task.exception()


async def test_a_task_runs_in_a_copy_of_the_context(aio: ModuleType) -> None:
    var.set("outer")

    async def change() -> str:
        before = var.get()
        await aio.sleep(0)
        var.set("inner")
        await aio.sleep(0)
        return before + " " + var.get()

    assert await aio.create_task(change()) == "outer inner"
    assert var.get() == "outer"


async def test_a_task_runs_in_the_context_it_is_given(aio: ModuleType) -> None:
    context = contextvars.copy_context()

    async def change() -> None:
        await aio.sleep(0)
        var.set("changed")

    task = aio.create_task(change(), context=context)
    if sys.version_info >= (3, 12):
        assert task.get_context() is context
    await task
    assert context[var] == "changed"
    assert var.get() == "unset"


async def test_two_tasks_share_a_given_context_and_see_each_other(aio: ModuleType) -> None:
    # Each wake-up must leave the context before the other task enters it.
    context = contextvars.copy_context()
    seen: list[str] = []

    async def talk(name: str) -> None:
        for _ in range(3):
            seen.append(f"{name} after {var.get()}")
            var.set(name)
            await aio.sleep(0)

    await aio.gather(
        aio.create_task(talk("a"), context=context), aio.create_task(talk("b"), context=context)
    )
    assert seen == [
        "a after unset",
        "b after a",
        "a after b",
        "b after a",
        "a after b",
        "b after a",
    ]


async def test_current_task_is_the_running_one(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    main = aio.current_task()
    seen: list[Any] = []

    async def child() -> Any:
        before = aio.current_task()
        await aio.sleep(0)
        assert aio.current_task() is before
        return before

    task = aio.create_task(child())
    loop.call_soon(lambda: seen.append(aio.current_task()))
    assert await task is task
    assert seen == [None]
    assert aio.current_task() is main
    assert aio.current_task(loop) is main


async def test_asyncios_own_current_task_sees_the_task(aio: ModuleType) -> None:
    # Libraries (anyio, asgiref, sniffio) ask asyncio, whichever loop runs.
    assert asyncio.current_task() is aio.current_task()
    assert asyncio.current_task() is not None
    assert aio.current_task() in asyncio.all_tasks()


def test_current_task_needs_a_loop(runtime: Runtime, loop: Loop) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        runtime.aio.current_task()
    assert runtime.aio.current_task(loop) is None


async def test_all_tasks_are_those_not_done(aio: ModuleType) -> None:
    gate = aio.get_running_loop().create_future()

    async def wait() -> None:
        await gate

    done = aio.create_task(give(None))
    await done
    tasks = {aio.create_task(wait()) for _ in range(10)}
    assert aio.all_tasks() == {*tasks, aio.current_task()}
    await aio.sleep(0)
    assert aio.all_tasks(aio.get_running_loop()) == {*tasks, aio.current_task()}
    gate.set_result(None)
    await aio.wait(tasks)
    assert aio.all_tasks() == {aio.current_task()}


async def test_all_tasks_can_be_asked_from_another_thread(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    tasks = await loop.run_in_executor(None, aio.all_tasks, loop)
    assert aio.current_task() in tasks


async def test_done_callbacks_get_the_task(aio: ModuleType) -> None:
    seen: list[Any] = []
    task = aio.create_task(give(1))
    task.add_done_callback(seen.append)
    await task
    await aio.sleep(0)
    assert seen == [task]


async def test_a_done_callback_may_be_removed(aio: ModuleType) -> None:
    seen: list[Any] = []
    task = aio.create_task(give(1))
    task.add_done_callback(seen.append)
    assert task.remove_done_callback(seen.append) == 1
    await task
    await aio.sleep(0)
    assert seen == []


async def test_a_finished_task_is_freed_with_its_locals(aio: ModuleType) -> None:
    class Thing:
        pass

    gone: list[weakref.ref[Any]] = []

    async def hold() -> None:
        thing = Thing()
        gone.append(weakref.ref(thing))
        await aio.sleep(0)

    task = aio.create_task(hold())
    gone.append(weakref.ref(task))
    await task
    del task
    await aio.sleep(0)
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


async def test_a_cycle_of_task_and_coroutine_is_collected(aio: ModuleType) -> None:
    class Thing:
        pass

    async def hold(thing: Any) -> None:
        thing.task = aio.current_task()
        await aio.sleep(0)

    thing = Thing()
    gone = weakref.ref(thing)
    task = aio.create_task(hold(thing))
    await task
    del task, thing
    await aio.sleep(0)
    gc.collect()
    assert gone() is None


async def test_a_task_that_nobody_holds_runs_to_its_end(aio: ModuleType) -> None:
    ended = aio.get_running_loop().create_future()

    async def alone() -> None:
        for _ in range(5):
            await aio.sleep(0)
            gc.collect()
        ended.set_result(None)

    aio.create_task(alone())
    await aio.wait_for(ended, 5)


async def test_types_and_class_getitem(runtime: Runtime) -> None:
    aio = runtime.aio
    task = aio.create_task(give(None))
    assert isinstance(task, asyncio.Task)
    assert isinstance(task, runtime.types.Task)
    assert isinstance(task, asyncio.Future)
    assert aio.Task[int].__origin__ is aio.Task
    await task


async def test_a_task_can_be_made_by_its_constructor(aio: ModuleType) -> None:
    task = aio.Task(give(5), loop=aio.get_running_loop(), name="made")
    assert task.get_name() == "made"
    assert task in aio.all_tasks()
    assert await task == 5


async def test_tasks_can_be_subclassed_through_a_task_factory(aio: ModuleType) -> None:
    class Mine(aio.Task):  # type: ignore[misc, name-defined]
        pass

    loop = aio.get_running_loop()
    assert loop.get_task_factory() is None
    loop.set_task_factory(lambda loop, coro, **kw: Mine(coro, loop=loop, **kw))
    task = aio.create_task(give(6))
    assert type(task) is Mine
    assert await task == 6
    loop.set_task_factory(None)
    assert type(aio.create_task(give(7))) is not Mine
    with pytest.raises(TypeError):
        loop.set_task_factory(3)
    await spin(aio)


async def test_a_coroutine_that_is_awaited_twice_says_so(aio: ModuleType) -> None:
    coro = give(1)
    await coro
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await aio.create_task(coro)


async def test_deep_chains_of_awaits_work(aio: ModuleType) -> None:
    async def nest(depth: int) -> int:
        if depth == 0:
            await aio.sleep(0)
            return 0
        return 1 + await nest(depth - 1)

    assert await aio.create_task(nest(300)) == 300


async def test_a_long_chain_of_tasks_finishes_without_recursion(aio: ModuleType) -> None:
    gate = aio.get_running_loop().create_future()

    async def follow(before: Any) -> Any:
        return await before

    last = gate
    for _ in range(5000):
        last = aio.create_task(follow(last))
    await spin(aio)
    gate.set_result("end")
    assert await last == "end"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_an_eager_task_runs_up_to_its_first_wait(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    seen: list[str] = []

    async def work() -> str:
        seen.append("started")
        await aio.sleep(0)
        return "finished"

    loop.set_task_factory(aio.eager_task_factory)
    eager = aio.create_task(work())
    assert seen == ["started"]
    immediate = aio.create_task(give("at once"))
    assert immediate.done()
    assert immediate.result() == "at once"
    assert await eager == "finished"
    loop.set_task_factory(None)
