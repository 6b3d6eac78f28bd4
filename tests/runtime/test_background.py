"""Lost-work help: `background`, `watch_tasks`, and coroutines that nobody awaits."""

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest

from tests.support import ONLY_ASYNCIO, Runtime, python, spin

if ONLY_ASYNCIO:
    pytest.skip("Rondel's own names", allow_module_level=True)

import rondel

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


class Boom(Exception):
    """What fails in these tests."""


async def boom(turns: int = 0) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    raise Boom


def line_of(marker: str) -> str:
    """`this file:line` of the line that ends with the comment `marker`."""
    with open(__file__, encoding="utf-8") as file:
        lines = file.read().splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"# {marker}")]
    return f"{__file__}:{number}"


# ------------------------------------------------------------------------------- background


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
        line_of("background here") + ", in test_a_failure_is_reported_when_it_happens"
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


# -------------------------------------------------------------------------------- watching


@pytest.fixture
def watched() -> Iterator[None]:
    depth = sys.get_coroutine_origin_tracking_depth()
    assert rondel.watch_tasks() is False
    yield
    assert rondel.watch_tasks(False) is True
    assert sys.get_coroutine_origin_tracking_depth() == depth


NATIVE = pytest.mark.parametrize("runtime", ["rondel", "asyncio-on-rondel"], indirect=True)


@asynccontextmanager
async def failing_alone(aio: ModuleType, runtime: Runtime) -> AsyncIterator[list[Any]]:
    """The reports of tasks that the block makes, checked for what all have in common."""
    errors: list[Any] = []
    yield errors
    await spin(aio)
    errors += runtime.take_errors()
    for error in errors:
        assert isinstance(error["exception"], Boom)
        assert error["task"].done()
        assert "failed while nobody waited for it" in error["message"]


@NATIVE
async def test_a_task_that_fails_alone_is_reported_in_that_step(
    aio: ModuleType, runtime: Runtime, watched: None
) -> None:
    task = aio.create_task(boom(), name="lonely")  # alone here
    assert runtime.take_errors() == []
    await aio.sleep(0)  # its only step
    (error,) = runtime.take_errors()
    assert error["message"].startswith("Task 'lonely' failed while nobody waited for it")
    assert error["task"] is task
    assert isinstance(error["exception"], Boom)
    assert error["created_at"] == (
        line_of("alone here") + ", in test_a_task_that_fails_alone_is_reported_in_that_step"
    )
    # Later there is nothing more to say, to nobody; whoever asks still gets the exception.
    with pytest.raises(Boom):
        await task
    del task, error
    gc.collect()
    assert runtime.take_errors() == []


@NATIVE
async def test_every_way_to_create_a_task_names_the_callers_line(
    aio: ModuleType, runtime: Runtime, watched: None
) -> None:
    loop = asyncio.get_running_loop()
    async with failing_alone(aio, runtime) as errors:
        loop.create_task(boom(), name="1")  # noqa: RUF006  # line 1
        aio.ensure_future(boom()).set_name("2")  # line 2
        rondel.Task(boom(), loop=loop, name="3")  # line 3
        asyncio.create_task(boom(), name="4")  # noqa: RUF006  # line 4
        loop.create_task(coro=boom(), name="5")  # noqa: RUF006  # line 5
    lines = {error["task"].get_name(): error["created_at"].split(",")[0] for error in errors}
    assert lines == {str(n): line_of(f"line {n}") for n in range(1, 6)}


@NATIVE
async def test_a_failure_that_somebody_waits_for_is_no_news(
    aio: ModuleType, runtime: Runtime, watched: None
) -> None:
    with pytest.raises(Boom):
        await aio.create_task(boom(1))
    await aio.gather(boom(), boom(1), return_exceptions=True)
    done, _ = await aio.wait([aio.create_task(boom()), aio.create_task(boom(1))])
    assert [type(task.exception()) for task in done] == [Boom, Boom]
    with pytest.raises(Boom):
        await aio.wait_for(boom(1), 10)
    with pytest.raises(Boom):
        await aio.shield(aio.create_task(boom(1)))
    for next_one in aio.as_completed([boom(1)]):
        with pytest.raises(Boom):
            await next_one
    with pytest.raises(ExceptionGroup):
        async with aio.TaskGroup() as group:
            group.create_task(boom(1))
    seen: list[Any] = []
    task = aio.create_task(boom())
    task.add_done_callback(lambda task: seen.append(task.exception()))
    await spin(aio)
    assert len(seen) == 1
    assert runtime.take_errors() == []


@NATIVE
@pytest.mark.parametrize("keeper", [set, list, dict])
async def test_a_books_keeper_is_nobody_who_waits(
    keeper: type, aio: ModuleType, runtime: Runtime, watched: None
) -> None:
    """The idiom of asyncio's docs: `task.add_done_callback(tasks.discard)`."""
    kept: Any = keeper()
    async with failing_alone(aio, runtime) as errors:
        task = aio.create_task(boom())
        if keeper is set:
            kept.add(task)
            task.add_done_callback(kept.discard)
        elif keeper is list:
            kept.append(task)
            task.add_done_callback(kept.remove)
        else:
            kept[task] = None
            task.add_done_callback(kept.pop)
            task.add_done_callback(kept.get)
    assert len(errors) == 1
    assert not kept


@NATIVE
async def test_a_callback_behind_a_books_keeper_waits(
    aio: ModuleType, runtime: Runtime, watched: None
) -> None:
    kept: set[Any] = set()
    task = aio.create_task(boom())
    task.add_done_callback(kept.discard)
    task.add_done_callback(lambda task: task.exception())
    await spin(aio)
    assert runtime.take_errors() == []


@NATIVE
async def test_who_has_stopped_waiting_does_not_wait(
    aio: ModuleType, runtime: Runtime, watched: None
) -> None:
    async with failing_alone(aio, runtime) as errors:
        task = aio.create_task(boom(3))
        waiter = aio.create_task(aio.wait([task]))
        await aio.sleep(0)
        waiter.cancel()
        await aio.wait([waiter])
    assert len(errors) == 1


@NATIVE
async def test_an_eager_task_is_given_the_time_to_be_awaited(
    aio: ModuleType, runtime: Runtime, watched: None
) -> None:
    create = asyncio.get_running_loop().create_task
    options: dict[str, Any] = {"eager_start": True}
    with pytest.raises(Boom):
        await create(boom(), **options)
    await aio.gather(create(boom(), **options), return_exceptions=True)
    await spin(aio)
    assert runtime.take_errors() == []
    async with failing_alone(aio, runtime) as errors:
        create(boom(), **options)  # eager here
        assert runtime.take_errors() == []
    (error,) = errors
    assert error["created_at"].startswith(line_of("eager here"))
    # The repr is part of the default handler's words.
    assert "Boom()" in repr(error["task"])


@NATIVE
async def test_a_cancelled_task_is_no_failure(
    aio: ModuleType, runtime: Runtime, watched: None
) -> None:
    task = aio.create_task(aio.sleep(30))
    await aio.sleep(0)
    task.cancel()
    await spin(aio)
    assert task.cancelled()
    assert runtime.take_errors() == []


@NATIVE
async def test_a_background_task_is_reported_once(
    aio: ModuleType, runtime: Runtime, watched: None
) -> None:
    rondel.background(boom())
    await spin(aio)
    (error,) = runtime.take_errors()
    assert error["message"].startswith("Background task")


@NATIVE
async def test_asyncios_own_reports_gain_the_line(
    aio: ModuleType, runtime: Runtime, watched: None
) -> None:
    async def never() -> None:
        await asyncio.get_running_loop().create_future()

    aio.create_task(never())  # dropped here
    await aio.sleep(0)
    gc.collect()
    (error,) = runtime.take_errors()
    assert error["message"] == "Task was destroyed but it is pending!"
    assert error["created_at"].startswith(line_of("dropped here"))

    # A callback that looks at nothing is still somebody who waits; then asyncio's report comes.
    task = aio.create_task(boom())  # callback here
    task.add_done_callback(lambda task: None)
    await spin(aio)
    assert runtime.take_errors() == []
    del task
    gc.collect()
    (error,) = runtime.take_errors()
    assert error["message"] == "Task exception was never retrieved"
    assert error["created_at"].startswith(line_of("callback here"))


@NATIVE
async def test_off_nothing_is_said_until_the_task_goes(aio: ModuleType, runtime: Runtime) -> None:
    task = aio.create_task(boom())
    await spin(aio)
    assert runtime.take_errors() == []
    assert not task._log_traceback or task.done()
    del task
    gc.collect()
    (error,) = runtime.take_errors()
    assert error["message"] == "Task exception was never retrieved"
    assert "created_at" not in error


@NATIVE
def test_a_handler_may_do_anything(runtime: Runtime, watched: None) -> None:
    """It runs in the middle of the loop: it makes tasks, cancels, raises, stops the loop."""
    seen: list[str] = []
    loop = runtime.new_event_loop()

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        seen.append(context["message"])
        assert asyncio.current_task() is None
        loop.create_task(asyncio.sleep(0))
        context["task"].cancel()
        context["task"].exception()
        loop.stop()

    loop.set_exception_handler(handler)
    task = loop.create_task(boom())
    loop.run_forever()
    assert len(seen) == 1
    assert isinstance(task.exception(), Boom)
    loop.run_until_complete(asyncio.sleep(0))


@NATIVE
def test_what_a_handler_raises_to_end_the_loop_ends_it(runtime: Runtime, watched: None) -> None:
    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    loop = runtime.new_event_loop()
    loop.set_exception_handler(handler)
    loop.create_task(boom())
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()


def test_a_native_task_of_a_stock_loop_is_watched_too(watched: None) -> None:
    errors: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        rondel.Task(boom(), loop=loop)  # stock loop here
        await spin(asyncio)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
    (error,) = errors
    assert error["created_at"].startswith(line_of("stock loop here"))


def test_the_switch_says_what_it_was() -> None:
    assert rondel.watch_tasks(False) is False
    assert rondel.watch_tasks() is False
    assert rondel.watch_tasks(True) is True
    assert rondel.watch_tasks(False) is True
    assert sys.get_coroutine_origin_tracking_depth() == 0


# ----------------------------------------------------------------------- never-awaited coroutines


def warned(make: Any) -> str:
    """The text of the warning that dropping `make()` gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
        gc.collect()
    (warning,) = caught
    assert warning.category is RuntimeWarning
    return str(warning.message)


@pytest.mark.no_debug_mode
@NATIVE
@pytest.mark.parametrize("kind", ["own", "sleep", "wait"])
async def test_a_coroutine_that_nobody_awaits_names_its_line(
    kind: str, aio: ModuleType, runtime: Runtime, watched: None
) -> None:
    def make() -> None:
        if kind == "own":
            boom()  # own created
        elif kind == "wait":
            rondel.wait([])  # wait created
        else:
            rondel.sleep(1)  # sleep created

    file, _, line = line_of(f"{kind} created").rpartition(":")
    name = {"own": "boom"}.get(kind, kind)
    text = warned(make)
    assert text.startswith(f"coroutine {name!r} was never awaited\nCoroutine created at")
    assert f'File "{file}", line {line}, in make' in text
    assert text.count("File ") == 1


@pytest.mark.no_debug_mode
async def test_off_it_is_the_interpreters_warning_alone(runtime: Runtime) -> None:
    assert warned(lambda: rondel.sleep(1)) == "coroutine 'sleep' was never awaited"
    assert warned(boom) == "coroutine 'boom' was never awaited"


def test_debug_mode_tells_the_stack_of_native_coroutines_too(runtime: Runtime) -> None:
    if runtime.name == "rondel-on-asyncio":
        pytest.skip("native coroutines ask Rondel's loop, not the interpreter, for their origin")

    async def main() -> None:
        for text in (warned(lambda: runtime.aio.sleep(1)), warned(lambda: boom())):
            assert "Coroutine created at (most recent call last)" in text
            assert "in main\n" in text
            assert text.count("File ") > 2

    runtime.run(main(), debug=True)
    assert sys.get_coroutine_origin_tracking_depth() == 0


def test_a_native_coroutine_has_its_origin(watched: None) -> None:
    sleep: Any = rondel.sleep(1)  # origin here
    file, _, line = line_of("origin here").rpartition(":")
    assert sleep.cr_origin == ((file, int(line), "test_a_native_coroutine_has_its_origin"),)
    sleep.close()
    rondel.run(rondel.sleep(0))
    rondel.watch_tasks(False)
    sleep = rondel.sleep(1)
    assert sleep.cr_origin is None
    sleep.close()
    rondel.watch_tasks()


@pytest.mark.no_debug_mode
def test_a_loop_in_another_thread_tracks_too(watched: None) -> None:
    depths: list[int] = []

    async def main() -> None:
        depths.append(sys.get_coroutine_origin_tracking_depth())

    def run() -> None:
        rondel.run(main())
        depths.append(sys.get_coroutine_origin_tracking_depth())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert depths == [1, 0]


def test_a_depth_of_the_programs_own_stays() -> None:
    sys.set_coroutine_origin_tracking_depth(3)
    try:
        rondel.watch_tasks()
        assert sys.get_coroutine_origin_tracking_depth() == 3
        rondel.watch_tasks(False)
        assert sys.get_coroutine_origin_tracking_depth() == 3
    finally:
        sys.set_coroutine_origin_tracking_depth(0)


# ------------------------------------------------------------------------------ ways to ask for it

PROGRAM = """\
import asyncio

async def boom():
    raise ValueError("lost")

async def main():
    asyncio.create_task(boom())
    await asyncio.sleep(0)
    print("still here", flush=True)

asyncio.run(main())
"""


def test_the_environment_asks_for_it() -> None:
    code = "import rondel; print(rondel.watch_tasks(False))"
    for value, expected in (("1", "True"), ("0", "False"), ("", "False")):
        got = python(code, env={"RONDEL_WATCH_TASKS": value})
        assert (got.stdout, got.stderr) == (f"{expected}\n", "")


@pytest.mark.parametrize("how", ["option", "environment", "not at all"])
def test_rondel_run_asks_for_it(how: str, tmp_path: Any) -> None:
    script = tmp_path / "lost.py"
    script.write_text(PROGRAM)
    option = ["--watch-tasks"] if how == "option" else []
    got = subprocess.run(
        [sys.executable, "-m", "rondel", "run", *option, str(script)],
        env={"RONDEL_WATCH_TASKS": "1" if how == "environment" else "0"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert got.stdout == "still here\n"
    if how == "not at all":
        # asyncio's report, when the task is collected.
        assert got.stderr.startswith("Task exception was never retrieved")
        assert "lost.py:7" not in got.stderr
    else:
        assert got.stderr.startswith("Task 'Task-2' failed while nobody waited for it")
        assert f"created_at: '{script}:7, in main'" in got.stderr
        assert got.stderr.count("ValueError: lost") == 1
