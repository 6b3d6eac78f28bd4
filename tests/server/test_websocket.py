"""The ASGI side of WebSocket connections: scope, accepting and refusing, events, ends.

With ``RONDEL_TEST_SERVER=uvicorn`` the same tests run on uvicorn, but for those marked as ours.
"""

import json
import signal
from collections.abc import Iterator

import pytest

from tests.server.frames import BINARY, CLOSE, TEXT, Peer, closing, encode, handshake, peer
from tests.server.wire import SERVER, Served, serving

ours = pytest.mark.skipif(SERVER != "rondel", reason="uvicorn does otherwise")


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving("tests.server.ws_apps:app") as served:
        yield served
        assert served.get("/hello").body == b"hello"


# -- scope ---------------------------------------------------------------------------------


def test_the_scope_is_the_specification_s(server: Served) -> None:
    more = (
        "sec-websocket-protocol: chat, superchat\r\nsec-websocket-protocol: soap\r\nx-a: \xe9\r\n"
    )
    with peer(server, "/scope/a%20b?x=%20y", more) as client:
        scope = json.loads(str(client.message()))
        port = client.wire.socket.getsockname()[1]
    assert scope["type"] == "websocket"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert scope["http_version"] == "1.1"
    assert scope["scheme"] == "ws"
    assert scope["path"] == "/scope/a b"
    assert scope["raw_path"] == {"bytes": "/scope/a%20b"}
    assert scope["query_string"] == {"bytes": "x=%20y"}
    assert scope["root_path"] == ""
    assert scope["subprotocols"] == ["chat", "superchat", "soap"]
    assert scope["extensions"]["websocket.http.response"] == {}
    assert "http.response.zerocopysend" not in scope["extensions"]
    assert scope["client"] == ["127.0.0.1", port]
    assert scope["server"] == list(server.address)
    assert scope["state"]["number"] == 7
    assert "method" not in scope
    headers = [tuple(part["bytes"] for part in pair) for pair in scope["headers"]]
    assert ("sec-websocket-version", "13") in headers
    assert ("x-a", "\xe9") in headers
    assert headers.count(("sec-websocket-protocol", "soap")) == 1


# -- the handshake -------------------------------------------------------------------------


def test_a_subprotocol_and_headers_go_out_with_the_101(server: Served) -> None:
    with peer(server, "/accept?choose=chat", "sec-websocket-protocol: chat, b\r\n") as client:
        response = client.response
        assert response.status == 101
        assert response.get("sec-websocket-protocol") == "chat"
        assert (response.get("x-one"), response.get("x-two")) == ("1", "2")
        assert response.get("set-cookie") == "a=b"
        assert response.get("sec-websocket-extensions") is None
        assert response.get("content-length") is None
        assert response.get("transfer-encoding") is None
        client.end()


def test_no_subprotocol_is_answered_with_none(server: Served) -> None:
    with peer(server, "/accept", "sec-websocket-protocol: chat\r\n") as client:
        assert client.response.get("sec-websocket-protocol") is None
        client.end()


@ours
def test_an_accepted_connection_names_the_server(server: Served) -> None:
    with peer(server, "/accept") as client:
        assert client.response.get("server") == "rondel"
        client.end()


def test_tokens_are_found_whatever_their_case_and_place(server: Served) -> None:
    with server.connect() as wire:
        wire.send(
            b"GET /echo HTTP/1.1\r\nHOST: t\r\nUpgrade: WebSocket\r\n"
            b"Connection: keep-alive, upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert wire.response().status == 101


@ours
def test_frames_may_come_along_with_the_handshake(server: Served) -> None:
    with server.connect() as wire:
        wire.send(handshake("/echo") + encode(TEXT, b"early") + encode(BINARY, b"bird"))
        assert wire.response().status == 101
        client = Peer.__new__(Peer)
        client.wire = wire
        assert client.message() == "early"
        assert client.message() == b"bird"
        client.end()


BAD = {
    "no key": (handshake("/echo").replace(b"sec-websocket-key", b"x-key"), 400),
    "a short key": (handshake("/echo", key="c2hvcnQ="), 400),
    "a key that is no base64": (handshake("/echo", key="!" * 24), 400),
    "two keys": (handshake("/echo", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400),
    "no version": (handshake("/echo").replace(b"sec-websocket-version", b"x-version"), 426),
    "another version": (handshake("/echo").replace(b"version: 13", b"version: 8"), 426),
}


@ours
@pytest.mark.parametrize("name", BAD)
def test_a_bad_handshake_is_refused_before_the_application_hears_of_it(
    server: Served, name: str
) -> None:
    request, status = BAD[name]
    with server.connect() as wire:
        wire.send(request)
        response = wire.response()
        assert response.status == status
        if status == 426:
            assert response.get("sec-websocket-version") == "13"


@ours
@pytest.mark.parametrize(
    "request_",
    [
        handshake("/hello").replace(b"upgrade: websocket", b"upgrade: h2c"),
        handshake("/hello").replace(b"connection: Upgrade", b"connection: keep-alive"),
        handshake("/hello").replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["another upgrade", "no connection: upgrade", "HTTP/1.0"],
)
def test_what_asks_for_no_websocket_is_an_ordinary_request(server: Served, request_: bytes) -> None:
    with server.connect() as wire:
        wire.send(request_)
        response = wire.response()
        assert (response.status, response.body) == (200, b"hello")


# -- refusing ------------------------------------------------------------------------------


def test_a_close_before_accept_is_a_403(server: Served, key: str) -> None:
    with peer(server, f"/refuse?key={key}") as client:
        assert client.response.status == 403
        assert client.response.body == b""
    assert server.events(key) == ["disconnect 1006"]


def test_a_denial_response_is_the_application_s(server: Served, key: str) -> None:
    with peer(server, f"/deny?key={key}") as client:
        assert client.response.status == 401
        assert client.response.get("x-why") == "no ticket"
        assert client.response.body == b"no ticket"
    assert server.events(key) == ["disconnect 1006"]


@ours
def test_a_connection_that_was_refused_serves_on(server: Served, key: str) -> None:
    with server.connect() as wire:
        for target, status in [("/refuse", 403), ("/deny", 401)]:
            wire.send(handshake(f"{target}?key={key}"))
            assert wire.response().status == status
            assert wire.request("/hello").body == b"hello"
        client = Peer(wire, "/echo")
        client.text("after all")
        assert client.message() == "after all"
        client.end()


@pytest.mark.parametrize("what", ["return", "crash"])
def test_an_application_that_ends_before_it_accepts_is_answered_for(
    server: Served, what: str
) -> None:
    with peer(server, f"/{what}") as client:
        assert client.response.status == 500
        assert client.response.body == b"Internal Server Error"


@ours
def test_a_denial_that_breaks_off_does_not_look_complete(server: Served) -> None:
    with server.connect() as wire:
        wire.send(handshake("/crash_denying"))
        assert b"0\r\n\r\n" not in wire.rest().split(b"\r\n\r\n", 1)[1]


# -- messages ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 1 << 20])
def test_messages_of_any_size_come_whole(server: Served, size: int) -> None:
    text = ("\u00e9\U0001f40d-" * (size // 7 + 1)).encode()[:size].decode(errors="ignore")
    with peer(server, "/echo") as client:
        client.text(text)
        assert client.message() == text
        client.send(BINARY, bytes(size))
        assert client.message() == bytes(size)
        client.end()


def test_many_messages_in_one_write_are_answered_in_order(server: Served) -> None:
    count = 500
    with peer(server, "/echo") as client:
        client.wire.send(b"".join(encode(TEXT, b"%d" % n) for n in range(count)))
        assert [client.message() for _ in range(count)] == [str(n) for n in range(count)]
        client.end()


def test_a_message_may_come_byte_by_byte(server: Served) -> None:
    with peer(server, "/echo") as client:
        for byte in encode(TEXT, "häppchen".encode()):
            client.wire.send(bytes([byte]))
        assert client.message() == "häppchen"
        client.end()


def test_a_cancelled_receive_loses_no_message(server: Served, key: str) -> None:
    with peer(server, f"/cancelled_receive?key={key}") as client:
        assert server.events(key) == ["cancelled"]
        client.text("kept")
        assert client.message() == "kept"
        client.end()


# -- ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason", "seen"),
    [
        (1000, b"", "disconnect 1000"),
        (1001, b"gone", "disconnect 1001 gone"),
        (4999, "grüße".encode(), "disconnect 4999 grüße"),
        (None, b"", "disconnect 1005"),
    ],
)
def test_the_application_hears_how_the_peer_closed(
    server: Served, key: str, code: int | None, reason: bytes, seen: str
) -> None:
    with peer(server, f"/echo?key={key}") as client:
        client.wire.send(closing(code, reason))
        assert client.closed() == code
    assert server.events(key) == [seen]


@ours
def test_receive_after_the_disconnect_says_it_again(server: Served, key: str) -> None:
    with peer(server, f"/echo?key={key}&again=1") as client:
        client.end(1001)
    assert server.events(key, 2) == ["disconnect 1001"] * 2


@ours
def test_a_lost_connection_is_1006(server: Served, key: str) -> None:
    with peer(server, f"/echo?key={key}") as client:
        client.text("there")
        assert client.message() == "there"
    assert server.events(key) == ["disconnect 1006"]


def test_messages_before_the_close_are_received_before_the_disconnect(
    server: Served, key: str
) -> None:
    with peer(server, f"/collect?key={key}") as client:
        client.wire.send(b"".join(encode(TEXT, b"%d" % n) for n in range(5)) + closing(1000))
        assert client.closed() == 1000
    assert server.events(key, 6) == ["0", "1", "2", "3", "4", "disconnect 1000"]


@pytest.mark.parametrize(
    ("query", "code", "reason", "seen"),
    [
        ("", 1000, b"", "disconnect 1000"),
        ("&code=4001&reason=enough", 4001, b"enough", "disconnect 4001 enough"),
    ],
)
def test_the_application_closes_after_what_it_sent(
    server: Served, key: str, query: str, code: int, reason: bytes, seen: str
) -> None:
    with peer(server, f"/close?key={key}{query}") as client:
        assert client.message() == "last"
        frame = client.frame()
        assert (frame.opcode, frame.code, frame.data[2:]) == (CLOSE, code, reason)
        client.wire.send(closing(code))
        assert client.wire.closed()
    assert server.events(key, 2) == [seen, "RuntimeError"]


def test_what_a_peer_sends_after_the_application_closed_is_dropped(
    server: Served, key: str
) -> None:
    with peer(server, f"/close?key={key}") as client:
        assert client.message() == "last"
        assert client.frame().opcode == CLOSE
        for _ in range(100):
            client.send(BINARY, bytes(1000))
        client.wire.send(closing(1000))
        assert client.wire.closed()


@ours
def test_an_application_that_returns_has_closed(server: Served) -> None:
    with peer(server, "/return?when=accepted") as client:
        frame = client.frame()
        assert (frame.opcode, frame.code) == (CLOSE, 1000)
        client.wire.send(closing(1000))
        assert client.wire.closed()


@ours
def test_an_application_that_raises_closes_with_1011(server: Served) -> None:
    with peer(server, "/crash?when=accepted") as client:
        frame = client.frame()
        assert (frame.opcode, frame.code) == (CLOSE, 1011)
        client.wire.send(closing(1011))
        assert client.wire.closed()


def test_sending_to_a_client_that_has_gone_raises_an_oserror(server: Served, key: str) -> None:
    with peer(server, f"/send_after_end?key={key}") as client:
        client.end()
    assert server.events(key) == ["OSError"]


def test_a_client_that_goes_before_it_is_accepted(server: Served, key: str) -> None:
    with server.connect() as wire:
        wire.send(handshake(f"/wait?key={key}"))
        assert server.events(key) == ["asked"]
    # What it sends then fails, or is dropped.
    assert server.events(key, 2)[:2] == ["asked", "disconnect 1006"]


@ours
def test_messages_that_make_no_sense_are_the_application_s_errors(server: Served, key: str) -> None:
    with peer(server, f"/wrong?key={key}") as client:
        assert client.message() == "still there"
        client.end()
    seen = ["RuntimeError", "RuntimeError", "KeyError", "RuntimeError", "TypeError"]
    assert server.events(key, 5) == seen


@ours
def test_only_errors_of_the_application_are_logged(key: str) -> None:
    with serving("tests.server.ws_apps:app") as served:
        with peer(served, f"/send_after_end?key={key}") as client:
            client.end()
        assert served.events(key) == ["OSError"]
        with peer(served, f"/echo?key={key}"):
            pass
        served.events(key, 2)
        with peer(served, "/crash?when=accepted") as client:
            client.frame()
        with peer(served, "/return") as client:
            assert client.response.status == 500
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
    assert outcome.errors.count("ZeroDivisionError: on purpose") == 1
    assert outcome.errors.count("Traceback") == 1
    assert outcome.errors.count("without accepting or refusing") == 1
