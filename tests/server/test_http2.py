"""HTTP/2 on the plain port, by prior knowledge: streams, flow control, resets, the end, floods."""

import asyncio
import contextlib
import json
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from h2.errors import ErrorCodes
from h2.events import RemoteSettingsChanged, SettingsAcknowledged
from h2.settings import SettingCodes

from tests.server.h2wire import H2Wire
from tests.server.wire import PATIENCE, Served, Wire, serving

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


@pytest.fixture
def wire2(server: Served) -> Iterator[H2Wire]:
    with H2Wire(server.address) as wire:
        yield wire


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def test_a_request_and_its_scope(wire2: H2Wire) -> None:
    answer = wire2.get("/scope/a?b=c", headers=[("user-agent", "tests")])
    assert answer.status == 200
    assert answer.headers["server"] == "rondel"
    assert "date" in answer.headers
    assert "connection" not in answer.headers
    scope = json.loads(answer.body)
    assert scope["http_version"] == "2"
    assert scope["scheme"] == "http"
    assert scope["path"] == "/scope/a"
    assert scope["query_string"] == {"bytes": "b=c"}
    assert scope["headers"][0] == [{"bytes": "host"}, {"bytes": "test"}]
    names = [name["bytes"] for name, _ in scope["headers"]]
    assert "user-agent" in names
    assert not [name for name in names if name.startswith(":")]


def test_the_authority_stands_in_for_host_and_cookies_are_one(wire2: H2Wire) -> None:
    # RFC 9113, 8.2.3: a client may split them, an application sees them as HTTP/1.1 has them.
    lines = [("cookie", "a=1"), ("x-one", "1"), ("cookie", "b=2"), ("host", "test")]
    scope = json.loads(wire2.get("/scope", headers=lines).body)
    found = [(name["bytes"], value["bytes"]) for name, value in scope["headers"]]
    assert sorted(found) == [("cookie", "a=1; b=2"), ("host", "test"), ("x-one", "1")]


def test_an_authority_and_another_host_are_refused(wire2: H2Wire) -> None:
    assert wire2.get("/hello", headers=[("host", "other")]).status == 400
    assert wire2.get("/hello").body == b"hello"


def test_both_versions_are_spoken_at_one_port(server: Served) -> None:
    with server.connect() as wire, H2Wire(server.address) as wire2:
        assert wire.request("/hello").version == b"HTTP/1.1"
        assert wire2.get("/hello").body == b"hello"
        assert wire.request("/hello").body == b"hello"


def test_requests_of_a_connection_are_answered_at_once_each_in_its_own_time(
    server: Served, wire2: H2Wire, key: str
) -> None:
    held = [wire2.open(f"/hold?key={key}{number}") for number in range(20)]
    for number in range(20):
        server.events(f"{key}{number}")
    assert wire2.get("/hello").body == b"hello"
    for number in reversed(range(20)):
        server.get(f"/release?key={key}{number}")
        assert wire2.answer(held[number]).body == b"held"
    assert all(answer.reset is None for answer in wire2.answers.values())


def test_bodies_go_both_ways_at_once_on_several_streams(wire2: H2Wire) -> None:
    streams = [wire2.open("/echo", "POST", end=False) for _ in range(3)]
    for part in (b"one", b"two", b"three"):
        for stream in streams:
            before = len(wire2.answers[stream].body)
            wire2.data(stream, part)
            answer = wire2.answers[stream]
            due = before + len(part)
            wire2.until(lambda a=answer, n=due: len(a.body) >= n)
    for stream in streams:
        wire2.data(stream, b"", end=True)
        assert wire2.answer(stream).body == b"onetwothree"


def test_a_body_that_is_not_read_holds_its_stream_back_and_no_other(
    server: Served, wire2: H2Wire, key: str
) -> None:
    stream = wire2.open(f"/slow_reader?key={key}", "POST", end=False)
    server.events(key)
    wire2.until(lambda: any(isinstance(e, RemoteSettingsChanged) for e in wire2.events))
    sent = 0
    while room := min(wire2.h2.local_flow_control_window(stream), wire2.h2.max_outbound_frame_size):
        wire2.data(stream, b"u" * room)
        sent += room
    assert 0 < sent <= 1 << 20
    # The connection's window has room for others.
    other = wire2.open("/length", "POST", end=False)
    wire2.data(other, b"x" * 1000, end=True)
    assert wire2.answer(other).body == b"1000"
    assert wire2.h2.local_flow_control_window(stream) == 0
    server.get(f"/release?key={key}")
    wire2.until(lambda: wire2.h2.local_flow_control_window(stream) > 0)
    wire2.data(stream, b"u", end=True)
    assert wire2.answer(stream).body == str(sent + 1).encode()


def test_a_client_that_takes_nothing_holds_the_application_back(server: Served, key: str) -> None:
    with H2Wire(server.address, open_windows=False) as wire2:
        stream = wire2.open(f"/fast_writer?key={key}&count=100")
        answer = wire2.answers[stream]
        window = 65535  # by default (RFC 9113, 6.9.2)
        wire2.until(lambda: len(answer.body) == window)
        other = wire2.open("/status?code=204")  # needs no window
        assert wire2.answer(other).status == 204
        # The client has one chunk, less a byte; queues hold the next, and no more than a few.
        assert len(server.events(key)) < 10
        wire2.h2.increment_flow_control_window(1 << 24)
        wire2.h2.increment_flow_control_window(1 << 24, stream)
        wire2.flush()
        assert len(wire2.answer(stream).body) == 100 * 65536


def test_a_stream_that_is_reset_is_a_disconnect_for_its_request_alone(
    server: Served, wire2: H2Wire, key: str
) -> None:
    stays = wire2.open(f"/hold?key={key}2")
    goes = wire2.open(f"/disconnect?key={key}")
    server.events(key)
    server.events(f"{key}2")
    wire2.reset(goes)
    assert server.events(key, 3) == ["waiting", "http.disconnect", "http.disconnect"]
    server.get(f"/release?key={key}2")
    assert wire2.answer(stays).body == b"held"


def test_a_stream_that_is_reset_while_it_streams_is_a_disconnect(
    server: Served, wire2: H2Wire, key: str
) -> None:
    stream = wire2.open(f"/disconnect_while_streaming?key={key}")
    server.events(key)
    wire2.reset(stream)
    seen = server.events(key, 5)
    assert seen[:2] == ["waiting", "http.disconnect"]
    assert wire2.get("/hello").body == b"hello"


@pytest.mark.parametrize(
    ("second", "outcome"), [("4", (400, None)), ("5", (0, ErrorCodes.PROTOCOL_ERROR))]
)
def test_a_body_of_two_lengths_is_refused(
    wire2: H2Wire, second: str, outcome: tuple[int, ErrorCodes | None]
) -> None:
    lengths = [("content-length", "4"), ("content-length", second)]
    stream = wire2.open("/length", "POST", headers=lengths, end=False)
    answer = wire2.answers[stream]
    wire2.until(lambda: answer.status or answer.reset is not None)
    assert (answer.status, answer.reset if second == "5" else None) == outcome
    assert wire2.get("/hello").body == b"hello"


@pytest.mark.parametrize("code", [ErrorCodes.NO_ERROR, ErrorCodes.CANCEL])
def test_a_body_that_is_broken_off_does_not_look_whole(
    server: Served, wire2: H2Wire, key: str, code: ErrorCodes
) -> None:
    stream = wire2.open(f"/received?key={key}", "POST", end=False, data=b"part")
    server.events(key)
    wire2.reset(stream, code)
    assert server.events(key, 2) == ["http.request part True", "http.disconnect  False"]


def test_a_connection_that_closes_is_a_disconnect_for_all_its_requests(
    server: Served, key: str
) -> None:
    with H2Wire(server.address) as wire2:
        for number in range(3):
            wire2.open(f"/disconnect?key={key}{number}")
            server.events(f"{key}{number}")
    for number in range(3):
        assert server.events(f"{key}{number}", 2)[:2] == ["waiting", "http.disconnect"]


def test_what_fails_resets_its_stream_and_no_other(wire2: H2Wire) -> None:
    half = wire2.get("/raise_after")
    assert bytes(half.body) == b"half"
    assert half.reset == ErrorCodes.INTERNAL_ERROR
    assert wire2.get("/raise_before").status == 500
    short = wire2.get("/half_response")
    assert short.reset == ErrorCodes.INTERNAL_ERROR
    assert wire2.get("/hello").body == b"hello"


def test_a_body_that_is_left_unread_does_no_harm(wire2: H2Wire) -> None:
    stream = wire2.open("/ignore", "POST", end=False)
    wire2.data(stream, b"never read")
    assert wire2.answer(stream).body == b"ignored"
    assert wire2.get("/hello").body == b"hello"


def test_head_and_statuses_without_a_body(wire2: H2Wire) -> None:
    head = wire2.answer(wire2.open("/hello", "HEAD"))
    assert (head.status, bytes(head.body)) == (200, b"")
    assert head.headers["content-length"] == "5"
    assert wire2.get("/status?code=304").status == 304


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
def test_a_file_is_sent(wire2: H2Wire, tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    file = {"file": str(tmp_path / "file"), "more_body": True}
    around = [{"body": "<", "more_body": True}, file, {"body": ">", "more_body": False}]
    messages = json.dumps(around)
    answer = wire2.get(f"/file?messages={quote(messages)}")
    assert answer.body == b"<" + content[:size] + b">"


def test_httpx_speaks_it(server: Served) -> None:
    async def ask() -> list[httpx.Response]:
        url = f"{server.url}/echo"
        async with httpx.AsyncClient(http1=False, http2=True, timeout=PATIENCE) as client:
            return await asyncio.gather(
                *(client.post(url, content=b"%d" % n * 50_000) for n in range(10))
            )

    answers = asyncio.run(ask())
    assert [answer.http_version for answer in answers] == ["HTTP/2"] * 10
    assert [answer.content for answer in answers] == [b"%d" % n * 50_000 for n in range(10)]


# -- what a client may not do ----------------------------------------------------------------


def test_more_streams_than_allowed_are_refused(key: str) -> None:
    with (
        serving("tests.server.apps:app", "--limit-streams", "3") as server,
        H2Wire(server.address) as wire2,
    ):
        wire2.until(lambda: any(isinstance(e, SettingsAcknowledged) for e in wire2.events))
        assert wire2.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] == 3
        held = [wire2.open(f"/hold?key={key}") for _ in range(3)]
        wire2.h2.remote_settings.update({SettingCodes.MAX_CONCURRENT_STREAMS: 100})
        wire2.h2.remote_settings.acknowledge()
        refused = wire2.answer(wire2.open("/hello"))
        assert refused.reset == ErrorCodes.REFUSED_STREAM
        server.events(key, 3)
        server.get(f"/release?key={key}")
        assert [bytes(wire2.answer(stream).body) for stream in held] == [b"held"] * 3


def test_a_head_that_is_too_large_is_refused(wire2: H2Wire) -> None:
    lines = [(f"x-{number}", "v" * 1000) for number in range(70)]
    answer = wire2.get("/hello", headers=lines)
    assert answer.status == 431 or answer.reset is not None
    assert wire2.get("/hello").body == b"hello"


def test_a_head_of_too_many_lines_is_refused(wire2: H2Wire) -> None:
    answer = wire2.get("/hello", headers=[(f"x-{number}", "") for number in range(101)])
    assert answer.status == 431
    assert wire2.get("/hello").body == b"hello"


def test_a_stream_that_stops_within_its_body_gets_408_and_no_other(key: str) -> None:
    with (
        serving("tests.server.apps:app", "--limit-body-timeout", "0.3") as server,
        H2Wire(server.address) as wire2,
    ):
        held = wire2.open(f"/hold?key={key}")
        server.events(key)
        # All there, but not asked for: the client owes nothing.
        unread = wire2.open(f"/slow_reader?key={key}2", "POST", end=False)
        wire2.data(unread, b"u" * 1000, end=True)
        server.events(f"{key}2")
        for _ in range(2):
            late = wire2.open("/length", "POST", end=False)
            wire2.data(late, b"abc")
            assert wire2.answer(late).status == 408
        server.get(f"/release?key={key}")
        server.get(f"/release?key={key}2")
        assert wire2.answer(held).body == b"held"
        assert wire2.answer(unread).body == b"1000"


def test_a_body_in_drops_is_too_slow(key: str) -> None:
    options = ("--limit-body-timeout", "1", "--limit-body-rate", "10000")
    with serving("tests.server.apps:app", *options) as server, H2Wire(server.address) as wire2:
        stream = wire2.open("/length", "POST", end=False)
        answer = wire2.answers[stream]
        wire2.socket.settimeout(0.02)
        for _ in range(1000):  # drops that come far more often than the deadline
            if answer.status:
                break
            wire2.data(stream, b"x")
            with contextlib.suppress(TimeoutError):
                wire2.read()
        assert answer.status == 408


def test_a_response_whose_request_lags_is_broken_off() -> None:
    with (
        serving("tests.server.apps:app", "--limit-body-timeout", "0.3") as server,
        H2Wire(server.address) as wire2,
    ):
        answer = wire2.answer(wire2.open("/echo", "POST", end=False, data=b"first"))
        assert (bytes(answer.body), answer.reset) == (b"first", ErrorCodes.INTERNAL_ERROR)
        assert wire2.get("/hello").body == b"hello"


def raw(server: Served) -> socket.socket:
    assert not isinstance(server.address, str)
    connected = socket.create_connection(server.address, timeout=PATIENCE)
    connected.sendall(PREFACE + SETTINGS)
    return connected


def ends_with_goaway(connected: socket.socket) -> int:
    """The error of the GOAWAY with which the server ends the connection."""
    data = bytearray()
    try:
        while part := connected.recv(1 << 16):
            data += part
    except ConnectionResetError:
        pass
    error = None
    while len(data) >= 9:
        size = int.from_bytes(data[:3], "big")
        kind, payload = data[3], data[9 : 9 + size]
        if kind == 7:
            error = int.from_bytes(payload[4:8], "big")
        del data[: 9 + size]
    assert error is not None, "closed without GOAWAY"
    return error


def flood(connected: socket.socket, data: bytes, times: int) -> None:
    try:
        for _ in range(times):
            connected.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


HEAD = bytes.fromhex("828684") + b"\x41\x04test"  # GET http / test, by HPACK's static table


def test_a_flood_of_resets_ends_the_connection(server: Served) -> None:
    # CVE-2023-44487: requests that are taken back as they are made.
    with raw(server) as connected:
        streams = range(1, 20_000, 2)
        pairs = [frame(1, 5, n, HEAD) + frame(3, 0, n, b"\0\0\0\x08") for n in streams]
        flood(connected, b"".join(pairs), 1)
        assert ends_with_goaway(connected) == ErrorCodes.ENHANCE_YOUR_CALM
    assert server.get("/hello").body == b"hello"


def test_a_client_that_takes_back_most_requests_has_to_connect_again(
    server: Served, key: str
) -> None:
    # The same at a pace at which each request reaches the application: taken back sooner, it would
    # be h2's own bound that ends the connection.
    try:
        with H2Wire(server.address) as wire2:
            wire2.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(1000):
                stream = wire2.open(f"/hold?key={key}")
                wire2.h2.ping(b"12345678")
                wire2.flush()
                before = len(wire2.events)
                wire2.until(lambda n=before: len(wire2.events) > n)
                if wire2.goaway is not None:
                    break
                wire2.reset(stream)
            assert wire2.goaway is not None
            assert wire2.goaway.error_code == ErrorCodes.NO_ERROR
    finally:
        server.get(f"/release?key={key}")


def test_a_flood_of_continuations_ends_the_connection(server: Served) -> None:
    # CVE-2024-27316 and its kin: a head that never ends.
    with raw(server) as connected:
        line = b"\0\x03x-a" + b"\x7f\x81\x07" + b"v" * 1024  # not indexed
        connected.sendall(frame(1, 1, 1, HEAD))
        flood(connected, frame(9, 0, 1, line) * 100, 100)
        assert ends_with_goaway(connected) in (
            ErrorCodes.ENHANCE_YOUR_CALM,
            ErrorCodes.COMPRESSION_ERROR,
            ErrorCodes.PROTOCOL_ERROR,
        )
    assert server.get("/hello").body == b"hello"


def test_nonsense_after_the_preface_ends_the_connection(server: Served) -> None:
    with raw(server) as connected:
        connected.sendall(frame(0, 0, 1, b"data on a stream that is not open"))
        assert ends_with_goaway(connected) == ErrorCodes.PROTOCOL_ERROR
    assert server.get("/hello").body == b"hello"


def test_the_preface_is_no_request_later_on(server: Served) -> None:
    with server.connect() as wire:
        assert wire.request("/hello").body == b"hello"
        wire.send(PREFACE + SETTINGS)
        rest = wire.rest()
        assert rest == b"" or rest.startswith(b"HTTP/1.1 4")


# -- which versions, and the end -------------------------------------------------------------


def test_only_1_is_spoken_if_asked_for() -> None:
    with serving("tests.server.apps:app", "--http", "1") as server:
        with Wire(server.address) as wire:
            wire.send(PREFACE + SETTINGS)
            assert not wire.rest().startswith(b"\0")
        assert server.get("/hello").body == b"hello"


def test_only_2_is_spoken_if_asked_for() -> None:
    with serving("tests.server.apps:app", "--http", "2") as server:
        with H2Wire(server.address) as wire2:
            assert wire2.get("/hello").body == b"hello"
        with Wire(server.address) as wire:
            wire.send(b"GET /hello HTTP/1.1\r\nhost: t\r\n\r\n")
            assert not wire.rest().startswith(b"HTTP/1.1 2")


def test_a_stop_lets_requests_end_and_says_which_are_heard(key: str) -> None:
    with serving() as server, H2Wire(server.address) as wire2:
        stream = wire2.open(f"/hold_for?key={key}&seconds=0.3")
        server.events(key)
        server.process.signal(signal.SIGTERM)
        assert wire2.answer(stream).body == b"held"
        while not wire2.closed:
            wire2.read()
        assert wire2.goaway is not None
        assert wire2.goaway.error_code == ErrorCodes.NO_ERROR
        assert server.process.end().status == 0


def test_a_stop_does_not_wait_for_clients_that_are_silent() -> None:
    with serving() as server, H2Wire(server.address) as wire2:
        assert wire2.get("/hello").body == b"hello"
        # Nothing is read from now on, no ping answered.
        server.process.signal(signal.SIGTERM)
        assert server.process.end().status == 0


def test_a_silent_client_is_pinged(key: str) -> None:
    with (
        serving("tests.server.apps:app", "--limit-ping", "0.2") as server,
        H2Wire(server.address) as wire2,
    ):
        wire2.open(f"/hold?key={key}")
        server.events(key)
        ping = frame(6, 0, 0)[3:9]
        data = b""
        while ping not in data:
            data += wire2.socket.recv(1 << 16)


def test_an_idle_connection_is_closed_in_good_order() -> None:
    with (
        serving("tests.server.apps:app", "--limit-keep-alive", "0.2") as server,
        H2Wire(server.address) as wire2,
    ):
        while not wire2.closed:
            wire2.read()
        assert wire2.goaway is not None
        assert wire2.goaway.error_code == ErrorCodes.NO_ERROR
