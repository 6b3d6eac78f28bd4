"""The ASGI extension "zero copy send": files as parts of responses."""

import json
import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.server.test_errors import logged
from tests.server.wire import SERVER, Response, Served, Wire, serving

pytestmark = pytest.mark.skipif(SERVER != "rondel", reason="an extension that not all have")

LARGE = 24 * 1024 * 1024


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "digits"
    path.write_bytes(b"0123456789")
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "large"
    path.write_bytes(os.urandom(1024 * 1024) * (LARGE // (1024 * 1024)))
    return path


def target(*messages: dict[str, Any], key: str = "", length: int | None = None) -> str:
    named = [{**m, "file": str(m["file"])} if "file" in m else m for m in messages]
    size = "" if length is None else f"&length={length}"
    return f"/file?key={key}{size}&messages={quote(json.dumps(named))}"


def get(wire: Wire, *messages: dict[str, Any], **more: Any) -> Response:
    return wire.request(target(*messages, **more))


def test_the_scope_tells_of_it_and_is_the_requests_own(server: Served) -> None:
    for _ in range(2):
        extensions = server.json("/scope")["extensions"]
        assert extensions == {
            f"http.response.{x}": {} for x in ("trailers", "zerocopysend", "pathsend")
        }


def test_a_file_is_sent_from_where_it_stands_to_its_end(wire: Wire, digits: Path) -> None:
    assert get(wire, {"file": digits}).body == b"0123456789"
    # A buffered file has read on: its own position counts.
    assert get(wire, {"file": digits, "skip": 4}).body == b"456789"
    assert get(wire, {"file": digits, "offset": None, "count": None}).body == b"0123456789"


def test_offset_and_count_choose_a_part(wire: Wire, digits: Path) -> None:
    assert get(wire, {"file": digits, "offset": 2, "count": 3}).body == b"234"
    assert get(wire, {"file": digits, "skip": 1, "count": 3}).body == b"123"
    assert get(wire, {"file": digits, "offset": 8, "count": 30}).body == b"89"
    assert get(wire, {"file": digits, "offset": 10}).body == b""
    assert get(wire, {"file": digits, "offset": 3, "number": True}).body == b"3456789"


@pytest.mark.parametrize("length", [None, 24])
def test_files_and_bodies_mix(wire: Wire, digits: Path, length: int | None) -> None:
    answer = get(
        wire,
        {"body": "ab", "more_body": True},
        {"file": digits, "more_body": True},
        {"file": digits, "offset": 0, "more_body": True},
        {"body": "cd"},
        length=length,
    )
    assert answer.body == b"ab01234567890123456789cd"


def test_large_files_arrive_to_the_byte_and_the_application_may_close_them(
    wire: Wire, server: Served, large: Path, key: str
) -> None:
    wire.send(f"GET {target({'file': large}, key=key)} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
    server.events(key)  # closed, and nothing was read yet
    assert wire.response().body == large.read_bytes()
    twice = get(wire, {"file": large, "more_body": True}, {"file": large})
    assert twice.body == large.read_bytes() * 2


def test_head_and_http_1_0(server: Served, wire: Wire, digits: Path, large: Path) -> None:
    path = target({"file": digits})
    assert wire.request(path, "HEAD").get("content-length") == "10"
    assert wire.request("/hello").body == b"hello"
    with server.connect() as old:
        old.send(f"GET {target({'file': large})} HTTP/1.0\r\n\r\n".encode())
        assert old.response().body == large.read_bytes()


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"file": "/dev/null"}, "ValueError: only a regular file"),
        ({"file": "DIGITS", "offset": -1}, "ValueError: a file's offset is negative: -1"),
        ({"file": "DIGITS", "count": -1}, "ValueError: a file's count is negative: -1"),
        ({"file": "DIGITS", "count": "x"}, "TypeError: "),
    ],
)
def test_what_is_no_part_of_a_file_is_refused(
    server: Served, digits: Path, key: str, message: dict[str, Any], error: str
) -> None:
    message = {**message, "file": message["file"].replace("DIGITS", str(digits))}
    with server.connect() as wire:
        wire.send(f"GET {target(message, key=key)} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        assert wire.rest() == b""
    assert server.events(key)[0].startswith(error)


def test_a_file_shorter_than_the_promise_is_a_500_and_a_line(digits: Path) -> None:
    answer, log = logged(target({"file": digits}, length=11))
    assert answer is not None
    assert answer.status == 500  # type: ignore[attr-defined]
    assert "response body shorter than its content-length" in log


def test_a_file_that_becomes_shorter_is_cut_off_and_a_line(tmp_path: Path) -> None:
    path = tmp_path / "shrinks"
    path.write_bytes(bytes(range(256)) * (LARGE // 256))
    with serving() as served:
        with served.connect() as wire:
            wire.send(f"GET {target({'file': path})} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
            wire._until(b"\r\n\r\n")
            os.truncate(path, 1024)
            assert len(wire.rest()) < LARGE
        served.process.wait_for("became shorter: [0-9]+ bytes of the response are missing")
        assert served.get("/hello").body == b"hello"
        served.process.signal(signal.SIGTERM)
        assert served.process.end().status == 0
