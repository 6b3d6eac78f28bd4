"""What an application answers (PEP 3333): `start_response()`, `write()`, bodies; each rule on
Rondel, and on the standard library's server if that keeps it."""

import contextlib
import socket
import time
from urllib.parse import quote

import pytest

from tests.server.wire import Closed, Served, serving
from tests.server.wsgi.asking import APPS, ask, framed
from tests.server.wsgi_apps import CONTENT

pytestmark = pytest.mark.rondel_server


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
