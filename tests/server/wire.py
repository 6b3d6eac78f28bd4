"""A client that sends and reads exact bytes, and the server process it talks to."""

import contextlib
import dataclasses
import json
import os
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.cli.support import Process, running

PATIENCE = 10.0
ROOT = Path(__file__).parents[2]
SERVER = os.environ.get("RONDEL_TEST_SERVER", "rondel")  # or uvicorn: the oracle
# Exit statuses of a graceful stop on SIGTERM: uvicorn dies of the signal afterwards.
CLEAN = (0,) if SERVER == "rondel" else (0, -15)


@dataclass(frozen=True)
class Response:
    version: bytes
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    # The status line, whole.
    line: bytes = b""

    def get(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None


class Closed(AssertionError):
    """The server closed where more was expected; the text is what had come."""


class Wire:
    """One connection. Everything is blocking, with a deadline."""

    def __init__(
        self,
        address: tuple[str, int] | str,
        context: ssl.SSLContext | None = None,
        *,
        name: str = "localhost",
        session: ssl.SSLSession | None = None,
    ) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket: socket.socket = socket.socket(family)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        if context is not None:
            try:
                self.socket = context.wrap_socket(
                    self.socket, server_hostname=name, session=session
                )
            except BaseException:
                self.socket.close()
                raise
        self._buffer = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(
        self, target: str, method: str = "GET", *, body: bytes = b"", headers: str = ""
    ) -> Response:
        """A whole HTTP/1.1 request, and its response."""
        length = f"content-length: {len(body)}\r\n" if body or method == "POST" else ""
        head = f"{method} {target} HTTP/1.1\r\nhost: test\r\n{length}{headers}\r\n"
        self.send(head.encode("latin-1") + body)
        return self.response(head_only=method == "HEAD")

    def response(self, *, head_only: bool = False) -> Response:
        """Read one response; its framing is checked as it is read."""
        lines = self._until(b"\r\n\r\n").split(b"\r\n")
        version, status, *_ = lines[0].split(b" ", 2)
        headers = []
        for line in lines[1:-2]:
            name, _, value = line.partition(b":")
            headers.append((name.decode().lower(), value.strip().decode("latin-1")))
        code = int(status)
        answer = Response(version, code, headers, b"", lines[0])
        if head_only or code in (204, 304) or code < 200:
            return answer
        return dataclasses.replace(answer, body=self._body(answer))

    def _body(self, answer: Response) -> bytes:
        if answer.get("transfer-encoding") == "chunked":
            assert answer.get("content-length") is None
            body = bytearray()  # a bytes object would be copied whole for each chunk
            while size := int(self._until(b"\r\n").split(b";")[0], 16):
                body += self.exactly(size)
                assert self.exactly(2) == b"\r\n"
            assert self._until(b"\r\n") == b"\r\n"
            return bytes(body)
        if (length := answer.get("content-length")) is not None:
            return self.exactly(int(length))
        return self.rest()

    def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def rest(self) -> bytes:
        """Until the server closes."""
        with contextlib.suppress(Closed):
            while True:
                self._fill()
        data, self._buffer = self._buffer, b""
        return data

    def closed(self) -> bool:
        """The server closes, and sends nothing more before it does."""
        return self.rest() == b""

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._fill()
        index = self._buffer.index(end) + len(end)
        data, self._buffer = self._buffer[:index], self._buffer[index:]
        return data

    def _fill(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed(f"closed after {self._buffer!r}")
        self._buffer += data


class Served:
    """A running server."""

    def __init__(
        self,
        process: Process,
        address: tuple[str, int] | str,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.process = process
        self.address = address
        self.context = context

    def connect(self) -> Wire:
        return Wire(self.address, self.context)

    def get(self, target: str) -> Response:
        with self.connect() as wire:
            return wire.request(target)

    def events(self, key: str, count: int = 1) -> list[str]:
        """What the handlers noted under `key`, once there are `count` notes."""
        seen: list[str] = json.loads(self.get(f"/events?key={key}&count={count}").body)
        assert len(seen) >= count, f"{seen} instead of {count} notes"
        return seen

    def json(self, target: str) -> Any:
        return json.loads(self.get(target).body)

    @property
    def url(self) -> str:
        assert not isinstance(self.address, str)
        if self.context is not None:
            return f"https://localhost:{self.address[1]}"
        return f"http://{self.address[0]}:{self.address[1]}"


def command(app: str, *options: str) -> list[str]:
    python = [sys.executable, "-X", "faulthandler", "-m"]
    if SERVER == "uvicorn":
        return [*python, "uvicorn", app, "--app-dir", str(ROOT), *options]
    return [*python, "rondel", "serve", app, "--app-dir", str(ROOT), *options]


@contextlib.contextmanager
def serving(
    app: str = "tests.server.apps:app",
    *options: str,
    uds: Path | None = None,
    context: ssl.SSLContext | None = None,
) -> Iterator[Served]:
    """A server of `app` that accepts connections, killed at the end if it still runs. With a
    context it is spoken to by TLS.
    """
    where = ["--uds", str(uds)] if uds else ["--port", "0"]
    with running(command(app, *where, *options), ROOT) as process:
        if uds:
            process.wait_for(r"(serving|running) .*on .*unix")
            yield Served(process, str(uds))
        else:
            place = r"(?:serving|running) .*on https?://127\.0\.0\.1:(\d+)"
            yield Served(process, ("127.0.0.1", int(process.wait_for(place)[1])), context)
