"""A WebSocket client on a stream of HTTP/2 (RFC 8441): the frames of ``frames``, another way."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from tests.net.certificates import client_context
from tests.server.frames import Peer, closing
from tests.server.h2wire import Answer, H2Wire
from tests.server.wire import Closed, Response, Served, Wire

VERSION = ("sec-websocket-version", "13")


class StreamWire(Wire):
    """A stream as if it were a connection of its own."""

    def __init__(self, wire2: H2Wire, target: str, headers: list[tuple[str, str]]) -> None:
        self.wire2 = wire2
        self.socket = wire2.socket
        self.stream = wire2.open(
            target, "CONNECT", headers=headers, end=False, protocol="websocket"
        )
        self._buffer = b""

    @property
    def answer(self) -> Answer:
        return self.wire2.answers[self.stream]

    def close(self) -> None:
        """As a client that has gone (RFC 8441, 5)."""
        if not self.is_over():
            self.wire2.h2.reset_stream(self.stream, ErrorCodes.CANCEL)
            self.wire2.flush()

    def is_over(self) -> bool:
        return self.answer.ended or self.answer.reset is not None or self.wire2.closed

    def send(self, data: bytes) -> None:
        while data:
            room = self.room()
            if not room:
                assert not self.is_over(), "the server ended, and its window is shut"
                self.wire2.read()
                continue
            self.wire2.data(self.stream, data[:room])
            data = data[room:]

    def room(self) -> int:
        """Bytes that may be sent now."""
        h2 = self.wire2.h2
        return min(h2.local_flow_control_window(self.stream), h2.max_outbound_frame_size)

    def end(self) -> None:
        """The client's end of the stream."""
        self.wire2.data(self.stream, b"", end=True)

    def head(self) -> Response:
        """The answer's head; the whole answer if it refuses."""
        answer = self.answer
        self.wire2.until(lambda: answer.status or self.is_over())
        if answer.status == 200:
            return Response(b"HTTP/2", 200, list(answer.headers.items()), b"")
        self.wire2.until(self.is_over)
        body = bytes(answer.body)
        return Response(b"HTTP/2", answer.status, list(answer.headers.items()), body)

    def _fill(self) -> None:
        answer = self.answer
        while not answer.body and not self.is_over():
            self.wire2.read()
        if not answer.body:
            raise Closed(f"ended after {self._buffer!r}; {answer.reset}")
        self._buffer += bytes(answer.body)
        answer.body.clear()


class StreamPeer(Peer):
    """One connection after its handshake."""

    wire: StreamWire

    def __init__(self, wire2: H2Wire, target: str, *headers: tuple[str, str]) -> None:
        self.wire = StreamWire(wire2, target, [VERSION, *headers])
        self.response = self.wire.head()

    def end(self, code: int | None = 1000) -> None:
        """The closing handshake, and the ends of the stream in good order."""
        self.wire.send(closing(code))
        assert self.closed() == code
        assert self.wire.answer.ended
        self.wire.end()


def tls() -> ssl.SSLContext:
    context = client_context()
    context.set_alpn_protocols(["h2"])
    return context


@contextmanager
def connected(server: Served, *, open_windows: bool = True) -> Iterator[H2Wire]:
    """A connection whose server has said that it takes extended CONNECT."""
    context = tls() if server.context else None
    with H2Wire(server.address, context, open_windows=open_windows) as wire2:
        wire2.agree()
        assert wire2.h2.remote_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1
        yield wire2
