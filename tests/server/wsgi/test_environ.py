"""What an application is given: `environ` and the input (PEP 3333), each rule on Rondel, and on the
standard library's server if that keeps it."""

import json
import re
import signal
from pathlib import Path

import pytest

from tests.server.wire import Served, serving
from tests.server.wsgi.asking import APPS, ask, environ

pytestmark = pytest.mark.rondel_server


# ----------------------------------------------------------------------------------- environ


def test_hello(server: Served) -> None:
    got = server.get("/hello")
    assert (got.status, got.body) == (200, b"hello")
    assert got.get("content-type") == "text/plain"
    assert got.get("content-length") == "5"


def test_environ_has_every_key_of_the_pep(server: Served) -> None:
    told = environ(server, "/environ/x?a=1&b=%20", headers="X-One: 1\r\nContent-Type: text/x\r\n")
    assert told["REQUEST_METHOD"] == "GET"
    assert told["SCRIPT_NAME"] == ""
    assert told["PATH_INFO"] == "/environ/x"
    assert told["QUERY_STRING"] == "a=1&b=%20"
    assert told["CONTENT_TYPE"] == "text/x"
    assert told["SERVER_NAME"]
    assert told["SERVER_PORT"] == str(server.address[1])
    assert told["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert told["REMOTE_ADDR"] == "127.0.0.1"
    assert told["HTTP_HOST"] == "test"
    assert told["HTTP_X_ONE"] == "1"
    assert told["wsgi.version"] == [1, 0]
    assert told["wsgi.url_scheme"] == "http"
    assert told["wsgi.multithread"] in (True, False)
    assert told["wsgi.multiprocess"] is False
    assert told["wsgi.run_once"] is False
    assert "HTTP_CONTENT_TYPE" not in told


def test_threads_are_told_of(rondel: Served) -> None:
    assert environ(rondel)["wsgi.multithread"] is True


def test_no_query_is_an_empty_one(server: Served) -> None:
    assert environ(server)["QUERY_STRING"] == ""


@pytest.mark.parametrize(
    ("path", "decoded"),
    [
        ("/environ/a%20b", b"/environ/a b"),
        ("/environ/%C3%A9", "/environ/é".encode()),
        ("/environ/%FF%00", b"/environ/\xff\x00"),
        ("/environ/%2F%zz%4", b"/environ//%zz%4"),
        ("/environ/+", b"/environ/+"),
    ],
)
def test_the_path_is_its_bytes_as_latin_1(server: Served, path: str, decoded: bytes) -> None:
    assert environ(server, path)["PATH_INFO"].encode("latin-1") == decoded


def test_header_values_are_latin_1(server: Served) -> None:
    assert environ(server, headers="X-One: \xe9\r\n")["HTTP_X_ONE"] == "\xe9"


def test_repeated_headers_are_joined(server: Served) -> None:
    told = environ(server, headers="X-One: 1\r\nX-One: 2\r\nX-Two: 3\r\n")
    assert re.fullmatch("1, ?2", told["HTTP_X_ONE"])
    assert told["HTTP_X_TWO"] == "3"


def test_repeated_cookies_are_joined_as_cookies_are(rondel: Served) -> None:
    told = environ(rondel, headers="Cookie: a=1\r\nCookie: b=2\r\n")
    assert told["HTTP_COOKIE"] == "a=1; b=2"


def test_a_repeated_content_type_counts_once(server: Served) -> None:
    told = environ(server, headers="Content-Type: a/b\r\nContent-Type: c/d\r\n")
    assert told["CONTENT_TYPE"] == "a/b"


def test_names_with_underscores_cannot_forge_others(rondel: Served) -> None:
    told = environ(rondel, headers="X_Real_IP: 6.6.6.6\r\nX_Other: 1\r\nX-Real-Port: 1\r\n")
    assert "HTTP_X_REAL_IP" not in told
    assert "HTTP_X_OTHER" not in told
    assert "" not in told
    assert told["HTTP_X_REAL_PORT"] == "1"


def test_names_by_the_thousand_are_told_and_not_kept(rondel: Served) -> None:
    for number in range(40):
        names = [f"X-{number}-{i}" for i in range(50)]
        told = environ(rondel, headers="".join(f"{name}: v\r\n" for name in names))
        for name in names:
            assert told["HTTP_" + name.upper().replace("-", "_")] == "v"


def test_http_1_0(server: Served) -> None:
    with server.connect() as wire:
        wire.send(b"GET /environ HTTP/1.0\r\n\r\n")
        told = json.loads(wire.response().body)
    assert told["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert "HTTP_HOST" not in told


def test_an_absolute_target_gives_its_path(rondel: Served) -> None:
    told = environ(rondel, "http://test/environ/x?q")
    assert (told["PATH_INFO"], told["QUERY_STRING"]) == ("/environ/x", "q")


def test_root_path_is_script_name() -> None:
    with serving(f"{APPS}:app", "--root-path", "/präfix/x") as served:
        told = environ(served, "/environ/%C3%A9")
    assert told["SCRIPT_NAME"].encode("latin-1") == "/präfix/x".encode()
    assert told["PATH_INFO"].encode("latin-1") == "/environ/é".encode()


def test_over_a_unix_socket_the_names_are_the_clients(tmp_path: Path) -> None:
    with serving(f"{APPS}:app", uds=tmp_path / "socket") as served:
        told = environ(served, headers="X-One: 1\r\n")
        assert (told["SERVER_NAME"], told["SERVER_PORT"]) == ("test", "80")
        assert told["REMOTE_ADDR"] == ""
        with served.connect() as wire:
            wire.send(b"GET /environ HTTP/1.1\r\nhost: [::1]:81\r\n\r\n")
            told = json.loads(wire.response().body)
        assert (told["SERVER_NAME"], told["SERVER_PORT"]) == ("[::1]", "81")
        with served.connect() as wire:
            wire.send(b"GET /environ HTTP/1.0\r\n\r\n")
            told = json.loads(wire.response().body)
        assert (told["SERVER_NAME"], told["SERVER_PORT"]) == ("localhost", "80")


def test_the_standard_validator_finds_nothing() -> None:
    with serving(f"{APPS}:valid", "--interface", "wsgi") as served:
        for method, body in (("GET", b""), ("POST", b"body"), ("HEAD", b"")):
            for target in ("/hello", "/body", "/environ/%C3%A9?a=1", "/pieces", "/none", "/write"):
                assert ask(served, target, method, body=body).status == 200, (method, target)
        served.process.signal(signal.SIGTERM)
        assert "AssertionError" not in served.process.end().errors


# ------------------------------------------------------------------------------ the input


LINES = b"first\nsecond\r\n\nlast"


@pytest.mark.parametrize("how", ["read", "lines", "line", "iterate"])
def test_the_input_is_read_in_every_way(server: Served, how: str, wsgiref: Served) -> None:
    if how != "read" and server is wsgiref:
        pytest.skip("its input is the socket: reading to the end waits for the client")
    got = ask(server, f"/body?how={how}", "POST", body=LINES)
    kept = LINES if how == "read" else b"first\n|second\r\n|\n|last"
    assert got.body == kept
    assert got.get("x-length") == str(len(LINES))


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_a_body_of_any_size_ends(rondel: Served, size: int) -> None:
    body = bytes(i % 251 for i in range(1000)) * (size // 1000 + 1)
    body = body[:size]
    assert ask(rondel, "/body?how=all", "POST", body=body).body == body


@pytest.mark.parametrize("size", [4, 1_500_000])
def test_a_chunked_body_has_a_length(rondel: Served, size: int) -> None:
    head = b"POST %s HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"
    data = b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size)
    with rondel.connect() as wire:
        wire.send(head % b"/body?how=read" + data)
        got = wire.response()
        assert (got.body, got.get("x-length")) == (b"x" * size, str(size))
        wire.send(head % b"/environ" + data)
        told = json.loads(wire.response().body)
    assert "HTTP_TRANSFER_ENCODING" not in told
    assert told["wsgi.input_terminated"] is True


def test_a_body_that_nobody_reads_leaves_the_connection_in_order(rondel: Served) -> None:
    with rondel.connect() as wire:
        assert wire.request("/hello", "POST", body=b"x" * 100_000).body == b"hello"
        assert wire.request("/hello").body == b"hello"


def test_errors_go_to_stderr(rondel: Served) -> None:
    rondel.get("/errors")
    rondel.process.wait_for("^one written line$")
    rondel.process.wait_for("^two written lines$")
