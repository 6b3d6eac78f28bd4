"""ASGI's extensions: which are offered to whom, `pathsend`, `early_hint`; `trailers`,
`zerocopysend`, `tls` and `websocket.http.response` have files of their own.
"""

import json
import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.net.certificates import client_context
from tests.server.certificates import identity
from tests.server.h2wire import H2Wire
from tests.server.wire import PATIENCE, SERVER, Closed, Served, Wire, serving

pytestmark = pytest.mark.skipif(SERVER != "rondel", reason="extensions that not all have")

START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": "hello"}
PLAIN = {"http.response.trailers", "http.response.zerocopysend", "http.response.pathsend"}
HINTS = "http.response.early_hint"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    one = identity("localhost")
    tls = ("--ssl-certfile", one.certificate, "--ssl-keyfile", one.key)
    with (
        serving("tests.server.apps:app", "--early-hints") as served,
        serving("tests.server.apps:app", "--early-hints", *tls, context=client_context()) as secure,
    ):
        served.secure = secure  # type: ignore[attr-defined]
        yield served
        for each in (served, secure):
            each.process.signal(signal.SIGTERM)
            outcome = each.process.end()
            assert outcome.status == 0, outcome.errors


@pytest.fixture(params=["plain", "tls"])
def either(request: pytest.FixtureRequest, server: Served) -> Served:
    return server if request.param == "plain" else server.secure  # type: ignore[attr-defined]


def alpn() -> ssl.SSLContext:
    context = client_context()
    context.set_alpn_protocols(["h2"])
    return context


def say(*messages: Any, key: str = "") -> str:
    return f"/say?key={key}&messages={quote(json.dumps(messages))}"


def hint(*links: str) -> dict[str, Any]:
    return {"type": HINTS, "links": links}


def heads(wire: Wire, count: int) -> list[tuple[int, list[str]]]:
    """Statuses of the next responses, and the links in their heads."""
    answers = [wire.response() for _ in range(count)]
    return [(a.status, [value for name, value in a.headers if name == "link"]) for a in answers]


# -- what is offered -----------------------------------------------------------------------


def test_extensions_are_offered_where_they_work(server: Served) -> None:
    def offered(text: bytes | bytearray) -> set[str]:
        return set(json.loads(text)["extensions"])

    with server.connect() as wire:
        assert offered(wire.request("/scope").body) == PLAIN | {HINTS}
        wire.send(b"GET /scope HTTP/1.0\r\n\r\n")
        assert offered(wire.response().body) == PLAIN
    with H2Wire(server.address) as wire2:
        assert offered(wire2.get("/scope").body) == PLAIN | {HINTS}
    with server.secure.connect() as wire:  # type: ignore[attr-defined]
        assert offered(wire.request("/scope").body) == PLAIN | {HINTS, "tls"}


def test_debug_is_not_offered_and_does_no_harm(server: Served) -> None:
    told = {"type": "http.response.debug", "info": {"template": "a.html"}}
    assert server.get(say(told, START, BODY)).body == b"hello"


# -- pathsend ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("paths")
    (path / "empty").touch()
    (path / "small").write_bytes(b"0123456789")
    (path / "née").write_bytes(b"named")
    (path / "large").write_bytes(os.urandom(1 << 20) * 3)
    os.mkfifo(path / "pipe")
    return path


@pytest.mark.parametrize("name", ["empty", "small", "née", "large"])
def test_a_path_is_sent_as_the_body(either: Served, folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    path = {"type": "http.response.pathsend", "path": str(folder / name)}
    start = START | {"headers": [["content-length", str(len(content))]]}
    with either.connect() as wire:
        for head in (START, start):
            assert wire.request(say(head, path)).body == content
        assert wire.request(say(start, path), "HEAD").get("content-length") == str(len(content))
        assert wire.request("/hello").body == b"hello"
    with H2Wire(either.address, either.context and alpn()) as wire2:
        assert wire2.get(say(START, path)).body == content


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("absent", "FileNotFoundError: [Errno 2] No such file or directory: '"),
        ("", "ValueError: only a regular file"),
        ("pipe", "ValueError: only a regular file"),
        (None, "KeyError: 'path'"),
        (1.5, "TypeError: "),
    ],
)
def test_a_path_that_cannot_be_sent_is_the_applications_error(
    server: Served, folder: Path, key: str, path: Any, error: str
) -> None:
    message: dict[str, Any] = {"type": "http.response.pathsend"}
    if path is not None:
        message["path"] = f"{folder}/{path}" if isinstance(path, str) else path
    with server.connect() as wire, pytest.raises(Closed):
        wire.request(say(START, message, key=key))
    assert server.events(key)[0].startswith(error)


# -- early hints ---------------------------------------------------------------------------


def test_hints_come_before_the_response_and_at_once(either: Served, key: str) -> None:
    css, js = "</a.css>; rel=preload; as=style", "</a.js>; rel=preload; as=script"
    with either.connect() as wire:
        messages = (hint(css, js), "gate", START, hint(css), "gate", hint(js), BODY)
        wire.send(f"GET {say(*messages, key=key)} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        first = wire.response()
        assert (first.line, first.headers) == (
            b"HTTP/1.1 103 Early Hints",
            [("link", css), ("link", js)],
        )
        either.get(f"/release?key={key}")
        assert heads(wire, 2) == [(103, [css]), (103, [js])]
        assert wire.response().body == b"hello"
        assert wire.request("/hello").body == b"hello"


EARLY: list[tuple[str, list[Any], list[tuple[int, list[str]]]]] = [
    ("without a pause", [hint("<a>"), START, BODY], [(103, ["<a>"]), (200, [])]),
    ("no links", [hint(), START, BODY], [(200, [])]),
    (
        "after the body has begun",
        [START, BODY | {"more_body": True}, hint("<a>"), BODY],
        [(200, [])],
    ),
    ("an error follows", [hint("<a>"), {"type": "nonsense"}], [(103, ["<a>"]), (500, [])]),
    ("a value that splits heads", [hint("<a>\r\nx: y"), START, BODY], [(500, [])]),
    ("more than a client needs", [{"type": HINTS, "fill": 20_000}, START, BODY], [(200, [])]),
    ("links are no list", [{"type": HINTS, "links": 5}, START, BODY], [(500, [])]),
]


@pytest.mark.parametrize(("what", "messages", "seen"), EARLY, ids=[what for what, *_ in EARLY])
def test_hints(wire: Wire, what: str, messages: list[Any], seen: Any) -> None:
    request = f"GET {say(*messages)} HTTP/1.1\r\nhost: t\r\n\r\n".encode()
    wire.send(request + b"GET /hello HTTP/1.1\r\nhost: t\r\n\r\n")
    assert heads(wire, len(seen)) == seen
    assert wire.response().body == b"hello"


def test_hints_of_pipelined_requests_stay_with_them(either: Served) -> None:
    with either.connect() as wire:
        targets = [say(hint(f"<{n}>"), START, BODY | {"fill": 400_000}) for n in range(20)]
        wire.send(b"".join(f"GET {t} HTTP/1.1\r\nhost: t\r\n\r\n".encode() for t in targets))
        seen = heads(wire, 40)
    assert seen == [one for n in range(20) for one in ((103, [f"<{n}>"]), (200, []))]


def test_hints_and_100_continue_are_each_told(either: Served, key: str) -> None:
    with either.connect() as wire:
        target = say(hint("<a>"), "read", hint("<b>"), START, BODY, key=key)
        wire.send(f"POST {target} HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n".encode())
        wire.send(b"expect: 100-continue\r\n\r\n")
        assert sorted(heads(wire, 2)) == [(100, []), (103, ["<a>"])]
        wire.send(b"body")
        assert heads(wire, 2) == [(103, ["<b>"]), (200, [])]
    assert either.events(key) == ["body"]


def test_clients_that_know_no_hints_get_none(server: Served) -> None:
    with server.connect() as old:
        old.send(f"GET {say(hint('<a>'), START, BODY)} HTTP/1.0\r\n\r\n".encode())
        assert old.response().body == b"hello"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(
    ("options", "first", "last"),
    [
        ([], b"HTTP/1.1 103 Early Hints\r\n", b"HTTP/1.1 200 OK\r\n"),
        (["--http2-prior-knowledge"], b"HTTP/2 103 \r\n", b"HTTP/2 200 \r\n"),
    ],
    ids=["1", "2"],
)
def test_curl_sees_them(server: Served, options: list[str], first: bytes, last: bytes) -> None:
    target = server.url + say(hint("<a>"), START, BODY)
    ask = ["curl", "-q", "-s", "-i", "--noproxy", "*", *options, target]
    told = subprocess.run(ask, capture_output=True, timeout=PATIENCE, check=True).stdout
    assert told.startswith(first + b"link: <a>\r\n\r\n" + last)
    assert told.endswith(b"hello")


def test_hints_to_http_1_are_off_unless_asked_for() -> None:
    with serving("tests.server.apps:app") as served:
        assert HINTS not in served.json("/scope")["extensions"]
        assert served.get(say(hint("<a>"), START, BODY)).status == 200
        with H2Wire(served.address) as wire:
            assert HINTS in json.loads(wire.get("/scope").body)["extensions"]
            assert wire.get(say(hint("<a>"), START, BODY)).early == [(103, ["<a>"])]


# -- the same over HTTP/2 ------------------------------------------------------------------


def test_hints_on_a_stream_come_before_the_response_and_at_once(either: Served, key: str) -> None:
    css, js = "</a.css>; rel=preload; as=style", "</a.js>; rel=preload; as=script"
    with H2Wire(either.address, either.context and alpn()) as wire:
        messages = (hint(css, js), "gate", START, hint(css), "gate", hint(js), BODY)
        answer = wire.answers[stream := wire.open(say(*messages, key=key))]
        wire.until(lambda: answer.early)
        assert answer.early == [(103, [css, js])]
        assert answer.status == 0
        either.get(f"/release?key={key}")
        assert wire.answer(stream).body == b"hello"
        assert answer.early[1:] == [(103, [css]), (103, [js])]


@pytest.mark.parametrize(("what", "messages", "seen"), EARLY, ids=[what for what, *_ in EARLY])
def test_hints_on_a_stream(server: Served, what: str, messages: list[Any], seen: Any) -> None:
    with H2Wire(server.address) as wire:
        answer = wire.get(say(*messages))
        assert [*answer.early, (answer.status, [])] == seen
        assert wire.get("/hello").body == b"hello"


def test_hints_of_streams_stay_with_them(either: Served) -> None:
    with H2Wire(either.address, either.context and alpn()) as wire:
        targets = [say(hint(f"<{n}>"), START, BODY) for n in range(20)]
        answers = [wire.answer(stream) for stream in [wire.open(target) for target in targets]]
    assert [answer.early for answer in answers] == [[(103, [f"<{n}>"])] for n in range(20)]


def test_a_stream_whose_body_waits_is_told_to_go_on(either: Served, key: str) -> None:
    expects = [("expect", "100-continue")]
    with H2Wire(either.address, either.context and alpn()) as wire:
        target = say(hint("<a>"), "read", hint("<b>"), START, BODY, key=key)
        stream = wire.open(target, "POST", headers=expects, end=False)
        answer = wire.answers[stream]
        wire.until(lambda: len(answer.early) == 2)
        assert answer.early == [(103, ["<a>"]), (100, [])]
        wire.data(stream, b"body", end=True)
        assert wire.answer(stream).body == b"hello"
        assert answer.early[2:] == [(103, ["<b>"])]
        # Who has sent it, and who is not to, is told nothing.
        done = wire.get(say("read", START, BODY, key=key), method="POST", headers=expects)
        unread = wire.get(say(START, BODY), method="POST", headers=expects, end=False)
        assert (done.early, unread.early) == ([], [])
    assert either.events(key) == ["body", ""]
