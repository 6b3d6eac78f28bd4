"""The server's logs: the access line, who may listen to it, and when it is written."""

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest

from rondel.server import logs
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
