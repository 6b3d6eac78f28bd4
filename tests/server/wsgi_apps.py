"""The WSGI applications under test: one router whose first path segment names a handler.

Notes and gates are those of the ASGI applications' tests: `/events?key&count`, `/release?key`.
"""

import asyncio
import ctypes
import gzip
import io
import json
import os
import select
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs
from wsgiref.validate import validator

PATIENCE = 10.0
TEXT = (("Content-Type", "text/plain"),)
notes: dict[str, list[str]] = {}
gates: dict[str, threading.Event] = {}
changed = threading.Condition()


def app(environ: Any, start_response: Any) -> Any:
    return globals()["do_" + environ["PATH_INFO"].split("/")[1]](environ, start_response)


def query(environ: Any, name: str, default: str = "") -> str:
    return str(parse_qs(environ["QUERY_STRING"]).get(name, [default])[0])


def note(environ: Any, text: object) -> None:
    with changed:
        notes.setdefault(query(environ, "key"), []).append(str(text))
        changed.notify_all()


def gate(environ: Any) -> threading.Event:
    with changed:
        return gates.setdefault(query(environ, "key"), threading.Event())


class Closing:
    """An iterable whose every step and end is noted."""

    def __init__(self, environ: Any, parts: Any) -> None:
        self._environ = environ
        self._parts = iter(parts)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._parts)  # type: ignore[no-any-return]

    def close(self) -> None:
        note(self._environ, "closed")


def do_hello(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT])
    return [b"hello"]


def do_events(environ: Any, start_response: Any) -> Any:
    key, count = query(environ, "key"), int(query(environ, "count", "1"))
    with changed:
        changed.wait_for(lambda: len(notes.get(key, ())) >= count, PATIENCE)
        body = json.dumps(notes.get(key, [])).encode()
    start_response("200 OK", [*TEXT])
    return [body]


def do_release(environ: Any, start_response: Any) -> Any:
    gate(environ).set()
    return do_hello(environ, start_response)


def do_environ(environ: Any, start_response: Any) -> Any:
    plain = {key: value for key, value in environ.items() if isinstance(value, str | bool | tuple)}
    body = json.dumps(plain).encode()
    start_response("200 OK", [*TEXT, ("Content-Length", str(len(body)))])
    return [body]


def do_body(environ: Any, start_response: Any) -> Any:
    """The body as it was sent, by the means that `how` names."""
    source, how = environ["wsgi.input"], query(environ, "how", "read")
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if how == "read":
        body = source.read(length)
    elif how == "all":
        body = source.read()
    elif how == "lines":
        body = b"|".join(source.readlines())
    elif how == "line":
        body = b"|".join(iter(source.readline, b""))
    else:
        body = b"|".join(source)
    start_response("200 OK", [*TEXT, ("X-Length", environ.get("CONTENT_LENGTH", "none"))])
    return [body]


def do_errors(environ: Any, start_response: Any) -> Any:
    errors = environ["wsgi.errors"]
    errors.write("one written line\n")
    errors.writelines(["two ", "written lines\n"])
    errors.flush()
    return do_hello(environ, start_response)


# -- start_response and write --------------------------------------------------------------


def do_late_start(environ: Any, start_response: Any) -> Any:
    start_response("201 Created", [*TEXT])
    yield b""
    yield b"late"


def do_no_start(environ: Any, start_response: Any) -> Any:
    return [b"body"]


def do_no_start_no_body(environ: Any, start_response: Any) -> Any:
    return []


def do_twice(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT])
    start_response("200 OK", [*TEXT])
    return [b"twice"]


def failure() -> Any:
    try:
        raise RuntimeError("the application's failure")
    except RuntimeError:
        return sys.exc_info()


def do_replaced(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT, ("X-First", "1"), ("Content-Length", "100")])
    start_response("503 Replaced", [*TEXT, ("X-Second", "2")], failure())
    return [b"replaced"]


def do_replaced_before_the_first_piece(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT])
    yield b""
    start_response("500 Replaced", [*TEXT, ("X-Second", "2")], failure())
    yield b"replaced"


def do_too_late(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT])
    yield b"sent"
    try:
        raise RuntimeError("the application's failure")
    except RuntimeError:
        try:
            start_response("500 Replaced", [*TEXT], sys.exc_info())
        except RuntimeError as error:
            note(environ, error)
            raise
    yield b"never"


def do_write(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", [*TEXT])
    write(b"written ")
    write(b"")
    write(b"and ")
    return [b"returned"]


def do_write_alone(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT, ("Content-Length", "7")])(b"written")
    return []


def do_write_too_much(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", [*TEXT, ("Content-Length", "4")])
    write(b"four")
    try:
        write(b"more")
    except AssertionError as error:
        note(environ, error)
    return []


def do_header(environ: Any, start_response: Any) -> Any:
    name, value = query(environ, "name"), query(environ, "value")
    try:
        start_response(query(environ, "status", "200 OK"), [(name, value)])
    except Exception as error:
        note(environ, type(error).__name__)
        raise
    return [b"header"]


def do_types(environ: Any, start_response: Any) -> Any:
    what = query(environ, "what")
    status: Any = b"200 OK" if what == "status" else "200 OK"
    headers: Any = {
        "name": [(b"X", "1")],
        "value": [("X", b"1")],
        "headers": (("X", "1"),),
    }.get(what, [("X", "1")])
    start_response(status, headers)
    return [bytearray(b"types")] if what == "bytearray" else ["types"] if what == "text" else []


def do_many_headers(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X", "é")])
    return [b""]


# -- bodies --------------------------------------------------------------------------------


def do_status(environ: Any, start_response: Any) -> Any:
    how = query(environ, "how")
    start_response(f"{query(environ, 'code')} {query(environ, 'reason')}", [])
    if how == "file":
        return do_file(environ, lambda *_: None)
    return {"": [b"body"], "pieces": [b"pie", b"ces"], "none": []}[how]


def do_pieces(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT])
    return [b"one ", b"", b"two ", b"three"]


def do_none(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT])
    return []


def do_length(environ: Any, start_response: Any) -> Any:
    """Ten bytes, one by one or at once, of which `said` were declared."""
    start_response("200 OK", [*TEXT, ("Content-Length", query(environ, "said"))])
    how = query(environ, "how")
    parts: Any = {
        "list": [b"0123456789"],
        "generator": (b"%d" % i for i in range(10)),
        "once": (part for part in [b"0123456789"]),
    }[how]
    return Closing(environ, parts) if how != "list" else parts


def do_afterwards(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT, ("Content-Length", query(environ, "said"))])
    yield b"01234"
    yield b"56789"
    yield b""
    note(environ, "afterwards")
    yield b"more"
    note(environ, "never")


def do_gated(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT])
    yield b"first"
    gate(environ).wait(PATIENCE)
    yield b"second"


def do_stuck(environ: Any, start_response: Any) -> Any:
    freed = gate(environ).wait(PATIENCE)
    start_response("200 OK", [*TEXT])
    return [b"free" if freed else b"forgotten"]


def do_hold(environ: Any, start_response: Any) -> Any:
    note(environ, "holding")
    time.sleep(0.5)
    start_response("200 OK", [*TEXT])
    return [b"held"]


def do_endless(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT])

    def parts() -> Iterator[bytes]:
        while True:
            note(environ, "piece")
            yield b"x" * 64 * 1024

    return Closing(environ, parts())


def do_loud(environ: Any, start_response: Any) -> Any:
    """Endless, and says so on stderr when it is closed."""
    start_response("200 OK", [*TEXT])

    def parts() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 64 * 1024
        finally:
            print("closed by the server", file=sys.stderr, flush=True)

    return parts()


def do_loops(environ: Any, start_response: Any) -> Any:
    try:
        asyncio.get_running_loop()
        told = "some"
    except RuntimeError:
        told = "none"
    told += ", then one of its own" if asyncio.run(asyncio.sleep(0, True)) else ""
    start_response("200 OK", [*TEXT])
    return [told.encode()]


def do_piped(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT])
    yield b"first"
    with open(query(environ, "path"), "rb") as pipe:
        yield pipe.read()


def do_write_much(environ: Any, start_response: Any) -> Any:
    count, size = int(query(environ, "count")), int(query(environ, "size"))
    write = start_response("200 OK", [*TEXT])
    for i in range(count):
        write(f"{i:04}".encode().ljust(size, b"."))
    return [b"end"]


def do_doze(environ: Any, start_response: Any) -> Any:
    time.sleep(float(query(environ, "seconds")))
    start_response("200 OK", [*TEXT])
    return [b"dozed"]


def do_endless_write(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", [*TEXT])
    note(environ, "writing")
    try:
        while True:
            write(b"x" * 64 * 1024)
    except OSError as error:
        note(environ, type(error).__mro__[1].__name__)
        raise


def do_closing(environ: Any, start_response: Any) -> Any:
    """Closed how ever it ends: `how` is end, raise (at once or later), or start."""
    how = query(environ, "how")
    if how != "start":
        start_response("200 OK", [*TEXT])

    def parts() -> Iterator[bytes]:
        if how == "raise":
            raise RuntimeError("the application's failure")
        yield b"first"
        if how == "later":
            raise RuntimeError("the application's failure")

    return Closing(environ, parts())


def do_raise(environ: Any, start_response: Any) -> Any:
    raise RuntimeError("the application's failure")


def do_raise_started(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT])
    raise RuntimeError("the application's failure")


def do_bad_close(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [*TEXT])

    class Bad(list[bytes]):
        def close(self) -> None:
            raise RuntimeError("a failure in close")

    return Bad([b"complete"])


# -- files ---------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 1000


def do_file(environ: Any, start_response: Any) -> Any:
    """A file in `wsgi.file_wrapper`, from `offset` on, `said` bytes of it, if any were."""
    kind = query(environ, "kind", "plain")
    file: Any
    if kind == "memory":
        file = io.BytesIO(CONTENT)
    elif kind == "gzip":
        packed = tempfile.TemporaryFile()  # noqa: SIM115  (the server closes it)
        packed.write(gzip.compress(CONTENT, 1))
        packed.seek(0)
        file = gzip.GzipFile(fileobj=packed)
    elif kind == "empty":
        file = tempfile.TemporaryFile()  # noqa: SIM115
    elif kind == "pipe":
        reading, writing = os.pipe()
        os.write(writing, b"from a pipe")
        os.close(writing)
        file = os.fdopen(reading, "rb")
    else:
        make_file = tempfile.NamedTemporaryFile if kind == "named" else tempfile.TemporaryFile
        file = make_file()
        file.write(CONTENT)
        file.seek(0)
    if kind in ("plain", "named", "memory"):
        file.seek(int(query(environ, "offset", "0")))
        file.read(int(query(environ, "read", "0")))
    said = query(environ, "said")
    start_response("200 OK", [*TEXT, ("Content-Length", said)] if said else [*TEXT])
    if kind == "closing":
        file = Noting(environ, file)
    return environ["wsgi.file_wrapper"](file, 1000)


class Noting(io.FileIO):
    """A file whose end is noted."""

    def __init__(self, environ: Any, file: Any) -> None:
        super().__init__(os.dup(file.fileno()), "rb")
        self._environ = environ

    def close(self) -> None:
        if not self.closed:
            note(self._environ, "closed")
        super().close()


def do_keep_interpreter(environ: Any, start_response: Any) -> Any:
    """Reads from the pipe `gate`, and keeps the interpreter's lock meanwhile."""
    libc = ctypes.PyDLL(None)
    reading = os.open(query(environ, "gate"), os.O_RDONLY | os.O_NONBLOCK)
    poll = ctypes.create_string_buffer(struct.pack("ihh", reading, select.POLLIN, 0))
    libc.poll(poll, 1, int(PATIENCE * 1000))
    os.close(reading)
    start_response("200 OK", [*TEXT])
    return [b"kept"]


# -- the process ---------------------------------------------------------------------------


def do_process(environ: Any, start_response: Any) -> Any:
    keys = ("wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once")
    told = {"pid": os.getpid(), "thread": threading.current_thread().name}
    start_response("200 OK", [*TEXT])
    return [json.dumps({**told, **{key: environ[key] for key in keys}}).encode()]


# The validator's own rules: a Content-Type unless there is no body, bytes, close() called ...
valid = validator(app)


class ClassApp:
    """PEP 3333's own example of an application that is a class."""

    def __init__(self, environ: Any, start_response: Any) -> None:
        self._start = start_response

    def __iter__(self) -> Iterator[bytes]:
        self._start("200 OK", [*TEXT])
        yield b"of a class"


def optional(environ: Any, start_response: Any, more: Any = None) -> Any:
    return do_hello(environ, start_response)


def make() -> Any:
    return app


class Asgi2:
    def __init__(self, scope: Any) -> None:
        assert scope["type"] == "http", scope["type"]

    async def __call__(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"asgi 2"})


def asgi2(scope: Any) -> Any:
    return Asgi2(scope)


async def asgi3(scope: Any, receive: Any, send: Any, more: Any = None) -> None:
    await Asgi2(scope)(receive, send)


def sync_asgi3(scope: Any, receive: Any, send: Any) -> Any:
    return asgi3(scope, receive, send)


async def strange(one: Any) -> None: ...
