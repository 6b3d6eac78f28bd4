"""The exception handler, the debug flag and slow callbacks."""

import asyncio
import contextvars
import gc
import logging
import re
import sys
import time
from types import ModuleType
from typing import Any

import pytest

from tests.support import Runtime, run_once, spin

Loop = asyncio.AbstractEventLoop


def fail() -> None:
    raise ZeroDivisionError("from a callback")


def test_an_error_in_a_callback_reaches_the_handler_and_the_loop_goes_on(
    runtime: Runtime, loop: Loop
) -> None:
    seen: list[str] = []
    handle = loop.call_soon(fail)
    loop.call_soon(seen.append, "went on")
    run_once(loop)
    assert seen == ["went on"]
    (context,) = runtime.take_errors()
    assert isinstance(context["exception"], ZeroDivisionError)
    assert "Exception in callback" in context["message"]
    assert "fail" in context["message"]
    assert context["handle"] is handle


def test_an_error_in_a_timer_reaches_the_handler(runtime: Runtime, loop: Loop) -> None:
    handle = loop.call_later(0.001, fail)
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    (context,) = runtime.take_errors()
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["handle"] is handle


def test_the_handler_is_called_with_the_loop_and_the_context(loop: Loop) -> None:
    calls: list[tuple[Loop, dict[str, Any]]] = []
    loop.set_exception_handler(lambda *args: calls.append(args))
    loop.call_exception_handler({"message": "hello", "extra": 1})
    assert calls == [(loop, {"message": "hello", "extra": 1})]


def test_the_handler_can_be_read_and_reset(loop: Loop) -> None:
    def handler(loop: Loop, context: dict[str, Any]) -> None: ...

    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None
    with pytest.raises(TypeError, match="callable"):
        loop.set_exception_handler("not callable")  # type: ignore[arg-type]


def test_the_default_handler_logs_the_traceback(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.set_exception_handler(None)
    loop.call_soon(fail)
    run_once(loop)
    (record,) = caplog.records
    assert record.name == "asyncio"
    assert record.levelno == logging.ERROR
    assert "Exception in callback fail()" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_an_error_in_the_handler_itself_is_logged(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(loop: Loop, context: dict[str, Any]) -> None:
        raise KeyError("in the handler")

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    run_once(loop)
    assert "Unhandled error in exception handler" in caplog.text
    assert "in the handler" in caplog.text
    assert "from a callback" in caplog.text


WAYS_TO_FAIL = ("call_soon", "call_later", "done_callback", "set_result")


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("way", WAYS_TO_FAIL)
def test_the_handler_handles_the_error_in_the_context_of_the_callback(
    runtime: Runtime, loop: Loop, way: str, kept: bool
) -> None:
    # A handler may log with `logging.exception()`, or know the request by a context variable.
    variable = contextvars.ContextVar("variable", default="outside")
    seen: list[tuple[object, str]] = []
    loop.set_exception_handler(lambda *_: seen.append((sys.exc_info()[0], variable.get())))
    context = contextvars.copy_context()
    context.run(variable.set, "inside")
    error: type[Exception] = ZeroDivisionError
    handle: object = None
    if way == "call_soon":
        handle = loop.call_soon(fail, context=context)
    elif way == "call_later":
        handle = loop.call_later(0, fail, context=context)
    elif way == "done_callback":
        future = loop.create_future()
        future.add_done_callback(lambda _: fail(), context=context)
        future.set_result(None)
    else:
        future = loop.create_future()
        future.set_result(None)
        handle = loop.call_soon(future.set_result, None, context=context)
        error = asyncio.InvalidStateError
    if not kept:
        del handle
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    # Before 3.12 asyncio runs the handler in no context of its own.
    where = "inside" if sys.version_info >= (3, 12) else "outside"
    assert seen == [(error, where)]
    assert sys.exc_info()[0] is None


def test_an_error_in_the_handler_has_the_one_in_hand_as_its_context(loop: Loop) -> None:
    seen: list[BaseException | None] = []

    def handler(loop: Loop, context: dict[str, Any]) -> None:
        try:
            raise KeyError("in the handler")
        except KeyError as error:
            seen.append(error.__context__)

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    run_once(loop)
    assert [type(error) for error in seen] == [ZeroDivisionError]


def test_nothing_is_being_handled_after_the_handler(loop: Loop) -> None:
    seen: list[object] = []
    loop.set_exception_handler(lambda *_: None)
    try:
        raise KeyError("around the loop")
    except KeyError:
        loop.call_soon(fail)
        loop.call_soon(lambda: seen.append(sys.exc_info()[0]))
        run_once(loop)
        assert sys.exc_info()[0] is KeyError
    assert seen == [KeyError]


def test_a_handler_can_delegate_to_the_default_one(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.set_exception_handler(lambda loop, context: loop.default_exception_handler(context))
    loop.call_exception_handler({"message": "delegated", "answer": 42})
    assert "delegated" in caplog.text
    assert "answer: 42" in caplog.text


def test_base_exceptions_in_the_handler_leave_the_loop(loop: Loop) -> None:
    def handler(loop: Loop, context: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    with pytest.raises(KeyboardInterrupt):
        run_once(loop)


def test_the_traceback_starts_in_the_users_callback(runtime: Runtime, loop: Loop) -> None:
    loop.call_soon(fail)
    run_once(loop)
    (context,) = runtime.take_errors()
    names = []
    frame = context["exception"].__traceback__
    while frame is not None:
        names.append(frame.tb_frame.f_code.co_name)
        frame = frame.tb_next
    assert names[-1] == "fail"


@pytest.mark.no_debug_mode
def test_debug_can_be_set_and_read(loop: Loop) -> None:
    assert loop.get_debug() is False
    loop.set_debug(True)
    assert loop.get_debug() is True
    assert "debug=True" in repr(loop)


def test_debug_mode_names_a_slow_callback(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    loop.call_soon(time.sleep, 0.02)
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        run_once(loop)
    took = [re.search(r"took (\d\.\d+) seconds", record.getMessage()) for record in caplog.records]
    assert any(found is not None and float(found[1]) >= 0.02 for found in took)


def test_debug_mode_names_a_slow_task_step(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    async def dawdle() -> None:
        runtime.aio.get_running_loop().slow_callback_duration = 0.01
        time.sleep(0.02)

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        runtime.run(dawdle(), debug=True)
    assert any(
        re.search(r"dawdle.* took 0\.\d\d\d seconds", record.getMessage())
        for record in caplog.records
    )


@pytest.mark.no_debug_mode
def test_slow_callbacks_are_silent_without_debug(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.slow_callback_duration = 0.001
    loop.call_soon(time.sleep, 0.01)
    run_once(loop)
    assert caplog.records == []


async def test_debug_mode_refuses_call_soon_from_another_thread(runtime: Runtime) -> None:
    loop = runtime.aio.get_running_loop()
    loop.set_debug(True)
    with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
        await loop.run_in_executor(None, loop.call_soon, print)
    loop.set_debug(False)


def test_debug_mode_keeps_where_a_handle_and_a_task_were_made(runtime: Runtime, loop: Loop) -> None:
    loop.set_debug(True)
    loop.call_soon(fail)
    run_once(loop)
    (context,) = runtime.take_errors()
    assert any(
        frame.name.startswith("test_debug_mode_keeps") for frame in context["source_traceback"]
    )


def test_run_sets_the_debug_flag(runtime: Runtime) -> None:
    async def debug() -> bool:
        return bool(runtime.aio.get_running_loop().get_debug())

    assert runtime.run(debug(), debug=True) is True
    assert runtime.run(debug(), debug=False) is False


async def test_an_exception_nobody_retrieved_is_reported(runtime: Runtime) -> None:
    async def broken() -> None:
        raise KeyError("unseen")

    task = runtime.aio.create_task(broken(), name="unseen")
    await spin(runtime.aio)
    del task
    (context,) = runtime.take_errors()
    assert context["message"] == "Task exception was never retrieved"
    assert "unseen" in repr(context["future"])
    assert isinstance(context["exception"], KeyError)


async def test_a_stock_task_on_this_loop_reports_its_forgotten_exception(
    runtime: Runtime,
) -> None:
    async def broken() -> None:
        raise KeyError("unseen")

    asyncio.Task(broken())
    await spin(runtime.aio)
    (context,) = runtime.take_errors()
    assert context["message"] == "Task exception was never retrieved"


async def test_a_future_exception_nobody_retrieved_is_reported(runtime: Runtime) -> None:
    future = runtime.aio.get_running_loop().create_future()
    future.set_exception(KeyError("unseen"))
    del future
    (context,) = runtime.take_errors()
    assert context["message"] == "Future exception was never retrieved"


@pytest.mark.parametrize("look", ["exception", "result", "await"])
async def test_an_exception_that_was_looked_at_is_not_reported(aio: ModuleType, look: str) -> None:
    future = aio.get_running_loop().create_future()
    future.set_exception(KeyError("seen"))
    if look == "exception":
        assert isinstance(future.exception(), KeyError)
    else:
        with pytest.raises(KeyError):
            if look == "result":
                future.result()
            else:
                await future
    del future


def test_a_pending_task_that_is_destroyed_is_reported(runtime: Runtime) -> None:
    async def main() -> None:
        loop = runtime.aio.get_running_loop()

        async def wait_for_nothing() -> None:
            await loop.create_future()

        task = runtime.aio.create_task(wait_for_nothing(), name="forgotten")
        await runtime.aio.sleep(0)
        del task
        gc.collect()

    runtime.run(main())
    (context,) = runtime.take_errors()
    assert context["message"] == "Task was destroyed but it is pending!"
    assert "forgotten" in repr(context["task"])


def test_debug_mode_keeps_the_whole_stack_of_a_future_and_its_lines(
    aio: ModuleType, loop: Loop
) -> None:
    loop.set_debug(True)

    async def nothing() -> None: ...

    def deep(depth: int, make: Any) -> Any:
        return deep(depth - 1, make) if depth else make()

    task: Any = deep(20, lambda: loop.create_task(nothing()))
    for future in (task, deep(20, loop.create_future)):
        frames = [f for f in future._source_traceback if f.name == "deep"]
        assert len(frames) == 21
        # Without a file to read any more, as at the interpreter's end.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("linecache.getline", None)
            assert all("make" in (frame.line or "") for frame in frames)
    loop.run_until_complete(task)
