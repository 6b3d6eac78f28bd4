"""Echo servers in every way that asyncio has; what the groups' cases serve."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from net.case import Place

BACKLOG = 1024

KEPT: list[Any] = []
"""What listens: some loops close what nobody refers to."""


class Echo(asyncio.Protocol):
    """As small as a protocol can be."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    """Its buffer is written uncopied, as it is not written to before that is done or copied."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.room = memoryview(bytearray(1 << 18))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.room

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(self.room[:nbytes])


async def stream_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 18):
        writer.write(data)
        await writer.drain()
    writer.close()


def port_of(server: asyncio.Server) -> int:
    KEPT.append(server)
    port: int = server.sockets[0].getsockname()[1]
    return port


def tls(place: Place) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place.certificate)
    return context


def over_tcp(factory: Callable[[], asyncio.BaseProtocol], secure: bool = False) -> Any:
    async def serve(place: Place) -> int:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            factory, "127.0.0.1", 0, backlog=BACKLOG, ssl=tls(place) if secure else None
        )
        return port_of(server)

    return serve


def over_unix(factory: Callable[[], asyncio.BaseProtocol]) -> Any:
    async def serve(place: Place) -> str:
        loop = asyncio.get_running_loop()
        KEPT.append(await loop.create_unix_server(factory, place.path, backlog=BACKLOG))
        return place.path

    return serve


async def streams(place: Place) -> int:
    return port_of(await asyncio.start_server(stream_echo, "127.0.0.1", 0, backlog=BACKLOG))


async def streams_unix(place: Place) -> str:
    KEPT.append(await asyncio.start_unix_server(stream_echo, place.path, backlog=BACKLOG))
    return place.path


async def streams_tls(place: Place) -> int:
    return port_of(
        await asyncio.start_server(stream_echo, "127.0.0.1", 0, backlog=BACKLOG, ssl=tls(place))
    )


Exchange = Callable[[asyncio.AbstractEventLoop, socket.socket], Awaitable[None]]


async def receive_and_send(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := await loop.sock_recv(sock, 1 << 18):
            await loop.sock_sendall(sock, data)


async def receive_into_and_send(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    room = memoryview(bytearray(1 << 18))
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while count := await loop.sock_recv_into(sock, room):
            await loop.sock_sendall(sock, room[:count])


def over_sockets(exchange: Exchange) -> Any:
    async def serve(place: Place) -> int:
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        listener.setblocking(False)
        running = set()

        async def accept() -> None:
            while True:
                sock, _address = await loop.sock_accept(listener)
                sock.setblocking(False)
                task = asyncio.ensure_future(exchange(loop, sock))
                running.add(task)
                task.add_done_callback(running.discard)

        running.add(asyncio.ensure_future(accept()))
        port: int = listener.getsockname()[1]
        return port

    return serve
