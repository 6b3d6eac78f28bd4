"""asyncio's streams without Python between socket and reader (Python docs: *Streams*).

Each class derives from a native base and from asyncio's class, so ``isinstance`` and subclasses
written for asyncio's hold. What happens per message is native; what happens once per connection is
asyncio's own code of the Python that runs: ``_with_native_names`` gives its functions the native
classes for the names that they look up. A child process's streams come likewise, over its pipes.

``rondel.streams`` offers them beside asyncio's other names.
"""

from __future__ import annotations

import asyncio
import types
from asyncio import streams as _stock
from asyncio import subprocess as _processes
from typing import TYPE_CHECKING, Any

from rondel import _rondel
from rondel.transports import SocketTransport

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "create_subprocess_exec",
    "create_subprocess_shell",
    "open_connection",
    "open_unix_connection",
    "start_server",
    "start_unix_server",
]

# asyncio's modules as their functions see them, but for the classes below.
_names: dict[str, Any] = dict(vars(_stock))
_process_names: dict[str, Any] = dict(vars(_processes))


def _with_native_names(function: Callable[..., Any], names: dict[str, Any] = _names) -> Any:
    """asyncio's own function, which finds the native classes where it looks for asyncio's."""
    assert isinstance(function, types.FunctionType)
    made = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__ = function.__kwdefaults__
    made.__doc__ = function.__doc__
    made.__annotations__ = function.__annotations__
    made.__qualname__ = function.__qualname__
    made.__module__ = function.__module__.replace("asyncio", "rondel", 1)
    return made


class StreamReader(_rondel.StreamReaderBase, asyncio.StreamReader):
    """What came from a connection and was not read yet (``asyncio.StreamReader``).

    ``limit``: bytes; ``readuntil()`` and ``readline()`` give no more at once, and with more than
    twice as much in the buffer the transport is told to pause. ValueError if it is not positive.
    """

    __module__ = "rondel.streams"


class StreamReaderProtocol(_rondel.StreamProtocolBase, asyncio.StreamReaderProtocol):
    """Feeds a ``StreamReader`` from a transport (``asyncio.StreamReaderProtocol``)."""

    __module__ = "rondel.streams"

    # asyncio's, natively.
    __del__ = _rondel.StreamProtocolBase._finish


class StreamWriter(_rondel.StreamWriterBase, asyncio.StreamWriter):
    """Sends over a connection (``asyncio.StreamWriter``)."""

    __module__ = "rondel.streams"

    # As above: warns of a forgotten writer.
    if hasattr(asyncio.StreamWriter, "__del__"):
        __del__ = _rondel.StreamWriterBase._finish


class SubprocessStreamProtocol(_processes.SubprocessStreamProtocol):
    """Passes what a child writes on to its streams, which are native."""

    __module__ = "rondel.subprocess"

    connection_made = _with_native_names(
        _processes.SubprocessStreamProtocol.connection_made, _process_names
    )


_rondel._adopt_streams(
    StreamReader,
    StreamReaderProtocol,
    SocketTransport,
    _with_native_names(asyncio.StreamReaderProtocol.connection_made),
)

_names.update(
    StreamReader=StreamReader,
    StreamReaderProtocol=StreamReaderProtocol,
    StreamWriter=StreamWriter,
)
open_connection = _with_native_names(_stock.open_connection)
start_server = _with_native_names(_stock.start_server)
open_unix_connection = _with_native_names(_stock.open_unix_connection)
start_unix_server = _with_native_names(_stock.start_unix_server)

_process_names.update(
    streams=types.SimpleNamespace(**_names), SubprocessStreamProtocol=SubprocessStreamProtocol
)
create_subprocess_exec = _with_native_names(_processes.create_subprocess_exec, _process_names)
create_subprocess_shell = _with_native_names(_processes.create_subprocess_shell, _process_names)
# asyncio's have no docstrings.
create_subprocess_exec.__doc__ = """Start a program; its pipes have native streams."""
create_subprocess_shell.__doc__ = """Start a shell's command line; its pipes have native streams."""
