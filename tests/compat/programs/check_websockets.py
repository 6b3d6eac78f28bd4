"""websockets: server and client, text and binary, large messages, TLS, both ends' closing."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect, unix_connect
from websockets.asyncio.server import ServerConnection, broadcast, serve, unix_serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK


async def handle(socket: ServerConnection) -> None:
    async for message in socket:
        if message == "bye":
            await socket.close(4000, "as asked")
        elif message == "drop":
            socket.transport.abort()
        else:
            await socket.send(message)


async def exchange(socket: Any) -> None:
    await socket.send("text")
    assert await socket.recv() == "text"
    large = os.urandom(700_000)
    await socket.send(large)
    assert await socket.recv() == large
    await socket.send(["frag", "men", "ted"])
    assert await socket.recv() == "fragmented"
    await (await socket.ping())


async def check_messages_over_tcp() -> None:
    async with serve(handle, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connect(uri) as socket:
            await exchange(socket)
        async with connect(uri) as socket:
            await socket.send("bye")
            with pytest.raises(ConnectionClosedError) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4000
        async with connect(uri) as socket:
            await socket.send("drop")
            with pytest.raises(ConnectionClosedError):
                await socket.recv()


async def check_messages_over_tls(tls: Any) -> None:
    async with serve(handle, "127.0.0.1", 0, ssl=tls.server) as server:
        uri = f"wss://localhost:{server.sockets[0].getsockname()[1]}"
        async with connect(uri, ssl=tls.client) as socket:
            await exchange(socket)


async def check_messages_over_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with unix_serve(handle, path), unix_connect(path) as socket:
        await exchange(socket)


async def check_many_clients_get_a_broadcast() -> None:
    connected: set[ServerConnection] = set()
    everybody = asyncio.Event()

    async def join(socket: ServerConnection) -> None:
        connected.add(socket)
        if len(connected) == 30:
            everybody.set()
        await socket.wait_closed()

    async with serve(join, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        clients = await asyncio.gather(*(connect(uri) for _ in range(30)))
        await everybody.wait()
        broadcast(connected, "news")
        assert [await client.recv() for client in clients] == ["news"] * 30
        server.close(close_connections=True)
        for client in clients:
            with pytest.raises((ConnectionClosedOK, ConnectionClosedError)):
                await client.recv()
        await asyncio.gather(*(client.close() for client in clients))
        await server.wait_closed()
