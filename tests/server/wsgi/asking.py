"""Servers of `wsgi_apps`, and what they are asked."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from tests.cli.support import running
from tests.server.wire import ROOT, Response, Served

APPS = "tests.server.wsgi_apps"


@contextlib.contextmanager
def reference() -> Iterator[Served]:
    command = [sys.executable, "-m", "tests.server.wsgi_reference"]
    with running(command, ROOT) as process:
        port = process.wait_for(r"serving on http://127\.0\.0\.1:(\d+)")[1]
        yield Served(process, ("127.0.0.1", int(port)))


def ask(server: Served, target: str, method: str = "GET", **options: Any) -> Response:
    with server.connect() as wire:
        return wire.request(target, method, **options)


def environ(server: Served, target: str = "/environ", **options: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(ask(server, target, **options).body)
    return told


def framed(got: Response, size: int) -> bool:
    """In chunks, or with a length where all pieces came before the first was sent."""
    length, coding = got.get("content-length"), got.get("transfer-encoding")
    return (length, coding) in ((None, "chunked"), (str(size), None))


def test_one_piece_has_a_length_and_several_are_framed(rondel: Served, key: str) -> None:
    with rondel.connect() as wire:
        assert wire.request("/hello").get("content-length") == "5"
        got = wire.request("/pieces")
        assert got.body == b"one two three"
        assert framed(got, 13)
        wire.send(f"GET /gated?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        head = wire._until(b"first\r\n")
        assert b"\r\ntransfer-encoding: chunked\r\n" in head
        rondel.get(f"/release?key={key}")
        assert wire.exactly(16) == b"6\r\nsecond\r\n0\r\n\r\n"


def test_several_pieces_to_an_old_client_end_with_the_connection(server: Served) -> None:
    with server.connect() as wire:
        wire.send(b"GET /pieces HTTP/1.0\r\n\r\n")
        got = wire.response()
        assert got.body == b"one two three"
        assert got.get("transfer-encoding") is None


def test_no_piece_is_an_empty_body(server: Served) -> None:
    got = server.get("/none")
    assert (got.status, got.body) == (200, b"")
    assert got.get("content-length") in ("0", None)
