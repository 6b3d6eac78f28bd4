"""Lost-work help: `watch_tasks`, coroutines that nobody awaits, and the ways to ask for it."""

import asyncio
import gc
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest

from tests.support import ONLY_ASYNCIO, Runtime, python, spin

if ONLY_ASYNCIO:
    pytest.skip("Rondel's own names", allow_module_level=True)

import rondel
from tests.runtime.failing import Boom, boom, line_of


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
    here = line_of(__file__, "alone here")
    name = "test_a_task_that_fails_alone_is_reported_in_that_step"
    assert error["created_at"] == f"{here}, in {name}"
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
    assert lines == {str(n): line_of(__file__, f"line {n}") for n in range(1, 6)}


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
    assert error["created_at"].startswith(line_of(__file__, "eager here"))
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
    assert error["created_at"].startswith(line_of(__file__, "dropped here"))

    # A callback that looks at nothing is still somebody who waits; then asyncio's report comes.
    task = aio.create_task(boom())  # callback here
    task.add_done_callback(lambda task: None)
    await spin(aio)
    assert runtime.take_errors() == []
    del task
    gc.collect()
    (error,) = runtime.take_errors()
    assert error["message"] == "Task exception was never retrieved"
    assert error["created_at"].startswith(line_of(__file__, "callback here"))


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
    assert error["created_at"].startswith(line_of(__file__, "stock loop here"))


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

    file, _, line = line_of(__file__, f"{kind} created").rpartition(":")
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
    file, _, line = line_of(__file__, "origin here").rpartition(":")
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
