"""WebSocket connections on streams of HTTP/2: pings, deadlines, and the server's stop."""

import signal
from collections.abc import Iterator

import pytest
from h2.errors import ErrorCodes

from tests.server.frames import (
    CLOSE,
    PING,
    PONG,
    closing,
)
from tests.server.h2frames import VERSION, StreamPeer, StreamWire, connected
from tests.server.wire import Served, serving

pytestmark = pytest.mark.rondel_server


APP = "tests.server.ws_apps:app"


@pytest.fixture(scope="module")
def lively() -> Iterator[Served]:
    options = ["--ws-ping-interval", "0.2", "--ws-ping-timeout", "4", "--ws-close-timeout", "0.5"]
    with serving(APP, *options, "--limit-keep-alive", "2") as served:
        yield served
        assert served.get("/hello").body == b"hello"


def ping(client: StreamPeer) -> None:
    """Takes the next one, and answers it."""
    frame = client.frame()
    assert frame.opcode == PING
    client.send(PONG, frame.data)


def test_pings_come_and_an_open_connection_is_not_idle(lively: Served) -> None:
    with connected(lively) as wire2:
        client = StreamPeer(wire2, "/echo")
        for _ in range(20):  # twice as long as an idle connection may stay
            ping(client)
        client.text("still there")
        while (frame := client.frame()).opcode == PING:
            pass
        assert frame.data == b"still there"
        client.wire.send(closing(1000))
        while (frame := client.frame()).opcode == PING:
            pass
        assert frame.code == 1000
        client.wire.end()
        # From now on it is.
        wire2.until(lambda: wire2.goaway is not None)
        assert wire2.goaway is not None
        assert wire2.goaway.error_code == ErrorCodes.NO_ERROR


def test_a_client_that_says_nothing_is_given_up(lively: Served, key: str) -> None:
    with connected(lively) as wire2:
        client = StreamPeer(wire2, f"/echo?key={key}")
        while (frame := client.frame()).opcode == PING:
            pass
        assert (frame.opcode, frame.code) == (CLOSE, 1011)
        assert client.wire.closed()
        assert lively.events(key) == ["disconnect 1006"]


def test_a_close_that_is_not_answered_ends_all_the_same(lively: Served) -> None:
    with connected(lively) as wire2:
        client = StreamPeer(wire2, "/close")
        assert client.message() == "last"
        assert client.frame().opcode == CLOSE
        assert client.wire.closed()
        assert client.wire.answer.ended


def test_the_deadline_of_requests_is_over_once_it_is_accepted(key: str) -> None:
    options = ("--limit-request-timeout", "0.4", "--ws-ping-interval", "0.2")
    with serving(APP, *options) as served, connected(served) as wire2:
        assert StreamPeer(wire2, f"/gated?key={key}").response.status == 504
        client = StreamPeer(wire2, "/echo")
        for _ in range(10):  # far longer than the deadline
            ping(client)
        client.text("still there")
        while (frame := client.frame()).opcode == PING:
            pass
        assert frame.data == b"still there"


# -- the server's stop ---------------------------------------------------------------------


def test_a_stop_closes_with_1012_and_tells_the_application(key: str) -> None:
    with serving(APP) as served, connected(served) as wire2:
        clients = [StreamPeer(wire2, "/echo") for _ in range(3)]
        clients[0].text("before")
        assert clients[0].message() == "before"
        served.process.signal(signal.SIGTERM)
        for client in clients:
            frame = client.frame()
            assert (frame.opcode, frame.code) == (CLOSE, 1012)
            client.wire.send(closing(1012))
            assert client.wire.closed()
            client.wire.end()
        while not wire2.closed:
            wire2.read()
        assert wire2.goaway is not None
        assert wire2.goaway.error_code == ErrorCodes.NO_ERROR
        outcome = served.process.end()
    assert outcome.status == 0
    assert "cut off" not in outcome.errors


def test_a_handshake_that_the_stop_finds_waiting_is_accepted_and_closed(key: str) -> None:
    with serving(APP) as served, connected(served) as wire2:
        wire = StreamWire(wire2, f"/stopping?key={key}", [VERSION])
        served.events(key)
        served.process.signal(signal.SIGTERM)
        assert wire.head().status == 200
        assert wire.exactly(4) == b"\x88\x02" + (1012).to_bytes(2)
        wire.send(closing(1012))
        assert wire.closed()
        wire.end()
        assert served.process.end().status == 0


def test_a_client_that_does_not_answer_does_not_hold_the_stop_up() -> None:
    with (
        serving(APP, "--ws-close-timeout", "0.3", "--graceful-timeout", "30") as served,
        connected(served) as wire2,
    ):
        client = StreamPeer(wire2, "/echo")
        served.process.signal(signal.SIGTERM)
        assert client.frame().code == 1012
        assert client.wire.closed()
        assert served.process.end().status == 0


def test_a_forced_stop_ends_at_once() -> None:
    with (
        serving(APP, "--graceful-timeout", "0.2", "--ws-close-timeout", "30") as served,
        connected(served) as wire2,
    ):
        client = StreamPeer(wire2, "/echo")
        served.process.signal(signal.SIGTERM)
        assert client.frame().code == 1012
        assert client.wire.closed()
        assert not client.wire.answer.ended
        assert served.process.end().status == 0
