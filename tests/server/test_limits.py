"""Limits: what is too large, too slow or too much is refused, and everybody else is served."""

import json
import re
import resource
import selectors
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.server.frames import PING, PONG, peer
from tests.server.wire import PATIENCE, Served, Wire, serving

pytestmark = pytest.mark.rondel_server

APP = "tests.server.apps:app"


SLOW = "tests.server.slow:app"


def ask(served: Served, path: str) -> Wire:
    wire = served.connect()
    wire.send(f"GET {path} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
    return wire


def waiting(served: Served, count: int) -> None:
    """Until so many requests wait for the application."""
    end = time.monotonic() + PATIENCE
    while (
        f'rondel_requests_waiting{{worker="1"}} {count}\n' not in served.get("/-/m").body.decode()
    ):
        assert time.monotonic() < end, f"not {count} requests wait"


# -- too large ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Iterator[Served]:
    options = (
        *("--limit-header-bytes", "9000", "--limit-header-count", "20"),
        *("--limit-url-bytes", "200", "--limit-body-bytes", "1000"),
    )
    with serving(APP, *options) as served:
        yield served
        assert served.get("/hello").body == b"hello"


def test_a_target_over_the_limit_gets_414(small: Served) -> None:
    assert small.get("/hello?" + "q" * 193).status == 200
    with small.connect() as wire:
        assert wire.request("/hello?" + "q" * 194).status == 414
        assert wire.closed()


def test_headers_over_the_limit_get_431(small: Served) -> None:
    fits = "x: y\r\n" * 18
    with small.connect() as wire:
        assert wire.request("/hello", headers=fits).status == 200
    with small.connect() as wire:
        assert wire.request("/hello", headers=fits * 2).status == 431
        assert wire.closed()
    with small.connect() as wire:
        assert wire.request("/hello", headers=f"x: {'y' * 9000}\r\n").status == 431
        assert wire.closed()


def test_a_body_over_the_limit_gets_413_announced_or_not(small: Served) -> None:
    with small.connect() as wire:
        assert wire.request("/length", "POST", body=b"x" * 1000).body == b"1000"
        wire.send(b"POST /length HTTP/1.1\r\nhost: t\r\ncontent-length: 1001\r\n\r\n")
        assert wire.response().status == 413
        assert wire.closed()
    with small.connect() as wire:
        wire.send(b"POST /length HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
        wire.send(b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n")
        assert wire.response().status == 413
        assert wire.closed()


# -- too slow ----------------------------------------------------------------------------------


def test_slow_connections_do_not_hold_up_a_normal_client() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(1000, hard // 4)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4 * count), hard), hard))
    slow: list[socket.socket] = []
    try:
        with serving(APP, "--limit-header-timeout", "5") as served:
            assert not isinstance(served.address, str)
            for number in range(count):
                one = socket.create_connection(served.address)
                slow.append(one)
                one.sendall(b"GET /hello HTTP/1.1\r\nhost: t\r\nx: " + b"y" * (number % 7))
            for _ in range(20):
                assert served.get("/hello").body == b"hello"
            # They get their answer, and are let go.
            with selectors.DefaultSelector() as selector:
                for one in slow:
                    selector.register(one, selectors.EVENT_READ)
                left = count
                while left:
                    found = selector.select(30)
                    assert found, f"{left} slow connections are still open"
                    for key, _ in found:
                        assert isinstance(key.fileobj, socket.socket)
                        assert key.fileobj.recv(100).startswith(b"HTTP/1.1 408 ")
                        selector.unregister(key.fileobj)
                        left -= 1
            assert served.get("/hello").body == b"hello"
    finally:
        for one in slow:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_client_that_stops_within_its_body_gets_408() -> None:
    with serving(APP, "--limit-body-timeout", "0.3") as served, served.connect() as wire:
        wire.send(b"POST /length HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\nabc")
        assert wire.response().status == 408
        assert wire.closed()
        assert served.get("/hello").body == b"hello"


def test_a_client_that_reads_nothing_is_let_go() -> None:
    with serving(SLOW, "--limit-write-timeout", "0.3") as served, ask(served, "/endless"):
        served.process.wait_for("the client of /endless is gone")


# -- too much ----------------------------------------------------------------------------------


def test_requests_over_the_limit_wait_and_then_are_refused() -> None:
    options = ("--limit-concurrency", "1", "--limit-queue", "1")
    with serving(SLOW, *options) as served, ask(served, "/until-gone") as first:
        served.process.wait_for("/until-gone has begun")
        pair = [ask(served, "/hello"), ask(served, "/hello")]
        with pair[0], pair[1], selectors.DefaultSelector() as selector:
            for wire in pair:
                selector.register(wire.socket, selectors.EVENT_READ, wire)
            (key, _), *more = selector.select(PATIENCE)
            assert not more
            refused = key.data.response()
            assert (refused.status, refused.get("retry-after")) == (503, "1")
            first.close()
            pair.remove(key.data)
            assert pair[0].response().body == b"hello"


def test_places_go_to_those_that_wait_in_turn() -> None:
    options = ("--limit-concurrency", "1", "--limit-queue", "30", "--metrics", "/-/m")
    with serving(SLOW, *options) as served, ask(served, "/until-gone") as first:
        served.process.wait_for("/until-gone has begun")
        wires = []
        for number in range(20):
            wires.append(ask(served, f"/say?{number}"))
            waiting(served, number + 1)
        first.close()
        for number, wire in enumerate(wires):
            assert wire.response().body == b"hello"
            assert served.process.wait_for(r"/say\?(\d+)")[1] == str(number)
            wire.close()


def test_one_that_leaves_while_it_waits_gives_up_its_place() -> None:
    options = ("--limit-concurrency", "1", "--limit-queue", "1", "--metrics", "/-/m")
    with serving(SLOW, *options) as served, ask(served, "/until-gone") as first:
        served.process.wait_for("/until-gone has begun")
        for _ in range(3):
            with ask(served, "/say?never"):
                waiting(served, 1)
            waiting(served, 0)
        with ask(served, "/hello") as second:
            waiting(served, 1)
            first.close()
            assert second.response().body == b"hello"
        assert "never" not in "".join(served.process.errors)


# -- too late ----------------------------------------------------------------------------------


def test_a_handler_that_is_too_late_is_cancelled_and_its_client_gets_504() -> None:
    with serving(SLOW, "--limit-request-timeout", "0.4") as served, ask(served, "/wait") as wire:
        assert wire.response().status == 504
        served.process.wait_for(r"GET /wait: no response within 0.4 s")
        served.process.wait_for(r"in inner")  # where it waits, not where it began
        served.process.wait_for(r"/wait was cancelled")
        assert served.get("/hello").body == b"hello"
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
        assert '"GET /wait HTTP/1.1" 504' in outcome.output
        assert "Exception" not in outcome.errors


def test_a_handler_that_does_not_end_when_it_is_cancelled_is_told() -> None:
    with serving(SLOW, "--limit-request-timeout", "0.4") as served, ask(served, "/stay") as wire:
        assert wire.response().status == 504
        served.process.wait_for(r"GET /stay: it goes on, though cancelled")


def test_a_request_that_waited_too_long_gets_503() -> None:
    options = ("--limit-request-timeout", "0.4", "--limit-concurrency", "1")
    with serving(SLOW, *options) as served, ask(served, "/endless"):
        served.process.wait_for("/endless has begun")
        with ask(served, "/hello") as wire:
            answer = wire.response()
            assert (answer.status, answer.get("retry-after")) == (503, "1")


def test_a_response_that_has_begun_has_no_deadline() -> None:
    with serving(SLOW, "--limit-request-timeout", "0.1") as served, ask(served, "/drip") as wire:
        answer = wire.response()
        assert answer.body == b"drop" * 10


def test_a_body_that_the_client_owes_does_not_count() -> None:
    with serving(SLOW, "--limit-request-timeout", "1") as served, served.connect() as wire:
        wire.send(b"POST /read HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n")
        for _ in range(10):
            time.sleep(0.2)  # what the client takes is what is tested
            wire.send(b"x")
        assert wire.response().body == b"hello"


def test_a_websocket_connection_has_it_until_it_is_accepted(key: str) -> None:
    options = ("--limit-request-timeout", "0.4", "--ws-ping-interval", "0.2")
    with serving("tests.server.ws_apps:app", *options) as served:
        with peer(served, f"/gated?key={key}") as refused:
            assert refused.response.status == 504
        served.process.wait_for(r"WebSocket /gated: no response within 0.4 s")
        with peer(served, "/echo") as client:
            for _ in range(10):  # pings for far longer than the deadline
                frame = client.frame()
                assert frame.opcode == PING
                client.send(PONG, frame.data)
            client.text("still there")
            while (frame := client.frame()).opcode == PING:
                pass
            assert frame.data == b"still there"


def test_health_has_a_port_of_its_own() -> None:
    with serving(APP, "--health-port", "0") as served:
        said = "".join(served.process.errors)
        found = re.search(r"health is told on http://127\.0\.0\.1:(\d+)", said)
        assert found is not None
        port = int(found[1])
        with Wire(("127.0.0.1", port)) as wire:
            wire.send(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n")
            answer = wire.response()
        assert answer.status == 200
        told = json.loads(answer.body)
        assert told["status"] == "ok"
        assert [worker["pid"] for worker in told["workers"]] == [served.process.pid]
        # A slow client does not keep others from it for long.
        with Wire(("127.0.0.1", port)), Wire(("127.0.0.1", port)) as wire:
            wire.send(b"HEAD / HTTP/1.1\r\n\r\n")
            assert wire.response(head_only=True).status == 200
