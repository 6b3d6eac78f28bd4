"""WSGI applications (PEP 3333) on the path on which threads answer requests.

    connection ─► body gathered ─► a thread: environ, application, its iterable ─► Reply

The whole of a request is there before a thread is asked, and a thread that is ahead of its client
waits without the GIL (``crates/rondel/src/server/blocking``, which makes ``environ`` as well). With
one thread it is the loop's own: the next piece of a response is asked for when there is room.

Invariants: nothing is sent before the first piece of the body that is not empty, or the iterable's
end, so that ``start_response`` with ``exc_info`` can still replace the head. ``close()`` of what
the application returned is called exactly once, whatever happened. An exception leaves this module
with its traceback: the native side logs it, and answers 500 or breaks off what was begun.

One thread per request, and none of the objects here is shared between requests but ``WSGI``, which
is only read.
"""

import os
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

from rondel._rondel import wsgi_response
from rondel.server.config import Config, Receive, Scope, Send
from rondel.server.files import plain_file

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

    from rondel import _rondel

__all__ = ["WSGI", "FileWrapper"]

# Bytes of a request's body that are kept in memory; more is a file.
SPOOL = 1 << 20


class WSGI:
    """A WSGI application, where an ASGI application is expected (``Threads.adopt`` looks inside).

    It has no lifespan, and no request comes to it by the loop.
    """

    def __init__(self, application: "WSGIApplication") -> None:
        self.application = application

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        raise ValueError(f"a WSGI application has no part in {scope['type']!r}")

    def template(self, config: Config) -> "WSGIEnvironment":
        """What every ``environ`` has; the native side copies it and adds what is the request's."""
        from rondel.server.threads import USUAL_THREADS

        return {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": config.root_path.encode().decode("latin-1").rstrip("/"),
            "PATH_INFO": "",
            "QUERY_STRING": "",
            "REMOTE_ADDR": "",
            "SERVER_NAME": "",
            "SERVER_PORT": "",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_SOFTWARE": "rondel",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": _Errors(),
            "wsgi.multithread": (config.threads or USUAL_THREADS) > 1,
            # A supervisor may start further ones.
            "wsgi.multiprocess": config.workers is not None,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input": None,
            "wsgi.input_terminated": True,
        }

    def handler(self) -> "Callable[[Any, WSGIEnvironment, _rondel.Reply], Generator[None] | None]":
        """What the native server calls: ``handler(scope, environ, reply)``.

        It returns the pieces of the body that are left, if there may be any: a generator that sends
        one of them at each step. Once it was begun with, it is run to its end or closed.
        """
        application = self.application

        def handle(
            scope: object, environ: "WSGIEnvironment", reply: "_rondel.Reply"
        ) -> Generator[None] | None:
            source = environ["wsgi.input"]
            response, start_response = wsgi_response(reply, environ["REQUEST_METHOD"])
            left = None
            try:
                result = application(environ, start_response)
                try:
                    if not response.send(result) and not send_file(response, result):
                        left = pieces(response, result)
                finally:
                    if left is None:
                        close = getattr(result, "close", None)
                        if close is not None:
                            close()
            except ClientGone:
                # What `write()` raised, and the application let through: nobody's mistake.
                pass
            finally:
                if left is None:
                    source.close()
            return None if left is None else finish(left, result, source)

        return handle


def finish(left: Generator[None], result: Iterable[bytes], source: IO[bytes]) -> Generator[None]:
    """Send what is left of a response, and end the request."""
    try:
        try:
            yield from left
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
    except ClientGone:
        pass
    finally:
        source.close()


class ClientGone(ConnectionAbortedError):
    """There is nobody any more to write to."""


def pieces(response: "_rondel.WsgiResponse", result: Iterable[bytes]) -> Generator[None]:
    """Send what the application returned piece by piece, and the end."""
    parts = iter(result)
    for data in parts:
        if type(data) is not bytes:
            data = to_bytes(data)
        if not data:
            continue
        left = response.left
        if left is None:
            if not response.piece(data) or response.bodyless:
                break
            yield
            continue
        if len(data) >= left:
            if response.sent:
                response.piece(data[:left])
                response.end()
            else:
                # The declared length is that of the first piece: as if it had come in a list.
                response.whole(data)
            # What an application does after its last piece is done, too; what is more is not.
            for more in parts:
                if more:
                    break
            return
        if not response.piece(data):
            break
        yield
    response.end()


def send_file(response: "_rondel.WsgiResponse", result: object) -> bool:
    """Have the system send the file in a ``FileWrapper``; whether it does."""
    if type(result) is not FileWrapper or response.sent:
        return False
    if not response.started:
        raise AssertionError("the application sent a body before start_response()")
    try:
        file = plain_file(result.filelike)
        if file is None:
            return False
        if file.writable():
            file.flush()
        offset = file.tell()
        count = os.fstat(file.fileno()).st_size - offset
        left = response.left
        if left is not None:
            if left > count:
                return False
            count = left
        response.file(file.fileno(), offset, count)
    except (OSError, ValueError):
        # Closed, a pipe, or shorter by now: reading it tells.
        return False
    return True


def to_bytes(data: object) -> bytes:
    """A piece of a body; raises TypeError for what is none."""
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"a WSGI application's body is bytes, not {type(data).__name__}")


class FileWrapper:
    """``wsgi.file_wrapper``: a file as an iterable; the system sends it, if it is a plain one."""

    def __init__(self, filelike: Any, block_size: int = 64 * 1024) -> None:
        self.filelike = filelike
        self.block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.block_size)
        if data:
            return data
        raise StopIteration


class _Errors:
    """``wsgi.errors``: the present ``sys.stderr``, so that redirections hold."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text) if sys.stderr is not None else len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()
