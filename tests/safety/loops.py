"""Workloads of generators, threads, streams and whole loops."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

from tests.safety.workloads import batches, give, workload


@workload(2)
async def asynchronous_generators(aio: ModuleType, count: int) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            await aio.sleep(0)
            yield number

    for number in range(batches(count, 3)):
        async for found in numbers():
            if number % 2 and found:
                break
        if number % 2:
            await aio.sleep(0)


@workload(20)
async def run_in_executor(aio: ModuleType, count: int) -> None:
    loop = aio.get_running_loop()
    for number in range(count):
        assert await loop.run_in_executor(None, int, number) == number
        with contextlib.suppress(ValueError):
            await loop.run_in_executor(None, int, "x")


@workload(20)
async def from_another_thread(aio: ModuleType, count: int) -> None:
    loop = aio.get_running_loop()

    def ask() -> None:
        for number in range(count):
            assert asyncio.run_coroutine_threadsafe(give(number), loop).result() == number

    await aio.to_thread(ask)


@workload(50)
async def streams(aio: ModuleType, count: int) -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await aio.open_connection(sock=ours)
    other_reader, other_writer = await aio.open_connection(sock=theirs)
    for number in range(count):
        writer.write(b"%d\n" % number)
        await writer.drain()
        other_writer.write(await other_reader.readline())
        assert int(await reader.readline()) == number
    for each in (writer, other_writer):
        each.close()
    for each in (writer, other_writer):
        await each.wait_closed()


@workload(200)
async def connections(aio: ModuleType, count: int) -> None:
    async def echo(reader: Any, writer: Any) -> None:
        writer.write(await reader.read())
        writer.close()
        await writer.wait_closed()

    server = await aio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for _ in range(count):
        reader, writer = await aio.open_connection("127.0.0.1", port)
        writer.write(b"x" * 100_000)
        writer.write_eof()
        assert len(await reader.read()) == 100_000
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()
    await aio.sleep(0)


@workload(200)
async def loops(aio: ModuleType, count: int) -> None:
    """Loops of their own in a thread: with what they leave, closed or not."""

    async def leave(loop: Any) -> None:
        loop.call_later(60, print)
        loop.call_soon(loop.create_future().set_result, loop)
        await aio.sleep(0)

    def run() -> None:
        for _ in range(count):
            loop = aio.new_event_loop()
            loop.run_until_complete(leave(loop))
            loop.call_soon(print)
            loop.close()

    await aio.get_running_loop().run_in_executor(None, run)
