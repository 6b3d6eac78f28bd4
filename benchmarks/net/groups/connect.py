"""Connections that come and go."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from net.case import BARE, Own, Place, Served
from net.servers import BACKLOG, over_tcp, port_of

ORDER = 70
TITLE = "Connect and close"
NOTE = """\
*Accept*: a server greets each client with a byte, and the client closes. *Connect*: a client
connects to such a server of another process, reads the byte and closes.\
"""


class Greet(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b"!")  # type: ignore[attr-defined]


async def greet_by_streams(place: Place) -> int:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"!")
        await reader.read()
        writer.close()

    return port_of(await asyncio.start_server(greet, "127.0.0.1", 0, backlog=BACKLOG))


class Guest(asyncio.Protocol):
    def __init__(self, over: asyncio.Future[None]) -> None:
        self.over = over

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set_result(None)


def greeter() -> int:
    return int(os.environ["NET_GREETER"])


async def connect(count: int) -> None:
    loop = asyncio.get_running_loop()
    port = greeter()
    for _ in range(count):
        over: asyncio.Future[Any] = loop.create_future()
        await loop.create_connection(lambda over=over: Guest(over), "127.0.0.1", port)  # type: ignore[misc]
        await over


async def connect_by_streams(count: int) -> None:
    port = greeter()
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.read(1)
        writer.close()
        await writer.wait_closed()


FLOORS = {BARE: "guest"}

CASES = (
    Served(
        "accept",
        "accept, `Protocol`",
        over_tcp(Greet),
        "connect",
        10,
        1,
        1_000,
        floors={BARE: "greet"},
    ),
    Served("accept-streams", "accept, streams", greet_by_streams, "connect", 10, 1, 1_000),
    Own("connect", "connect, `create_connection`", connect, 1_000, FLOORS),
    Own("connect-streams", "connect, `open_connection`", connect_by_streams, 1_000, FLOORS),
)
