"""open_connection and start_server: asyncio's streams over the runtime's transports."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest

from tests.net.peers import ALMOST_ALIKE
from tests.support import PATIENCE, Runtime

Handler = Callable[[Any, Any], Awaitable[None]]


@asynccontextmanager
async def talking(
    aio: ModuleType, handler: Handler, path: str | None = None, **options: Any
) -> AsyncIterator[Any]:
    """(reader, writer) of a client whose peer is `handler`, which ends with the block."""
    served = aio.get_running_loop().create_future()

    async def handle(reader: Any, writer: Any) -> None:
        try:
            await handler(reader, writer)
        finally:
            served.set_result(None)

    if path is None:
        server = await aio.start_server(handle, "127.0.0.1", 0, **options)
        reader, writer = await aio.open_connection(*server.sockets[0].getsockname(), **options)
    else:
        server = await aio.start_unix_server(handle, path, **options)
        reader, writer = await aio.open_unix_connection(path, **options)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()
        await aio.wait_for(served, PATIENCE)
        server.close()
        await server.wait_closed()


async def echo(reader: Any, writer: Any) -> None:
    while data := await reader.read(4096):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("room", [50_000, 1 << 18])
async def test_messages_of_like_and_unlike_sizes_arrive_whole(aio: ModuleType, room: int) -> None:
    async def handle(reader: Any, writer: Any) -> None:
        while data := await reader.read(room):
            assert len(data) <= room
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    payload = os.urandom(400_000)
    async with talking(aio, handle) as (reader, writer):
        for size in [10, 300_000, 300_000, *ALMOST_ALIKE, 5]:
            writer.write(payload[-size:])
            back = await aio.wait_for(reader.readexactly(size), PATIENCE)
            assert back == payload[-size:]


async def test_a_crowd_is_served_each_its_own_data(aio: ModuleType) -> None:
    """More connections with something to read than one poll tells of."""
    left, over = 200, aio.get_running_loop().create_future()

    async def handle(reader: Any, writer: Any) -> None:
        nonlocal left
        await echo(reader, writer)
        left -= 1
        if not left:
            over.set_result(None)

    server = await aio.start_server(handle, "127.0.0.1", 0, backlog=256)
    ends = [await aio.open_connection(*server.sockets[0].getsockname()) for _ in range(left)]
    for turn in range(3):
        for number, (_, writer) in enumerate(ends):
            writer.write(b"%d:%d" % (turn, number))
        for number, (reader, _) in enumerate(ends):
            expected = b"%d:%d" % (turn, number)
            got = await aio.wait_for(reader.readexactly(len(expected)), PATIENCE)
            assert got == expected
    for _, writer in ends:
        writer.close()
        await writer.wait_closed()
    await aio.wait_for(over, PATIENCE)
    server.close()
    await server.wait_closed()


async def test_lines_come_back_one_by_one(aio: ModuleType) -> None:
    async with talking(aio, echo) as (reader, writer):
        for number in range(20):
            writer.write(b"line %d\n" % number)
        await writer.drain()
        assert [await reader.readline() for _ in range(20)] == [
            b"line %d\n" % number for number in range(20)
        ]


async def test_readexactly_readuntil_and_read_to_the_end(aio: ModuleType) -> None:
    async with talking(aio, echo) as (reader, writer):
        writer.write(b"0123456789|rest")
        writer.write_eof()
        assert await reader.readexactly(4) == b"0123"
        assert await reader.readuntil(b"|") == b"456789|"
        assert await reader.read() == b"rest"
        assert reader.at_eof()
        assert await reader.read() == b""


async def test_an_early_end_is_an_incomplete_read(aio: ModuleType) -> None:
    async with talking(aio, echo) as (reader, writer):
        writer.write(b"short")
        writer.write_eof()
        with pytest.raises(aio.IncompleteReadError) as caught:
            await reader.readexactly(10)
    assert caught.value.partial == b"short"
    assert caught.value.expected == 10


async def test_a_line_over_the_limit_is_refused(aio: ModuleType) -> None:
    async with talking(aio, echo, limit=64) as (reader, writer):
        writer.write(b"x" * 200 + b"\n")
        with pytest.raises(ValueError, match="limit"):
            await reader.readline()


async def test_drain_waits_for_a_slow_reader(aio: ModuleType) -> None:
    gate = aio.Event()

    async def slow(reader: Any, writer: Any) -> None:
        await gate.wait()
        while await reader.read(1 << 20):
            pass
        writer.close()
        await writer.wait_closed()

    async with talking(aio, slow) as (_, writer):
        writer.write(b"x" * 20_000_000)
        drained = aio.create_task(writer.drain())
        await aio.sleep(0.02)
        assert not drained.done()
        gate.set()
        await aio.wait_for(drained, 10)


async def test_megabytes_arrive_unharmed(aio: ModuleType) -> None:
    payload = bytes(range(256)) * 8192
    async with talking(aio, echo) as (reader, writer):

        async def send() -> None:
            writer.write(payload)
            await writer.drain()
            writer.write_eof()

        _, answer = await aio.gather(send(), reader.read())
    assert answer == payload


async def test_async_for_reads_lines(aio: ModuleType) -> None:
    async def shout(reader: Any, writer: Any) -> None:
        async for line in reader:
            writer.write(line.upper())
        writer.close()
        await writer.wait_closed()

    async with talking(aio, shout) as (reader, writer):
        writer.write(b"one\ntwo\nthree")
        writer.write_eof()
        assert await reader.read() == b"ONE\nTWO\nTHREE"


async def test_a_reset_reaches_the_reader(aio: ModuleType) -> None:
    async def rude(reader: Any, writer: Any) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    server = await aio.start_server(rude, "127.0.0.1", 0)
    reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()
    server.close()
    await server.wait_closed()


@pytest.mark.later_asyncio
async def test_an_error_in_the_client_handler_is_reported(runtime: Runtime) -> None:
    async def broken(reader: Any, writer: Any) -> None:
        writer.close()
        raise ZeroDivisionError("handler")

    async with talking(runtime.aio, broken) as (reader, _):
        assert await reader.read() == b""
    (context,) = runtime.take_errors()
    assert isinstance(context["exception"], ZeroDivisionError)
    assert "client_connected_cb" in context["message"]


async def test_cancelling_a_read_leaves_the_stream_usable(aio: ModuleType) -> None:
    async with talking(aio, echo) as (reader, writer):
        with pytest.raises(TimeoutError):
            await aio.wait_for(reader.readline(), 0.005)
        writer.write(b"still here\n")
        assert await reader.readline() == b"still here\n"


async def test_two_reads_at_once_are_refused(aio: ModuleType) -> None:
    async with talking(aio, echo) as (reader, writer):
        first = aio.create_task(reader.readline())
        await aio.sleep(0)
        with pytest.raises(RuntimeError, match="already waiting"):
            await reader.readline()
        writer.write(b"line\n")
        assert await first == b"line\n"


async def test_the_writers_views_of_the_transport(aio: ModuleType) -> None:
    async with talking(aio, echo) as (_, writer):
        assert writer.can_write_eof()
        assert not writer.is_closing()
        assert writer.get_extra_info("peername")[0] == "127.0.0.1"
        writer.writelines([b"a", b"b"])
        writer.close()
        assert writer.is_closing()


async def test_streams_over_unix_sockets(aio: ModuleType, tmp_path: Any) -> None:
    async with talking(aio, echo, str(tmp_path / "socket")) as (reader, writer):
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"


async def test_tasks_talking_through_streams_see_each_other(aio: ModuleType) -> None:
    # A chat: every line reaches every client.
    writers: list[Any] = []

    ended = aio.Semaphore(0)

    async def chat(reader: Any, writer: Any) -> None:
        writers.append(writer)
        async for line in reader:
            for other in writers:
                other.write(line)
        writer.close()
        await writer.wait_closed()
        ended.release()

    server = await aio.start_server(chat, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    clients = [await aio.open_connection(*address) for _ in range(5)]
    async with aio.timeout(5):
        while len(writers) < 5:
            await aio.sleep(0.001)
    clients[0][1].write(b"hello all\n")
    lines = await aio.gather(*(reader.readline() for reader, _ in clients))
    assert lines == [b"hello all\n"] * 5
    for _, writer in clients:
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()
    for _ in clients:
        await aio.wait_for(ended.acquire(), PATIENCE)


async def test_whoever_waits_for_the_close_is_told_how_the_connection_ended(
    aio: ModuleType,
) -> None:
    loop = aio.get_running_loop()
    for exc in (None, ConnectionResetError("gone")):
        reader = aio.StreamReader(loop=loop)
        asked, late = (aio.StreamReaderProtocol(reader, loop=loop) for _ in range(2))
        waiter = asked._get_close_waiter(None)
        assert not waiter.done()
        for protocol in (asked, late):
            protocol.connection_lost(exc)
            assert protocol._get_close_waiter(None).exception() is exc
        assert asked._get_close_waiter(None) is waiter
        if exc is None:
            assert await reader.read() == b""
        else:
            assert reader.exception() is exc


async def test_losing_the_connection_wakes_those_that_drain(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    protocol = aio.StreamReaderProtocol(aio.StreamReader(loop=loop), loop=loop)
    protocol.pause_writing()
    draining = [aio.create_task(protocol._drain_helper()) for _ in range(2)]
    await aio.sleep(0)
    protocol.connection_lost(None)
    await aio.wait_for(aio.gather(*draining), PATIENCE)
    with pytest.raises(ConnectionResetError):
        await protocol._drain_helper()


async def test_a_subclass_of_the_protocol_is_asked_for_everything(aio: ModuleType) -> None:
    calls: list[str] = []

    class Protocol(aio.StreamReaderProtocol):  # type: ignore[name-defined,misc]
        def connection_made(self, transport: Any) -> None:
            calls.append("made")
            super().connection_made(transport)

        def eof_received(self) -> Any:
            calls.append("eof")
            return super().eof_received()

        def connection_lost(self, exc: Exception | None) -> None:
            calls.append("lost")
            super().connection_lost(exc)

        def _get_close_waiter(self, stream: Any) -> Any:
            calls.append("waiter")
            return super()._get_close_waiter(stream)

    async def greet(reader: Any, writer: Any) -> None:
        writer.write(b"!")
        writer.close()

    loop = aio.get_running_loop()
    server = await aio.start_server(greet, "127.0.0.1", 0)
    reader = aio.StreamReader(loop=loop)
    protocol = Protocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, *server.sockets[0].getsockname())
    writer = aio.StreamWriter(transport, protocol, reader, loop)
    assert await reader.read() == b"!"
    writer.close()
    await writer.wait_closed()
    assert [call for call in calls if call != "waiter"] == ["made", "eof", "lost"]
    assert "waiter" in calls
    server.close()


async def test_a_transport_is_not_taken_twice(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    protocol = aio.StreamReaderProtocol(reader := aio.StreamReader(loop=loop), loop=loop)
    transport = aio.Transport({"sslcontext": object()})
    protocol.connection_made(transport)
    assert protocol._over_ssl
    assert protocol.eof_received() is False
    assert reader.at_eof()
    with pytest.raises(AssertionError, match="already set"):
        protocol.connection_made(transport)
