"""start_tls on both ends, TLS within TLS, and streams over TLS."""

import asyncio
import ssl
from types import ModuleType
from typing import Any

import pytest

from tests.net.certificates import client_context, server_context
from tests.net.peers import Recorder, connected, until_closed
from tests.support import PATIENCE


async def upgrade(
    aio: ModuleType, client: Recorder, server: Recorder, **options: Any
) -> tuple[Any, Any]:
    """Both ends' TLS transports, over whatever they have."""
    loop = aio.get_running_loop()
    ours, theirs = await aio.gather(
        loop.start_tls(
            client.transport, client, client_context(), server_hostname="localhost", **options
        ),
        loop.start_tls(server.transport, server, server_context(), server_side=True, **options),
    )
    client.transport, server.transport = ours, theirs
    return ours, theirs


async def test_a_plain_connection_becomes_a_secure_one(aio: ModuleType) -> None:
    async with connected(aio) as (client, server):
        client.transport.write(b"plain")
        await server.received(5)
        ours, theirs = await upgrade(aio, client, server)
        assert isinstance(ours, asyncio.Transport)
        assert ours.get_extra_info("cipher") is not None
        assert theirs.get_protocol() is server
        ours.write(b"secret")
        await server.received(11)
        theirs.write(b"answer")
        await client.received(6)
        ours.close()
        await until_closed(client, server)
    assert bytes(server.data) == b"plainsecret"
    assert server.events == ["made", "data", "eof", "lost None"]
    assert client.events == ["made", "data", "eof", "lost None"]


async def test_tls_within_tls(aio: ModuleType) -> None:
    large = bytes(1_000_000)
    async with connected(aio) as (client, server):
        await upgrade(aio, client, server)
        outer = client.transport
        inner, theirs = await upgrade(aio, client, server)
        assert inner is not outer
        inner.write(large)
        await server.received(len(large))
        theirs.write(b"answer")
        await client.received(6)
        inner.close()
        await until_closed(client, server)
    assert bytes(server.data) == large
    assert client.events == ["made", "data", "eof", "lost None"]


async def test_what_start_tls_can_not_do_is_refused(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    async with connected(aio) as (client, _):
        with pytest.raises(TypeError, match="instance of ssl.SSLContext, got None"):
            await loop.start_tls(client.transport, client, None)
        with pytest.raises(TypeError, match="is not supported by start_tls"):
            await loop.start_tls(object(), client, client_context())
        with pytest.raises(ValueError, match="positive number, got -1"):
            await loop.start_tls(
                client.transport, client, client_context(), ssl_handshake_timeout=-1
            )


async def test_a_failed_upgrade_closes_the_connection(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    async with connected(aio) as (client, server):
        with pytest.raises(ssl.SSLCertVerificationError):
            await aio.gather(
                loop.start_tls(
                    client.transport, client, client_context("other.test"), server_hostname="x"
                ),
                aio.gather(
                    loop.start_tls(server.transport, server, server_context(), server_side=True),
                    return_exceptions=True,
                ),
            )
        assert client.transport.is_closing()
        await until_closed(client, server)


async def test_a_cancelled_upgrade_closes_the_connection(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    async with connected(aio) as (client, server):
        task = loop.create_task(
            loop.start_tls(client.transport, client, client_context(), server_hostname="localhost")
        )
        await server.received(1)  # the client's hello
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.transport.is_closing()
        await until_closed(server)
        client.closed.set_result(None)


async def test_an_upgrade_ends_by_its_timeout(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    async with connected(aio) as (client, server):
        with pytest.raises(ConnectionAbortedError, match="longer than 0.05 seconds"):
            await loop.start_tls(
                client.transport,
                client,
                client_context(),
                server_hostname="localhost",
                ssl_handshake_timeout=0.05,
            )
        await until_closed(server)
        client.closed.set_result(None)


async def test_streams_over_tls(aio: ModuleType) -> None:
    async def handle(reader: Any, writer: Any) -> None:
        writer.write(b"hello\n")
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await aio.start_server(handle, "127.0.0.1", 0, ssl=server_context())
    reader, writer = await aio.open_connection(
        *server.sockets[0].getsockname(), ssl=client_context(), server_hostname="localhost"
    )
    assert await reader.readline() == b"hello\n"
    for number in range(50):
        writer.write(b"line ")
        writer.write(b"%d\n" % number)
        await writer.drain()
        assert await reader.readexactly(5) == b"LINE "
        assert await reader.readuntil() == b"%d\n" % number
    assert writer.get_extra_info("peercert") is not None
    writer.close()
    await aio.wait_for(writer.wait_closed(), PATIENCE)
    server.close()
    await server.wait_closed()


async def test_streams_are_upgraded_on_both_ends(aio: ModuleType) -> None:
    upgraded = aio.get_running_loop().create_future()

    async def handle(reader: Any, writer: Any) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"GO\n")
        await writer.drain()
        await writer.start_tls(server_context())
        upgraded.set_result(await reader.readline())
        writer.write(b"secret answer\n")
        await writer.drain()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    server = await aio.start_server(handle, "127.0.0.1", 0)
    reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"STARTTLS\n")
    assert await reader.readline() == b"GO\n"
    await writer.start_tls(client_context(), server_hostname="localhost")
    assert writer.get_extra_info("cipher") is not None
    writer.write(b"secret\n")
    await writer.drain()
    assert await aio.wait_for(upgraded, PATIENCE) == b"secret\n"
    assert await reader.readline() == b"secret answer\n"
    writer.close()
    await aio.wait_for(writer.wait_closed(), PATIENCE)
    server.close()
    await server.wait_closed()
