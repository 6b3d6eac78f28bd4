"""``ReadPipeTransport``, ``WritePipeTransport``: pipes under a protocol.

The native bases (``_rondel.ReadPipeBase``, ``_rondel.WritePipeBase``) do what happens per read and
write. They derive from asyncio's own classes, of which nothing but the type is left: whoever asks
``isinstance()`` is told what asyncio would tell. Here is what happens once per pipe.

Invariants: the base lets go of the loop, the pipe and the protocol in ``_call_connection_lost``,
so ``_pipe is None`` says that it is over; the pipe object owns the descriptor and is closed there
or in ``__del__``.
"""

# mypy: disable-error-code="attr-defined,misc"
# asyncio's private names are not in typeshed's stubs.

from __future__ import annotations

import errno
import os
import stat
import warnings
from asyncio import base_subprocess, futures
from typing import TYPE_CHECKING, Any

from rondel import _rondel
from rondel._transport import ErrorReports

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["PipeMethods", "ReadPipeTransport", "WritePipeTransport"]


class _Pipe(ErrorReports):
    """How a pipe is taken over, described, ended by an error, and missed when it was forgotten."""

    __slots__ = ()

    def __init__(
        self: Any,
        loop: asyncio.AbstractEventLoop,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        fd = pipe.fileno()
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)):
            raise ValueError(self._REFUSAL)
        os.set_blocking(fd, False)
        extra = {} if extra is None else extra
        extra["pipe"] = pipe
        self._open(loop, pipe, fd, protocol, extra)
        if isinstance(protocol, base_subprocess.WriteSubprocessPipeProto):
            self._may_grow()
        loop.call_soon(protocol.connection_made, self)
        # Data, the reader's end, and whoever waits for the pipe, come after connection_made().
        begin = self._first_watch(mode)
        if begin is not None:
            loop.call_soon(begin)
        if waiter is not None:
            loop.call_soon(futures._set_result_unless_cancelled, waiter, None)

    def _first_watch(self, mode: int) -> Callable[[], None] | None:
        """What starts watching the descriptor, of a file of that mode (``st_mode``)."""
        raise NotImplementedError

    def _details(self) -> list[str]:
        raise NotImplementedError

    def __repr__(self: Any) -> str:
        info = [self.__class__.__name__]
        if self._pipe is None:
            info.append("closed")
        elif self._closing:
            info.append("closing")
        info.append(f"fd={self._fileno}")
        if self._pipe is None:
            info.append("closed")
        elif self._loop.is_closed():
            info.append("open")
        else:
            info.extend(self._details())
        return f"<{' '.join(info)}>"

    def _fatal_error(
        self: Any, exc: BaseException, message: str = "Fatal error on pipe transport"
    ) -> None:
        """Report an exception of the protocol or the pipe, and close at once."""
        self._report_error(exc, message)
        self._close(exc)

    def __del__(self: Any, _warn: Any = warnings.warn) -> None:
        pipe = self._pipe
        if pipe is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            pipe.close()


class ReadPipeTransport(_Pipe, _rondel.ReadPipeBase):
    """A transport as ``asyncio`` gives them for the reading end of a pipe (see its docs).

    Raises:
        ValueError: the descriptor is neither a pipe, nor a socket, nor a character device.
    """

    _REFUSAL = "Pipe transport is for pipes/sockets only."

    def _first_watch(self, mode: int) -> Callable[[], None]:
        return self._start_reading

    @staticmethod
    def _is_expected(exc: BaseException) -> bool:
        # How a terminal says that its other side is gone.
        return isinstance(exc, OSError) and exc.errno == errno.EIO

    def _details(self) -> list[str]:
        return ["polling" if self._polling()[0] else "idle"]


class WritePipeTransport(_Pipe, _rondel.WritePipeBase):
    """A transport as ``asyncio`` gives them for the writing end of a pipe (see its docs).

    Raises:
        ValueError: the descriptor is neither a pipe, nor a socket, nor a character device.
    """

    _REFUSAL = "Pipe transport is only for pipes, sockets and character devices"

    def _first_watch(self, mode: int) -> Callable[[], None] | None:
        # A terminal is readable when somebody types, which is no end.
        return None if stat.S_ISCHR(mode) else self._watch_end

    @staticmethod
    def _is_expected(exc: BaseException) -> bool:
        # Readers that vanish are everyday.
        return isinstance(exc, OSError)

    def _details(self) -> list[str]:
        state = "polling" if self._polling()[1] else "idle"
        return [state, f"bufsize={self.get_write_buffer_size()}"]


# In reprs and reports they are what they stand for.
for _transport, _name in (
    (ReadPipeTransport, "_UnixReadPipeTransport"),
    (WritePipeTransport, "_UnixWritePipeTransport"),
):
    _transport.__name__ = _transport.__qualname__ = _name


class PipeMethods:
    """The part of the loop that makes them, for ``connect_read_pipe`` and child processes."""

    def _make_read_pipe_transport(
        self: Any,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> ReadPipeTransport:
        return ReadPipeTransport(self, pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(
        self: Any,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> WritePipeTransport:
        return WritePipeTransport(self, pipe, protocol, waiter, extra)
