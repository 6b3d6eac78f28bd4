"""Protocols that remember, and sockets to talk to them with."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

from tests.support import PATIENCE

LIKE = 100_000
ALMOST_ALIKE = [
    *(LIKE, LIKE, LIKE + 15, LIKE, LIKE, LIKE + 16, LIKE, LIKE, LIKE + 17, LIKE - 1, LIKE),
    *(LIKE, LIKE, 3 * LIKE, LIKE, 16_383, 16_384, 16_384, 16_385, 16_400, 16_400, 16_384),
    *(126_000, 126_960, 126_960, 126_975, 126_976, 126_976, 126_977, 126_977, 126_000),
]
"""Sizes of messages in a row, for whoever guesses one from those before it: a guess is right, too
small by some bytes or by much, or at the end of what is guessed at all."""


class Recorder(asyncio.Protocol):
    """Notes each call in `events` (runs of data as one) and offers futures to wait on."""

    def __init__(self, loop: Any, *, keep_open: bool = False) -> None:
        self.loop = loop
        self.keep_open = keep_open
        self.transport: Any = None
        self.events: list[str] = []
        self.data = bytearray()
        self.error: Exception | None = None
        self.eof = loop.create_future()
        self.closed = loop.create_future()
        self.resumed = loop.create_future()
        self.paused = False
        self._wanted: tuple[int, Any] | None = None

    async def received(self, size: int) -> None:
        """Until at least `size` bytes have come."""
        if len(self.data) < size:
            self._wanted = size, self.loop.create_future()
            await asyncio.wait_for(self._wanted[1], PATIENCE)

    def connection_made(self, transport: Any) -> None:
        assert self.transport is None, "connection_made came twice"
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data
        assert self.events[-1] not in ("eof", "lost"), "data after the end"
        if self.events[-1] != "data":
            self.events.append("data")
        self.data += data
        if self._wanted is not None and len(self.data) >= self._wanted[0]:
            self._wanted[1].set_result(None)
            self._wanted = None

    def eof_received(self) -> bool:
        self.events.append("eof")
        self.eof.set_result(None)
        return self.keep_open

    def pause_writing(self) -> None:
        self.events.append("pause")
        self.paused = True

    def resume_writing(self) -> None:
        self.events.append("resume")
        self.paused = False
        self.resumed.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.events.append(f"lost {error!r}")
        self.error = error
        self.closed.set_result(None)


async def until_closed(*protocols: Recorder) -> None:
    for protocol in protocols:
        await asyncio.wait_for(asyncio.shield(protocol.closed), PATIENCE)


@contextlib.asynccontextmanager
async def connected(
    aio: ModuleType, *, keep_open: bool = False, server_type: type[Recorder] = Recorder
) -> AsyncIterator[tuple[Recorder, Recorder]]:
    """A client and a server side connected over TCP, both aborted afterwards if still open."""
    loop = aio.get_running_loop()
    accepted: Any = loop.create_future()

    class Server(server_type):  # type: ignore[misc, valid-type]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            accepted.set_result(self)

    listener = await loop.create_server(lambda: Server(loop, keep_open=keep_open), "127.0.0.1", 0)
    client = Recorder(loop, keep_open=keep_open)
    await loop.create_connection(lambda: client, *listener.sockets[0].getsockname())
    server: Recorder = await asyncio.wait_for(accepted, PATIENCE)
    try:
        yield client, server
    finally:
        for side in (client, server):
            if not side.closed.done():
                side.transport.abort()
                await until_closed(side)
        listener.close()
        await listener.wait_closed()


@contextlib.contextmanager
def listening_socket(backlog: int = 16) -> Iterator[socket.socket]:
    """A blocking listener on a free port, for peers the test plays by hand."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        listener.settimeout(PATIENCE)
        yield listener
