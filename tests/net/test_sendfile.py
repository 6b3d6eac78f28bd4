"""sock_sendfile and sendfile: files over sockets."""

import asyncio
import contextlib
import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import PATIENCE, Runtime, spin

LARGE = os.urandom(4_000_000)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sendfile") / "large"
    path.write_bytes(LARGE)
    return path


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection that do not block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        # Small buffers, which the system does not enlarge: a large file has to wait.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
        a = socket.create_connection(server.getsockname())
        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        b, _ = server.accept()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


async def receive(aio: ModuleType, sock: socket.socket, size: int) -> bytes:
    loop = aio.get_running_loop()
    data = bytearray()
    while len(data) < size:
        chunk = await asyncio.wait_for(loop.sock_recv(sock, 1_000_000), PATIENCE)
        assert chunk, "the end came too soon"
        data += chunk
    return bytes(data)


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, None), (0, 1), (100, None), (5, 2_000_000), (3_999_999, None), (3_999_990, 1000)],
)
async def test_a_part_of_a_file(
    aio: ModuleType, large: Path, offset: int, count: int | None
) -> None:
    loop = aio.get_running_loop()
    expected = LARGE[offset:] if count is None else LARGE[offset : offset + count]
    with pair() as (a, b), large.open("rb") as file:
        sending = loop.create_task(loop.sock_sendfile(a, file, offset, count, fallback=False))
        assert await receive(aio, b, len(expected)) == expected
        assert await asyncio.wait_for(sending, PATIENCE) == len(expected)
        assert file.tell() == offset + len(expected)


async def test_nothing_to_send(aio: ModuleType, tmp_path: Path, large: Path) -> None:
    loop = aio.get_running_loop()
    (tmp_path / "empty").touch()
    with pair() as (a, _), (tmp_path / "empty").open("rb") as file:
        assert await loop.sock_sendfile(a, file, fallback=False) == 0
    with pair() as (a, _), large.open("rb") as file:
        assert await loop.sock_sendfile(a, file, len(LARGE) + 1, fallback=False) == 0
        assert file.tell() == 0


async def test_what_is_no_file_is_read_and_sent(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with pair() as (a, b):
        unavailable = asyncio.SendfileNotAvailableError
        with pytest.raises(unavailable, match="not a regular file"):
            await loop.sock_sendfile(a, io.BytesIO(b"data"), fallback=False)
        assert await loop.sock_sendfile(a, io.BytesIO(b"data")) == 4
        assert await receive(aio, b, 4) == b"data"
        end, other = os.pipe()
        os.close(other)
        with open(end, "rb", buffering=0) as pipe, pytest.raises(unavailable):
            await loop.sock_sendfile(a, pipe, 0, 10, fallback=False)


async def test_arguments_are_checked(aio: ModuleType, large: Path) -> None:
    loop = aio.get_running_loop()
    with pair() as (a, _), large.open("rb") as file:
        with pytest.raises(ValueError, match="offset must be a non-negative integer"):
            await loop.sock_sendfile(a, file, -1)
        with pytest.raises(ValueError, match="count must be a positive integer"):
            await loop.sock_sendfile(a, file, 0, -1)
        with pytest.raises(OverflowError):
            await loop.sock_sendfile(a, file, 2**70)
        with large.open() as text, pytest.raises(ValueError, match="binary mode"):
            await loop.sock_sendfile(a, text)


async def test_a_cancelled_one_says_how_far_it_came(
    runtime: Runtime, aio: ModuleType, large: Path
) -> None:
    loop = aio.get_running_loop()
    with pair() as (a, b), large.open("rb") as file:
        sending = loop.create_task(loop.sock_sendfile(a, file, 7, fallback=False))
        await receive(aio, b, 1)
        await spin(aio, 20)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await spin(aio)
        a.shutdown(socket.SHUT_WR)
        got = 0
        with pytest.raises(AssertionError, match="too soon"):
            while True:
                got += len(await receive(aio, b, 1))
        assert 0 < got < len(LARGE)
        if runtime.native:  # asyncio leaves it where it was
            # What was received first is missing in the sum.
            assert 7 + got < file.tell() < len(LARGE)


async def test_a_peer_that_goes_away(aio: ModuleType, large: Path) -> None:
    loop = aio.get_running_loop()
    with pair() as (a, b), large.open("rb") as file:
        sending = loop.create_task(loop.sock_sendfile(a, file, fallback=False))
        await receive(aio, b, 1)
        b.close()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await asyncio.wait_for(sending, PATIENCE)
        assert 0 < file.tell() < len(LARGE)


async def test_receiving_goes_on_meanwhile(aio: ModuleType, large: Path) -> None:
    loop = aio.get_running_loop()
    with pair() as (a, b), large.open("rb") as file:
        listening = loop.create_task(loop.sock_recv(a, 100))
        sending = loop.create_task(loop.sock_sendfile(a, file, fallback=False))
        await receive(aio, b, 1)
        await loop.sock_sendall(b, b"hello")
        assert await asyncio.wait_for(listening, PATIENCE) == b"hello"
        assert not sending.done()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


async def test_a_socket_that_the_program_watches(aio: ModuleType, large: Path) -> None:
    loop = aio.get_running_loop()
    readable = loop.create_future()
    with pair() as (a, b), large.open("rb") as file:
        loop.add_reader(a, lambda: readable.done() or readable.set_result(None))
        sending = loop.create_task(loop.sock_sendfile(a, file, 3, fallback=False))
        assert await receive(aio, b, len(LARGE) - 3) == LARGE[3:]
        assert await asyncio.wait_for(sending, PATIENCE) == len(LARGE) - 3
        assert file.tell() == len(LARGE)
        b.send(b"x")
        await asyncio.wait_for(readable, PATIENCE)
        loop.remove_reader(a)


class Echoed(asyncio.Protocol):
    def __init__(self, loop: Any) -> None:
        self.data = bytearray()
        self.closed = loop.create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(exc)


async def test_a_transport_sends_before_and_after(aio: ModuleType, large: Path) -> None:
    loop = aio.get_running_loop()
    with pair() as (a, b), large.open("rb") as file:
        transport, protocol = await loop.create_connection(lambda: Echoed(loop), sock=a)
        transport.write(b"before")
        sending = loop.create_task(loop.sendfile(transport, file, fallback=False))
        await spin(aio)
        with pytest.raises(RuntimeError, match="sendfile is in progress"):
            transport.write(b"too early")
        assert await receive(aio, b, 6 + len(LARGE)) == b"before" + LARGE
        assert await asyncio.wait_for(sending, PATIENCE) == len(LARGE)
        transport.write(b"after")
        assert await receive(aio, b, 5) == b"after"
        await loop.sock_sendall(b, b"answer")
        b.close()
        assert await asyncio.wait_for(protocol.closed, PATIENCE) is None
        assert protocol.data == b"answer"


async def test_a_transport_that_is_aborted_meanwhile(
    runtime: Runtime, aio: ModuleType, large: Path
) -> None:
    if not runtime.native:
        pytest.skip("asyncio waits for ever")
    loop = aio.get_running_loop()
    with pair() as (a, b), large.open("rb") as file:
        transport, protocol = await loop.create_connection(lambda: Echoed(loop), sock=a)
        sending = loop.create_task(loop.sendfile(transport, file))
        await receive(aio, b, 1)
        transport.abort()
        with pytest.raises(OSError):
            await asyncio.wait_for(sending, PATIENCE)
        await asyncio.wait_for(protocol.closed, PATIENCE)
