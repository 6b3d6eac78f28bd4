"""Logging of the server: standard library loggers, one handler each, colour only on terminals.

Loggers: ``rondel.server`` (stderr) for what the server does and for exceptions of applications,
``rondel.access`` (stdout) for one line per request (``formats``):

    127.0.0.1:54321 - "GET / HTTP/1.1" 200 1.2ms

Errors of a request have it in their record: ``method``, ``target``, ``client``, ``request_id``, as
far as they are known, for formatters of the program's own and for ours (``log_format="json"``).

Either may go to a file instead (``log_file``, ``access_log_file``). ``reopen`` (SIGUSR1) opens
files anew, for who rotates them: newsyslog, logrotate's ``postrotate``.

Invariants: a logger that the program configured itself (handlers of its own) is left alone. The
access line is formatted in one place, ``Format.line``; the native server calls ``AccessLog`` once
per request, and not at all while the logger would drop the line. A file takes whole lines in one
write each, so that several processes may share it.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from rondel.server.errors import ServeError
from rondel.server.formats import Format, access_line

if TYPE_CHECKING:
    from rondel.server.config import Config

__all__ = ["AccessLog", "configure", "configure_as", "flush_access", "reopen", "speak_as"]

SERVER = "rondel.server"
ACCESS = "rondel.access"

# Seconds at most that a line of a thread waits for others.
LINGER = 0.02

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


class _File(logging.StreamHandler[TextIO]):
    """Appends to a file; raises ServeError where that can't be opened at first."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        try:
            super().__init__(self._open())
        except OSError as error:
            raise ServeError(f"log file {path!r} cannot be opened: {error.strerror}") from None

    def _open(self) -> TextIO:
        # Line by line: each is one write, at the end of the file whoever else writes there.
        return open(self.path, "a", buffering=1, encoding="utf-8", errors="backslashreplace")

    def reopen(self) -> None:
        """Whoever rotates logs has moved the file; if there can't be a new one, the old one goes
        on.
        """
        try:
            stream = self._open()
        except OSError as error:
            logging.getLogger(SERVER).error("%s cannot be opened anew: %s", self.path, error)
            return
        old = self.setStream(stream)
        if old is not None:
            old.close()

    def close(self) -> None:
        """Close the file as well."""
        super().close()
        self.stream.close()


class _ServerFormatter(logging.Formatter):
    """``2026-01-31 12:00:00 INFO message``, the level in colour where ``stream`` is a terminal;
    ``who`` says which process speaks.
    """

    def __init__(self, *, coloured: bool, who: str = "") -> None:
        self._told = {"who": ""}
        super().__init__(
            "%(asctime)s %(levelname)s %(who)s%(message)s",
            "%Y-%m-%d %H:%M:%S",
            defaults=self._told,
        )
        self._coloured = coloured
        self.speak_as(who)

    def speak_as(self, who: str) -> None:
        """Another process speaks: this one is a fork."""
        self._told["who"] = f"[{who}] " if who else ""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        text = super().formatMessage(record)
        if self._coloured:
            level = record.levelname
            painted = f"\x1b[{_COLOURS.get(record.levelno, '0')}m{level}\x1b[0m"
            text = text.replace(level, painted, 1)
        request = getattr(record, "request_id", None)
        return f"{text} [request {request}]" if request else text


# What an error says of its request; `log_exception` of the native server sets them.
_REQUEST = ("request_id", "method", "target", "client")


class _JSONFormatter(logging.Formatter):
    """A record as one line of JSON; an exception is fields of its own."""

    def __init__(self, who: str = "") -> None:
        super().__init__()
        self._who = who

    def speak_as(self, who: str) -> None:
        """Another process speaks: this one is a fork."""
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        """The record as an object's text."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told: dict[str, Any] = {
            "time": f"{seconds}.{int(record.created * 1000) % 1000:03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
        }
        if self._who:
            told["process"] = self._who
        told["message"] = record.getMessage()
        for name in _REQUEST:
            if (value := getattr(record, name, None)) is not None:
                told[name] = value
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            told["exception"] = {
                "type": _type_name(error),
                "message": _message(error),
                "traceback": self.formatException(record.exc_info),
            }
        if record.stack_info:
            told["stack"] = record.stack_info
        return json.dumps(told, default=repr)


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception's own __str__ may do anything
        return "<no text: its __str__ failed>"


def configure(
    level: str = "info",
    *,
    access: bool = True,
    file: str | None = None,
    access_file: str | None = None,
    style: str = "text",
    who: str = "",
) -> None:
    """Give Rondel's loggers their handlers and levels, unless the program did already.

    ``file`` and ``access_file`` are paths that replace stderr and stdout; ``style`` is that of the
    server's own log, ``text`` or ``json``. Raises ServeError if one
    can't be opened.
    """
    number = logging.getLevelName(level.upper())
    server = logging.getLogger(SERVER)
    if _is_ours(server, file):
        _handle(server, file, "stderr")
    if _has_our_handler(server):
        coloured = file is None and _is_terminal(sys.stderr)
        server.handlers[0].setFormatter(
            _JSONFormatter(who) if style == "json" else _ServerFormatter(coloured=coloured, who=who)
        )
    _set_level(server, number)
    access_logger = logging.getLogger(ACCESS)
    if _is_ours(access_logger, access_file):
        _handle(access_logger, access_file, "stdout")
    _set_level(access_logger, logging.INFO if access else logging.CRITICAL)


def speak_as(who: str) -> None:
    """This process is a fork of one that ``configure_as`` was called in: only its name is another.

    What the application has made of the loggers meanwhile stays; and few pages are written to.
    """
    for handler in logging.getLogger(SERVER).handlers:
        if isinstance(handler.formatter, _ServerFormatter | _JSONFormatter):
            handler.formatter.speak_as(who)


def _set_level(logger: logging.Logger, level: int) -> None:
    """``setLevel`` writes to every logger of the process, whose memory workers share."""
    if logger.level != level:
        logger.setLevel(level)


def configure_as(config: "Config", who: str = "") -> None:
    """``configure`` with a server's options."""
    configure(
        config.log_level,
        access=config.access_log,
        file=config.log_file,
        access_file=config.access_log_file,
        style=config.log_format,
        who=who,
    )


def _is_ours(logger: logging.Logger, file: str | None) -> bool:
    """Whether it has no handlers, or one of ours that goes elsewhere."""
    handlers = logger.handlers
    if not handlers:
        return True
    if not _has_our_handler(logger):
        return False
    path = handlers[0].path if isinstance(handlers[0], _File) else None
    return path != (None if file is None else os.path.abspath(file))


def _has_our_handler(logger: logging.Logger) -> bool:
    return len(logger.handlers) == 1 and isinstance(logger.handlers[0], _Stream | _File)


def _handle(logger: logging.Logger, file: str | None, stream: str) -> None:
    handler = _Stream(stream) if file is None else _File(file)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.propagate = False


def reopen() -> None:
    """Open log files anew."""
    for name in (SERVER, ACCESS):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, _File):
                handler.reopen()


def _is_terminal(stream: Any) -> bool:
    if "NO_COLOR" in os.environ:
        return False
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


# Those of this process, for who ends them.
_access_logs: "weakref.WeakSet[AccessLog]" = weakref.WeakSet()


def flush_access() -> None:
    """Write what lines of access logs wait."""
    for log in list(_access_logs):
        log.flush()


class AccessLog:
    """What the native server calls once per finished request.

    As long as nobody but our own handler listens to ``rondel.access``, lines bypass the logging
    module and are written together, once per turn of the loop: a record costs about 6 µs, as much
    as a small request. Those of threads are written within `LINGER` seconds: for each of them the
    loop would have to take the GIL from a thread that is at the next request. With any other
    handler or filter each line is an ordinary record.
    """

    __slots__ = (
        "__weakref__",
        "_direct",
        "_handler",
        "_line",
        "_lines",
        "_log",
        "_loop",
        "_scheduled",
        "_thread",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, format: Format | None = None) -> None:
        self._line: Callable[..., str] = access_line if format is None else format.line
        self._log = log = logging.getLogger(ACCESS)
        # Threads call as well: they wake the loop for the first line of a batch.
        self._loop, self._thread = loop, threading.get_ident()
        self._direct = (
            [type(handler) for handler in log.handlers] in ([_Stream], [_File])
            and not log.handlers[0].filters
            and not log.filters
            and not log.propagate
        )
        self._handler: Any = log.handlers[0] if self._direct else None
        # Lines of this turn. Threads add some too, so nothing here depends on the moment: a line is
        # in before `_scheduled` is looked at, and a flush resets that before it looks for lines.
        self._lines: deque[str] = deque()
        self._scheduled = False
        _access_logs.add(self)

    @property
    def enabled(self) -> bool:
        """False spares the native side the call."""
        return self._log.isEnabledFor(logging.INFO)

    def __call__(
        self,
        client: str,
        method: str,
        target: str,
        version: str,
        status: int,
        seconds: float,
        *asked: Any,
    ) -> None:
        """A request is finished; ``asked`` are the values that the format asks for."""
        line = self._line(client, method, target, version, status, seconds, *asked)
        if not self._direct:
            self._log.info(line)
            return
        self._lines.append(line + "\n")
        if not self._scheduled:
            self._scheduled = True
            # The server's loop is closed behind its last request; a thread may end after that.
            with contextlib.suppress(RuntimeError):
                if threading.get_ident() == self._thread:
                    self._loop.call_soon(self.flush)
                else:
                    self._loop.call_soon_threadsafe(self._loop.call_later, LINGER, self.flush)

    def flush(self) -> None:
        """Write what is waiting. Nobody reading any more is no reason to stop serving."""
        self._scheduled = False
        lines, text = self._lines, ""
        # `flush_access` may be at it in another thread.
        with contextlib.suppress(IndexError):
            while True:
                text += lines.popleft()
        if not text:
            return
        with contextlib.suppress(OSError, ValueError):
            stream = self._handler.stream
            stream.write(text)
            stream.flush()
