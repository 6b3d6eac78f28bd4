"""Protocols of pipes' ends, and the ends themselves."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

from tests.support import PATIENCE


class Reader(asyncio.Protocol):
    """Notes what it is told and offers futures to wait on."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.transport: Any = None
        self.data = bytearray()
        self.events: list[str] = []
        self.closed = loop.create_future()
        self._wanted: tuple[int, Any] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data
        self.data += data
        if self._wanted is not None and len(self.data) >= self._wanted[0]:
            self._wanted[1].set_result(None)
            self._wanted = None

    def eof_received(self) -> None:
        self.events.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(f"lost {exc!r}")
        self.closed.set_result(exc)

    async def received(self, size: int) -> None:
        if len(self.data) < size:
            self._wanted = size, self.loop.create_future()
            await asyncio.wait_for(self._wanted[1], PATIENCE)


class Writer(asyncio.BaseProtocol):
    def __init__(self, loop: Any) -> None:
        self.transport: Any = None
        self.events: list[str] = []
        self.closed = loop.create_future()
        self.resumed = loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")
        if not self.resumed.done():
            self.resumed.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(f"lost {exc!r}")
        self.closed.set_result(exc)


def opened(fd: int, mode: str) -> Any:
    return open(fd, mode, buffering=0)


@contextlib.asynccontextmanager
async def reading(
    aio: ModuleType, kind: type[Reader] = Reader, fds: tuple[int, int] | None = None
) -> AsyncIterator[tuple[Reader, int]]:
    """A transport that reads, and the descriptor to write to."""
    loop = aio.get_running_loop()
    end, other = os.pipe() if fds is None else fds
    _transport, protocol = await loop.connect_read_pipe(lambda: kind(loop), opened(end, "rb"))
    try:
        yield protocol, other
    finally:
        with contextlib.suppress(OSError):
            os.close(other)
        protocol.transport.close()
        await asyncio.wait_for(protocol.closed, PATIENCE)


@contextlib.asynccontextmanager
async def writing(
    aio: ModuleType, kind: type[Writer] = Writer, fds: tuple[int, int] | None = None
) -> AsyncIterator[tuple[Writer, int]]:
    """A transport that writes, and the descriptor to read from."""
    loop = aio.get_running_loop()
    other, end = os.pipe() if fds is None else fds
    _transport, protocol = await loop.connect_write_pipe(lambda: kind(loop), opened(end, "wb"))
    try:
        yield protocol, other
    finally:
        if not protocol.closed.done():
            protocol.transport.abort()
        await asyncio.wait_for(protocol.closed, PATIENCE)
        with contextlib.suppress(OSError):
            os.close(other)


async def read_all(aio: ModuleType, fd: int, size: int) -> bytes:
    """So many bytes from a descriptor, without holding up the loop."""
    data = bytearray()
    while len(data) < size:
        chunk = await asyncio.wait_for(aio.to_thread(os.read, fd, size - len(data)), PATIENCE)
        assert chunk, "the end came too soon"
        data += chunk
    return bytes(data)
