"""Programs that act on a transport in the midst of its own work."""

import asyncio
import contextlib
import os
import socket
from typing import Any

import pytest

from tests.support import PATIENCE, Runtime


class Noting(asyncio.Protocol):
    def __init__(self, loop: Any) -> None:
        self.lost: asyncio.Future[Any] = loop.create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


class Ending(bytes):
    """Data that ends its transport when it is no longer needed: asyncio may need a copy alone."""

    transport: Any = None

    def __del__(self) -> None:
        if self.transport is not None:
            self.transport.abort()


async def connected(aio: Any, kind: str) -> tuple[Any, Noting, int]:
    """A transport to write to, and the descriptor to read from."""
    loop = aio.get_running_loop()
    if kind == "pipe":
        end, other = os.pipe()
        file = os.fdopen(other, "wb", 0)
        return *(await loop.connect_write_pipe(lambda: Noting(loop), file)), end
    ours, theirs = socket.socketpair()
    return *(await loop.create_connection(lambda: Noting(loop), sock=ours)), theirs.detach()


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("lines", [False, True])
async def test_queued_data_whose_end_aborts_the_transport(
    runtime: Runtime, kind: str, lines: bool
) -> None:
    aio = runtime.aio
    transport, protocol, end = await connected(aio, kind)
    try:
        transport.write(b"x" * 1_000_000)
        data = Ending(b"last")
        if lines:
            transport.writelines([data, b"more"])
        else:
            transport.write(data)
            transport.write(b"more")
        data.transport = transport
        del data
        os.set_blocking(end, False)
        received = 0
        async with asyncio.timeout(PATIENCE):
            while not protocol.lost.done():
                with contextlib.suppress(BlockingIOError):
                    received += len(os.read(end, 1 << 20))
                if received == 1_000_008:
                    transport.abort()  # a copy was sent: nothing was to end
                await aio.sleep(0)
        assert protocol.lost.result() is None
        assert transport.get_write_buffer_size() == 0
        if not runtime.native:
            await aio.sleep(0)
            runtime.take_errors()  # since 3.12 asyncio tells such a protocol of its end twice
    finally:
        os.close(end)
