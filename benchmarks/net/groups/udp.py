"""Datagrams by DatagramProtocol, and by the loop's `sock_*`."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from net.case import BARE, Place, Served
from net.servers import KEPT

ORDER = 50
TITLE = "UDP"
NOTE = "Datagrams sent back to where they came from, one under way per client."


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(data, address)


async def endpoint(place: Place) -> int:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    port: int = transport.get_extra_info("sockname")[1]
    KEPT.append(transport)
    return port


async def by_hand(place: Place) -> int:
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)

    async def echo() -> None:
        while True:
            data, address = await loop.sock_recvfrom(sock, 1 << 16)
            await loop.sock_sendto(sock, data, address)

    KEPT.append(asyncio.ensure_future(echo()))
    port: int = sock.getsockname()[1]
    return port


FLOORS = {BARE: "udp"}

CASES = (
    Served("udp-1k-10", "1 KB, 10 clients", endpoint, "udp", 10, 1_000, 10_000, floors=FLOORS),
    Served("udp-1k-50", "1 KB, 50 clients", endpoint, "udp", 50, 1_000, 10_000, floors=FLOORS),
    Served(
        "sock-udp-1k-10",
        "`sock_recvfrom`, `sock_sendto`, 1 KB, 10 clients",
        by_hand,
        "udp",
        10,
        1_000,
        10_000,
        floors=FLOORS,
        lacking={"uvloop": "no sock_recvfrom", "rloop": "no sock_recvfrom"},
    ),
)
