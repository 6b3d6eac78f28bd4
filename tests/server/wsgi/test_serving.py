"""Which interface an application has, and how WSGI is served: by threads, by one, by workers."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from rondel.server.errors import ServeError
from rondel.server.target import adapt
from rondel.server.wsgi import WSGI
from tests.cli.support import PATIENCE, running
from tests.server import wsgi_apps
from tests.server.wire import ROOT, Served, serving
from tests.server.wsgi.asking import APPS

pytestmark = pytest.mark.rondel_server


# ------------------------------------------------------------------------- which interface


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("app", "wsgi"),
        ("ClassApp", "wsgi"),
        ("optional", "wsgi"),
        ("Asgi2", "asgi2"),
        ("asgi2", "asgi2"),
        ("asgi3", "asgi"),
        ("sync_asgi3", "asgi"),
    ],
)
def test_the_interface_is_told_by_the_looks(name: str, kind: str) -> None:
    app = getattr(wsgi_apps, name)
    adapted = adapt(app, name)
    assert isinstance(adapted, WSGI) is (kind == "wsgi")
    assert (adapted is app) is (kind == "asgi")
    assert adapt(app, name, "wsgi" if kind == "wsgi" else "asgi") is not None


@pytest.mark.parametrize(
    ("name", "interface", "line"),
    [
        ("app", "asgi", "takes two arguments, as WSGI applications do"),
        ("asgi3", "wsgi", "is not a WSGI application"),
        ("make", "wsgi", "is not a WSGI application"),
        ("make", "auto", "takes no arguments: if it makes the application, add --factory"),
        ("strange", "auto", "is not an ASGI 3 or WSGI application"),
        ("valid", "auto", "takes any arguments, which does not tell what it is: say --interface"),
        ("CONTENT", "auto", "is a bytes, not an ASGI or WSGI application: it cannot be called"),
    ],
)
def test_what_has_not_the_interface_is_refused(name: str, interface: Any, line: str) -> None:
    with pytest.raises(ServeError) as caught:
        adapt(getattr(wsgi_apps, name), name, interface)
    assert str(caught.value).startswith(f"{name} {line}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "body"), [("ClassApp", b"of a class"), ("Asgi2", b"asgi 2"), ("make", b"hello")]
)
def test_other_kinds_of_applications_are_served(target: str, body: bytes) -> None:
    options = ["--factory", "--interface", "wsgi"] if target == "make" else []
    with serving(f"{APPS}:{target}", *options) as served:
        assert served.get("/hello").body == body
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
    assert (outcome.status, "Traceback" in outcome.errors) == (0, False)


# ----------------------------------------------------------------------- threads and workers


def test_one_thread_answers_everything_in_turn() -> None:
    with serving(f"{APPS}:app", "--threads", "1") as served:
        seen = [served.json("/process") for _ in range(5)]
        assert {told["thread"] for told in seen} == {"MainThread"}
        assert not any(told["wsgi.multithread"] for told in seen)
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(served.connect()) for _ in range(8)]
            for wire in wires:
                wire.send(b"GET /pieces HTTP/1.1\r\nhost: t\r\n\r\n")
            assert [wire.response().body for wire in wires] == [b"one two three"] * 8


def test_what_one_thread_runs_is_no_part_of_the_loop(alone: Served) -> None:
    assert alone.get("/loops").body == b"none, then one of its own"


def test_one_thread_asks_for_pieces_as_the_client_takes_them(alone: Served, key: str) -> None:
    with alone.connect() as slow:
        slow.send(f"GET /endless?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        slow._until(b"xxx")
        before, now = -1, 0
        while now != before:  # others are answered meanwhile, and each has the loop turn
            before, now = now, len(alone.events(key))
            for _ in range(50):
                assert alone.get("/hello").body == b"hello"
        assert now < 200
    while alone.events(key)[-1] != "closed":
        pass
    assert alone.events(key).count("closed") == 1


def test_one_thread_sends_a_piece_before_it_asks_for_the_next(
    alone: Served, tmp_path: Path
) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    with alone.connect() as wire:
        wire.send(f"GET /piped?path={quote(str(pipe))} HTTP/1.0\r\n\r\n".encode())
        wire._until(b"first")
        # The application waits for this, and the loop with it.
        pipe.write_bytes(b"second")
        assert wire.rest() == b"second"


def test_what_one_thread_writes_is_put_by(alone: Served) -> None:
    body = alone.get("/write_much?count=200&size=65536").body
    assert len(body) == 200 * 65536 + 3
    assert body.endswith(b"end")
    # In its order.
    marks = [int(body[at : at + 4]) for at in range(0, 200 * 65536, 65536)]
    assert marks == list(range(200))


def test_one_thread_that_is_stuck_is_told_of_with_its_stack() -> None:
    options = ("--threads", "1", "--limit-request-timeout", "1")
    with serving(f"{APPS}:app", *options) as served, served.connect() as wire:
        wire.send(b"GET /doze?seconds=3 HTTP/1.1\r\nhost: t\r\n\r\n")
        served.process.wait_for(r"the loop is blocked for [0-9.]+ s")
        served.process.wait_for(r"in do_doze")
        assert wire.response().body == b"dozed"


def test_one_thread_ends_what_it_has_begun_when_it_is_stopped() -> None:
    options = ("--threads", "1", "--graceful-timeout", "1")
    with serving(f"{APPS}:app", *options) as served, served.connect() as wire:
        wire.send(b"GET /loud HTTP/1.1\r\nhost: t\r\n\r\n")
        wire._until(b"xxx")
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
    assert outcome.errors.count("closed by the server") == 1
    assert outcome.status == 0, outcome.errors


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["afresh", "preload"])
def test_workers_serve_wsgi_and_reload(options: tuple[str, ...]) -> None:
    ready = r"serving .* on http://127\.0\.0\.1:(\d+)"
    command = [sys.executable, "-m", "rondel", "serve", f"{APPS}:app", "--port", "0"]
    with running([*command, "--workers", "2", *options], ROOT) as process:
        served = Served(process, ("127.0.0.1", int(process.wait_for(ready)[1])))
        deadline = time.monotonic() + PATIENCE
        pids: set[int] = set()
        while len(pids) < 2:
            told = served.json("/process")
            assert told["wsgi.multiprocess"] is True
            pids.add(told["pid"])
            assert time.monotonic() < deadline, pids
        assert process.pid not in pids
        process.signal(signal.SIGHUP)
        process.wait_for("reloaded")
        # Those that were replaced may have accepted a connection or two at the last moment.
        deadline = time.monotonic() + PATIENCE
        while (pid := served.json("/process")["pid"]) in pids:
            assert time.monotonic() < deadline, pids
        assert pid != process.pid
        process.signal(signal.SIGTERM)
        outcome = process.end()
    assert outcome.status == 0, outcome.errors


def test_a_stop_lets_the_request_in_flight_end() -> None:
    with serving(f"{APPS}:app") as served, served.connect() as wire:
        wire.send(b"GET /hold?key=k HTTP/1.1\r\nhost: t\r\n\r\n")
        served.events("k")
        served.process.signal(signal.SIGTERM)
        assert wire.response().body == b"held"
        outcome = served.process.end()
    assert outcome.status == 0, outcome.errors
