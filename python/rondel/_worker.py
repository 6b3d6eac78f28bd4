"""A worker process of ``to_process``, from the inside: calls in, outcomes out, one at a time.

A message is its length (eight bytes, big-endian) and a pickle: ``(fn, args, kwargs)`` one way,
``(True, value)`` or ``(False, exception)`` the other. The first message out is empty: ready.

The worker ends when its socket does. When its parent is gone, however that went, the kernel kills
it, in the middle of a call if need be: the pipe that multiprocessing leaves open between the two is
set to send SIGKILL when it breaks.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import pickle
import signal
import socket
import struct
import traceback
from typing import Any, BinaryIO

__all__ = ["LENGTH", "RemoteError", "serve"]

LENGTH = struct.Struct("!Q")

# Linux's number of F_SETSIG, which `fcntl` does not name.
_F_SETSIG = getattr(fcntl, "F_SETSIG", 10)


class RemoteError(RuntimeError):
    """An exception of a worker process that can't be pickled; its text is in the message."""


class _RemoteTraceback(Exception):
    """The cause of an exception that a worker raised: its traceback there, as text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


class _Raised:
    """An exception on its way to the parent."""

    def __init__(self, error: BaseException, text: str) -> None:
        self.error = error
        self.text = text

    def __reduce__(self) -> Any:
        return _rebuilt, (self.error, self.text)


def _rebuilt(error: BaseException, text: str) -> BaseException:
    error.__cause__ = _RemoteTraceback(text)
    return error


def serve(channel: socket.socket) -> None:
    """Make calls until the socket ends."""
    # Ctrl+C goes to the whole group; what becomes of calls is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    stream = channel.makefile("rb")
    with channel, stream, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        channel.sendall(LENGTH.pack(0))
        while (request := _receive(stream)) is not None:
            answer = _answer(request)
            channel.sendall(LENGTH.pack(len(answer)))
            channel.sendall(answer)
            # Neither is kept while the worker waits.
            del request, answer


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    pipe = parent.sentinel
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if not parent.is_alive():  # it went before that was set
        os._exit(1)


def _receive(stream: BinaryIO) -> bytes | None:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    request = stream.read(length)
    return request if len(request) == length else None


def _answer(request: bytes) -> bytes:
    try:
        fn, args, kwargs = pickle.loads(request)
        value = fn(*args, **kwargs)
    except BaseException as error:
        return _failure(error)
    try:
        return pickle.dumps((True, value), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        refusal = TypeError(f"the result of {_name(fn)} can't be sent from its process: {error}")
        refusal.__cause__ = error
        return _failure(refusal)


def _failure(error: BaseException) -> bytes:
    text = "".join(traceback.format_exception(error))
    quoted = f'\n"""\n{text}"""'
    with contextlib.suppress(Exception):
        answer = pickle.dumps((False, _Raised(error, quoted)), pickle.HIGHEST_PROTOCOL)
        # Exceptions that want more arguments than they keep are pickled, but not unpickled.
        pickle.loads(answer)
        return answer
    plain = RemoteError("".join(traceback.format_exception_only(error)).strip())
    return pickle.dumps((False, _Raised(plain, quoted)), pickle.HIGHEST_PROTOCOL)


def _name(fn: object) -> str:
    return getattr(fn, "__qualname__", None) or repr(fn)
