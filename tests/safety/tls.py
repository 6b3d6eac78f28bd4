"""Workloads of TLS: handshakes, each with a little data, ended in every way."""

import asyncio
import ssl
from types import ModuleType
from typing import Any

from tests.net.certificates import client_context, server_context
from tests.safety.workloads import batches, workload
from tests.support import PATIENCE

AT_ONCE = 10


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Visitor(asyncio.Protocol):
    """Sends a word, and leaves with the answer: by closing, or at once."""

    def __init__(self, loop: Any, *, hastily: bool) -> None:
        self.hastily = hastily
        self.gone: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(b"word")

    def data_received(self, data: bytes) -> None:
        if self.hastily:
            self.transport.abort()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set_result(None)


@workload(10)
async def tls_handshakes(aio: ModuleType, count: int) -> None:
    """A tenth is refused for its name, a third of the rest aborted."""
    loop = aio.get_running_loop()
    trusting = client_context()
    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
    where = server.sockets[0].getsockname()

    async def visit(number: int) -> None:
        name = "localhost" if number % 10 else "other.test"
        visitor = Visitor(loop, hastily=number % 3 == 0)
        try:
            await loop.create_connection(
                lambda: visitor, *where, ssl=trusting, server_hostname=name
            )
        except ssl.SSLCertVerificationError:
            assert number % 10 == 0
        else:
            await aio.wait_for(visitor.gone, PATIENCE)

    for batch in range(batches(count, AT_ONCE)):
        start = batch * AT_ONCE
        await aio.gather(*(visit(number) for number in range(start, start + AT_ONCE)))
    server.close()
    await server.wait_closed()
    while loop._transports:  # the servers' sides of aborted connections
        await aio.sleep(0.001)
