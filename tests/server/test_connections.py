"""Connections: keep-alive, pipelining, closing, bad requests, many clients."""

import re
import threading

import pytest

from tests.server.wire import Closed, Served, Wire


def test_a_connection_serves_many_requests(wire: Wire) -> None:
    for _ in range(50):
        assert wire.request("/hello").body == b"hello"


@pytest.mark.parametrize("header", ["connection: close\r\n", "Connection: Close\r\n"])
def test_connection_close_is_obeyed(wire: Wire, header: str) -> None:
    answer = wire.request("/hello", headers=header)
    assert answer.body == b"hello"
    assert (answer.get("connection") or "").lower() == "close"
    assert wire.closed()


def test_the_application_may_close(wire: Wire) -> None:
    assert wire.request("/close").body == b"bye"
    assert wire.closed()


def test_http_1_0_closes_unless_asked_to_stay(server: Served) -> None:
    with server.connect() as wire:
        wire.send(b"GET /hello HTTP/1.0\r\n\r\n")
        assert wire.response().body == b"hello"
        assert wire.closed()


def test_http_1_0_may_ask_to_stay(wire: Wire) -> None:
    for _ in range(2):
        wire.send(b"GET /hello HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        answer = wire.response()
        assert answer.body == b"hello"
        if (answer.get("connection") or "").lower() != "keep-alive":
            assert wire.closed()  # a server need not agree, but must say so
            return


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    wire.send(
        b"GET /hello HTTP/1.1\r\nhost: t\r\n\r\n"
        b"POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nabc"
        b"GET /parts?count=2 HTTP/1.1\r\nhost: t\r\n\r\n"
        b"GET /status?code=404 HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"
    )
    assert wire.response().body == b"hello"
    assert wire.response().body == b"abc"
    assert wire.response().body == b"part0;part1;"
    assert wire.response().status == 404
    assert wire.closed()


def test_a_request_in_single_bytes_is_understood(wire: Wire) -> None:
    for byte in b"POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\nok":
        wire.send(bytes([byte]))
    assert wire.response().body == b"ok"


@pytest.mark.rondel_server
def test_empty_lines_before_a_request_are_skipped(wire: Wire) -> None:
    wire.send(b"\r\nGET /hello HTTP/1.1\r\nhost: t\r\n\r\n")
    assert wire.response().body == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", marks=pytest.mark.rondel_server),
        b"GET /hello HTTP/1.1\r\nhost: t\r\nbad header\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nhost: t\r\nsp ace: 1\r\n\r\n",
        b"POST /length HTTP/1.1\r\nhost: t\r\ncontent-length: x\r\n\r\n",
        b"POST /length HTTP/1.1\r\nhost: t\r\ncontent-length: -1\r\n\r\n",
        b"POST /length HTTP/1.1\r\nhost: t\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS client on the wrong port
        b"GET /hello HTTP/1.1\r\nhost: t\r\nx: a\0b\r\n\r\n",
    ],
)
def test_a_bad_request_is_refused_and_its_connection_closed(server: Served, data: bytes) -> None:
    with server.connect() as wire:
        wire.send(data)
        answer = wire.rest()
        assert answer == b"" or re.match(rb"HTTP/1\.1 (400|505) ", answer)
    assert server.get("/hello").body == b"hello"


def test_a_bad_chunk_does_not_reach_the_application_as_data(server: Served) -> None:
    with server.connect() as wire:
        wire.send(
            b"POST /length HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nab\r\n"
        )
        assert b" 200 " not in wire.rest()
    assert server.get("/hello").body == b"hello"


@pytest.mark.rondel_server
def test_two_framings_at_once_are_refused_or_closed(server: Served) -> None:
    # Request smuggling: either a 400, or transfer-encoding wins and the connection ends.
    with server.connect() as wire:
        wire.send(
            b"POST /length HTTP/1.1\r\nhost: t\r\ncontent-length: 30\r\n"
            b"transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /hello HTTP/1.1\r\n\r\n"
        )
        assert wire.rest().count(b"HTTP/1.1 ") == 1


@pytest.mark.rondel_server
@pytest.mark.parametrize("size", [100_000, 10_000_000])
def test_a_head_over_the_limit_is_refused(server: Served, size: int) -> None:
    with server.connect() as wire:
        try:
            wire.send(b"GET /hello HTTP/1.1\r\nhost: t\r\nx: " + b"y" * size + b"\r\n\r\n")
        except OSError:
            return  # closed while we were still sending
        answer = wire.rest()
        assert answer == b"" or answer.split(b" ", 2)[1] in (b"400", b"431")


@pytest.mark.rondel_server
def test_too_many_headers_are_refused(server: Served) -> None:
    with server.connect() as wire:
        wire.send(b"GET /hello HTTP/1.1\r\nhost: t\r\n" + b"x: y\r\n" * 5000 + b"\r\n")
        assert wire.rest().split(b" ", 2)[1] in (b"400", b"431")


def test_a_client_that_leaves_without_a_word_is_no_error(server: Served) -> None:
    for data in (
        b"",
        b"GET /hel",
        b"POST /length HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\nab",
    ):
        with server.connect() as wire:
            wire.send(data)
    assert server.get("/hello").body == b"hello"


def test_many_clients_at_once(server: Served) -> None:
    failures: list[BaseException] = []

    def talk(number: int) -> None:
        try:
            with server.connect() as wire:
                for _ in range(20):
                    body = b"%d" % number * 100
                    assert wire.request("/echo", "POST", body=body).body == body
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_slow_request_does_not_hold_up_the_others(server: Served, key: str) -> None:
    with server.connect() as slow:
        slow.send(f"GET /hold?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        server.events(key)
        for _ in range(10):
            assert server.get("/hello").body == b"hello"
        server.get(f"/release?key={key}")
        assert slow.response().body == b"held"


def test_the_connection_is_reusable_after_an_application_error(server: Served) -> None:
    with server.connect() as wire:
        assert wire.request("/raise_before").status == 500
        try:
            assert wire.request("/hello").body == b"hello"
        except (Closed, OSError):
            assert server.get("/hello").body == b"hello"
