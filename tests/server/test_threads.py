"""Requests that threads answer: the native server with a handler, without any framework.

The server runs on a thread's Rondel loop inside of the test's process; the handler is the test's.
"""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import http.client
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rondel
from rondel import _rondel
from rondel._pool import ThreadPool
from tests.support import PATIENCE

pytestmark = pytest.mark.rondel_server

Handler = Callable[[dict[str, Any], bytes | int, Any], object]
TEXT = [("Content-Type", "text/plain")]


class Site:
    """A server whose handler and ASGI application belong to the test."""

    def __init__(
        self, *, threads: int = 4, queue: int = 64, spool: int = 1000, **options: Any
    ) -> None:
        self.handler: Handler = lambda scope, body, reply: reply.respond(200, TEXT, b"thread")
        self.routes = _rondel.routes()
        self.pool = ThreadPool(threads, "site")
        self.loop: asyncio.AbstractEventLoop | None = None
        self.log: list[tuple[Any, ...]] = []
        self._options = {"queue": queue, "spool": spool, **options}
        self._stop: Callable[[], None] = lambda: None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: rondel.run(self._main()))
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    async def _app(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"loop"})

    async def _main(self) -> None:
        loop = self.loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        self.pool.native.pace(loop)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            self.server = _rondel.serve_http(
                loop,
                self._app,
                [listener.fileno()],
                handler=lambda scope, body, reply: self.handler(scope, body, reply),
                pool=self.pool.native,
                routes=self.routes,
                access_log=lambda *values: self.log.append(values),
                **self._options,
            )
        self._ready.set()
        await stop.wait()
        self.cut_off = await self.server.shutdown(self.deadline)

    deadline = 0.0

    def end(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has stopped already
            self._stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self.pool.shutdown()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(self, path: str = "/", method: str = "GET", body: Any = None) -> tuple[int, bytes]:
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()

    def socket(self, request: bytes) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        sock.sendall(request)
        return sock


def idle(pool: ThreadPool) -> None:
    """Wait until no thread of the pool is at work."""
    deadline = time.monotonic() + PATIENCE
    while pool.stats()["busy"] > 0:
        assert time.monotonic() < deadline, "a thread is at work"
        time.sleep(0.001)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.end()


def test_paths_that_nobody_told_of_are_the_loops(site: Site) -> None:
    assert site.ask("/a") == (200, b"loop")
    site.routes.learn("/a", [], True)
    assert site.ask("/a?x=1") == (200, b"thread")
    assert site.ask("/b") == (200, b"loop")
    site.routes.learn("/a", [], False)
    assert site.ask("/a") == (200, b"loop")


def test_captured_segments_stand_for_anything(site: Site) -> None:
    site.routes.learn("/books/7/", ["7"], True)
    assert site.ask("/books/1984/") == (200, b"thread")
    assert site.ask("/books/") == (200, b"loop")


def test_the_scope_is_the_asgi_one_and_the_thread_has_a_name(site: Site) -> None:
    seen: dict[str, Any] = {}

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        seen.update(scope, thread=threading.current_thread().name, body=body)
        reply.respond(201, [(b"X-Bytes", "text"), *TEXT], b"made")

    site.handler = handler
    site.routes.learn("/é", [], True)
    site.routes.learn("/path", [], True)
    with contextlib.closing(site.connect()) as connection:
        connection.request("PUT", "/path?q=1", b"given", {"X-One": "1"})
        response = connection.getresponse()
        assert (response.status, response.read()) == (201, b"made")
        assert response.headers["x-bytes"] == "text"
        assert response.headers["content-length"] == "4"
    assert seen["type"] == "http"
    assert (seen["method"], seen["path"], seen["query_string"]) == ("PUT", "/path", b"q=1")
    assert (b"x-one", b"1") in seen["headers"]
    assert seen["client"][0] == "127.0.0.1"
    assert seen["body"] == b"given"
    assert seen["thread"].startswith("site-")


def test_each_request_has_variables_of_its_own(site: Site) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")
    seen = []

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        seen.append(var.get())
        var.set("set")
        reply.respond(200, TEXT, b"")

    site.handler = handler
    site.routes.learn("/", [], True)
    for _ in range(5):
        site.ask()
    assert seen == ["unset"] * 5


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_body_up_to_the_limit_is_bytes(site: Site, size: int) -> None:
    got = []

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        got.append(body)
        reply.respond(200, TEXT, b"")

    site.handler = handler
    site.routes.learn("/", [], True)
    site.ask("/", "POST", b"x" * size)
    assert got == [b"x" * size]


def test_a_larger_body_is_a_file_whose_descriptor_is_given_away(site: Site) -> None:
    got = []

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        assert isinstance(body, int)
        with os.fdopen(body, "rb") as file:
            got.append(file.read())
        reply.respond(200, TEXT, b"")

    site.handler = handler
    site.routes.learn("/", [], True)
    sent = os.urandom(3_000_000)
    assert site.ask("/", "POST", sent)[0] == 200
    assert site.ask("/", "POST", iter([sent[:5], sent[5:]]))[0] == 200
    assert got == [sent, sent]


def test_a_slow_upload_costs_no_thread(site: Site) -> None:
    site.routes.learn("/", [], True)
    with site.socket(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab") as sock:
        assert site.ask() == (200, b"thread")
        # The thread that answered may still be on its way to being idle.
        idle(site.pool)
        sock.sendall(b"cd")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_a_client_that_leaves_in_its_upload_is_forgotten(site: Site) -> None:
    called = []
    site.handler = lambda scope, body, reply: called.append(1)
    site.routes.learn("/", [], True)
    site.socket(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab").close()
    until(lambda: stats(site)["requests"] == 0 and stats(site)["connections"] == 0)
    assert called == []


def stats(site: Site) -> dict[str, int]:
    assert site.loop is not None
    future: concurrent.futures.Future[dict[str, int]] = concurrent.futures.Future()
    site.loop.call_soon_threadsafe(lambda: future.set_result(site.server.stats()))
    return future.result(PATIENCE)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_response_in_parts_is_sent_as_it_comes(site: Site) -> None:
    go_on = threading.Event()

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        assert reply.start(200, TEXT)
        assert reply.send(b"one")
        assert go_on.wait(PATIENCE)
        assert reply.send(b"")
        assert reply.send(b"two")
        assert reply.finish()

    site.handler = handler
    site.routes.learn("/", [], True)
    with contextlib.closing(site.connect()) as connection:
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.read(3) == b"one"
        go_on.set()
        assert response.read() == b"two"


def test_a_large_body_is_let_go_when_it_is_sent(site: Site) -> None:
    """Though no Python runs on the loop then, and no request follows."""
    body = bytes(8_000_000)
    site.handler = lambda scope, body_, reply: reply.respond(200, TEXT, body)
    site.routes.learn("/", [], True)
    before = sys.getrefcount(body)
    assert len(site.ask()[1]) == len(body)
    deadline = time.monotonic() + PATIENCE
    while sys.getrefcount(body) > before:
        assert time.monotonic() < deadline, "it is still held"
        time.sleep(0.001)


def test_a_thread_waits_for_a_client_that_does_not_read(site: Site) -> None:
    sent = 0
    ended = threading.Event()

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        nonlocal sent
        reply.start(200, TEXT)
        for _ in range(400):
            if not reply.send(bytes(100_000)):
                break
            sent += 1
        ended.set()

    site.handler = handler
    site.routes.learn("/", [], True)
    with site.socket(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as sock:
        sock.recv(1)
        # What the kernel's buffers hold, and no more: then it stands still.
        seen = -1
        while sent != seen:
            seen = sent
            time.sleep(0.2)
        assert 0 < sent < 300
        assert not ended.is_set()
        assert site.ask("/other") == (200, b"loop")
    # The client has left: the thread is told.
    assert ended.wait(PATIENCE)
    assert sent < 400


def test_an_exception_is_a_500_and_a_log_entry(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        raise LookupError("on purpose")

    site.handler = handler
    site.routes.learn("/", [], True)
    with caplog.at_level(logging.ERROR, "rondel.server"):
        assert site.ask() == (500, b"Internal Server Error")
    (record,) = caplog.records
    assert record.exc_info is not None and record.exc_info[0] is LookupError
    assert site.ask("/other") == (200, b"loop")


def test_an_exception_in_the_middle_cuts_the_response(site: Site) -> None:
    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        reply.start(200, TEXT)
        reply.send(b"begun")
        raise LookupError("on purpose")

    site.handler = handler
    site.routes.learn("/", [], True)
    with contextlib.closing(site.connect()) as connection:
        connection.request("GET", "/")
        with pytest.raises(http.client.IncompleteRead) as caught:
            connection.getresponse().read()
    assert caught.value.partial == b"begun"


def test_a_handler_that_does_not_answer_is_a_500(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.handler = lambda scope, body, reply: None
    site.routes.learn("/", [], True)
    assert site.ask() == (500, b"Internal Server Error")
    assert "without completing the response" in caplog.text


@pytest.mark.parametrize(
    ("misuse", "error"),
    [
        (lambda reply: reply.respond(99, TEXT, b""), ValueError),
        (lambda reply: reply.respond(200, [("bad name", "x")], b""), ValueError),
        (lambda reply: reply.respond(200, [("x", "line\nbreak")], b""), ValueError),
        (lambda reply: reply.respond(200, TEXT, 7), TypeError),
        (lambda reply: reply.send(b"x"), RuntimeError),
        (lambda reply: reply.finish(), RuntimeError),
    ],
)
def test_misuse_of_a_reply_raises_and_can_be_made_good(
    site: Site, misuse: Callable[[Any], object], error: type[Exception]
) -> None:
    raised = []

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        try:
            misuse(reply)
        except Exception as caught:
            raised.append(type(caught))
        reply.respond(200, TEXT, b"fine")

    site.handler = handler
    site.routes.learn("/", [], True)
    assert site.ask() == (200, b"fine")
    assert raised == [error]


def test_a_wrong_content_length_is_a_500_and_a_log_entry(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.handler = lambda scope, body, reply: reply.respond(200, [("Content-Length", "9")], b"abc")
    site.routes.learn("/", [], True)
    assert site.ask()[0] == 500
    until(lambda: "shorter than its content-length" in caplog.text)


def test_a_request_can_be_handed_back_to_the_loop(site: Site) -> None:
    site.handler = lambda scope, body, reply: reply.bounce()
    site.routes.learn("/", [], True)
    assert [site.ask() for _ in range(3)] == [(200, b"loop")] * 3


def test_more_requests_than_the_queue_takes_are_told_to_come_again() -> None:
    site = Site(threads=1, queue=1)
    go_on = threading.Event()
    began = threading.Semaphore(0)

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        began.release()
        go_on.wait(PATIENCE)
        reply.respond(200, TEXT, b"")

    site.handler = handler
    site.routes.learn("/", [], True)
    try:
        with concurrent.futures.ThreadPoolExecutor(2) as clients:
            first = clients.submit(site.ask)
            assert began.acquire(timeout=PATIENCE)
            second = clients.submit(site.ask)
            until(lambda: site.pool.stats()["queued"] == 1)
            assert site.ask() == (503, b"Service Unavailable")
            go_on.set()
            assert first.result(PATIENCE)[0] == second.result(PATIENCE)[0] == 200
    finally:
        go_on.set()
        site.end()


CLIENT = """
import socket, sys, time
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as sock:
    sock.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    received = b""
    while b"a" * 10_000 not in received:
        received += sock.recv(65536)
print(time.monotonic())
"""


def test_requests_are_told_to_come_again_while_no_thread_can_be_started(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(seat: int) -> None:
        raise RuntimeError("can't start new thread")

    site.routes.learn("/", [], True)
    reported: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(site.pool, "_start", refuse)
        patch.setattr(sys, "unraisablehook", reported.append)
        assert [site.ask()[0] for _ in range(3)] == [503] * 3
    assert [str(report.exc_value) for report in reported] == ["can't start new thread"] * 3
    assert site.ask() == (200, b"thread")


def test_a_thread_full_of_python_does_not_hold_up_the_network(site: Site) -> None:
    """What it has sent goes out while it keeps the GIL, so the loop does without."""
    ended = []
    site.routes.learn("/", [], True)
    site.ask()  # Starting a thread takes the GIL: it is there from now on.

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        reply.start(200, TEXT)
        reply.send(b"a" * 10_000)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            pass
        ended.append(time.monotonic())
        reply.finish()

    site.handler = handler
    before = sys.getswitchinterval()
    # Nobody gets the GIL from a thread that computes.
    sys.setswitchinterval(60)
    try:
        client = subprocess.run(
            [sys.executable, "-c", CLIENT, str(site.port)],
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
    finally:
        sys.setswitchinterval(before)
    # The same clock in both processes.
    until(lambda: bool(ended))
    assert float(client.stdout) < ended[0]


def test_head_and_bodyless_statuses(site: Site) -> None:
    site.handler = lambda scope, body, reply: reply.respond(
        204 if scope["path"] == "/none" else 200, TEXT, b"abc"
    )
    site.routes.learn("/", [], True)
    site.routes.learn("/none", [], True)
    assert site.ask("/", "HEAD") == (200, b"")
    assert site.ask("/none") == (204, b"")
    assert site.ask("/") == (200, b"abc")


def test_the_access_log_names_what_threads_answered(site: Site) -> None:
    site.routes.learn("/", [], True)
    site.ask("/?q=1")
    until(lambda: bool(site.log))
    client, method, target, version, status, seconds = site.log[0]
    assert client.startswith("127.0.0.1:")
    assert (method, target, version, status) == ("GET", "/?q=1", "1.1", 200)
    assert 0 <= seconds < PATIENCE


def test_the_access_log_gets_what_its_format_asks_for_from_threads() -> None:
    fields = ["header:X-A", "sent", "id", "header:x-b"]
    site = Site(access_fields=fields, request_id="x-id")
    scopes: list[dict[str, Any]] = []

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        scopes.append(scope)
        reply.start(200, TEXT)
        reply.send(b"abc")
        reply.send(b"de")
        reply.finish()

    site.handler = handler
    site.routes.learn("/", [], True)
    with contextlib.closing(site.connect()) as connection:
        connection.request("GET", "/", headers={"X-A": "caf\xe9", "X-ID": "id-1"})
        response = connection.getresponse()
        assert (response.read(), response.headers["x-id"]) == (b"abcde", "id-1")
        connection.request("HEAD", "/")
        made = connection.getresponse().headers["x-id"]
    until(lambda: len(site.log) == 2)
    site.end()
    assert [values[6:] for values in site.log] == [
        ("caf\xe9", 5, "id-1", None),
        (None, 0, made, None),
    ]
    assert [scope["state"] for scope in scopes] == [{"request_id": "id-1"}, {"request_id": made}]


def test_an_error_on_a_thread_names_its_request(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(request_id="x-id")

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        raise ZeroDivisionError

    site.handler = handler
    site.routes.learn("/", [], True)
    log = logging.getLogger("rondel.server")
    log.addHandler(caplog.handler)
    try:
        with contextlib.closing(site.connect()) as connection:
            connection.request("GET", "/?a", headers={"X-ID": "id-1"})
            response = connection.getresponse()
            assert (response.status, response.headers["x-id"]) == (500, "id-1")
    finally:
        site.end()
        log.removeHandler(caplog.handler)
    record: Any = next(record for record in caplog.records if record.exc_info)
    assert (record.method, record.target, record.request_id) == ("GET", "/?a", "id-1")
    assert record.client.startswith("127.0.0.1:")


def test_a_stop_waits_for_threads_within_its_deadline() -> None:
    site = Site()
    site.deadline = PATIENCE
    began, go_on = threading.Event(), threading.Event()

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        began.set()
        go_on.wait(PATIENCE)
        reply.respond(200, TEXT, b"late")

    site.handler = handler
    site.routes.learn("/", [], True)
    with concurrent.futures.ThreadPoolExecutor(1) as clients:
        asked = clients.submit(site.ask)
        assert began.wait(PATIENCE)
        site._stop()
        go_on.set()
        assert asked.result(PATIENCE) == (200, b"late")
    site.end()
    assert site.cut_off == 0


def test_a_stop_cuts_off_threads_at_its_deadline() -> None:
    site = Site()
    began, go_on = threading.Event(), threading.Event()
    told = []

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        began.set()
        go_on.wait(PATIENCE)
        told.append(reply.respond(200, TEXT, b"late"))

    site.handler = handler
    site.routes.learn("/", [], True)
    with site.socket(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as sock:
        assert began.wait(PATIENCE)
        site._stop()
        site._thread.join(PATIENCE)
        assert site.cut_off == 1
        assert sock.recv(100) == b""
        go_on.set()
    site.end()
    assert told == [False]


def test_a_request_that_a_thread_holds_too_long_gets_504() -> None:
    told: list[tuple[str, Any, Any]] = []
    site = Site(
        threads=1,
        limits={"request_timeout": 1.5},
        late=lambda what, which, where: told.append((what, which, where)),
    )
    go_on = threading.Event()
    idents: list[int] = []

    def handler(scope: dict[str, Any], body: bytes | int, reply: Any) -> None:
        idents.append(threading.get_ident())
        go_on.wait(PATIENCE)
        assert not reply.respond(200, TEXT, b"too late")

    site.handler = handler
    site.routes.learn("/held", [], True)
    try:
        with concurrent.futures.ThreadPoolExecutor(2) as clients:
            # The second waits for the only thread, in vain.
            both = [clients.submit(site.ask, "/held") for _ in range(2)]
            assert sorted(one.result(PATIENCE)[0] for one in both) == [503, 504]
        until(lambda: len(told) == 2)
        assert told == [
            ("thread late", "GET /held", idents[0]),
            ("thread stuck", "GET /held", idents[0]),
        ]
        go_on.set()
        # The thread is free again; the other request was never begun.
        site.handler = lambda scope, body, reply: reply.respond(200, TEXT, b"thread")
        assert site.ask("/held") == (200, b"thread")
        assert len(idents) == 1
    finally:
        go_on.set()
        site.end()


def test_a_body_that_is_still_to_come_is_not_the_threads_delay() -> None:
    site = Site(limits={"request_timeout": 1.5})
    site.routes.learn("/", [], True)
    try:
        with site.socket(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n") as sock:
            for _ in range(8):
                time.sleep(0.3)  # what the client takes is what is tested
                sock.sendall(b"x")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    finally:
        site.end()
