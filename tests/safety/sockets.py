"""Workloads of sockets without streams: datagram endpoints, and the loop's `sock_*` calls."""

import asyncio
import contextlib
import socket
from types import ModuleType
from typing import Any

from tests.safety.workloads import workload
from tests.support import PATIENCE


class Reply(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


class Ask(asyncio.DatagramProtocol):
    """Gives what is received to the one who waits."""

    def __init__(self, loop: Any) -> None:
        self.answer: asyncio.Future[bytes] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.answer.set_result(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set_result(None)


@workload(50)
async def datagrams(aio: ModuleType, count: int) -> None:
    """A new endpoint for every tenth question; a third of them is aborted."""
    loop = aio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Reply, local_addr=("127.0.0.1", 0))
    where = server.get_extra_info("sockname")
    for visit in range(max(1, count // 10)):
        client, ask = await loop.create_datagram_endpoint(lambda: Ask(loop), remote_addr=where)
        for number in range(10):
            ask.answer = loop.create_future()
            client.sendto(b"%d" % number)
            assert int(await aio.wait_for(ask.answer, PATIENCE)) == number
        (client.abort if visit % 3 == 0 else client.close)()
        await aio.wait_for(ask.gone, PATIENCE)
    server.close()
    await aio.sleep(0)


@workload(50)
async def sock_calls(aio: ModuleType, count: int) -> None:
    """Each connection receives in every way, and leaves one receiver to be cancelled."""
    loop = aio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    for _ in range(count):
        ours = socket.socket()
        ours.setblocking(False)
        accepting = loop.create_task(loop.sock_accept(listener))
        await loop.sock_connect(ours, listener.getsockname())
        theirs, _ = await accepting
        with ours, theirs:
            await loop.sock_sendall(ours, b"first, second")
            assert await loop.sock_recv(theirs, 7) == b"first, "
            buffer = bytearray(6)
            assert await loop.sock_recv_into(theirs, buffer) == 6
            waiting = loop.create_task(loop.sock_recv(theirs, 1))
            await aio.sleep(0)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
    listener.close()
