"""Responses compressed by the server: which, in which coding, and when not."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.wire import Response, Served, Wire, serving

pytestmark = pytest.mark.rondel_server

APP = "tests.server.apps:app"
TEXT = b"all work and no play " * 5000


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving(APP, "--compression", "zstd,br,gzip") as served:
        yield served


def ask(
    wire: Wire, query: str = "", accept: str = "gzip", headers: str = "", method: str = "GET"
) -> Response:
    lines = f"accept-encoding: {accept}\r\n{headers}" if accept else headers
    return wire.request(f"/compressible?{query}", method, headers=lines)


def is_plain(answer: Response, size: int = 5000) -> bool:
    return answer.get("content-encoding") is None and answer.body == TEXT[:size]


def test_a_whole_response_is_compressed_and_its_length_known(wire: Wire) -> None:
    answer = ask(wire)
    assert answer.get("content-encoding") == "gzip"
    assert answer.get("vary") == "accept-encoding"
    assert answer.get("content-length") == str(len(answer.body))
    assert len(answer.body) < 200
    assert gzip.decompress(answer.body) == TEXT[:5000]


def test_the_clients_liking_counts_then_the_servers(wire: Wire) -> None:
    for accept, coding in [
        ("gzip, br, zstd", "zstd"),
        ("gzip, br", "br"),
        ("gzip;q=1.0, br;q=0.1", "gzip"),
        ("*", "zstd"),
    ]:
        answer = ask(wire, accept=accept)
        assert answer.get("content-encoding") == coding
        assert len(answer.body) < 200


def test_who_accepts_none_gets_it_as_it_is_and_a_cache_is_told(wire: Wire) -> None:
    for accept in ["", "identity", "gzip;q=0", "deflate"]:
        answer = ask(wire, accept=accept)
        assert is_plain(answer)
        assert answer.get("vary") == "accept-encoding"


def test_what_is_small_or_does_not_shrink_stays_as_it_is(wire: Wire) -> None:
    small = ask(wire, "size=1000")
    assert is_plain(small, 1000)
    image = ask(wire, headers="x-send-content-type: image/png\r\n")
    assert is_plain(image)
    assert image.get("vary") is None


@pytest.mark.parametrize(
    "line",
    [
        "content-encoding: br",
        "content-range: bytes 0-4999/9999",
        "cache-control: private, no-transform",
    ],
)
def test_what_is_settled_stays_as_it_is(wire: Wire, line: str) -> None:
    answer = ask(wire, headers=f"x-send-{line}\r\n")
    assert answer.body == TEXT[:5000]
    assert answer.get("content-encoding") in (None, "br")


def test_a_given_length_is_that_of_the_text_and_checked(wire: Wire) -> None:
    answer = ask(wire, headers="x-send-content-length: 5000\r\n")
    assert gzip.decompress(answer.body) == TEXT[:5000]
    assert answer.get("content-length") == str(len(answer.body))
    wrong = ask(wire, headers="x-send-content-length: 4999\r\n")
    assert wrong.status == 500


def test_etags_become_weak(wire: Wire) -> None:
    for given, told in [('"abc"', 'W/"abc"'), ('W/"abc"', 'W/"abc"')]:
        assert ask(wire, headers=f"x-send-etag: {given}\r\n").get("etag") == told


def test_parts_are_one_stream(wire: Wire) -> None:
    answer = ask(wire, "count=3")
    assert gzip.decompress(answer.body) == TEXT[:5000] * 3


def test_each_part_reaches_the_client_when_it_is_sent(wire: Wire, server: Served, key: str) -> None:
    request = f"GET /compressible?count=2&size=50&gate=1&key={key} HTTP/1.1\r\nhost: test\r\n"
    wire.send(request.encode() + b"accept-encoding: gzip\r\n\r\n")
    decoder = zlib.decompressobj(wbits=31)
    seen = b""
    head = wire._until(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head.lower()
    while len(seen) < 50:
        size = int(wire._until(b"\r\n"), 16)
        seen += decoder.decompress(wire.exactly(size + 2)[:-2])
    assert seen == TEXT[:50]
    server.get(f"/release?key={key}")
    while size := int(wire._until(b"\r\n"), 16):
        seen += decoder.decompress(wire.exactly(size + 2)[:-2])
    assert seen == TEXT[:50] * 2
    assert decoder.eof


def test_head_says_what_get_would_but_for_the_length(wire: Wire) -> None:
    answer = ask(wire, method="HEAD", headers="x-send-content-length: 5000\r\n")
    assert answer.get("content-encoding") == "gzip"
    assert answer.get("content-length") is None
    assert is_plain(ask(wire, accept=""))


def test_responses_without_a_body_stay_without(wire: Wire) -> None:
    assert ask(wire, "code=304").body == b""
    assert ask(wire, "code=204&size=0").get("content-encoding") is None


def test_nothing_is_compressed_by_default() -> None:
    with serving(APP) as server, server.connect() as wire:
        answer = ask(wire)
        assert is_plain(answer)
        assert answer.get("vary") is None


def test_wsgi_responses_are_compressed_too(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/html')])\n"
        "    yield b'a' * 3000\n"
        "    yield b'b' * 3000\n"
    )
    # The last `--app-dir` counts.
    options = ["--compression", "gzip", "--app-dir", str(tmp_path)]
    with serving("shop:app", *options) as server, server.connect() as wire:
        answer = wire.request("/", headers="accept-encoding: gzip\r\n")
    assert answer.get("content-encoding") == "gzip"
    assert gzip.decompress(answer.body) == b"a" * 3000 + b"b" * 3000
