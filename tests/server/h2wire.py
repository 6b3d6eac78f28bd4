"""A client of HTTP/2 that sends and reads exact frames; `h2` does the bookkeeping."""

import contextlib
import socket
import ssl
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from tests.server.wire import PATIENCE


@dataclass
class Answer:
    """What has come on a stream."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    early: list[tuple[int, list[str]]] = field(default_factory=list)
    """Statuses of the heads before the response, and their links."""
    body: bytearray = field(default_factory=bytearray)
    trailers: dict[str, str] = field(default_factory=dict)
    ended: bool = False
    reset: int | None = None


class H2Wire:
    """One connection; the preface and the settings are sent at once. Everything is blocking, with a
    deadline.
    """

    def __init__(
        self,
        address: tuple[str, int] | str,
        context: ssl.SSLContext | None = None,
        *,
        settings: dict[int, int] | None = None,
        open_windows: bool = True,
    ) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket: socket.socket = socket.socket(family)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        # Whether what comes is taken off the windows by itself.
        self._open = open_windows
        self.h2 = H2Connection(
            H2Configuration(header_encoding="utf-8", validate_outbound_headers=False)
        )
        if settings:
            self.h2.local_settings.update(settings)
        self.h2.initiate_connection()
        self.answers: dict[int, Answer] = {}
        self.events: list[Event] = []
        self.goaway: ConnectionTerminated | None = None
        self.closed = False
        self._unread = b""
        self.flush()

    def __enter__(self) -> "H2Wire":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def open(
        self,
        target: str,
        method: str = "GET",
        *,
        headers: list[tuple[str, str]] | None = None,
        end: bool = True,
        protocol: str | None = None,
        data: bytes = b"",
    ) -> int:
        """Begin a request; its stream. A protocol makes a CONNECT an extended one (RFC 8441)."""
        stream = self.h2.get_next_available_stream_id()
        pseudo = [
            (":method", method),
            *([(":protocol", protocol)] if protocol else []),
            (":scheme", "http"),
            (":authority", "test"),
            (":path", target),
        ]
        self.h2.send_headers(stream, [*pseudo, *(headers or [])], end_stream=end)
        if data:
            self.h2.send_data(stream, data)
        self.answers[stream] = Answer()
        self.flush()
        return stream

    def data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        self.h2.send_data(stream, data, end_stream=end)
        self.flush()

    def agree(self) -> None:
        """Read until both sides have the other's settings."""
        both = (RemoteSettingsChanged, SettingsAcknowledged)
        self.until(lambda: all(any(isinstance(e, kind) for e in self.events) for kind in both))

    def reset(self, stream: int, code: int = ErrorCodes.NO_ERROR) -> None:
        self.h2.reset_stream(stream, code)
        self.flush()

    def get(self, target: str, **options: Any) -> Answer:
        return self.answer(self.open(target, **options))

    def answer(self, stream: int) -> Answer:
        """The whole of it."""
        answer = self.answers[stream]
        self.until(lambda: answer.ended or answer.reset is not None)
        return answer

    def until(self, done: Any) -> None:
        """Read until the condition holds."""
        while not done():
            assert not self.closed, f"closed; {self.goaway}"
            self.read()

    def read(self) -> None:
        """What comes next."""
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return
        self._unread += data
        while len(self._unread) >= 9:
            end = 9 + int.from_bytes(self._unread[:3], "big")
            if len(self._unread) < end:
                break
            frame, self._unread = self._unread[:end], self._unread[end:]
            for event in self.h2.receive_data(frame):
                self._note(event)
            if self.goaway is not None:
                # `h2` takes it for the end, and it is only the beginning of it (RFC 9113, 6.8).
                self.h2.state_machine.state = ConnectionState.CLIENT_OPEN
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.flush()

    def _note(self, event: Event) -> None:
        self.events.append(event)
        answer = self.answers.get(getattr(event, "stream_id", None) or 0, Answer())
        match event:
            case ResponseReceived():
                answer.headers = dict(event.headers or ())
                answer.status = int(answer.headers[":status"])
            case InformationalResponseReceived():
                headers = list(event.headers or ())
                links = [str(value) for name, value in headers if name == "link"]
                answer.early.append((int(dict(headers)[":status"]), links))
            case DataReceived():
                answer.body += event.data or b""
                if self._open and event.flow_controlled_length and event.stream_id:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case TrailersReceived():
                answer.trailers = dict(event.headers or ())
            case StreamEnded():
                answer.ended = True
            case StreamReset():
                answer.reset = int(event.error_code or 0)
            case ConnectionTerminated():
                self.goaway = event
