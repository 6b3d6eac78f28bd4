"""Lost-work help: `background`."""

import asyncio
import contextvars
import gc
import weakref
from types import ModuleType
from typing import Any

import pytest

from tests.support import ONLY_ASYNCIO, Runtime, spin

if ONLY_ASYNCIO:
    pytest.skip("Rondel's own names", allow_module_level=True)

import rondel
from tests.runtime.failing import Boom, boom, line_of

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


async def test_a_background_task_is_a_task_with_its_options(aio: ModuleType) -> None:
    async def look() -> tuple[str, str]:
        task = aio.current_task()
        assert task is not None
        return task.get_name(), var.get()

    context = contextvars.copy_context()
    context.run(var.set, "given")
    task = rondel.background(look(), name="looker", context=context)
    assert isinstance(task, asyncio.Task)
    assert await task == ("looker", "given")
    assert (await rondel.background(look()))[0].startswith("Task-")


class Gate:
    """What a task waits for, held by the task alone."""

    def __init__(self) -> None:
        self.future = asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("kept", [True, False])
async def test_a_background_task_outlives_every_other_reference(
    kept: bool, aio: ModuleType, runtime: Runtime
) -> None:
    gates: list[weakref.ref[Gate]] = []
    seen: list[str] = []

    async def work() -> None:
        gate = Gate()
        gates.append(weakref.ref(gate))
        await gate.future
        seen.append("done")

    reference = weakref.ref(rondel.background(work()) if kept else aio.create_task(work()))
    await spin(aio)
    gc.collect()
    gate = gates[0]()
    assert (gate is not None) is kept
    if gate is None:  # as the docs of create_task warn
        (error,) = runtime.take_errors()
        assert error["message"] == "Task was destroyed but it is pending!"
        return
    gate.future.set_result(None)
    del gate
    await spin(aio)
    assert seen == ["done"]
    gc.collect()
    assert reference() is None


async def test_a_failure_is_reported_when_it_happens(aio: ModuleType, runtime: Runtime) -> None:
    task = rondel.background(boom(2), name="mailer")  # background here
    await spin(aio, 2)
    assert runtime.take_errors() == []
    await spin(aio, 3)
    (error,) = runtime.take_errors()
    assert error["message"] == "Background task 'mailer' failed"
    assert error["task"] is task
    assert isinstance(error["exception"], Boom)
    assert error["created_at"] == (
        line_of(__file__, "background here") + ", in test_a_failure_is_reported_when_it_happens"
    )
    # Nothing more follows when the task goes away (`finish` looks).


async def test_a_failure_is_reported_though_somebody_awaits(
    aio: ModuleType, runtime: Runtime
) -> None:
    with pytest.raises(Boom):
        await rondel.background(boom(), name="seen")
    (error,) = runtime.take_errors()
    assert error["message"] == "Background task 'seen' failed"


async def test_neither_an_end_nor_a_cancellation_is_reported(
    aio: ModuleType, runtime: Runtime
) -> None:
    done = rondel.background(asyncio.sleep(0, "value"))
    cancelled = rondel.background(asyncio.sleep(30))
    await spin(aio)
    cancelled.cancel()
    await spin(aio)
    assert done.result() == "value"
    assert cancelled.cancelled()
    assert runtime.take_errors() == []


def test_debug_mode_adds_the_stack(runtime: Runtime) -> None:
    async def main() -> None:
        rondel.background(boom())
        await spin(asyncio)

    runtime.run(main(), debug=True)
    (error,) = runtime.take_errors()
    assert error["source_traceback"]


def test_the_task_factory_makes_background_tasks(
    loop: asyncio.AbstractEventLoop, runtime: Runtime
) -> None:
    made: list[asyncio.Task[Any]] = []

    def factory(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(asyncio.Task(coro, loop=loop, **options))
        return made[-1]

    async def main() -> None:
        assert rondel.background(boom()) is made[-1]
        await spin(asyncio)

    loop.set_task_factory(factory)  # type: ignore[arg-type]
    loop.run_until_complete(main())
    assert [error["exception"].__class__ for error in runtime.take_errors()] == [Boom]


def test_without_a_running_loop_it_says_so() -> None:
    coro = boom()
    with pytest.raises(RuntimeError, match="no running event loop"):
        rondel.background(coro)
    coro.close()


async def test_what_is_no_coroutine_is_refused(aio: ModuleType) -> None:
    with pytest.raises(TypeError, match="a coroutine was expected"):
        rondel.background(3)  # type: ignore[arg-type]


def test_a_dropped_loop_takes_its_pending_tasks_along(runtime: Runtime) -> None:
    """The references hang on the loop, not on the module."""
    reports: list[str] = []

    def drop() -> weakref.ref[Any]:
        loop = rondel.new_event_loop() if runtime.native else asyncio.new_event_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context["message"]))

        async def main() -> None:
            rondel.background(asyncio.sleep(30))
            await asyncio.sleep(0)

        loop.run_until_complete(main())
        loop.close()
        return weakref.ref(loop)

    reference = drop()
    gc.collect()
    assert reference() is None
    assert reports == ["Task was destroyed but it is pending!"]


@pytest.mark.parametrize("ending", ["KeyboardInterrupt", "SystemExit"])
def test_what_ends_the_loop_is_not_reported(ending: str, runtime: Runtime) -> None:
    kind = {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit}[ending]

    async def end() -> None:
        raise kind

    async def main() -> None:
        rondel.background(end())
        await asyncio.sleep(30)

    with pytest.raises(kind):
        runtime.run(main())
    for error in runtime.take_errors():
        assert not error["message"].startswith("Background")
