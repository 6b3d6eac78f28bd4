"""Logging of the server: standard library loggers, one handler each, colour only on terminals.

Loggers: ``rondel.server`` (stderr) for what the server does and for exceptions of applications,
``rondel.access`` (stdout) for one line per request:

    127.0.0.1:54321 - "GET / HTTP/1.1" 200 1.2ms

Invariants: a logger that the program configured itself (handlers of its own) is left alone. The
access line is formatted in one place, ``access_line``; the native server calls ``AccessLog`` once
per request, and not at all while the logger would drop the line.
"""

import asyncio
import contextlib
import logging
import os
import sys
from typing import Any, TextIO

__all__ = ["LEVELS", "AccessLog", "access_line", "configure"]

LEVELS = ("critical", "error", "warning", "info", "debug")

SERVER = "rondel.server"
ACCESS = "rondel.access"

_COLOURS = {
    logging.DEBUG: "2",
    logging.INFO: "32",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "1;31",
}


class _Stream(logging.StreamHandler[TextIO]):
    """Writes to the present ``sys.stdout``/``sys.stderr``, so that redirections hold."""

    def __init__(self, name: str) -> None:
        logging.Handler.__init__(self)
        self._name_of_stream = name

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        stream: TextIO = getattr(sys, self._name_of_stream)
        return stream


class _ServerFormatter(logging.Formatter):
    """``2026-01-31 12:00:00 INFO message``, the level in colour where ``stream`` is a terminal."""

    def __init__(self, *, coloured: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
        self._coloured = coloured

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        text = super().formatMessage(record)
        if self._coloured:
            level = record.levelname
            painted = f"\x1b[{_COLOURS.get(record.levelno, '0')}m{level}\x1b[0m"
            text = text.replace(level, painted, 1)
        return text


def configure(level: str = "info", *, access: bool = True) -> None:
    """Give Rondel's loggers their handlers and levels, unless the program did already."""
    number = logging.getLevelName(level.upper())
    server = logging.getLogger(SERVER)
    if not server.handlers:
        handler = _Stream("stderr")
        handler.setFormatter(_ServerFormatter(coloured=_is_terminal(sys.stderr)))
        server.addHandler(handler)
        server.propagate = False
    server.setLevel(number)
    access_logger = logging.getLogger(ACCESS)
    if not access_logger.handlers:
        handler = _Stream("stdout")
        handler.setFormatter(logging.Formatter("%(message)s"))
        access_logger.addHandler(handler)
        access_logger.propagate = False
    access_logger.setLevel(logging.INFO if access else logging.CRITICAL)


def access_line(
    client: str, method: str, target: str, version: str, status: int, seconds: float
) -> str:
    """One request as one line; ``target`` as it came, percent-encoded."""
    return f'{client} - "{method} {target} HTTP/{version}" {status} {seconds * 1000:.1f}ms'


def _is_terminal(stream: Any) -> bool:
    if "NO_COLOR" in os.environ:
        return False
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


class AccessLog:
    """What the native server calls once per finished request.

    As long as nobody but our own handler listens to ``rondel.access``, lines bypass the logging
    module and are written together, once per turn of the loop: a record costs about 6 µs, as much
    as a small request. With any other handler or filter each line is an ordinary record.
    """

    __slots__ = ("_call_soon", "_direct", "_lines", "_log")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._log = log = logging.getLogger(ACCESS)
        self._call_soon = loop.call_soon
        self._direct = (
            [type(handler) for handler in log.handlers] == [_Stream]
            and not log.handlers[0].filters
            and not log.filters
            and not log.propagate
        )
        # Lines of this turn; a flush is scheduled while there are any.
        self._lines: list[str] = []

    @property
    def enabled(self) -> bool:
        """False spares the native side the call."""
        return self._log.isEnabledFor(logging.INFO)

    def __call__(
        self, client: str, method: str, target: str, version: str, status: int, seconds: float
    ) -> None:
        line = access_line(client, method, target, version, status, seconds)
        if not self._direct:
            self._log.info(line)
            return
        if not self._lines:
            self._call_soon(self.flush)
        self._lines.append(line + "\n")

    def flush(self) -> None:
        """Write what is waiting. Nobody reading any more is no reason to stop serving."""
        text = "".join(self._lines)
        self._lines.clear()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.write(text)
            sys.stdout.flush()
