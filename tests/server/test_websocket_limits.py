"""Bounds of WebSocket connections: sizes, queues, keep-alive, the ends of both sides."""

import signal
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.server.frames import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Peer,
    closing,
    encode,
    handshake,
    peer,
)
from tests.server.wire import PATIENCE, Served, Wire, serving

APP = "tests.server.ws_apps:app"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving(APP, "--ws-max-size", "100000", "--ws-max-queue", "8") as served:
        yield served
        assert served.get("/hello").body == b"hello"


# -- sizes ---------------------------------------------------------------------------------


def test_a_message_of_just_the_limit_is_served(server: Served) -> None:
    with peer(server, "/echo") as client:
        client.send(BINARY, bytes(100_000))
        assert client.message() == bytes(100_000)
        client.end()


def test_a_larger_frame_is_refused_by_its_head_alone(server: Served, key: str) -> None:
    with peer(server, f"/echo?key={key}") as client:
        client.wire.send(b"\x82\xff" + struct.pack("!Q", 100_001) + bytes(4))
        assert client.closed() == 1009
    assert server.events(key)[0].startswith("disconnect 1009")


def test_fragments_count_together(server: Served) -> None:
    with peer(server, "/echo") as client:
        client.send(BINARY, bytes(60_000), fin=False)
        # The second one's head says that it will be too much.
        client.wire.send(b"\x80\xfe" + struct.pack("!H", 40_001) + bytes(4))
        assert client.closed() == 1009


def test_a_peer_that_sends_on_after_it_was_refused_still_reads_why(server: Served) -> None:
    with peer(server, "/echo") as client:
        client.wire.send(encode(BINARY, bytes(400_000)))
        assert client.closed() == 1009


# -- queues --------------------------------------------------------------------------------


def fill(wire: Wire, data: bytes) -> int:
    """Sends ``data`` again and again until the socket takes no more for a second; how often."""
    wire.socket.settimeout(1)
    count = 0
    try:
        while count < 10_000:
            wire.socket.sendall(data)
            count += 1
    except TimeoutError:
        return count
    finally:
        wire.socket.settimeout(PATIENCE)
    raise AssertionError("the server takes everything")


def test_a_slow_application_holds_its_client_back(server: Served, key: str) -> None:
    with server.connect() as wire:
        # What the two sockets hold is bounded, so that what the server holds shows.
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        Peer(wire, f"/slow?key={key}")
        server.events(key)
        fill(wire, encode(BINARY, bytes(1 << 16)))


def test_held_back_messages_are_all_received_in_the_end(server: Served, key: str) -> None:
    with peer(server, f"/slow?key={key}") as client:
        server.events(key)
        client.wire.send(b"".join(encode(TEXT, b"%d" % n) for n in range(1000)))
        client.text("end")
        server.get(f"/release?key={key}")
        assert client.message() == "1000"
        client.end()


def test_a_close_behind_messages_that_wait_is_heard_in_the_end(server: Served, key: str) -> None:
    with peer(server, f"/slow?key={key}") as client:
        server.events(key)
        client.wire.send(b"".join(encode(TEXT, b"%d" % n) for n in range(100)))
        client.wire.send(encode(TEXT, b"end") + closing(1001))
        server.get(f"/release?key={key}")
        assert server.events(key, 2) == ["accepted", "disconnect 1001"]


def test_a_client_that_does_not_read_holds_the_application_back(server: Served, key: str) -> None:
    with server.connect() as wire:
        client = Peer(wire, f"/flood?key={key}")
        (sent,) = server.events(key)
        assert int(sent) < 64 << 20  # the two sockets', and the server's own 64 KiB
        # Everything comes once it reads.
        server.get(f"/release?key={key}")
        received = 0
        while (frame := client.frame()).opcode == BINARY:
            received += len(frame.data)
        assert received >= int(sent)
        assert frame.data == b"over"
        client.end()


def test_large_messages_one_after_the_other_come_whole_and_in_order(
    server: Served, key: str
) -> None:
    with peer(server, f"/push?key={key}&count=200&size=100000") as client:
        for number in range(200):
            data = client.message()
            assert isinstance(data, bytes)
            assert data == number.to_bytes(4) + b"." * 99_996
        client.end()
    assert server.events(key) == ["disconnect 1000"]


def test_a_flood_of_pings_that_nobody_reads_the_answers_of_is_held_back(server: Served) -> None:
    with server.connect() as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        Peer(wire, "/echo")
        fill(wire, encode(PING, b"x" * 125) * 500)
    assert server.get("/hello").body == b"hello"


# -- keep-alive ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lively() -> Iterator[Served]:
    options = ["--ws-ping-interval", "0.2", "--ws-ping-timeout", "4"]
    with serving(APP, *options, "--ws-close-timeout", "0.5") as served:
        yield served
        assert served.get("/hello").body == b"hello"


def test_pings_come_and_a_client_that_answers_stays(lively: Served) -> None:
    with peer(lively, "/echo") as client:
        for _ in range(5):
            frame = client.frame()
            assert frame.opcode == PING
            client.send(PONG, frame.data)
        client.text("still there")
        while (frame := client.frame()).opcode == PING:
            pass
        assert frame.data == b"still there"


def test_a_client_that_says_nothing_is_given_up(lively: Served, key: str) -> None:
    with peer(lively, f"/echo?key={key}") as client:
        while (frame := client.frame()).opcode == PING:
            pass
        assert (frame.opcode, frame.code) == (CLOSE, 1011)
        assert b"ping timeout" in frame.data
        assert client.wire.closed()
    assert lively.events(key) == ["disconnect 1006"]


def test_a_client_that_sends_but_answers_no_ping_is_alive(lively: Served) -> None:
    with peer(lively, "/echo") as client:
        pings = 0
        while pings < 25:  # longer than one that is silent may stay
            frame = client.frame()
            if frame.opcode == PING:
                pings += 1
                client.text("busy")
            else:
                assert frame.data == b"busy"


def test_a_client_that_we_hold_back_is_not_blamed_for_its_silence(lively: Served, key: str) -> None:
    with peer(lively, f"/slow?key={key}") as client:
        lively.events(key)
        client.wire.send(b"".join(encode(TEXT, b"%d" % n) for n in range(200)))
        for _ in range(25):  # pings that it answers, behind what nobody reads
            while (frame := client.frame()).opcode != PING:
                pass
            client.send(PONG, frame.data)
        client.text("end")
        lively.get(f"/release?key={key}")
        while (frame := client.frame()).opcode == PING:
            client.send(PONG, frame.data)
        assert frame.data == b"200"


def test_a_close_that_is_not_answered_ends_all_the_same(lively: Served, key: str) -> None:
    with peer(lively, f"/close?key={key}") as client:
        assert client.message() == "last"
        assert client.frame().opcode == CLOSE
        assert client.wire.closed()  # no ping after a close, and no waiting for ever


def test_no_pings_if_none_are_wanted() -> None:
    with (
        serving(APP, "--ws-ping-interval", "0", "--ws-ping-timeout", "0.1") as served,
        peer(served, "/echo") as client,
    ):
        client.wire.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.frame()
        client.wire.socket.settimeout(PATIENCE)
        client.text("quiet")
        assert client.message() == "quiet"


# -- the server's stop ---------------------------------------------------------------------


def test_a_stop_closes_with_1012_and_tells_the_application(key: str) -> None:
    with serving(APP) as served, peer(served, f"/echo?key={key}") as client:
        client.text("before")
        assert client.message() == "before"
        served.process.signal(signal.SIGTERM)
        frame = client.frame()
        assert (frame.opcode, frame.code) == (CLOSE, 1012)
        client.wire.send(closing(1012))
        assert client.wire.closed()
        outcome = served.process.end()
    assert outcome.status == 0
    assert "cut off" not in outcome.errors


def test_a_stop_sends_what_was_sent_before_first(key: str) -> None:
    with serving(APP) as served, peer(served, f"/push?key={key}&count=5&size=9000") as client:
        assert client.message()
        served.process.signal(signal.SIGTERM)
        for _ in range(4):
            assert client.message()
        assert client.frame().code == 1012


def test_a_client_that_does_not_answer_does_not_hold_the_stop_up() -> None:
    with (
        serving(APP, "--ws-close-timeout", "0.3", "--graceful-timeout", "30") as served,
        peer(served, "/echo") as client,
    ):
        served.process.signal(signal.SIGTERM)
        assert client.frame().code == 1012
        assert client.wire.closed()
        assert served.process.end().status == 0


def test_a_handshake_that_the_stop_finds_waiting_is_accepted_and_closed(key: str) -> None:
    with serving(APP) as served, served.connect() as wire:
        wire.send(handshake(f"/stopping?key={key}"))
        served.events(key)
        served.process.signal(signal.SIGTERM)
        assert wire.response().status == 101
        assert wire.exactly(4) == b"\x88\x02" + struct.pack("!H", 1012)
        wire.send(closing(1012))
        assert wire.closed()
        assert served.process.end().status == 0


def test_a_forced_stop_ends_at_once_and_the_application_hears_1006(key: str) -> None:
    with serving(APP, "--graceful-timeout", "0.2", "--ws-close-timeout", "30") as served:
        with peer(served, f"/echo?key={key}") as client:
            served.process.signal(signal.SIGTERM)
            assert client.frame().code == 1012
            assert client.wire.closed()
        assert served.process.end().status == 0


# -- switched off --------------------------------------------------------------------------


def test_without_websockets_the_request_is_an_ordinary_one() -> None:
    with serving(APP, "--ws", "none") as served, served.connect() as wire:
        wire.send(handshake("/hello"))
        response = wire.response()
        assert (response.status, response.body) == (200, b"hello")
        wire.send(handshake("/hello"))
        assert wire.response().status == 200


def test_a_fragmented_message_has_no_time_limit_but_the_ping_s(lively: Served) -> None:
    with peer(lively, "/echo") as client:
        client.send(TEXT, b"first ", fin=False)
        for _ in range(5):
            frame = client.frame()
            assert frame.opcode == PING
            client.send(PONG, frame.data)
        client.send(CONT, b"second")
        while (frame := client.frame()).opcode == PING:
            pass
        assert frame.data == b"first second"
