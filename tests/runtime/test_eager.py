"""Eager tasks by every way in: factories and `Task(..., eager_start=True)` (Python 3.12 on)."""

import asyncio
import contextvars
import gc
import inspect
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import Runtime

if sys.version_info < (3, 12):
    pytest.skip("eager tasks came with Python 3.12", allow_module_level=True)

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")

WAYS: dict[str, Callable[[Runtime], Any]] = {
    "eager_task_factory": lambda runtime: runtime.aio.eager_task_factory,
    "create_eager_task_factory": lambda runtime: runtime.aio.create_eager_task_factory(
        runtime.aio.Task
    ),
    "constructor": lambda runtime: (
        lambda loop, coro, **options: runtime.aio.Task(coro, loop=loop, eager_start=True, **options)
    ),
}
each_way = pytest.mark.parametrize("way", WAYS)


@each_way
async def test_it_is_the_current_task_during_its_first_step(runtime: Runtime, way: str) -> None:
    aio, make = runtime.aio, WAYS[way](runtime)
    seen: list[Any] = []

    async def work() -> str:
        for _ in range(2):
            task = aio.current_task()
            seen.append((task is asyncio.current_task(), task.get_name(), task in aio.all_tasks()))
            await aio.sleep(0)
        return "done"

    outer = aio.current_task()
    task = make(aio.get_running_loop(), work(), name="eager")
    assert len(seen) == 1
    assert aio.current_task() is outer
    assert not task.done()
    assert task in aio.all_tasks()
    assert task in asyncio.all_tasks()
    assert await task == "done"
    assert seen == [(True, "eager", True)] * 2
    assert task not in aio.all_tasks()


@each_way
async def test_what_ends_in_its_first_step_is_done_at_once(runtime: Runtime, way: str) -> None:
    make, loop = WAYS[way](runtime), runtime.aio.get_running_loop()

    async def work(error: Exception | None) -> str:
        if error is not None:
            raise error
        return "done"

    task, failed = make(loop, work(None)), make(loop, work(LookupError("no")))
    assert task.done()
    assert task.result() == "done"
    assert task not in runtime.aio.all_tasks()
    assert isinstance(failed.exception(), LookupError)
    assert "coro=" not in repr(task)


@each_way
async def test_it_runs_in_the_context_it_is_given(runtime: Runtime, way: str) -> None:
    make, loop = WAYS[way](runtime), runtime.aio.get_running_loop()

    async def work() -> str:
        before = var.get()
        var.set("changed")
        return before

    context = contextvars.copy_context()
    context.run(var.set, "given")
    assert make(loop, work(), context=context).result() == "given"
    assert context[var] == "changed"
    assert make(loop, work()).result() == "unset"
    assert var.get() == "unset"


@each_way
async def test_one_inside_another(runtime: Runtime, way: str) -> None:
    aio, make = runtime.aio, WAYS[way](runtime)
    loop = aio.get_running_loop()
    seen: list[str] = []

    def note() -> None:
        seen.append(aio.current_task().get_name())

    async def inner() -> None:
        note()
        await aio.sleep(0)
        note()

    async def outer() -> None:
        note()
        task = make(loop, inner(), name="inner")
        note()
        await task
        note()

    await make(loop, outer(), name="outer")
    assert seen == ["outer", "inner", "outer", "inner", "outer"]


@each_way
def test_an_exit_in_the_first_step_comes_out_of_it(runtime: Runtime, way: str) -> None:
    aio = runtime.aio

    async def leave() -> None:
        raise SystemExit(3)

    async def main() -> str:
        outer = aio.current_task()
        with pytest.raises(SystemExit):
            WAYS[way](runtime)(aio.get_running_loop(), leave())
        return "same" if aio.current_task() is outer else "another"

    assert runtime.run(main()) == "same"
    gc.collect()
    (error,) = runtime.take_errors()
    assert error["message"] == "Task exception was never retrieved"


@each_way
def test_a_loop_that_does_not_run_starts_it_later(
    runtime: Runtime, way: str, loop: asyncio.AbstractEventLoop
) -> None:
    async def work() -> str:
        return "done"

    task = WAYS[way](runtime)(loop, work())
    assert not task.done()
    assert loop.run_until_complete(task) == "done"


async def test_the_factories_make_what_their_name_says(runtime: Runtime) -> None:
    aio, loop = runtime.aio, runtime.aio.get_running_loop()

    async def work() -> None: ...

    assert type(aio.create_eager_task_factory(aio.Task)(loop, work())) is aio.Task
    stock = aio.create_eager_task_factory(asyncio.Task)(loop, work())
    assert type(stock) is asyncio.Task
    assert stock.done()
    made: list[Any] = []

    def constructor(coro: Any, **options: Any) -> Any:
        made.append(sorted(options))
        return aio.Task(coro, **options)

    assert aio.create_eager_task_factory(constructor)(loop, work()).done()
    assert made == [["context", "eager_start", "loop", "name"]]
    for factory in (aio.eager_task_factory, aio.create_eager_task_factory(aio.Task)):
        assert list(inspect.signature(factory).parameters) == ["loop", "coro", "name", "context"]
