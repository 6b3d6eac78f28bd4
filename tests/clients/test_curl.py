"""curl: each version of HTTP, uploads, parts of files, codings, many transfers at once."""

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import LARGE
from tests.clients.support import output, program
from tests.net.certificates import identity
from tests.server.wire import Served

pytestmark = pytest.mark.rondel_server

DATA = bytes(range(256)) * 12_000  # 3 MB
DIGEST = hashlib.sha256(DATA).hexdigest()
TEXT = b"all work and no play " * 5000


@dataclass(frozen=True)
class Told:
    """What curl saw: of the last response, but for the heads, which are all."""

    status: int
    version: str
    heads: list[str]
    headers: dict[str, str]
    body: bytes
    sent: int
    received: int
    connections: int

    @property
    def statuses(self) -> list[int]:
        return [int(head.split()[1]) for head in self.heads]


@functools.cache
def is_old() -> bool:
    """Before 8.0 curl took an answer during its upload for an error of HTTP/2, and could not use a
    connection of prior knowledge again (curl's pull request 10643).
    """
    return int(output([program("curl"), "--version"]).split()[1].split(b".")[0]) < 8


@dataclass(frozen=True)
class Curl:
    """curl, asking a server in one way."""

    served: Served
    version: str
    answered: str
    folder: Path

    @property
    def words(self) -> list[str]:
        # No ~/.curlrc, no proxy, no name server.
        words = [program("curl"), "-q", "--noproxy", "*", "--silent", "--show-error"]
        words += ["--max-time", "50", self.version]
        if self.served.context is not None:
            port = self.served.address[1]
            words += ["--resolve", f"localhost:{port}:127.0.0.1"]
            words += ["--cacert", identity("localhost").certificate]
        return words

    def __call__(self, target: str, *options: str, given: bytes = b"") -> Told:
        heads, body = self.folder / "heads", self.folder / "body"
        body.unlink(missing_ok=True)
        words = [*self.words, "-D", str(heads), "-o", str(body), "-w", "%{json}", *options]
        told = json.loads(output([*words, self.served.url + target], given))
        blocks = heads.read_bytes().decode("latin-1").strip().split("\r\n\r\n")
        lines = [line.partition(":") for line in blocks[-1].split("\r\n")[1:]]
        return Told(
            status=told["http_code"],
            version=told["http_version"],
            heads=[block.split("\r\n")[0] for block in blocks],
            headers={name.lower(): value.strip() for name, _, value in lines},
            body=body.read_bytes() if body.exists() else b"",
            sent=told["size_upload"],
            received=told["size_download"],
            connections=told["num_connects"],
        )


# How it is asked, and the version that it must be answered in. `Upgrade: h2c` is no more.
WAYS = {
    "plain-1.0": ("plain", "--http1.0", "1"),
    "plain-1.1": ("plain", "--http1.1", "1.1"),
    "plain-upgrade": ("plain", "--http2", "1.1"),
    "plain-2": ("plain", "--http2-prior-knowledge", "2"),
    "tls-1.1": ("secure", "--http1.1", "1.1"),
    "tls-2": ("secure", "--http2", "2"),
}


@pytest.fixture(params=WAYS)
def curl(request: pytest.FixtureRequest, tmp_path: Path) -> Curl:
    served, version, answered = WAYS[request.param]
    return Curl(request.getfixturevalue(served), version, answered, tmp_path)


def is_two(curl: Curl) -> bool:
    return curl.answered == "2"


def uses_connections_again(curl: Curl) -> None:
    if curl.version == "--http2-prior-knowledge" and is_old():
        pytest.skip("this curl's bug")
    if curl.version == "--http1.0":
        pytest.skip("a connection per request")


def test_a_page(curl: Curl) -> None:
    got = curl("/hello")
    assert (got.status, got.version, got.body) == (200, curl.answered, b"hello")
    assert got.statuses == [200]
    assert got.headers["content-length"] == "5"


def test_head(curl: Curl) -> None:
    got = curl("/hello", "--head")
    assert (got.status, got.headers["content-length"]) == (200, "5")


def test_an_upload(curl: Curl) -> None:
    got = curl("/digest", "--data-binary", "@-", given=DATA)
    told = json.loads(got.body)
    assert (told["size"], told["digest"], told["method"]) == (len(DATA), DIGEST, "POST")
    # curl asks whether it may (Expect) in HTTP/1.1, for bodies over 1 MB.
    asks = curl.answered == "1.1" and curl.version != "--http1.0"
    assert got.statuses == [100, 200] if asks else got.statuses == [200]


def test_an_empty_upload(curl: Curl) -> None:
    assert json.loads(curl("/digest", "--data", "").body)["size"] == 0


def test_a_put_of_unknown_length(curl: Curl) -> None:
    if curl.version == "--http1.0":
        pytest.skip("HTTP/1.0 has no chunks")
    told = json.loads(curl("/digest", "--upload-file", "-", given=DATA).body)
    assert (told["digest"], told["method"]) == (DIGEST, "PUT")


def test_expect_is_answered_before_the_body(curl: Curl) -> None:
    if is_two(curl) or curl.version == "--http1.0":
        pytest.skip("HTTP/1.1's")
    # Without an answer curl would send after that time, which is over its own bound.
    options = ["-H", "Expect: 100-continue", "--expect100-timeout", "100"]
    got = curl("/digest", *options, "--data-binary", "@-", given=b"small")
    assert got.statuses == [100, 200]
    assert json.loads(got.body)["size"] == 5


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(curl: Curl) -> None:
    if is_two(curl) and is_old():
        pytest.skip("this curl's bug; nghttp is asked that instead")
    large = curl.folder / "large"
    with large.open("wb") as file:
        file.truncate(60_000_000)
    options = ["-H", "Expect: 100-continue", "--expect100-timeout", "100"]
    if is_two(curl) or curl.version == "--http1.0":
        options = ["-H", "Expect:"]
    got = curl("/digest", *options, "--upload-file", str(large))
    assert got.statuses == [413]
    if not is_two(curl) and curl.version != "--http1.0":
        assert got.sent == 0


def test_a_form(curl: Curl) -> None:
    (curl.folder / "näme.bin").write_bytes(DATA)
    got = curl("/form", "-F", "title=né", "-F", f"file=@{curl.folder}/näme.bin")
    told = json.loads(got.body)
    assert told["title"]["size"] == len("né".encode())
    assert told["file"] == {"file": "näme.bin", "size": len(DATA), "digest": DIGEST}


def test_a_redirect_is_followed_with_its_body(curl: Curl) -> None:
    uses_connections_again(curl)
    got = curl("/redirect", "--location", "--data-binary", "@-", given=b"x" * 100_000)
    assert [status for status in got.statuses if status != 100] == [307, 200]
    assert json.loads(got.body)["size"] == 100_000
    assert got.connections == 1


def test_many_parts(curl: Curl) -> None:
    got = curl("/parts?count=2000")
    assert got.body == b"".join(b"part%d;" % number for number in range(2000))


# -- files and codings ---------------------------------------------------------------------------


def test_a_whole_file(curl: Curl) -> None:
    got = curl("/static/large.bin")
    assert (got.status, got.body == LARGE) == (200, True)


@pytest.mark.parametrize(
    ("asked", "part", "told"),
    [
        ("10-29", slice(10, 30), "bytes 10-29/4000000"),
        ("-100", slice(-100, None), "bytes 3999900-3999999/4000000"),
        ("1000000-", slice(1_000_000, None), "bytes 1000000-3999999/4000000"),
    ],
)
def test_a_part_of_a_file(curl: Curl, asked: str, part: slice, told: str) -> None:
    got = curl("/static/large.bin", "--range", asked)
    assert (got.status, got.headers["content-range"]) == (206, told)
    assert got.body == LARGE[part]


def test_a_broken_download_is_resumed(curl: Curl) -> None:
    (curl.folder / "rest").write_bytes(LARGE[:1_234_567])
    options = ["--continue-at", "-", "-o", str(curl.folder / "rest"), "--no-progress-meter"]
    output([*curl.words, *options, curl.served.url + "/static/large.bin"])
    assert (curl.folder / "rest").read_bytes() == LARGE


def test_a_file_that_has_not_changed(curl: Curl) -> None:
    tag = str(curl.folder / "tag")
    first = curl("/static/large.bin", "--etag-save", tag)
    assert first.status == 200
    again = curl("/static/large.bin", "--etag-compare", tag)
    assert (again.status, again.body) == (304, b"")
    by_date = curl("/static/large.bin", "--time-cond", first.headers["last-modified"])
    assert (by_date.status, by_date.body) == (304, b"")


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", None])
def test_a_compressed_response(curl: Curl, coding: str | None) -> None:
    # Without a word curl accepts all that it knows, and the server has its own liking.
    options = ["-H", f"accept-encoding: {coding}"] if coding else []
    got = curl("/compressible?size=50000&count=3", "--compressed", *options)
    assert got.headers["content-encoding"] == (coding or "zstd")
    assert got.body == TEXT[:50_000] * 3
    assert got.received < 10_000


# -- many at once --------------------------------------------------------------------------------


def test_many_requests_by_one_connection(curl: Curl) -> None:
    uses_connections_again(curl)
    urls = f"{curl.served.url}/hello?[1-50]"
    seen = output([*curl.words, "-w", " %{num_connects} %{http_code}\n", urls]).decode()
    assert seen.split("\n")[:-1] == ["hello 1 200"] + ["hello 0 200"] * 49


def test_many_transfers_in_parallel(curl: Curl) -> None:
    uses_connections_again(curl)
    urls = f"{curl.served.url}/parts?count=[1-40]"
    # Those that can wait for a connection share it: with HTTP/2 there is one.
    options = ["--parallel", "--parallel-max", "40", "-o", str(curl.folder / "#1")]
    seen = output([*curl.words, *options, "-w", "%{http_code} %{num_connects}\n", urls])
    lines = [line.split() for line in seen.decode().splitlines()]
    assert [status for status, _ in lines] == ["200"] * 40
    for count in range(1, 41):
        body = b"".join(b"part%d;" % number for number in range(count))
        assert (curl.folder / str(count)).read_bytes() == body
    if is_two(curl):
        assert sum(int(connects) for _, connects in lines) == 1


def test_plain_http_at_a_tls_port_and_the_reverse(
    plain: Served, secure: Served, tmp_path: Path
) -> None:
    """Each is told or refused at once, and the server goes on."""
    wrong = Served(secure.process, secure.address)
    got = Curl(wrong, "--http1.1", "1.1", tmp_path)("/hello")
    assert (got.status, got.body) == (400, b"This port speaks HTTPS.\n")
    words = Curl(plain, "--http1.1", "1.1", tmp_path).words
    with pytest.raises(AssertionError, match="curl ended with 35"):
        output([*words, plain.url.replace("http", "https")])
    for served in (plain, secure):
        assert served.get("/hello").body == b"hello"
