"""httpx, by HTTP/1.1 and HTTP/2, with and without TLS, sync and async."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.clients.conftest import LARGE
from tests.clients.support import PATIENCE
from tests.net.certificates import client_context
from tests.server.wire import Served

pytestmark = pytest.mark.rondel_server

DATA = os.urandom(3_000_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@dataclass(frozen=True)
class Way:
    served: Served
    version: str

    @property
    def options(self) -> dict[str, Any]:
        two = self.version == "HTTP/2"
        options = {"http1": not two, "http2": two, "base_url": self.served.url}
        if self.served.context is not None:
            # Both are offered then, and the server chooses.
            options |= {"verify": client_context(), "http1": True}
        return {**options, "timeout": PATIENCE, "trust_env": False}


@pytest.fixture(params=["plain HTTP/1.1", "plain HTTP/2", "secure HTTP/1.1", "secure HTTP/2"])
def way(request: pytest.FixtureRequest) -> Way:
    served, version = request.param.split()
    return Way(request.getfixturevalue(served), version)


@pytest.fixture
def client(way: Way) -> Iterator[httpx.Client]:
    with httpx.Client(**way.options) as client:
        yield client


def test_a_page(way: Way, client: httpx.Client) -> None:
    got = client.get("/hello")
    assert (got.status_code, got.text, got.http_version) == (200, "hello", way.version)


def test_a_form(client: httpx.Client) -> None:
    got = client.post("/form", data={"title": "né"}, files={"file": ("näme", DATA)}).json()
    assert got["title"]["size"] == len("né".encode())
    assert got["file"] == {"file": "näme", "size": len(DATA), "digest": DIGEST}


@pytest.mark.parametrize("size", [1, 16_384, 100_000])
def test_an_upload_in_parts(client: httpx.Client, size: int) -> None:
    data = DATA if size > 1 else DATA[:1000]
    parts = (data[start : start + size] for start in range(0, len(data), size))
    got = client.post("/digest", content=parts).json()
    assert (got["size"], got["digest"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_stream_comes_as_it_is_made(way: Way, client: httpx.Client, key: str) -> None:
    plain = {"accept-encoding": "identity"}
    with client.stream("GET", f"/parts?count=3&gate=1&key={key}", headers=plain) as got:
        parts = got.iter_raw()
        # The second is made once it is released: the first has come before.
        assert next(parts) == b"part0;"
        way.served.get(f"/release?key={key}")
        assert b"".join(parts) == b"part1;part2;"


def test_a_download_and_its_part(client: httpx.Client) -> None:
    assert client.get("/static/large.bin").content == LARGE
    part = client.get("/static/large.bin", headers={"range": "bytes=5-104"})
    assert (part.status_code, part.content) == (206, LARGE[5:105])


def test_a_compressed_response(client: httpx.Client) -> None:
    got = client.get("/compressible?size=50000", headers={"accept-encoding": "gzip"})
    assert got.headers["content-encoding"] == "gzip"
    assert len(got.content) == 50_000


def test_cookies(client: httpx.Client) -> None:
    client.get("/headers")
    seen = dict(client.cookies)
    assert (seen["a"], seen["b"]) == ("1", "2")
    headers = client.get("/scope").json()["headers"]
    sent = [value["bytes"] for name, value in headers if name["bytes"] == "cookie"]
    assert sent == ["a=1; b=2"]


def test_a_client_that_leaves_is_noticed(way: Way, key: str) -> None:
    # By the end of its connection: with HTTP/2 httpx does not reset a stream that it drops.
    target = f"/disconnect_while_streaming?key={key}"
    with httpx.Client(**way.options) as client, client.stream("GET", target) as got:
        parts = got.iter_raw()
        assert next(parts) == b"first"
        assert way.served.events(key) == ["waiting"]
    assert way.served.events(key, 2)[:2] == ["waiting", "http.disconnect"]


def test_a_body_that_is_too_large(way: Way, client: httpx.Client) -> None:
    if way.version == "HTTP/2":
        pytest.skip("httpx goes on sending on a stream that was answered and reset, and waits")

    # Its length alone is over the limit.
    def parts() -> Iterator[bytes]:
        for _ in range(60):
            yield b"x" * 1_000_000

    got = client.post("/digest", content=parts(), headers={"content-length": "60000000"})
    assert got.status_code == 413
    assert client.get("/hello").text == "hello"


def test_many_at_once(way: Way) -> None:
    # httpcore's HTTP/2 may wait forever for a window that another stream has seen opened
    # (pydantic/httpx2 1133): what goes up at once fits into the window of the connection.
    large = DATA[:50_000] if way.version == "HTTP/2" else DATA
    digest = hashlib.sha256(large).hexdigest()

    async def ask(client: httpx.AsyncClient, number: int) -> bool:
        if number % 10 == 0:
            got = await client.post("/digest", content=large)
            return bool(got.json()["digest"] == digest)
        if number % 10 == 1:
            return (await client.get("/static/large.bin")).content == LARGE
        body = b"%d" % number * 1000
        return (await client.post("/echo", content=body)).content == body

    async def main() -> list[bool]:
        limits = httpx.Limits(max_connections=1 if way.version == "HTTP/2" else 20)
        async with httpx.AsyncClient(**way.options, limits=limits) as client:
            assert (await client.get("/hello")).text == "hello"  # it knows the windows now
            return await asyncio.gather(*(ask(client, number) for number in range(100)))

    assert asyncio.run(main()) == [True] * 100


def test_one_is_cancelled_and_the_others_go_on(way: Way, key: str) -> None:
    async def endless(client: httpx.AsyncClient, sent: asyncio.Event) -> AsyncIterator[bytes]:
        async def trace(event: str, _info: object) -> None:
            if event.endswith("receive_response_headers.started"):
                sent.set()

        traced = {"trace": trace}
        async with client.stream("GET", f"/hold?key={key}", extensions=traced) as got:
            async for part in got.aiter_raw():
                yield part

    async def main() -> list[str]:
        async with httpx.AsyncClient(**way.options) as client:
            # anyio takes a TLS stream for broken whose sending was cancelled: nothing is on its way
            # any more, neither the settings nor the request.
            assert (await client.get("/hello")).text == "hello"
            sent = asyncio.Event()
            held = asyncio.create_task(anext(endless(client, sent)))  # type: ignore[arg-type]
            await sent.wait()
            await asyncio.to_thread(way.served.events, key)
            others = [client.get("/hello") for _ in range(10)]
            held.cancel()
            got = [answer.text for answer in await asyncio.gather(*others)]
            await asyncio.wait([held])
            assert held.cancelled()
            return got

    assert asyncio.run(main()) == ["hello"] * 10
    # Its application is still at it.
    way.served.get(f"/release?key={key}")
