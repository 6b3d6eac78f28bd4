"""Request smuggling: what two readers may take for different requests is refused (RFC 9112).

One table, one server. Each case is what a client sends, with the section that it is about. What is
refused gets one answer and no more: the request that is hidden behind it is never heard of.
"""

from collections.abc import Iterator

import pytest

from tests.server.wire import Served, serving

pytestmark = pytest.mark.rondel_server

# Hidden behind each case: its handler raises, which the log would tell.
SMUGGLED = b"GET /raise_before HTTP/1.1\r\nhost: t\r\n\r\n"
POST = b"POST /length HTTP/1.1\r\nhost: t\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"

# Section, what it is, the status, the bytes.
REFUSED = [
    # Lines.
    ("2.2", "a bare LF ends the request line", 400, b"GET /hello HTTP/1.1\nhost: t\r\n\r\n"),
    ("2.2", "a bare LF ends a header line", 400, POST + b"x: y\ncontent-length: 3\r\n\r\nabc"),
    ("2.2", "bare LFs throughout", 400, b"GET /hello HTTP/1.1\nhost: t\n\n"),
    ("2.2", "a bare LF is the blank line", 400, b"GET /hello HTTP/1.1\r\nhost: t\r\n\n"),
    ("2.2", "a bare LF before the request line", 400, b"\nGET /hello HTTP/1.1\r\nhost: t\r\n\r\n"),
    ("2.2", "a bare CR in a value", 400, POST + b"x: a\rb\r\n\r\n"),
    ("2.2", "a bare CR is a line's end", 400, POST + b"x: a\rcontent-length: 3\r\r\n\r\n"),
    ("2.2", "white space before the first header", 400, POST[:-9] + b" host: t\r\n\r\n"),
    ("2.2", "CR CR LF", 400, POST + b"x: y\r\r\n\r\n"),
    # Request line.
    ("3", "two spaces", 400, b"GET  /hello HTTP/1.1\r\nhost: t\r\n\r\n"),
    ("3", "a tab for a space", 400, b"GET\t/hello HTTP/1.1\r\nhost: t\r\n\r\n"),
    ("3", "a space in the target", 400, b"GET /hel lo HTTP/1.1\r\nhost: t\r\n\r\n"),
    ("3", "a space behind the version", 400, b"GET /hello HTTP/1.1 \r\nhost: t\r\n\r\n"),
    ("3", "a space before the method", 400, b" GET /hello HTTP/1.1\r\nhost: t\r\n\r\n"),
    ("3", "no version", 400, b"GET /hello\r\nhost: t\r\n\r\n"),
    ("3.1", "a method that is no token", 400, b"GE(T /hello HTTP/1.1\r\nhost: t\r\n\r\n"),
    ("2.3", "a version that is none", 400, b"GET /hello HTTP/1.10\r\nhost: t\r\n\r\n"),
    ("2.3", "a version in lower case", 400, b"GET /hello http/1.1\r\nhost: t\r\n\r\n"),
    ("3.2", "no Host", 400, b"GET /hello HTTP/1.1\r\n\r\n"),
    ("3.2", "two Hosts", 400, POST + b"host: other\r\n\r\n"),
    # Header lines.
    ("5.1", "white space before the colon", 400, POST + b"content-length : 3\r\n\r\nabc"),
    ("5.1", "a tab before the colon", 400, POST + b"transfer-encoding\t: chunked\r\n\r\n"),
    ("5.1", "no colon", 400, POST + b"x\r\n\r\n"),
    ("5.1", "no name", 400, POST + b": y\r\n\r\n"),
    ("5.2", "a folded line", 400, POST + b"x: y\r\n content-length: 3\r\n\r\nabc"),
    ("5.2", "a line folded by a tab", 400, POST + b"x: y\r\n\tcontent-length: 3\r\n\r\nabc"),
    ("9110, 5.5", "NUL in a value", 400, POST + b"x: a\0b\r\n\r\n"),
    ("9110, 5.1", "NUL in a name", 400, POST + b"x\0: b\r\n\r\n"),
    # Content-Length.
    ("6.3", "two lengths", 400, POST + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc"),
    ("6.3", "the same twice", 400, POST + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc"),
    ("6.3", "a list of lengths", 400, POST + b"content-length: 3, 3\r\n\r\nabc"),
    ("6.2", "a sign", 400, POST + b"content-length: +3\r\n\r\nabc"),
    ("6.2", "a minus sign", 400, POST + b"content-length: -3\r\n\r\nabc"),
    ("6.2", "a hexadecimal number", 400, POST + b"content-length: 0x3\r\n\r\nabc"),
    ("6.2", "a space within", 400, POST + b"content-length: 3 3\r\n\r\nabc"),
    ("6.2", "a fraction", 400, POST + b"content-length: 3.0\r\n\r\nabc"),
    ("6.2", "nothing", 400, POST + b"content-length:\r\n\r\nabc"),
    ("6.2", "too large a number", 400, POST + b"content-length: 99999999999999999999\r\n\r\nabc"),
    # Transfer-Encoding.
    (
        "6.1",
        "Content-Length, then Transfer-Encoding",
        400,
        POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "6.1",
        "Transfer-Encoding, then Content-Length",
        400,
        POST + b"transfer-encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        "6.1",
        "a length of 0 beside it",
        400,
        POST + b"content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "6.1",
        "chunked twice, on two lines",
        400,
        POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "6.1",
        "chunked, then identity on another line",
        400,
        POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    ),
    ("6.1", "chunked twice", 501, POST + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("6.1", "a coding before it", 501, POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("6.1", "an empty one before it", 501, POST + b"transfer-encoding: , chunked\r\n\r\n0\r\n\r\n"),
    ("6.3", "chunked, identity", 400, POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n"),
    ("6.3", "another coding alone", 400, POST + b"transfer-encoding: gzip\r\n\r\n0\r\n\r\n"),
    ("6.3", "another name", 400, POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("6.3", "a parameter", 400, POST + b"transfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
    ("6.3", "in quotes", 400, POST + b'transfer-encoding: "chunked"\r\n\r\n0\r\n\r\n'),
    ("6.3", "a vertical tab", 400, POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    (
        "6.1",
        "in a request of HTTP/1.0",
        400,
        b"POST /length HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    # Chunks.
    ("7.1", "a bare LF behind the size", 400, CHUNKED + b"3\nabc\r\n0\r\n\r\n"),
    ("7.1", "a bare LF behind the data", 400, CHUNKED + b"3\r\nabc\n0\r\n\r\n"),
    ("7.1", "a bare LF is the end", 400, CHUNKED + b"3\r\nabc\r\n0\r\n\n"),
    ("7.1", "a bare LF behind the last size", 400, CHUNKED + b"3\r\nabc\r\n0\n\r\n"),
    ("7.1", "more data than its size", 400, CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n"),
    ("7.1", "less data than its size", 400, CHUNKED + b"4\r\nabc\r\n0\r\n\r\n"),
    ("7.1", "a sign", 400, CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n"),
    ("7.1", "a minus sign", 400, CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n"),
    ("7.1", "a prefix", 400, CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n"),
    ("7.1", "no size", 400, CHUNKED + b"\r\n0\r\n\r\n"),
    ("7.1", "a space before the size", 400, CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n"),
    ("7.1", "a size of more than 64 bits", 400, CHUNKED + b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("7.1", "a size that wraps round", 400, CHUNKED + b"ffffffffffffffff1\r\nabc\r\n0\r\n\r\n"),
    ("7.1.1", "a bare LF in an extension", 400, CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    ("7.1.1", "a bare CR in an extension", 400, CHUNKED + b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
    ("7.1.2", "a bare LF in trailers", 400, CHUNKED + b"0\r\nx: y\n\r\n"),
    ("7.1.2", "a trailer without a colon", 400, CHUNKED + b"0\r\nGET / HTTP/1.1\r\n\r\n"),
]

# Section, what it is, the bytes, the bodies of the answers: what is understood as it is meant.
ANSWERED = [
    ("2.2", "blank lines before the request", b"\r\n\r\n" + POST + b"\r\n", [b"0"]),
    ("5.1", "white space around a value", POST + b"content-length: \t3 \r\n\r\nabc", [b"3"]),
    ("6.3", "LFs in a body", POST + b"content-length: 5\r\n\r\n\n\r\n\r\n", [b"5"]),
    ("7.1", "LFs in a chunk", CHUNKED + b"5\r\n\n\r\n\r\n\r\n0\r\n\r\n", [b"5"]),
    ("7.1", "leading zeros", CHUNKED + b"0003\r\nabc\r\n000\r\n\r\n", [b"3"]),
    ("7.1.1", "extensions", CHUNKED + b'3;a=b;c="d"\r\nabc\r\n0;e\r\n\r\n', [b"3"]),
    ("7.1.2", "trailers", CHUNKED + b"3\r\nabc\r\n0\r\ncontent-length: 9\r\n\r\n", [b"3"]),
    ("7", "its name in any case", POST + b"Transfer-ENCODING: Chunked\r\n\r\n0\r\n\r\n", [b"0"]),
    (
        "9.3.2",
        "one behind the other",
        POST + b"content-length: 2\r\n\r\nab" + CHUNKED + b"1\r\nx\r\n0\r\n\r\n" + POST + b"\r\n",
        [b"2", b"1", b"0"],
    ),
    (
        "3.2.2",
        "another Host than the target's",
        b"GET http://t/hello HTTP/1.1\r\nhost: other\r\n\r\n",
        [b"hello"],
    ),
]


@pytest.fixture(scope="module")
def strict() -> Iterator[Served]:
    with serving() as served:
        yield served
        assert served.get("/hello").body == b"hello"
        assert "raise_before" not in "".join(served.process.errors)


@pytest.mark.parametrize(
    ("status", "sent"),
    [case[2:] for case in REFUSED],
    ids=[f"{case[0]} {case[1]}" for case in REFUSED],
)
@pytest.mark.parametrize("parts", [1, 2], ids=["whole", "behind another"])
def test_it_is_refused(strict: Served, status: int, sent: bytes, parts: int) -> None:
    before = [CHUNKED + b"2\r\nab\r\n0\r\n\r\n"] * (parts - 1)
    with strict.connect() as wire:
        wire.send(b"".join([*before, sent, SMUGGLED]))
        for _ in before:
            assert wire.response().body == b"2"
        answer = wire.response()
        assert (answer.status, answer.get("connection")) == (status, "close")
        assert wire.closed()


@pytest.mark.parametrize(
    ("sent", "bodies"),
    [case[2:] for case in ANSWERED],
    ids=[f"{case[0]} {case[1]}" for case in ANSWERED],
)
def test_it_is_understood(strict: Served, sent: bytes, bodies: list[bytes]) -> None:
    with strict.connect() as wire:
        wire.send(sent)
        assert [wire.response().body for _ in bodies] == bodies
        # It has ended where it ended: another request is understood.
        assert wire.request("/hello").body == b"hello"


def test_what_comes_behind_an_upgrade_that_is_not_made_is_no_request(strict: Served) -> None:
    with strict.connect() as wire:
        upgrade = b"GET /hello HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
        wire.send(upgrade + SMUGGLED)
        answer = wire.response()
        assert (answer.body, answer.get("connection")) == (b"hello", "close")
        assert wire.closed()
    with strict.connect() as wire:  # behind its answer it is
        wire.send(upgrade)
        assert wire.response().body == b"hello"
        assert wire.request("/hello").body == b"hello"
        wire.send(b"GET /hello HTTP/1.1\nhost: t\n\n")
        assert wire.response().status == 400


def test_the_preface_of_http_2_may_come_in_pieces(strict: Served) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = b"\0\0\0\x04\0\0\0\0\0"
    for at in (1, 14, 18, 23):
        with strict.connect() as wire:
            wire.send(preface[:at])
            # Another connection's answer: these bytes have been read by then, or come together.
            assert strict.get("/hello").body == b"hello"
            wire.send(preface[at:] + settings)
            assert wire.exactly(9)[3] == 4  # its own settings
