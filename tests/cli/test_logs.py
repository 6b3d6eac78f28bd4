"""The server's logs: the access line, who may listen to it, and when it is written."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from rondel.server import formats, logs
from tests.support import Runtime

REQUEST = ("127.0.0.1:54321", "GET", "/a%20b?c=d", "1.1", 200, 0.00123)
LINE = '127.0.0.1:54321 - "GET /a%20b?c=d HTTP/1.1" 200 1.2ms'


@pytest.fixture(autouse=True)
def fresh_loggers() -> Iterator[None]:
    names = ("rondel.server", "rondel.access")
    loggers = [logging.getLogger(name) for name in names]
    before = [(log.handlers[:], log.level, log.propagate) for log in loggers]
    for log in loggers:
        log.handlers.clear()
    yield
    for log, (handlers, level, propagate) in zip(loggers, before, strict=True):
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)


async def test_lines_of_one_turn_are_written_together(
    runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure()
    access = logs.AccessLog(asyncio.get_running_loop())
    access(*REQUEST)
    access(*REQUEST)
    assert capsys.readouterr().out == ""
    await runtime.aio.sleep(0)
    assert capsys.readouterr().out == f"{LINE}\n{LINE}\n"
    access(*REQUEST)
    await runtime.aio.sleep(0)
    assert capsys.readouterr().out == f"{LINE}\n"


async def test_lines_of_threads_wait_for_each_other_and_for_the_end_at_most(
    runtime: Runtime, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LINGER", 3600)
    logs.configure()
    access = logs.AccessLog(asyncio.get_running_loop())
    for _ in range(2):
        await runtime.aio.to_thread(access, *REQUEST)
    for _ in range(3):
        await runtime.aio.sleep(0)
    assert capsys.readouterr().out == ""
    logs.flush_access()
    assert capsys.readouterr().out == f"{LINE}\n{LINE}\n"


async def test_a_line_of_a_thread_is_written_soon(
    runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure()
    access = logs.AccessLog(asyncio.get_running_loop())
    await runtime.aio.to_thread(access, *REQUEST)
    async with runtime.aio.timeout(20):
        while not (out := capsys.readouterr().out):
            await runtime.aio.sleep(0.001)
    assert out == f"{LINE}\n"


async def test_handlers_of_the_program_get_records(
    runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    logging.getLogger("rondel.access").addHandler(logging.StreamHandler(stream))
    logs.configure()
    access = logs.AccessLog(asyncio.get_running_loop())
    access(*REQUEST)
    await runtime.aio.sleep(0)
    assert stream.getvalue() == f"{LINE}\n"
    assert capsys.readouterr().out == ""


async def test_a_filter_gets_records(runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    log = logging.getLogger("rondel.access")
    drop_health = lambda record: "/health" not in record.getMessage()  # noqa: E731
    log.addFilter(drop_health)
    try:
        access = logs.AccessLog(asyncio.get_running_loop())
        access("c", "GET", "/health", "1.1", 200, 0.001)
        access(*REQUEST)
        await runtime.aio.sleep(0)
    finally:
        log.removeFilter(drop_health)
    assert capsys.readouterr().out == f"{LINE}\n"


async def test_nobody_reading_does_not_stop_the_server(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    logs.configure()
    monkeypatch.setattr("sys.stdout", Gone())
    access = logs.AccessLog(asyncio.get_running_loop())
    access(*REQUEST)
    await runtime.aio.sleep(0)


def test_turning_it_off_spares_the_call() -> None:
    logs.configure(access=False)
    with asyncio.Runner() as runner:
        assert not logs.AccessLog(runner.get_loop()).enabled
    logs.configure(access=True)
    with asyncio.Runner() as runner:
        assert logs.AccessLog(runner.get_loop()).enabled


@pytest.mark.parametrize(("terminal", "no_colour"), [(True, False), (True, True), (False, False)])
def test_colour_is_for_terminals(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, no_colour: bool
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    stream = Stream()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    logs.configure()
    logging.getLogger("rondel.server").warning("careful: %s", "x")
    assert ("\x1b[33mWARNING\x1b[0m" in stream.getvalue()) is (terminal and not no_colour)
    assert "careful: x" in stream.getvalue()


async def test_the_format_decides_what_a_line_says(
    runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure()
    written = formats.parse("%(method)s %(bytes)s")
    access = logs.AccessLog(asyncio.get_running_loop(), written)
    access(*REQUEST, 12)
    await runtime.aio.sleep(0)
    assert capsys.readouterr().out == "GET 12\n"


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_json_log_has_exceptions_as_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(style="json", who="worker 2")
    log = logging.getLogger("rondel.server")
    log.warning("careful: %s", 'x"\n')
    extra = {"method": "GET", "target": "/a", "request_id": "id-1"}
    try:
        raise ZeroDivisionError("by none")
    except ZeroDivisionError as error:
        log.error("failed", exc_info=error, extra=extra)
    log.error("failed", exc_info=Broken())
    first, second, third = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["message"] == 'careful: x"\n'
    assert (first["level"], first["logger"]) == ("warning", "rondel.server")
    assert first["process"] == "worker 2"
    assert "exception" not in first
    assert {name: second[name] for name in extra} == extra
    told = second["exception"]
    assert (told["type"], told["message"]) == ("ZeroDivisionError", "by none")
    assert told["traceback"].startswith("Traceback")
    assert told["traceback"].endswith("by none")
    assert third["exception"]["type"] == f"{__name__}.Broken"


def test_an_error_names_its_request(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logging.getLogger("rondel.server").error("failed", extra={"request_id": "id-1"})
    assert capsys.readouterr().err.endswith("failed [request id-1]\n")


def test_a_reload_changes_the_format(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.configure(style="json")
    logging.getLogger("rondel.server").error("failed")
    assert json.loads(capsys.readouterr().err)["message"] == "failed"


def test_a_program_s_own_handler_keeps_its_format() -> None:
    stream = io.StringIO()
    log = logging.getLogger("rondel.server")
    log.addHandler(logging.StreamHandler(stream))
    logs.configure(style="json")
    log.error("failed")
    assert stream.getvalue() == "failed\n"
