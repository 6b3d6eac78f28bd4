"""nghttp2's clients: h2load, many streams over many connections, each must succeed; nghttp."""

import re
from pathlib import Path

import pytest

from tests.clients.conftest import LARGE
from tests.clients.support import output, program
from tests.server.wire import Served

pytestmark = pytest.mark.rondel_server

# h2load speaks HTTP/2 with prior knowledge to http://, takes any certificate of https://.
WAYS = {
    "plain-2": ("plain", []),
    "plain-1.1": ("plain", ["--h1"]),
    "tls-2": ("secure", []),
    "tls-1.1": ("secure", ["--h1"]),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[Served, list[str]]:
    served, options = WAYS[request.param]
    return request.getfixturevalue(served), options


def load(way: tuple[Served, list[str]], target: str, count: int, *options: str) -> int:
    """Asks `count` times, and returns how many bytes of bodies came."""
    served, version = way
    # By the address: a name would first be tried by IPv6.
    url = f"{'https' if served.context else 'http'}://127.0.0.1:{served.address[1]}{target}"
    words = [program("h2load"), "-n", str(count), "-c", "10", "-m", "10", *version, *options]
    told = output([*words, url]).decode()
    requests = f"{count} total, {count} started, {count} done, {count} succeeded"
    assert f"requests: {requests}, 0 failed, 0 errored, 0 timeout" in told, told
    assert f"status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx" in told, told
    found = re.search(r"\((\d+)\) data$", told, re.MULTILINE)
    assert found, told
    return int(found[1])


def test_a_thousand_requests(way: tuple[Served, list[str]]) -> None:
    assert load(way, "/hello", 1000) == 5 * 1000


def test_parts_of_a_response(way: tuple[Served, list[str]]) -> None:
    size = len(b"".join(b"part%d;" % number for number in range(30)))
    assert load(way, "/parts?count=30", 300) >= size * 300  # HTTP/1.1's chunks count


def test_uploads(way: tuple[Served, list[str]], tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"x" * 100_000)
    assert load(way, "/length", 300, "-d", str(tmp_path / "body")) == 6 * 300


def test_large_files(way: tuple[Served, list[str]]) -> None:
    assert load(way, "/static/large.bin", 20) == len(LARGE) * 20


def test_narrow_windows(way: tuple[Served, list[str]]) -> None:
    """Flow control: a stream's window is 1 KB, a connection's the least there is, 64 KB."""
    _, version = way
    if version:
        pytest.skip("HTTP/2's")
    assert load(way, "/compressible?size=30000", 300, "-w", "10", "-W", "16") == 30_000 * 300


def test_nghttp_hears_the_answer_to_an_upload_that_is_too_large(
    secure: Served, tmp_path: Path
) -> None:
    """The answer is whole, then the stream is reset without an error (RFC 9113, 8.1)."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(60_000_000)
    url = f"https://127.0.0.1:{secure.address[1]}/digest"
    words = [program("nghttp"), "--verbose", "--no-verify-peer", "-d", str(tmp_path / "large"), url]
    told = output(words).decode()
    assert ":status: 413" in told
    assert "recv RST_STREAM" in told
    assert "error_code=NO_ERROR" in told.partition("recv RST_STREAM")[2]
