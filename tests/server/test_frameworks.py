"""Starlette, FastAPI, Falcon, Django and Flask: each answers as it does under another server.

The sites are those of `tests.server.frameworks`; the oracle is uvicorn, for WSGI the standard
library's server. What an answer must be is asked of both, and that they are alike to the byte but
for what is a server's own (`Date`, `Server`, framing).
"""

import concurrent.futures
import contextlib
import hashlib
import importlib.util
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.cli.support import running
from tests.server.frameworks import FILE
from tests.server.wire import PATIENCE, ROOT, Served, serving

pytestmark = pytest.mark.rondel_server

FRAMEWORKS = ["starlette", "fastapi", "falcon", "django", "flask"]
CONTENT = FILE.read_bytes()
DATA = bytes(range(256)) * 12_000  # 3 MB
DIGEST = hashlib.sha256(DATA).hexdigest()
# A server's own, or how it frames the body.
OWN = {"date", "server", "connection", "transfer-encoding", "content-length"}


@contextlib.contextmanager
def oracle(framework: str, target: str) -> Iterator[Served]:
    if framework == "flask":
        command = [sys.executable, "-m", "tests.server.wsgi_reference", target]
    else:
        command = [sys.executable, "-m", "uvicorn", target, "--port", "0", "--log-level", "info"]
    with running(command, ROOT) as process:
        port = process.wait_for(r"(?:serving|running) on http://127\.0\.0\.1:(\d+)")[1]
        yield Served(process, ("127.0.0.1", int(port)))


@dataclass(frozen=True)
class Pair:
    """A site under Rondel, and under another server."""

    framework: str
    rondel: Served
    oracle: Served


@pytest.fixture(scope="module", params=FRAMEWORKS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    name = request.param
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    target = f"tests.server.frameworks.{name}_site:app"
    with serving(target) as served, oracle(name, target) as other:
        yield Pair(name, served, other)
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
        assert outcome.status == 0, outcome.errors
        # What a handler raised is told once, and nothing else was raised.
        errors = outcome.errors.split("Traceback")[1:]
        assert all("a handler's failure" in error for error in errors), outcome.errors


@pytest.fixture
def client(pair: Pair) -> Iterator[httpx.Client]:
    with opened(pair.rondel) as client:
        yield client


def opened(served: Served, **options: Any) -> httpx.Client:
    return httpx.Client(base_url=served.url, timeout=PATIENCE, trust_env=False, **options)


@pytest.fixture(params=["rondel", "oracle"])
def served(request: pytest.FixtureRequest, pair: Pair) -> Served:
    """One after the other: what is asked of Rondel holds of the oracle."""
    found: Served = getattr(pair, request.param)
    return found


def only(pair: Pair, *frameworks: str) -> None:
    if pair.framework not in frameworks:
        pytest.skip(f"of {' and '.join(frameworks)}")


# -- the same request to both --------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """A request, and the status that every framework answers it with, if it is one."""

    target: str
    status: int | None = 200
    method: str = "GET"
    more: dict[str, Any] = field(default_factory=dict)
    # The header that must be there, unless frameworks differ.
    has: str | None = None


FORM = {"data": {"title": "né"}, "files": {"file": ("näme.bin", DATA, "x/y")}}
RANGE = {"range": "bytes=10-29"}
ASKS = {
    "page": Ask("/page/name?q=%C3%A9+b"),
    "page-unicode": Ask("/page/n%C3%A9%20a?q=1"),
    "page-head": Ask("/page/x", method="HEAD"),
    "wrong-method": Ask("/page/x", None, "DELETE"),
    "options": Ask("/page/x", None, "OPTIONS"),
    "redirect": Ask("/away", None, has="location"),
    "nowhere": Ask("/nowhere", 404),
    "cookies": Ask("/cookies", has="set-cookie", more={"headers": {"cookie": "count=4; z=y"}}),
    "error": Ask("/error", 500),
    "file": Ask("/file"),
    "file-head": Ask("/file", None, "HEAD"),
    "file-part": Ask("/file", None, more={"headers": RANGE}),
    "file-parts-of-none": Ask("/file", None, more={"headers": {"range": "bytes=9999999-"}}),
    "static": Ask("/static/__init__.py", None),
    "static-part": Ask("/static/__init__.py", None, more={"headers": RANGE}),
    "static-outside": Ask("/static/%2e%2e/wire.py", None),
    "empty-form": Ask("/upload", None, "POST", {"files": {"other": b""}}),
    "upload": Ask("/upload", method="POST", more=FORM),
    "raw": Ask("/raw", method="POST", more={"content": DATA}),
    "raw-empty": Ask("/raw", method="POST", more={"content": b""}),
}


def told(response: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    headers = [(k, v) for k, v in response.headers.multi_items() if k not in OWN]
    # A framework's set, in the order of its hashes.
    headers = [(k, ", ".join(sorted(v.split(", ")) if k == "allow" else [v])) for k, v in headers]
    return response.status_code, sorted(headers), response.content


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_answers_are_those_under_the_other_server(pair: Pair, ask: Ask) -> None:
    answers = []
    for one in (pair.rondel, pair.oracle):
        with opened(one) as client:
            answers.append(client.request(ask.method, ask.target, **ask.more))
    ours, theirs = answers
    assert told(ours) == told(theirs)
    assert ask.status in (None, ours.status_code)
    assert ask.has is None or ask.has in ours.headers
    for answer in answers:
        if "content-length" in answer.headers and ask.method != "HEAD":
            assert int(answer.headers["content-length"]) == len(answer.content)


# -- what it is that they answer -----------------------------------------------------------------


def test_a_page_knows_its_name_and_query(served: Served) -> None:
    with opened(served) as client:
        got = client.get("/page/né a", params={"q": "é&=+"})
    assert got.text == "né a é&=+"
    assert got.headers["content-type"].startswith("text/plain")


def test_an_upload_of_a_form(served: Served) -> None:
    with opened(served) as client:
        got = client.post("/upload", **FORM).json()
    kept = {key: got[key] for key in ("title", "name", "size", "digest")}
    assert kept == {"title": "né", "name": "näme.bin", "size": len(DATA), "digest": DIGEST}


def test_a_chunked_upload(pair: Pair, client: httpx.Client) -> None:
    parts = (DATA[start : start + 70_000] for start in range(0, len(DATA), 70_000))
    assert client.post("/raw", content=parts).json() == {"size": len(DATA), "digest": DIGEST}


def test_a_stream_comes_as_it_is_made(served: Served) -> None:
    with opened(served) as client, client.stream("GET", "/stream") as got:
        parts = got.iter_text()
        # The second part is made once /go was asked for: the first has come before.
        assert next(parts) == "part 0\n"
        with opened(served) as other:
            assert other.get("/go").status_code == 204
        assert "".join(parts) == "part 1\npart 2\n"


def test_a_file_comes_whole(served: Served) -> None:
    with opened(served) as client:
        assert client.get("/file").content == CONTENT


def test_cookies_go_both_ways(client: httpx.Client) -> None:
    assert [client.get("/cookies").text for _ in range(3)] == ["0", "1", "2"]
    assert client.cookies["other"] == "b"


def test_a_redirect_is_followed_on_the_same_host(client: httpx.Client) -> None:
    got = client.get("/away", follow_redirects=True)
    assert (got.status_code, got.text) == (200, "x redirected")


def test_an_error_leaves_the_connection_usable(client: httpx.Client) -> None:
    for _ in range(3):
        assert client.get("/error").status_code == 500
        assert client.get("/page/x").status_code == 200


def test_http2_answers_as_http1(pair: Pair, client: httpx.Client) -> None:
    with opened(pair.rondel, http1=False, http2=True) as two:
        for target in ("/page/x?q=1", "/file", "/nowhere", "/error", "/stream"):
            client.get("/go")
            answer = two.get(target)
            assert answer.http_version == "HTTP/2"
            assert told(answer) == told(client.get(target))
        assert two.post("/upload", **FORM).json()["digest"] == DIGEST
        assert two.post("/raw", content=iter([DATA])).json()["digest"] == DIGEST


def test_many_at_once(pair: Pair, client: httpx.Client) -> None:
    def ask(number: int) -> bool:
        if number % 5 == 0:
            return bool(client.post("/upload", **FORM).json()["digest"] == DIGEST)
        return client.get(f"/page/{number}?q={number}").text == f"{number} {number}"

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        assert all(pool.map(ask, range(50)))


# -- what is one framework's ---------------------------------------------------------------------


def test_a_lifespan_has_started(pair: Pair, served: Served) -> None:
    only(pair, "starlette", "fastapi", "falcon")
    with opened(served) as client:
        assert client.get("/started").text == "True"


def finished(client: httpx.Client, what: str) -> bool:
    end = time.monotonic() + PATIENCE
    while what not in client.get("/finished").json():
        assert time.monotonic() < end, f"{what!r} was not finished"
        time.sleep(0.01)
    return True


def test_a_background_task_runs_after_the_answer(pair: Pair, served: Served) -> None:
    only(pair, "starlette", "fastapi")
    with opened(served) as client:
        assert client.get("/background").text == "answered"
        assert finished(client, "background")


def test_a_stream_ends_when_its_client_goes(pair: Pair, served: Served) -> None:
    only(pair, "starlette", "fastapi", "django")
    with opened(served) as client:
        with client.stream("GET", "/endless") as got:
            assert next(got.iter_bytes()).startswith(b"more")
        assert finished(client, "stream ended")


def test_a_dependency_on_a_thread_of_fastapi(pair: Pair, served: Served) -> None:
    only(pair, "fastapi")
    with opened(served) as client:
        item = {"name": "a", "price": 1.5}
        assert client.post("/items", json=item).json() == {"item": item, "threaded": True}
        assert finished(client, "dependency closed")
        wrong = client.post("/items", json={"name": "a"})
        assert wrong.status_code == 422
        assert wrong.json()["detail"][0]["loc"] == ["body", "price"]
        assert client.get("/openapi.json").json()["paths"]["/items"]


def test_events_of_falcon(pair: Pair, served: Served) -> None:
    only(pair, "falcon")
    with opened(served) as client:
        got = client.get("/events")
    assert got.headers["content-type"] == "text/event-stream"
    assert got.text == "".join(
        f'event: tick\nid: {number}\ndata: {{"number": {number}}}\n\n' for number in range(3)
    )


def test_a_websocket(pair: Pair, served: Served) -> None:
    only(pair, "starlette", "fastapi", "falcon")
    client = pytest.importorskip("websockets.sync.client")
    url = served.url.replace("http", "ws") + "/shout"
    limits = {"open_timeout": PATIENCE, "close_timeout": PATIENCE, "proxy": None}
    with client.connect(url, **limits) as one:
        for text in ["loud", "é" * 1000, ""]:
            one.send(text)
            assert one.recv(timeout=PATIENCE) == text.upper()
    assert one.close_code == 1000
