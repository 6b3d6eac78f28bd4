"""Details of HTTP that are easy to get wrong, as tables: forms of targets, `100 Continue`,
trailers of requests, the order of pipelined answers, the headers that the server adds by itself.
"""

import json
from collections.abc import Iterator

import pytest

from tests.server.h2wire import H2Wire
from tests.server.wire import PATIENCE, SERVER, Served, Wire, serving

pytestmark = pytest.mark.skipif(SERVER != "rondel", reason="servers differ in these")

BYE = b"GET /hello HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("line", "path", "host"),
    [
        ("GET /scope?a=b", "/scope", "there"),
        ("GET http://other:8080/scope?a=b", "/scope", "other:8080"),
        ("GET https://Other/scope?a=b", "/scope", "Other"),
        ("GET http://[::1]:80/scope?a=b", "/scope", "[::1]:80"),
    ],
)
def test_targets(wire: Wire, line: str, path: str, host: str) -> None:
    wire.send(f"{line} HTTP/1.1\r\nx-a: 1\r\nhost: there\r\nx-b: 2\r\n\r\n".encode())
    seen = json.loads(wire.response().body)
    assert (seen["path"], seen["query_string"]["bytes"]) == (path, "a=b")
    headers = [(name["bytes"], value["bytes"]) for name, value in seen["headers"]]
    assert sorted(headers) == [("host", host), ("x-a", "1"), ("x-b", "2")]


def test_a_target_that_names_the_host_of_http_1_0(wire: Wire) -> None:
    wire.send(b"GET http://other/scope HTTP/1.0\r\n\r\n")
    seen = json.loads(wire.response().body)
    assert seen["headers"] == [[{"bytes": "host"}, {"bytes": "other"}]]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("CONNECT there:443", 501),
        ("CONNECT /hello", 501),  # a success would be no response
        ("GET there:443", 400),
        ("GET hello", 400),
        ("GET hello/there", 400),
        ("GET *", 400),
        ("OPTIONS **", 400),
        ("GET ?a=b", 400),
        ("GET ftp://there/hello", 400),
        ("GET http://user:word@there/hello", 400),
        ("GET http:///hello", 400),
        ("GET /hel lo", 400),
    ],
)
def test_targets_that_are_none_are_refused_and_nothing_behind_them_is_heard(
    server: Served, line: str, status: int
) -> None:
    with server.connect() as wire:
        wire.send(f"{line} HTTP/1.1\r\nhost: there\r\n\r\n".encode() + BYE)
        answer = wire.response()
        assert (answer.status, answer.get("connection")) == (status, "close")
        assert wire.closed()


def test_the_server_as_a_whole_may_be_asked_for_its_options(wire: Wire) -> None:
    # No handler of the tests' is called `*`: that it is asked shows.
    wire.send(b"OPTIONS * HTTP/1.1\r\nhost: t\r\n\r\n" + BYE)
    assert [wire.response().status, wire.response().status] == [500, 200]


def test_100_continue_waits_for_the_application_to_read(server: Served, key: str) -> None:
    with server.connect() as wire:
        wire.send(f"POST /slow_reader?key={key} HTTP/1.1\r\nhost: t\r\n".encode())
        wire.send(b"content-length: 4\r\nexpect: 100-continue\r\n\r\n")
        server.events(key)
        wire.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            wire.socket.recv(1)
        wire.socket.settimeout(PATIENCE)
        server.get(f"/release?key={key}")
        assert wire.response().status == 100
        wire.send(b"body" + BYE)
        assert [wire.response().body, wire.response().body] == [b"4", b"hello"]


@pytest.mark.parametrize(
    ("head", "body", "answers"),
    [
        ("POST /length HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n", b"", [(200, b"0")]),
        ("GET /hello HTTP/1.1\r\nhost: t\r\n", b"", [(200, b"hello")]),
        ("POST /length HTTP/1.0\r\ncontent-length: 4\r\n", b"body", [(200, b"4")]),
        ("POST /ignore HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n", b"", [(200, b"ignored")]),
        # The client has not waited. RFC 9110, 10.1.1, leaves it open.
        (
            "POST /length HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n",
            b"4\r\nbody\r\n0\r\n\r\n",
            [(100, b""), (200, b"4")],
        ),
    ],
)
def test_when_100_continue_is_sent(
    server: Served, head: str, body: bytes, answers: list[tuple[int, bytes]]
) -> None:
    with server.connect() as wire:
        wire.send(f"{head}Expect: 100-Continue\r\n\r\n".encode() + body)
        told = [wire.response() for _ in answers]
        assert [(answer.status, answer.body) for answer in told] == answers


def test_trailers_of_requests_are_dropped_and_the_body_ends(server: Served) -> None:
    with server.connect() as wire:
        wire.send(b"POST /echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
        wire.send(b"2\r\nab\r\n0\r\nx-sum: 2\r\ncontent-length: 9\r\n\r\n" + BYE)
        assert [wire.response().body, wire.response().body] == [b"ab", b"hello"]
    with H2Wire(server.address) as wire2:
        stream = wire2.open("/echo", "POST", end=False)
        wire2.data(stream, b"ab")
        wire2.h2.send_headers(stream, [("x-sum", "2")], end_stream=True)
        wire2.flush()
        assert wire2.answer(stream).body == b"ab"


def test_pipelined_answers_keep_their_order_whoever_is_faster(server: Served, key: str) -> None:
    with server.connect() as wire:
        wire.send(f"GET /hold?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode() + BYE)
        server.events(key)
        server.get(f"/release?key={key}")
        assert [wire.response().body, wire.response().body] == [b"held", b"hello"]
        assert wire.closed()


# -- what the server adds ------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare() -> Iterator[Served]:
    with serving("tests.server.apps:app", "--no-server-header", "--no-date-header") as served:
        yield served


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_server_and_date_can_be_turned_off(server: Served, bare: Served, version: str) -> None:
    def added(served: Served, target: str) -> dict[str, str | None]:
        if version == "2":
            with H2Wire(served.address) as wire2:
                headers = wire2.get(target).headers
        else:
            headers = dict(served.get(target).headers)
        return {name: headers.get(name) for name in ("server", "date")}

    usual = added(server, "/hello")
    assert usual["server"] == "rondel"
    assert usual["date"] is not None
    assert usual["date"].endswith(" GMT")
    assert added(bare, "/hello") == {"server": None, "date": None}
    own = f"/say?messages={OWN}"
    assert added(server, own) == added(bare, own) == {"server": "mine", "date": "then"}


OWN = (
    '[{"type":"http.response.start","status":200,"headers":[["server","mine"],["date","then"]]},'
    '{"type":"http.response.body"}]'
).replace('"', "%22")
