"""redis-py's asyncio client, over a Unix socket, and over TCP through a proxy of ours."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import asyncio as redis
from redis.exceptions import ConnectionError as RedisConnectionError

from .conftest import MODE, PATIENCE

CHANNEL = f"news of {MODE}"  # the one thing that the databases share


async def exchange(client: redis.Redis) -> None:
    await client.flushdb()
    await client.set("key", b"x" * 1_000_000)
    assert await client.get("key") == b"x" * 1_000_000
    async with client.pipeline() as pipe:
        for _ in range(500):
            pipe.incr("counter")
        assert await pipe.execute() == list(range(1, 501))
    assert sorted(await asyncio.gather(*(client.incr("counter") for _ in range(60)))) == list(
        range(501, 561)
    )
    waiting = asyncio.create_task(client.blpop(["queue"], timeout=PATIENCE))
    await asyncio.sleep(0.01)
    await client.rpush("queue", b"item")
    assert tuple(await waiting) == (b"queue", b"item")
    async with client.pubsub(ignore_subscribe_messages=True) as sub:
        await sub.subscribe(CHANNEL)
        assert await sub.get_message(timeout=PATIENCE) is None  # the subscription itself
        await client.publish(CHANNEL, b"good")
        told = await sub.get_message(timeout=PATIENCE)
        assert told is not None
        assert told["data"] == b"good"
    async with client.lock("lock", timeout=PATIENCE):
        assert not await client.lock("lock").acquire(blocking=False)


@contextlib.asynccontextmanager
async def proxy(path: str) -> AsyncIterator[tuple[str, int]]:
    """A TCP port in front of the Unix socket: streams both ways, half-closed as the ends are."""
    tasks = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        up_reader, up_writer = await asyncio.open_unix_connection(path)
        try:
            await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))
        finally:
            for each in (writer, up_writer):
                each.close()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        await asyncio.gather(*tasks)
        await server.wait_closed()


async def check_an_exchange_over_a_unix_socket(redis_socket: Any) -> None:
    async with redis.Redis(unix_socket_path=redis_socket.path, db=redis_socket.db) as client:
        await exchange(client)


async def check_an_exchange_over_tcp(redis_socket: Any) -> None:
    async with (
        proxy(redis_socket.path) as (host, port),
        redis.Redis(host=host, port=port, db=redis_socket.db) as client,
    ):
        await exchange(client)


async def check_a_blocked_call_can_be_cancelled(redis_socket: Any) -> None:
    async with redis.Redis(unix_socket_path=redis_socket.path, db=redis_socket.db) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.blpop(["never"], timeout=PATIENCE)
        assert await client.ping()


async def check_a_missing_server_says_so(tmp_path: object) -> None:
    async with redis.Redis(unix_socket_path=f"{tmp_path}/nothing", retry=None) as client:
        with pytest.raises(RedisConnectionError):
            await client.ping()
