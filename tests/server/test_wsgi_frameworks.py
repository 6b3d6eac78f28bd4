"""Flask and Django's WSGI application: a page, an upload, a stream, a file, a session, errors."""

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.wire import PATIENCE, Served, serving

pytestmark = pytest.mark.rondel_server

SITES = {"flask": "tests.server.flask_site:app", "django": "tests.server.django_site:application"}
FILE = Path(__file__).with_name("flask_site.py").read_bytes()


@pytest.fixture(
    scope="module", params=[(name, threads) for name in sorted(SITES) for threads in ("3", "1")]
)
def site(request: pytest.FixtureRequest) -> Iterator[Served]:
    """On threads, and on the loop's own."""
    name, threads = request.param
    with serving(SITES[name], "--root-path", "/under", "--threads", threads) as served:
        yield served
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
        assert outcome.status == 0, outcome.errors
        assert "stopped" in outcome.errors


@pytest.fixture
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["site"][0])


@pytest.fixture
def client(site: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=PATIENCE) as client:
        yield client


def test_a_page_knows_its_path_host_and_query(client: httpx.Client) -> None:
    got = client.get("/page/né a", params={"q": "é&=+"}, headers={"host": "example.org:81"})
    assert got.status_code == 200
    assert got.text == "né a at /under/page/n%C3%A9%20a of example.org:81, é&=+"
    assert int(got.headers["content-length"]) == len(got.content)


def test_not_found_and_head(client: httpx.Client) -> None:
    assert client.get("/nowhere").status_code == 404
    head = client.head("/page/x")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(client.get("/page/x").content))


@pytest.mark.parametrize("size", [0, 10, 5_000_000])
def test_an_upload(client: httpx.Client, size: int) -> None:
    data = os.urandom(size)
    got = client.post("/upload", files={"file": ("näme.bin", data)}).json()
    assert got == {"name": "näme.bin", "digest": hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_chunked_upload(client: httpx.Client, size: int) -> None:
    got = client.post("/raw", content=iter([b"x" * (size - 1), b"y"])).json()
    assert got == {"length": size, "size": size}


def test_a_stream(client: httpx.Client) -> None:
    with client.stream("GET", "/stream") as got:
        where = [line.split() for line in got.iter_lines()]
    assert [number for _, number in where] == ["0", "1", "2"]


def test_a_file(client: httpx.Client) -> None:
    got = client.get("/file")
    assert got.content == FILE
    assert got.headers["content-length"] == str(len(FILE))


def test_a_part_of_a_file(framework: str, client: httpx.Client) -> None:
    if framework != "flask":
        pytest.skip("Django sends whole files alone")
    got = client.get("/file", headers={"range": "bytes=10-29"})
    assert (got.status_code, got.content) == (206, FILE[10:30])
    whole = client.get("/file")
    again = client.get("/file", headers={"if-none-match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_session(client: httpx.Client) -> None:
    assert [client.get("/count").text for _ in range(3)] == ["1", "2", "3"]


def test_an_error_is_500_and_the_server_goes_on(client: httpx.Client) -> None:
    assert client.get("/error").status_code == 500
    assert client.get("/page/x").status_code == 200


def test_queries_and_async_views_of_django(framework: str, client: httpx.Client) -> None:
    if framework != "django":
        pytest.skip("Django's")
    assert [client.get("/query").text for _ in range(5)] == ["42"] * 5
    assert client.get("/waits").text == "waited"


def test_other_statuses_of_flask(framework: str, client: httpx.Client) -> None:
    if framework != "flask":
        pytest.skip("Flask's")
    assert client.get("/teapot").status_code == 418
