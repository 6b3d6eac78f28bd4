"""WebSocket connections on streams of HTTP/2 (RFC 8441), by prior knowledge and over TLS.

What the frames hold is tested over HTTP/1.1: here it is that they come and go by streams, and how
streams end; `test_websocket_h2_time` has deadlines and the server's stop.
"""

import json
import signal
import ssl
from collections.abc import Iterator

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from tests.net.certificates import client_context, identity
from tests.server.frames import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Deflate,
    closing,
    encode,
)
from tests.server.h2frames import VERSION, StreamPeer, StreamWire, connected
from tests.server.h2wire import H2Wire
from tests.server.wire import PATIENCE, Served, serving

pytestmark = pytest.mark.rondel_server

APP = "tests.server.ws_apps:app"


@pytest.fixture(scope="module", params=["plain", "tls"])
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    options: tuple[str, ...] = ()
    context: ssl.SSLContext | None = None
    if request.param == "tls":
        ours = identity("localhost")
        options = ("--ssl-certfile", ours.certificate, "--ssl-keyfile", ours.key)
        context = client_context()
    limits = ("--ws-max-size", "2000000", "--ws-max-queue", "8")
    with serving(APP, *limits, *options, context=context) as served:
        yield served
        assert served.get("/hello").body == b"hello"
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
        assert outcome.status == 0, outcome.errors
        assert "cut off" not in outcome.errors
        assert '"CONNECT /accept HTTP/2" 200' in outcome.output


@pytest.fixture
def wire2(server: Served) -> Iterator[H2Wire]:
    with connected(server) as wire2:
        yield wire2
        # Whatever became of its streams, the connection serves on.
        assert wire2.get("/hello").body == b"hello"


# -- the handshake -------------------------------------------------------------------------


def test_the_scope_is_that_of_a_websocket_connection(server: Served, wire2: H2Wire) -> None:
    names = [("sec-websocket-protocol", "chat, superchat"), ("sec-websocket-protocol", "soap")]
    client = StreamPeer(wire2, "/scope/a%20b?x=%20y", *names, ("x-a", "b"))
    scope = json.loads(str(client.message()))
    client.end()
    assert scope["type"] == "websocket"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert scope["http_version"] == "2"
    assert scope["scheme"] == ("wss" if server.context else "ws")
    assert scope["path"] == "/scope/a b"
    assert scope["raw_path"] == {"bytes": "/scope/a%20b"}
    assert scope["query_string"] == {"bytes": "x=%20y"}
    assert scope["subprotocols"] == ["chat", "superchat", "soap"]
    assert scope["extensions"]["websocket.http.response"] == {}
    assert scope["state"]["number"] == 7
    assert "method" not in scope
    headers = [tuple(part["bytes"] for part in pair) for pair in scope["headers"]]
    assert headers[0] == ("host", "test")
    assert VERSION in headers and ("x-a", "b") in headers
    assert not [name for name, _ in headers if name.startswith(":")]
    if server.context:
        told = scope["extensions"]["tls"]
        assert told["tls_version"] == 0x0304
        assert isinstance(wire2.socket, ssl.SSLSocket)
        shown = ssl.PEM_cert_to_DER_cert(told["server_cert"])
        assert shown == wire2.socket.getpeercert(binary_form=True)
    else:
        assert "tls" not in scope["extensions"]


def test_a_subprotocol_and_headers_go_out_with_the_200(wire2: H2Wire) -> None:
    client = StreamPeer(wire2, "/accept?choose=chat", ("sec-websocket-protocol", "chat, b"))
    response = client.response
    assert response.status == 200
    assert response.get("sec-websocket-protocol") == "chat"
    assert (response.get("x-one"), response.get("x-two")) == ("1", "2")
    assert response.get("set-cookie") == "a=b"
    assert response.get("server") == "rondel"
    of_http_1 = ("upgrade", "connection", "sec-websocket-accept", "sec-websocket-extensions")
    for name in (*of_http_1, "content-length", "transfer-encoding"):
        assert response.get(name) is None, name
    client.end()
    plain = StreamPeer(wire2, "/accept", ("sec-websocket-protocol", "chat"))
    assert plain.response.get("sec-websocket-protocol") is None
    plain.end()


def test_frames_may_come_along_with_the_handshake(wire2: H2Wire) -> None:
    wire = StreamWire(wire2, "/echo", [VERSION])
    wire.send(encode(TEXT, b"early") + encode(BINARY, b"bird"))
    assert wire.head().status == 200
    client = StreamPeer.__new__(StreamPeer)
    client.wire = wire
    assert client.message() == "early"
    assert client.message() == b"bird"
    client.end()


@pytest.mark.parametrize("lines", [[], [("sec-websocket-version", "8")], [VERSION, VERSION]])
def test_another_version_is_refused_before_the_application_hears_of_it(
    wire2: H2Wire, lines: list[tuple[str, str]]
) -> None:
    response = StreamWire(wire2, "/echo", lines).head()
    assert response.status == 400
    assert response.get("sec-websocket-version") == "13"


def test_other_uses_of_connect_are_not_implemented(wire2: H2Wire) -> None:
    other = wire2.open("/echo", "CONNECT", headers=[VERSION], end=False, protocol="connect-udp")
    assert wire2.answer(other).status == 501
    stream = wire2.h2.get_next_available_stream_id()
    wire2.answers[stream] = type(wire2.answers[other])()
    wire2.h2.send_headers(stream, [(":method", "CONNECT"), (":authority", "test:80")])
    wire2.flush()
    assert wire2.answer(stream).status == 501


def test_a_protocol_for_another_method_is_malformed(wire2: H2Wire) -> None:
    wrong = wire2.open("/echo", "GET", headers=[VERSION], end=False, protocol="websocket")
    assert wire2.answer(wrong).reset == ErrorCodes.PROTOCOL_ERROR


def test_without_websockets_it_is_not_offered() -> None:
    with serving(APP, "--ws", "none") as served, H2Wire(served.address) as wire2:
        wire2.agree()
        assert wire2.h2.remote_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 0
        asked = StreamWire(wire2, "/echo", [VERSION])
        assert wire2.answer(asked.stream).reset == ErrorCodes.PROTOCOL_ERROR
        assert wire2.get("/hello").body == b"hello"


# -- refusing ------------------------------------------------------------------------------


def test_a_close_before_accept_is_a_403(server: Served, wire2: H2Wire, key: str) -> None:
    response = StreamPeer(wire2, f"/refuse?key={key}").response
    assert (response.status, response.body) == (403, b"")
    assert server.events(key) == ["disconnect 1006"]


def test_a_denial_response_is_the_application_s(server: Served, wire2: H2Wire, key: str) -> None:
    response = StreamPeer(wire2, f"/deny?key={key}").response
    assert (response.status, response.body) == (401, b"no ticket")
    assert response.get("x-why") == "no ticket"
    assert server.events(key) == ["disconnect 1006"]


@pytest.mark.parametrize("what", ["return", "crash"])
def test_an_application_that_ends_before_it_accepts_is_answered_for(
    wire2: H2Wire, what: str
) -> None:
    response = StreamPeer(wire2, f"/{what}").response
    assert (response.status, response.body) == (500, b"Internal Server Error")


def test_a_denial_of_200_is_an_error_as_it_would_accept(
    server: Served, wire2: H2Wire, key: str
) -> None:
    assert StreamPeer(wire2, f"/deny_with_200?key={key}").response.status == 500
    assert server.events(key)[0].startswith("RuntimeError: over HTTP/2 a status of 2xx")


def test_a_denial_that_breaks_off_does_not_look_complete(wire2: H2Wire) -> None:
    client = StreamPeer(wire2, "/crash_denying")
    assert client.response.status == 401
    assert client.wire.answer.reset == ErrorCodes.INTERNAL_ERROR


# -- messages ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1 << 20])
def test_messages_of_any_size_come_whole(wire2: H2Wire, size: int) -> None:
    client = StreamPeer(wire2, "/echo")
    client.text("t" * size)
    assert client.message() == "t" * size
    data = bytes(range(256)) * (size // 256 + 1)
    client.send(BINARY, data[:size])
    assert client.message() == data[:size]
    client.end()


def test_many_messages_in_one_write_are_answered_in_order(wire2: H2Wire) -> None:
    count = 500
    client = StreamPeer(wire2, "/echo")
    client.wire.send(b"".join(encode(TEXT, b"%d" % n) for n in range(count)))
    assert [client.message() for _ in range(count)] == [str(n) for n in range(count)]
    client.end()


def test_a_message_may_come_byte_by_byte(wire2: H2Wire) -> None:
    client = StreamPeer(wire2, "/echo")
    for byte in encode(TEXT, "häppchen".encode()):
        client.wire.send(bytes([byte]))
    assert client.message() == "häppchen"
    client.end()


def test_fragments_become_a_message_with_a_ping_among_them(wire2: H2Wire) -> None:
    client = StreamPeer(wire2, "/echo")
    client.send(TEXT, b"one ", fin=False)
    client.send(PING, b"there?")
    frame = client.frame()
    assert (frame.opcode, frame.data) == (PONG, b"there?")
    client.send(CONT, b"two ", fin=False)
    client.send(CONT, b"three")
    assert client.message() == "one two three"
    client.end()


def test_messages_are_compressed_if_that_was_agreed_on(wire2: H2Wire) -> None:
    offer = ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits=10")
    client = StreamPeer(wire2, "/echo", offer)
    agreed = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=10"
    assert client.response.get("sec-websocket-extensions") == agreed
    deflate = Deflate(client_bits=10, server_bits=12)
    text = b"again and " * 1000
    for _ in range(3):
        client.send(TEXT, deflate.compress(text), rsv=4)
        frame = client.frame()
        assert frame.rsv == 4
        assert len(frame.data) < 200
        assert deflate.inflate(frame) == text
    client.end()


def test_connections_and_requests_share_one_connection(wire2: H2Wire) -> None:
    clients = [StreamPeer(wire2, "/echo") for _ in range(20)]
    for turn in range(3):
        for number, client in enumerate(clients):
            client.text(f"{turn} of {number}")
        assert wire2.get("/hello").body == b"hello"
        for number, client in reversed(list(enumerate(clients))):
            assert client.message() == f"{turn} of {number}"
    for client in clients:
        client.end()


# -- ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason", "seen"),
    [
        (1000, b"", "disconnect 1000"),
        (4999, "grüße".encode(), "disconnect 4999 grüße"),
        (None, b"", "disconnect 1005"),
    ],
)
def test_the_application_hears_how_the_peer_closed(
    server: Served, wire2: H2Wire, key: str, code: int | None, reason: bytes, seen: str
) -> None:
    client = StreamPeer(wire2, f"/echo?key={key}")
    client.wire.send(closing(code, reason))
    assert client.closed() == code
    assert (client.wire.answer.ended, client.wire.answer.reset) == (True, None)
    client.wire.end()
    assert server.events(key) == [seen]


def test_a_client_that_does_not_end_its_stream_has_it_reset_without_an_error(
    wire2: H2Wire,
) -> None:
    client = StreamPeer(wire2, "/echo")
    client.wire.send(closing(1000))
    assert client.closed() == 1000
    answer = client.wire.answer
    wire2.until(lambda: answer.reset is not None)
    assert answer.reset == ErrorCodes.NO_ERROR


def test_the_application_closes_after_what_it_sent(server: Served, wire2: H2Wire, key: str) -> None:
    client = StreamPeer(wire2, f"/close?key={key}&code=4001&reason=enough")
    assert client.message() == "last"
    frame = client.frame()
    assert (frame.opcode, frame.code, frame.data[2:]) == (CLOSE, 4001, b"enough")
    assert not client.wire.answer.ended
    client.wire.send(closing(4001))
    assert client.wire.closed()
    assert client.wire.answer.ended
    client.wire.end()
    assert server.events(key, 2) == ["disconnect 4001 enough", "RuntimeError"]


@pytest.mark.parametrize(("what", "code"), [("return", 1000), ("crash", 1011)])
def test_an_application_that_ends_has_closed(wire2: H2Wire, what: str, code: int) -> None:
    client = StreamPeer(wire2, f"/{what}?when=accepted")
    frame = client.frame()
    assert (frame.opcode, frame.code) == (CLOSE, code)
    client.wire.send(closing(code))
    assert client.wire.closed()


def test_a_stream_that_is_reset_is_1006(server: Served, wire2: H2Wire, key: str) -> None:
    client = StreamPeer(wire2, f"/echo?key={key}")
    client.text("there")
    assert client.message() == "there"
    client.wire.close()
    assert server.events(key) == ["disconnect 1006"]


def test_a_stream_that_ends_without_a_close_is_1006(
    server: Served, wire2: H2Wire, key: str
) -> None:
    client = StreamPeer(wire2, f"/echo?key={key}")
    client.text("last")
    client.wire.end()
    assert client.message() == "last"
    assert client.wire.closed()
    assert (client.wire.answer.ended, client.wire.answer.reset) == (True, None)
    assert server.events(key) == ["disconnect 1006"]


def test_a_connection_that_is_lost_is_1006_on_each_of_its_streams(server: Served, key: str) -> None:
    with connected(server) as wire2:
        for number in range(3):
            StreamPeer(wire2, f"/echo?key={key}{number}")
    for number in range(3):
        assert server.events(f"{key}{number}") == ["disconnect 1006"]


def test_a_client_that_resets_before_it_is_accepted(
    server: Served, wire2: H2Wire, key: str
) -> None:
    wire = StreamWire(wire2, f"/wait?key={key}", [VERSION])
    assert server.events(key) == ["asked"]
    wire.close()
    # What the application sends then fails.
    assert server.events(key, 2) == ["asked", "disconnect 1006"]


def test_connections_that_are_taken_back_at_once_leave_nothing_behind(
    server: Served, wire2: H2Wire, key: str
) -> None:
    # In whatever order accept and reset meet: h2 may refuse the 200 that the application has given.
    for number in range(100):
        StreamWire(wire2, "/echo", [VERSION]).close()
        if number % 5 == 0:
            wire2.get("/hello")
    clients = [StreamPeer(wire2, f"/echo?key={key}") for _ in range(5)]
    for client in clients:
        client.text("there")
        assert client.message() == "there"
        client.end()
    assert server.events(key, 5) == ["disconnect 1000"] * 5


def test_sending_to_a_stream_that_was_reset_raises_an_oserror(
    server: Served, wire2: H2Wire, key: str
) -> None:
    client = StreamPeer(wire2, f"/send_after_end?key={key}")
    client.wire.close()
    assert server.events(key) == ["OSError"]


def test_a_reset_is_noticed_while_the_application_is_behind(
    server: Served, wire2: H2Wire, key: str
) -> None:
    client = StreamPeer(wire2, f"/behind?key={key}")
    assert server.events(key) == ["accepted"]
    client.wire.send(b"".join(encode(BINARY, bytes(1000)) for _ in range(100)))
    client.wire.close()
    # No more than was in its queue follows.
    seen = server.events(key, 2)
    assert seen == ["accepted", "OSError"]


# -- limits --------------------------------------------------------------------------------


def test_a_message_over_the_limit_is_1009(server: Served, wire2: H2Wire, key: str) -> None:
    client = StreamPeer(wire2, f"/echo?key={key}")
    client.wire.send(encode(BINARY, b"", length=2_000_001))
    assert client.closed() == 1009
    assert client.wire.answer.ended
    assert server.events(key)[0].startswith("disconnect 1009")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (encode(TEXT, b"unmasked", masked=False), 1002),
        (encode(CONT, b"of nothing"), 1002),
        (encode(TEXT, b"\xff"), 1007),
    ],
)
def test_what_is_against_the_rules_fails_its_stream_alone(
    wire2: H2Wire, data: bytes, code: int
) -> None:
    other = StreamPeer(wire2, "/echo")
    client = StreamPeer(wire2, "/echo")
    client.wire.send(data)
    assert client.closed() == code
    other.text("still there")
    assert other.message() == "still there"
    other.end()


def test_an_application_that_is_behind_holds_its_stream_back_and_no_other(
    server: Served, wire2: H2Wire, key: str
) -> None:
    client = StreamPeer(wire2, f"/slow?key={key}")
    server.events(key)
    part, count = encode(BINARY, bytes(16_000)), 0
    wire2.socket.settimeout(1)
    with pytest.raises(TimeoutError):
        while True:
            client.wire.send(part)
            count += 1
            assert count < 200, "the server takes everything"
    wire2.socket.settimeout(PATIENCE)
    other = StreamPeer(wire2, "/echo")
    other.text("in between")
    assert other.message() == "in between"
    other.end()
    server.get(f"/release?key={key}")
    # The message that did not go out whole is given up with its stream.
    wire2.until(lambda: client.wire.room() > 0)
    client.wire.close()
    assert wire2.get("/hello").body == b"hello"


def test_held_back_messages_are_all_received_in_the_end(
    server: Served, wire2: H2Wire, key: str
) -> None:
    client = StreamPeer(wire2, f"/slow?key={key}")
    server.events(key)
    client.wire.send(b"".join(encode(TEXT, b"%d" % n) for n in range(1000)))
    client.text("end")
    server.get(f"/release?key={key}")
    assert client.message() == "1000"
    client.end()


def test_a_client_that_opens_its_window_late_gets_everything_in_order(server: Served) -> None:
    with connected(server, open_windows=False) as wire2:
        client = StreamPeer(wire2, "/push?count=20&size=100000")
        answer = client.wire.answer
        wire2.until(lambda: len(answer.body) == 65535)  # the window that streams begin with
        assert wire2.answer(wire2.open("/status?code=204")).status == 204
        wire2.h2.increment_flow_control_window(1 << 24)
        wire2.h2.increment_flow_control_window(1 << 24, client.wire.stream)
        wire2.flush()
        for number in range(20):
            assert client.message() == number.to_bytes(4) + b"." * 99_996
        client.end()


def test_a_client_that_takes_nothing_has_its_stream_reset(key: str) -> None:
    with (
        serving(APP, "--limit-keep-alive", "2") as served,
        connected(served, open_windows=False) as wire2,
    ):
        client = StreamPeer(wire2, f"/pushed?key={key}")
        answer = client.wire.answer
        wire2.until(lambda: answer.reset is not None)
        assert answer.reset == ErrorCodes.CANCEL
        assert len(answer.body) <= 65535
        assert served.events(key) == ["OSError"]
