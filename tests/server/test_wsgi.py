"""WSGI (PEP 3333): each rule on Rondel, and on the standard library's server if that keeps it."""

import contextlib
import json
import os
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from rondel.server.errors import ServeError
from rondel.server.target import adapt
from rondel.server.wsgi import WSGI
from tests.cli.support import PATIENCE, running
from tests.server import wsgi_apps
from tests.server.wire import ROOT, Closed, Response, Served, serving
from tests.server.wsgi_apps import CONTENT

pytestmark = pytest.mark.rondel_server

APPS = "tests.server.wsgi_apps"


@contextlib.contextmanager
def reference() -> Iterator[Served]:
    command = [sys.executable, "-m", "tests.server.wsgi_reference"]
    with running(command, ROOT) as process:
        port = process.wait_for(r"serving on http://127\.0\.0\.1:(\d+)")[1]
        yield Served(process, ("127.0.0.1", int(port)))


@pytest.fixture(scope="module")
def rondel() -> Iterator[Served]:
    with serving(f"{APPS}:app") as served:
        yield served
        # Alive to the end, whatever the tests did to it, and it stops cleanly.
        assert served.get("/hello").body == b"hello"
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
        assert outcome.status == 0, outcome.errors


@pytest.fixture(scope="module")
def alone() -> Iterator[Served]:
    """The loop's own thread runs the application."""
    with serving(f"{APPS}:app", "--threads", "1") as served:
        yield served
        assert served.get("/hello").body == b"hello"
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
        assert outcome.status == 0, outcome.errors


@pytest.fixture(scope="module")
def wsgiref() -> Iterator[Served]:
    with reference() as served:
        yield served


@pytest.fixture(params=["rondel", "alone", "wsgiref"])
def server(request: pytest.FixtureRequest) -> Served:
    served: Served = request.getfixturevalue(request.param)
    return served


def ask(server: Served, target: str, method: str = "GET", **options: Any) -> Response:
    with server.connect() as wire:
        return wire.request(target, method, **options)


def environ(server: Served, target: str = "/environ", **options: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(ask(server, target, **options).body)
    return told


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


# ---------------------------------------------------------------------- start_response, write


def test_start_response_may_come_with_the_first_piece(server: Served) -> None:
    got = server.get("/late_start")
    assert (got.status, got.body) == (201, b"late")


@pytest.mark.parametrize("target", ["/no_start", "/no_start_no_body", "/twice"])
def test_a_missing_or_second_start_is_an_error(server: Served, target: str) -> None:
    assert server.get(target).status == 500


def test_exc_info_replaces_a_head_that_was_not_sent(server: Served) -> None:
    got = server.get("/replaced")
    assert got.status == 503
    assert (got.body, got.get("x-first"), got.get("x-second")) == (b"replaced", None, "2")


def test_an_empty_piece_does_not_send_the_head(rondel: Served) -> None:
    # Which the standard library's server gets wrong.
    got = rondel.get("/replaced_before_the_first_piece")
    assert (got.status, got.body, got.get("x-second")) == (500, b"replaced", "2")


def test_exc_info_after_the_head_was_sent_is_raised(server: Served, key: str) -> None:
    with server.connect() as wire:
        wire.send(f"GET /too_late?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        with contextlib.suppress(Closed):  # wsgiref, of HTTP/1.0, says no length
            got = wire.response()
            assert got.body == b"sent"
    assert server.events(key) == ["the application's failure"]


def test_a_response_that_was_begun_is_broken_off(rondel: Served, key: str) -> None:
    with rondel.connect() as wire:
        wire.send(f"GET /too_late?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        got = wire.rest()
    assert b"sent" in got
    assert not got.endswith(b"0\r\n\r\n")


def test_write_comes_before_what_is_returned(server: Served) -> None:
    got = server.get("/write")
    assert (got.status, got.body) == (200, b"written and returned")


def test_write_alone_with_a_length(server: Served) -> None:
    got = server.get("/write_alone")
    assert (got.body, got.get("content-length")) == (b"written", "7")


def test_write_past_the_length_is_an_error(rondel: Served, key: str) -> None:
    assert rondel.get(f"/write_too_much?key={key}").body == b"four"
    assert rondel.events(key) == ["write() past the response's Content-Length"]


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "keep-alive",
        "Transfer-Encoding",
        "Upgrade",
        "TE",
        "Trailer",
        "Proxy-Authenticate",
    ],
)
def test_hop_by_hop_headers_are_refused(
    server: Served, name: str, key: str, wsgiref: Served
) -> None:
    if server is wsgiref and name == "Trailer":
        pytest.skip("it knows RFC 2616's misspelt Trailers")
    got = server.get(f"/header?key={key}&name={name}&value=close")
    assert got.status == 500
    assert server.events(key)[0] in ("AssertionError", "ValueError")


@pytest.mark.parametrize(
    "bad",
    [
        "name=X%0aY&value=1",
        "name=X%20Y&value=1",
        "name=&value=1",
        "name=X&value=a%0d%0aSet-Cookie:b",
    ]
    + ["name=X&value=%E4%BD%A0", "name=X&value=%00"]
    + [
        "name=Content-Length&value=-1",
        "name=Content-Length&value=x",
        "name=Content-Length&value=%2B1",
    ]
    + [
        f"name=X&value=1&status={status}"
        for status in ("20", "abc", "099%20X", "2000%20X", "100%20X")
    ]
    + ["name=X&value=1&status=200%20a%0d%0ab", "name=X&value=1&status=200%20%E4%BD%A0"],
)
def test_what_cannot_be_sent_is_refused_where_it_is_said(
    rondel: Served, bad: str, key: str
) -> None:
    assert rondel.get(f"/header?key={key}&{bad}").status == 500
    assert rondel.events(key) == ["ValueError"]


@pytest.mark.parametrize("reason", ["OK", "Fine by Me", "", "\xe9t\xe9", "Not Found"])
@pytest.mark.parametrize("code", ["200", "404", "418", "799"])
def test_the_status_line_is_the_applications(rondel: Served, code: str, reason: str) -> None:
    with rondel.connect() as wire:
        target = f"/status?code={code}&reason={quote(reason)}"
        for how, body in (("", b"body"), ("pieces", b"pieces"), ("file", CONTENT)):
            got = wire.request(f"{target}&how={how}")
            assert got.line == f"HTTP/1.1 {code} {reason}".encode("latin-1")
            assert got.body == body
        # It was that response's alone.
        assert wire.request("/hello").line == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("what", ["status", "name", "value", "headers", "text"])
def test_wrong_types_are_refused(server: Served, what: str) -> None:
    assert server.get(f"/types?what={what}").status == 500


def test_other_bytes_are_taken(rondel: Served) -> None:
    assert rondel.get("/types?what=bytearray").body == b"types"


def test_repeated_response_headers_stay_apart(server: Served) -> None:
    got = server.get("/many_headers")
    assert [value for name, value in got.headers if name == "set-cookie"] == ["a=1", "b=2"]
    assert got.get("x") == "\xe9"


# --------------------------------------------------------------------------------- bodies


def framed(got: Response, size: int) -> bool:
    """In chunks, or with a length where all pieces came before the first was sent."""
    length, coding = got.get("content-length"), got.get("transfer-encoding")
    return (length, coding) in ((None, "chunked"), (str(size), None))


def test_one_piece_has_a_length_and_several_are_framed(rondel: Served, key: str) -> None:
    with rondel.connect() as wire:
        assert wire.request("/hello").get("content-length") == "5"
        got = wire.request("/pieces")
        assert got.body == b"one two three"
        assert framed(got, 13)
        wire.send(f"GET /gated?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        head = wire._until(b"first\r\n")
        assert b"\r\ntransfer-encoding: chunked\r\n" in head
        rondel.get(f"/release?key={key}")
        assert wire.exactly(16) == b"6\r\nsecond\r\n0\r\n\r\n"


def test_several_pieces_to_an_old_client_end_with_the_connection(server: Served) -> None:
    with server.connect() as wire:
        wire.send(b"GET /pieces HTTP/1.0\r\n\r\n")
        got = wire.response()
        assert got.body == b"one two three"
        assert got.get("transfer-encoding") is None


def test_no_piece_is_an_empty_body(server: Served) -> None:
    got = server.get("/none")
    assert (got.status, got.body) == (200, b"")
    assert got.get("content-length") in ("0", None)


@pytest.mark.parametrize("code", [204, 304])
@pytest.mark.parametrize("how", ["none", ""])
def test_statuses_without_a_body(rondel: Served, code: int, how: str) -> None:
    with rondel.connect() as wire:
        got = wire.request(f"/status?code={code}&how={how}")
        assert got.status == code
        assert got.get("transfer-encoding") is None
        if code == 204:
            assert got.get("content-length") is None
        # Nothing of a body is left on the connection.
        assert wire.request("/hello").body == b"hello"


@pytest.mark.parametrize("code", [200, 201, 404, 418, 500, 599])
def test_other_statuses_have_one(server: Served, code: int) -> None:
    got = server.get(f"/status?code={code}")
    assert (got.status, got.body) == (code, b"body")


def test_head_says_the_length_and_sends_nothing(rondel: Served) -> None:
    with rondel.connect() as wire:
        assert wire.request("/hello", "HEAD").get("content-length") == "5"
        assert wire.request("/pieces", "HEAD").status == 200
        assert wire.request("/none", "HEAD").status == 200
        assert wire.request("/length?said=10&how=generator", "HEAD").get("content-length") == "10"
        # More than there would be: nobody can tell without a body.
        assert wire.request("/length?said=12&how=generator", "HEAD").get("content-length") == "12"
        assert wire.request("/file", "HEAD").get("content-length") == str(len(CONTENT))
        assert wire.request("/write", "HEAD").status == 200
        assert wire.request("/hello").body == b"hello"


def test_head_of_an_endless_body_ends(rondel: Served, key: str) -> None:
    assert ask(rondel, f"/endless?key={key}", "HEAD").status == 200
    assert rondel.events(key, 2) == ["piece", "closed"]


@pytest.mark.parametrize("how", ["list", "generator", "once"])
def test_no_more_than_the_declared_length_is_sent(rondel: Served, how: str) -> None:
    with rondel.connect() as wire:
        for said in (0, 1, 9, 10):
            got = wire.request(f"/length?said={said}&how={how}")
            assert got.body == b"0123456789"[:said]
            assert got.get("content-length") == str(said)


def test_what_is_done_after_the_last_piece_is_done(rondel: Served, key: str) -> None:
    assert rondel.get(f"/afterwards?said=10&key={key}").body == b"0123456789"
    assert rondel.events(key) == ["afterwards"]
    # Iterating ends once there is more than was declared (PEP 3333).
    assert rondel.get(f"/afterwards?said=5&key={key}").body == b"01234"
    assert rondel.get("/hello").body == b"hello"
    assert rondel.events(key) == ["afterwards"]


@pytest.mark.parametrize("how", ["list", "generator", "once"])
def test_less_than_the_declared_length_is_an_error(rondel: Served, how: str) -> None:
    with rondel.connect() as wire:
        wire.send(f"GET /length?said=11&how={how} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        if how == "list":
            assert wire.response().status == 500
        else:
            with pytest.raises(Closed):
                wire.response()
    rondel.process.wait_for("1 bytes short of its Content-Length")


# With one thread nobody could release it: below.
@pytest.mark.parametrize("server", ["rondel", "wsgiref"], indirect=True)
def test_a_piece_is_sent_before_the_next_is_asked_for(server: Served, key: str) -> None:
    with server.connect() as wire:
        wire.send(f"GET /gated?key={key} HTTP/1.0\r\nhost: t\r\n\r\n".encode())
        wire._until(b"first")
        server.get(f"/release?key={key}")
        assert wire.rest() == b"second"


def test_an_application_that_is_ahead_waits_for_its_client(rondel: Served, key: str) -> None:
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(rondel.address)
        slow.sendall(f"GET /endless?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        rondel.events(key)
        before, now = -1, 0
        while now != before:  # it stands still, or has not had the processor meanwhile
            time.sleep(0.1)
            before, now = now, len(rondel.events(key))
        slow.recv(1000)
    while (notes := rondel.events(key, now + 1))[-1] != "closed":
        now = len(notes)
    # What the sockets, the exchange and the line hold: no more than some megabytes.
    assert len(notes) < 200


def test_other_requests_are_answered_while_all_threads_but_one_wait() -> None:
    with serving(f"{APPS}:app", "--threads", "2") as served, served.connect() as wire:
        wire.send(b"GET /gated?key=k HTTP/1.0\r\n\r\n")
        wire._until(b"first")
        for _ in range(5):
            assert served.get("/hello").body == b"hello"
        served.get("/release?key=k")
        assert wire.rest() == b"second"


def test_quick_answers_do_not_wait_for_a_thread_that_blocks_after_them() -> None:
    """Answers of quick requests reach the loop together; what comes after them may not be quick."""
    with serving(f"{APPS}:app", "--threads", "4") as served, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(served.connect()) for _ in range(40)]
        hello = b"GET /hello HTTP/1.1\r\nhost: t\r\n\r\n"
        for _ in range(25):
            for wire in wires:
                wire.send(hello)
            assert [wire.response().body for wire in wires] == [b"hello"] * 40
        # Of four threads three are stuck at most.
        groups = [(wires, wires[10::10]), (wires[:2], wires[1:2])] * 8
        for key, (group, stuck) in enumerate(groups):
            held = f"GET /stuck?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode()
            for wire in group:
                wire.send(held if wire in stuck else hello)
            others = [wire for wire in group if wire not in stuck]
            assert {wire.response().body for wire in others} == {b"hello"}
            served.get(f"/release?key={key}")
            assert {wire.response().body for wire in stuck} == {b"free"}


# ---------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("how", ["end", "raise", "later", "start"])
def test_close_is_called_once(server: Served, how: str, key: str) -> None:
    with contextlib.suppress(Closed):
        server.get(f"/closing?how={how}&key={key}")
    assert server.events(key) == ["closed"]


def test_close_is_called_once_when_the_client_leaves(rondel: Served, key: str) -> None:
    with rondel.connect() as wire:
        wire.send(f"GET /endless?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        wire._until(b"xxx")
        # A reset, not a polite end.
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    seen = 0
    while (notes := rondel.events(key, seen + 1))[-1] != "closed":
        seen = len(notes)
    assert notes.count("closed") == 1


def test_write_tells_when_the_client_has_gone(rondel: Served, key: str) -> None:
    with rondel.connect() as wire:
        wire.send(f"GET /endless_write?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        wire._until(b"xxx")
    assert rondel.events(key, 2) == ["writing", "ConnectionAbortedError"]


@pytest.mark.parametrize("target", ["/raise", "/raise_started", "/closing?key=k&how=raise"])
def test_an_error_is_logged_with_its_traceback_and_answered_with_500(
    rondel: Served, target: str
) -> None:
    with rondel.connect() as wire:
        assert wire.request(target).status == 500
        # The connection is as good as before.
        assert wire.request("/hello").body == b"hello"
    rondel.process.wait_for("Exception in the application")
    rondel.process.wait_for('wsgi_apps.py", line')
    rondel.process.wait_for("RuntimeError: the application's failure")


def test_an_error_in_close_is_logged_after_a_whole_response(rondel: Served) -> None:
    assert rondel.get("/bad_close").body == b"complete"
    rondel.process.wait_for("RuntimeError: a failure in close")


def test_a_client_that_left_is_no_error_and_the_log_names_statuses() -> None:
    with serving(f"{APPS}:app") as served:
        with served.connect() as wire:
            wire.send(b"GET /endless_write?key=k HTTP/1.1\r\nhost: t\r\n\r\n")
            wire._until(b"xxx")
        served.events("k", 2)
        assert served.get("/status?code=404").status == 404
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
        assert "Traceback" not in outcome.errors
    assert re.search(r'"GET /status\?code=404 HTTP/1\.1".* 404', outcome.output)


# ----------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["plain", "named", "memory", "gzip"])
def test_a_wrapped_file_is_sent(server: Served, kind: str) -> None:
    assert server.get(f"/file?kind={kind}").body == CONTENT


def test_a_plain_file_has_a_length_without_being_read(rondel: Served) -> None:
    assert rondel.get("/file").get("content-length") == str(len(CONTENT))
    assert framed(rondel.get("/file?kind=gzip"), len(CONTENT))


@pytest.mark.parametrize("kind", ["plain", "named", "memory"])
@pytest.mark.parametrize(("offset", "read"), [(0, 10), (1000, 0), (1000, 10), (len(CONTENT), 0)])
def test_a_file_is_sent_from_where_it_stands(
    server: Served, kind: str, offset: int, read: int
) -> None:
    got = server.get(f"/file?kind={kind}&offset={offset}&read={read}")
    assert got.body == CONTENT[offset + read :]


@pytest.mark.parametrize("kind", ["plain", "memory"])
def test_no_more_of_a_file_than_was_declared(rondel: Served, kind: str) -> None:
    with rondel.connect() as wire:
        assert wire.request(f"/file?kind={kind}&offset=10&said=2500").body == CONTENT[10:2510]
        with pytest.raises(Closed):
            wire.request(f"/file?kind={kind}&said={len(CONTENT) + 1}")


def test_what_is_no_plain_file_is_read(server: Served) -> None:
    assert server.get("/file?kind=pipe").body == b"from a pipe"
    assert server.get("/file?kind=empty").body == b""


def test_a_wrapped_file_is_closed_once(server: Served, key: str) -> None:
    assert server.get(f"/file?kind=closing&key={key}").body == CONTENT
    assert server.events(key) == ["closed"]


# ------------------------------------------------------------------------- which interface


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("app", "wsgi"),
        ("ClassApp", "wsgi"),
        ("optional", "wsgi"),
        ("Asgi2", "asgi2"),
        ("asgi2", "asgi2"),
        ("asgi3", "asgi"),
        ("sync_asgi3", "asgi"),
    ],
)
def test_the_interface_is_told_by_the_looks(name: str, kind: str) -> None:
    app = getattr(wsgi_apps, name)
    adapted = adapt(app, name)
    assert isinstance(adapted, WSGI) is (kind == "wsgi")
    assert (adapted is app) is (kind == "asgi")
    assert adapt(app, name, "wsgi" if kind == "wsgi" else "asgi") is not None


@pytest.mark.parametrize(
    ("name", "interface", "line"),
    [
        ("app", "asgi", "takes two arguments, as WSGI applications do"),
        ("asgi3", "wsgi", "is not a WSGI application"),
        ("make", "wsgi", "is not a WSGI application"),
        ("make", "auto", "takes no arguments: if it makes the application, add --factory"),
        ("strange", "auto", "is not an ASGI 3 or WSGI application"),
        ("valid", "auto", "takes any arguments, which does not tell what it is: say --interface"),
        ("CONTENT", "auto", "is a bytes, not an ASGI or WSGI application: it cannot be called"),
    ],
)
def test_what_has_not_the_interface_is_refused(name: str, interface: Any, line: str) -> None:
    with pytest.raises(ServeError) as caught:
        adapt(getattr(wsgi_apps, name), name, interface)
    assert str(caught.value).startswith(f"{name} {line}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "body"), [("ClassApp", b"of a class"), ("Asgi2", b"asgi 2"), ("make", b"hello")]
)
def test_other_kinds_of_applications_are_served(target: str, body: bytes) -> None:
    options = ["--factory", "--interface", "wsgi"] if target == "make" else []
    with serving(f"{APPS}:{target}", *options) as served:
        assert served.get("/hello").body == body
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
    assert (outcome.status, "Traceback" in outcome.errors) == (0, False)


# ----------------------------------------------------------------------- threads and workers


def test_one_thread_answers_everything_in_turn() -> None:
    with serving(f"{APPS}:app", "--threads", "1") as served:
        seen = [served.json("/process") for _ in range(5)]
        assert {told["thread"] for told in seen} == {"MainThread"}
        assert not any(told["wsgi.multithread"] for told in seen)
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(served.connect()) for _ in range(8)]
            for wire in wires:
                wire.send(b"GET /pieces HTTP/1.1\r\nhost: t\r\n\r\n")
            assert [wire.response().body for wire in wires] == [b"one two three"] * 8


def test_what_one_thread_runs_is_no_part_of_the_loop(alone: Served) -> None:
    assert alone.get("/loops").body == b"none, then one of its own"


def test_one_thread_asks_for_pieces_as_the_client_takes_them(alone: Served, key: str) -> None:
    with alone.connect() as slow:
        slow.send(f"GET /endless?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        slow._until(b"xxx")
        before, now = -1, 0
        while now != before:  # others are answered meanwhile, and each has the loop turn
            before, now = now, len(alone.events(key))
            for _ in range(50):
                assert alone.get("/hello").body == b"hello"
        assert now < 200
    while alone.events(key)[-1] != "closed":
        pass
    assert alone.events(key).count("closed") == 1


def test_one_thread_sends_a_piece_before_it_asks_for_the_next(
    alone: Served, tmp_path: Path
) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    with alone.connect() as wire:
        wire.send(f"GET /piped?path={quote(str(pipe))} HTTP/1.0\r\n\r\n".encode())
        wire._until(b"first")
        # The application waits for this, and the loop with it.
        pipe.write_bytes(b"second")
        assert wire.rest() == b"second"


def test_what_one_thread_writes_is_put_by(alone: Served) -> None:
    body = alone.get("/write_much?count=200&size=65536").body
    assert len(body) == 200 * 65536 + 3
    assert body.endswith(b"end")
    # In its order.
    marks = [int(body[at : at + 4]) for at in range(0, 200 * 65536, 65536)]
    assert marks == list(range(200))


def test_one_thread_that_is_stuck_is_told_of_with_its_stack() -> None:
    options = ("--threads", "1", "--limit-request-timeout", "1")
    with serving(f"{APPS}:app", *options) as served, served.connect() as wire:
        wire.send(b"GET /doze?seconds=3 HTTP/1.1\r\nhost: t\r\n\r\n")
        served.process.wait_for(r"the loop is blocked for [0-9.]+ s")
        served.process.wait_for(r"in do_doze")
        assert wire.response().body == b"dozed"


def test_one_thread_ends_what_it_has_begun_when_it_is_stopped() -> None:
    options = ("--threads", "1", "--graceful-timeout", "1")
    with serving(f"{APPS}:app", *options) as served, served.connect() as wire:
        wire.send(b"GET /loud HTTP/1.1\r\nhost: t\r\n\r\n")
        wire._until(b"xxx")
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
    assert outcome.errors.count("closed by the server") == 1
    assert outcome.status == 0, outcome.errors


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["afresh", "preload"])
def test_workers_serve_wsgi_and_reload(options: tuple[str, ...]) -> None:
    ready = r"serving .* on http://127\.0\.0\.1:(\d+)"
    command = [sys.executable, "-m", "rondel", "serve", f"{APPS}:app", "--port", "0"]
    with running([*command, "--workers", "2", *options], ROOT) as process:
        served = Served(process, ("127.0.0.1", int(process.wait_for(ready)[1])))
        deadline = time.monotonic() + PATIENCE
        pids: set[int] = set()
        while len(pids) < 2:
            told = served.json("/process")
            assert told["wsgi.multiprocess"] is True
            pids.add(told["pid"])
            assert time.monotonic() < deadline, pids
        assert process.pid not in pids
        process.signal(signal.SIGHUP)
        process.wait_for("reloaded")
        # Those that were replaced may have accepted a connection or two at the last moment.
        deadline = time.monotonic() + PATIENCE
        while (pid := served.json("/process")["pid"]) in pids:
            assert time.monotonic() < deadline, pids
        assert pid != process.pid
        process.signal(signal.SIGTERM)
        outcome = process.end()
    assert outcome.status == 0, outcome.errors


def test_a_stop_lets_the_request_in_flight_end() -> None:
    with serving(f"{APPS}:app") as served, served.connect() as wire:
        wire.send(b"GET /hold?key=k HTTP/1.1\r\nhost: t\r\n\r\n")
        served.events("k")
        served.process.signal(signal.SIGTERM)
        assert wire.response().body == b"held"
        outcome = served.process.end()
    assert outcome.status == 0, outcome.errors
