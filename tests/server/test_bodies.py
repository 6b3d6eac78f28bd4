"""Bodies in both directions: streaming, framing, backpressure."""

import contextlib
import json
import threading

import httpx
import pytest

from tests.server.wire import Closed, Served, Wire


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


# -- requests ------------------------------------------------------------------------------


def test_a_request_without_a_body_gives_one_empty_message(wire: Wire) -> None:
    answer = wire.request("/messages")
    assert json.loads(answer.body) == [["http.request", "bytes", False]]


@pytest.mark.parametrize("size", [1, 1000, 65536, 1_000_000])
def test_a_body_comes_back_whole(wire: Wire, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert wire.request("/echo", "POST", body=body).body == body
    assert wire.request("/length", "POST", body=body).body == b"%d" % size


def test_a_chunked_body_comes_back_whole(wire: Wire) -> None:
    head = b"POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"
    wire.send(head + chunked(b"one ", b"two ", b"three" * 1000))
    assert wire.response().body == b"one two " + b"three" * 1000


def test_a_body_that_comes_in_pieces_is_passed_on_as_it_comes(wire: Wire) -> None:
    wire.send(b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 8\r\n\r\n")
    wire.send(b"abcd")
    assert wire._until(b"abcd").endswith(b"abcd")  # echoed before the rest was sent
    wire.send(b"efgh")
    assert b"efgh" in wire._until(b"0\r\n\r\n")


def test_chunk_extensions_and_trailers_are_not_part_of_the_body(wire: Wire) -> None:
    wire.send(
        b"POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3;name=value\r\nabc\r\n0\r\nx-trailer: yes\r\n\r\n"
    )
    assert wire.response().body == b"abc"
    assert wire.request("/hello").body == b"hello"


def test_expect_100_continue_is_answered_when_the_body_is_asked_for(wire: Wire) -> None:
    wire.send(
        b"POST /length HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"
    )
    assert wire.response().status == 100
    wire.send(b"body")
    assert wire.response().body == b"4"


def test_expect_100_continue_is_not_answered_when_nobody_reads_the_body(server: Served) -> None:
    with server.connect() as wire:
        wire.send(
            b"POST /ignore HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n"
            b"expect: 100-continue\r\n\r\n"
        )
        assert wire.response().body == b"ignored"


def test_a_body_that_nobody_reads_does_not_confuse_the_next_request(server: Served) -> None:
    with server.connect() as wire:
        assert wire.request("/ignore", "POST", body=b"x" * 1000).body == b"ignored"
        assert wire.request("/hello").body == b"hello"


def test_a_large_body_that_nobody_reads_ends_in_an_answer(server: Served) -> None:
    with server.connect() as wire:
        sender = threading.Thread(target=send_quietly, args=(wire, b"x" * 20_000_000))
        wire.send(b"POST /ignore HTTP/1.1\r\nhost: test\r\ncontent-length: 20000000\r\n\r\n")
        sender.start()
        assert wire.response().body == b"ignored"
        wire.close()
        sender.join()


def test_a_client_that_looks_up_after_its_upload_finds_the_answer(server: Served) -> None:
    """As browsers do: a connection that is closed under them tells them of no response."""
    with server.connect() as wire:
        wire.send(b"POST /ignore HTTP/1.1\r\nhost: test\r\ncontent-length: 20000000\r\n\r\n")
        wire.send(b"x" * 20_000_000)
        assert wire.response().body == b"ignored"


def send_quietly(wire: Wire, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the server may close instead of reading it all
        wire.send(data)


def test_a_slow_application_slows_the_sender_down(server: Served, key: str) -> None:
    size = 50_000_000
    with server.connect() as wire:
        wire.send(
            b"POST /slow_reader?key=%s HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n"
            % (key.encode(), size)
        )
        server.events(key)
        wire.socket.settimeout(0.3)
        sent, chunk = 0, b"x" * 65536
        try:
            while sent < size:
                sent += wire.socket.send(chunk[: size - sent])
        except TimeoutError:
            pass
        assert sent < size / 2, "the server took it all in before the application asked"
        wire.socket.settimeout(10)
        server.get(f"/release?key={key}")
        while sent < size:
            sent += wire.socket.send(chunk[: size - sent])
        assert wire.response().body == b"%d" % size


# -- responses -----------------------------------------------------------------------------


def test_parts_without_a_length_arrive_whole(wire: Wire) -> None:
    # Parts that are there before the head goes out may be framed by their length.
    answer = wire.request("/parts?count=3")
    framing = (answer.get("transfer-encoding"), answer.get("content-length"))
    assert framing in (("chunked", None), (None, "18"))
    assert answer.body == b"part0;part1;part2;"
    assert wire.request("/hello").body == b"hello"


def test_each_part_is_sent_when_it_is_written(server: Served, wire: Wire, key: str) -> None:
    wire.send(f"GET /parts?count=2&gate=1&key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
    assert wire._until(b"part0;")  # the application waits now
    server.get(f"/release?key={key}")
    assert b"part1;" in wire._until(b"0\r\n\r\n")


def test_http_1_0_gets_parts_until_the_close(wire: Wire) -> None:
    wire.send(b"GET /parts?count=3 HTTP/1.0\r\n\r\n")
    answer = wire.response()
    assert answer.get("transfer-encoding") is None
    assert answer.body == b"part0;part1;part2;"


def test_a_slow_client_slows_the_application_down(server: Served, wire: Wire, key: str) -> None:
    count = 1000  # of 64 KiB
    wire.send(f"GET /fast_writer?count={count}&key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
    seen, before = server.events(key), 0
    while len(seen) != before:  # until the application stands still
        before = len(seen)
        seen = server.events(key)
    assert len(seen) < count / 2, "the server took it all in before the client asked"
    assert len(wire.response().body) == count * 65536


@pytest.mark.parametrize("target", ["/hello", "/parts", "/status?code=200&body=text"])
def test_head_has_no_body(wire: Wire, target: str) -> None:
    answer = wire.request(target, "HEAD")
    assert answer.status == 200
    assert wire.request("/hello").body == b"hello"  # and nothing of it is left in between


def test_head_keeps_the_content_length(wire: Wire) -> None:
    assert wire.request("/hello", "HEAD").get("content-length") == "5"


@pytest.mark.parametrize("code", [204, 304])
def test_statuses_without_a_body_have_none(wire: Wire, code: int) -> None:
    answer = wire.request(f"/status?code={code}")
    assert answer.status == code
    assert answer.get("transfer-encoding") is None
    assert wire.request("/hello").body == b"hello"


@pytest.mark.parametrize("code", [200, 201, 301, 404, 418, 500, 599])
def test_statuses_pass_through(wire: Wire, code: int) -> None:
    answer = wire.request(f"/status?code={code}&body=text")
    assert (answer.status, answer.body) == (code, b"text")


def test_response_headers_keep_order_duplicates_and_bytes(wire: Wire) -> None:
    answer = wire.request("/headers")
    names = [name for name, _ in answer.headers if name.startswith(("set-", "x-"))]
    assert names == ["set-cookie", "set-cookie", "x-mixed-case", "x-latin", "x-empty"]
    values = [value for name, value in answer.headers if name == "set-cookie"]
    assert values == ["a=1", "b=2"]
    assert answer.get("x-latin") == "é"
    assert answer.get("x-empty") == ""
    assert answer.get("date")


def test_messages_may_be_any_mapping_and_headers_any_iterable(wire: Wire) -> None:
    answer = wire.request("/crash_task")
    assert answer.body == b"subclass"
    assert answer.get("a") == "b"


def test_a_response_shorter_than_its_length_is_never_passed_off_as_whole(server: Served) -> None:
    with server.connect() as wire:
        try:
            answer = wire.request("/short_response")
        except Closed:
            return
        assert answer.status == 500  # nothing had gone out yet


def test_a_response_that_ends_short_after_its_head_is_cut_off(server: Served, key: str) -> None:
    with server.connect() as wire:
        wire.send(f"GET /short_response?key={key}&gate=1 HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        assert wire._until(b"begin")
        server.get(f"/release?key={key}")
        assert wire.rest() in (b"", b"end")


def test_a_response_never_exceeds_its_length(server: Served) -> None:
    with server.connect() as wire:
        wire.send(b"GET /long_response HTTP/1.1\r\nhost: test\r\n\r\n")
        answer = wire.rest()  # cut off, or an error, but never more than was announced
        assert not answer.partition(b"\r\n\r\n")[2].startswith(b"longer")
    assert server.get("/hello").body == b"hello"


def test_httpx_streams_both_ways(server: Served) -> None:
    parts = [b"%d;" % number * 1000 for number in range(200)]
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        with client.stream("POST", "/echo", content=iter(parts)) as answer:
            assert b"".join(answer.iter_raw()) == b"".join(parts)
        assert client.get("/hello").text == "hello"
        assert client.post("/length", content=b"12345").text == "5"
