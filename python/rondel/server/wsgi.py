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

import io
import os
import re
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol

from rondel.server.config import Config, Receive, Scope, Send
from rondel.server.files import plain_file

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

    from rondel import _rondel

__all__ = ["WSGI", "FileWrapper"]

# A code, with the application's own words for it unless they are the usual ones.
Status = int | tuple[int, bytes]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None
Headers = list[tuple[str, str]]

# Bytes of a request's body that are kept in memory; more is a file.
SPOOL = 1 << 20

# RFC 9110, section 7.6.1, and RFC 2616, section 13.5.1, which the PEP goes by.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile("[0-9]+")

# The statuses that the native side has the same words for, as far as that spares work.
_USUAL = {
    200: "OK",
    201: "Created",
    204: "No Content",
    301: "Moved Permanently",
    302: "Found",
    304: "Not Modified",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    500: "Internal Server Error",
}

# Header names of responses that were found good, and statuses: of applications that repeat
# themselves. Whoever makes names up pays for them, and fills no memory.
_MOST_NAMES = 1000
_good: set[str] = set()
_codes: dict[str, tuple[int, Status]] = {}


class Closing(Protocol):
    def close(self) -> object: ...


class WSGI:
    """A WSGI application, where an ASGI application is expected (``Threads.adopt`` looks inside).

    It has no lifespan, and no request comes to it by the loop.
    """

    def __init__(self, application: "WSGIApplication") -> None:
        self.application = application

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        raise ValueError(f"a WSGI application has no part in {scope['type']!r}")

    def template(self, config: Config) -> "WSGIEnvironment":
        """What every request's ``environ`` has; the native side copies it and adds the request's."""
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
            response = Response(reply, environ["REQUEST_METHOD"] == "HEAD")
            left = None
            try:
                result = application(environ, response.start_response)
                try:
                    left = response.send(result)
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


def finish(
    left: Generator[None], result: Iterable[bytes], source: IO[bytes]
) -> Generator[None]:
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


class Response:
    """One response: its head, as long as it can be replaced, and what was sent of it."""

    __slots__ = ("_bodyless", "_code", "_headers", "_left", "_reply", "_sent", "_status")

    def __init__(self, reply: "_rondel.Reply", head: bool) -> None:
        self._reply = reply
        # Whether a body is dropped, whatever its length.
        self._bodyless = head
        self._code = 0
        self._status: Status = 0
        self._headers: Headers = []
        # Bytes that the declared length leaves; None where none was declared.
        self._left: int | None = None
        # Whether the head was sent.
        self._sent = False

    # ------------------------------------------------------------------ the application's side

    def start_response(
        self, status: str, headers: Headers, exc_info: ExcInfo = None
    ) -> Callable[[bytes], object]:
        """PEP 3333's; errors of status and headers are raised here, where the mistake is."""
        error: BaseException | None
        if exc_info:
            try:
                if self._sent:
                    error = exc_info[1] or AssertionError("the response was begun before")
                    raise error.with_traceback(exc_info[2])
            finally:
                exc_info = error = None  # no circle by the traceback's frames
        elif self._status:
            raise AssertionError("start_response() was called twice, without exc_info")
        code, said = _codes.get(status) or read_status(status)
        left = check_headers(headers)
        self._code, self._status, self._headers, self._left = code, said, headers, left
        return self.write

    def write(self, data: bytes) -> None:
        """Send a piece of the body now; waits while the client is behind.

        Raises AssertionError past the declared length, ConnectionAbortedError if the client has
        gone: who writes for ever learns of it.
        """
        if type(data) is not bytes:
            data = to_bytes(data)
        if not data:
            # Nothing that would have to be sent.
            return
        if self._left is not None and len(data) > self._left and not self._has_no_body():
            raise AssertionError("write() past the response's Content-Length")
        if not self._piece(data):
            raise ClientGone("the client has gone")

    # ------------------------------------------------------------------------ the server's side

    def send(self, result: Iterable[bytes]) -> Generator[None] | None:
        """Send what the application returned, if that can be done at once; else what does so."""
        kind = type(result)
        if (kind is list or kind is tuple) and len(result) == 1 and not self._sent:  # type: ignore[arg-type]
            # All there is, so that its length is known.
            self._whole(result[0])  # type: ignore[index]
            return None
        if kind is FileWrapper and not self._sent and self._file(result):  # type: ignore[arg-type]
            return None
        return self._pieces(result)

    def _pieces(self, result: Iterable[bytes]) -> Generator[None]:
        """Send it piece by piece, and the end."""
        pieces = iter(result)
        for data in pieces:
            if type(data) is not bytes:
                data = to_bytes(data)
            if not data:
                continue
            left = self._left
            if left is None or self._has_no_body():
                if not self._piece(data) or self._has_no_body():
                    break
                yield
                continue
            if len(data) >= left:
                if self._sent:
                    self._piece(data[:left])
                    self._end()
                else:
                    # The declared length is that of the first piece: as if it had come in a list.
                    self._whole(data)
                # What an application does after its last piece is done, too; what is more is not.
                for more in pieces:
                    if more:
                        break
                return
            if not self._piece(data):
                break
            yield
        self._end()

    def _has_no_body(self) -> bool:
        return self._bodyless or self._code == 204 or self._code == 304

    def _whole(self, data: bytes) -> None:
        if type(data) is not bytes:
            data = to_bytes(data)
        self._check_started()
        if self._left is not None and not self._has_no_body():
            if len(data) < self._left:
                raise too_short(self._left - len(data))
            data = data[: self._left]
        self._sent = True
        self._reply.respond(self._status, self._headers, data)

    def _piece(self, data: bytes) -> bool:
        """Whether the client is still there."""
        if not self._sent:
            self._check_started()
            self._sent = True
            if not self._reply.start(self._status, self._headers):
                return False
        if self._left is not None:
            self._left -= len(data)
        return self._reply.send(data)

    def _end(self) -> None:
        if self._reply.gone:
            return
        if self._left and not self._has_no_body():
            raise too_short(self._left)
        if not self._sent:
            self._check_started()
            self._sent = True
            self._reply.respond(self._status, self._headers, b"")
        else:
            self._reply.finish()

    def _file(self, wrapper: "FileWrapper") -> bool:
        """Have the system send the wrapped file; whether it does."""
        self._check_started()
        try:
            file = plain_file(wrapper.filelike)
            if file is None:
                return False
            if file.writable():
                file.flush()
            offset = file.tell()
            count = os.fstat(file.fileno()).st_size - offset
            if self._left is not None:
                if self._left > count:
                    return False
                count = self._left
            self._reply.respond_file(self._status, self._headers, file.fileno(), offset, count)
        except (OSError, ValueError):
            # Closed, a pipe, or shorter by now: reading it tells.
            return False
        self._sent = True
        return True

    def _check_started(self) -> None:
        if not self._status:
            raise AssertionError("the application sent a body before start_response()")


def read_status(status: str) -> tuple[int, Status]:
    """What ``"200 OK"`` says, and the code alone; raises TypeError or ValueError."""
    if not isinstance(status, str):
        raise TypeError(f"the status must be a str, not {type(status).__name__}")
    code, _, reason = status.partition(" ")
    if len(code) != 3 or not code.isdecimal() or not code.isascii() or code < "200":
        raise ValueError(f"the status must begin with a code from 200 to 999: {status!r}")
    if _FORBIDDEN.search(reason):
        raise ValueError(f"the status has control characters: {status!r}")
    try:
        words = reason.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"the status is not latin-1: {status!r}") from None
    number = int(code)
    said: Status = number if reason == _USUAL.get(number) else (number, words)
    if len(_codes) < _MOST_NAMES:
        _codes[status] = number, said
    return number, said


def check_headers(headers: Headers) -> int | None:
    """The declared length, or None; raises TypeError or ValueError for what can't be sent."""
    length = None
    if not isinstance(headers, list):
        raise TypeError(f"the headers must be a list, not {type(headers).__name__}")
    for name, value in headers:
        if name not in _good:
            check_name(name)
        if type(value) is not str or not value.isascii():
            check_text(value, name)
        if _FORBIDDEN.search(value):
            raise ValueError(f"the header {name} has control characters: {value!r}")
        if len(name) == 14 and name.lower() == "content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                raise ValueError(f"the Content-Length is no single number: {value!r}")
            length = int(value)
    return length


def check_name(name: str) -> None:
    """Raise TypeError or ValueError unless an application may set this header."""
    if not isinstance(name, str):
        raise TypeError(f"a header's name must be a str, not {type(name).__name__}")
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"not a header's name: {name!r}")
    if name.lower() in HOP_BY_HOP:
        raise ValueError(f"{name} is a hop-by-hop header, which only the server may set")
    if len(_good) < _MOST_NAMES:
        _good.add(name)


def check_text(value: object, name: str) -> None:
    """Raise TypeError unless it is a str, or ValueError for one beyond latin-1."""
    if not isinstance(value, str):
        raise TypeError(f"the value of {name} must be a str, not {type(value).__name__}")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"the value of {name} is not latin-1: {value!r}") from None


def to_bytes(data: object) -> bytes:
    """A piece of a body; raises TypeError for what is none."""
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"a WSGI application's body is bytes, not {type(data).__name__}")


def too_short(missing: int) -> Exception:
    """The error of a body that ends too early."""
    return RuntimeError(f"the response's body is {missing} bytes short of its Content-Length")


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
