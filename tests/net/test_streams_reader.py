"""StreamReader: what it gives for what it is fed, by hand and by a connection."""

import asyncio
import contextlib
import gc
import random
import socket
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

import rondel
from tests.support import PATIENCE, python, spin

TUPLES = sys.version_info >= (3, 13)


@asynccontextmanager
async def connected(aio: ModuleType, **options: Any) -> AsyncIterator[Any]:
    """(reader, writer) of a connection, and the blocking socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reader, writer = await aio.open_connection(*listener.getsockname(), **options)
        peer, _ = listener.accept()
        peer.settimeout(PATIENCE)
    try:
        with peer:
            yield reader, writer, peer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await aio.wait_for(writer.wait_closed(), PATIENCE)


async def woken(aio: ModuleType, reader: Any) -> None:
    """Until the task that waits for data was told that there is some."""
    async with aio.timeout(PATIENCE):
        while reader._waiter is not None:
            await aio.sleep(0)


async def waiting(aio: ModuleType, reader: Any) -> None:
    async with aio.timeout(PATIENCE):
        while reader._waiter is None:
            await aio.sleep(0)


# ---------------------------------------------------------------------------- against asyncio's


Step = tuple[str, Any]


def steps(rng: random.Random) -> Iterator[Step]:
    """Chunks to feed, and reads in between."""
    for _ in range(rng.randint(1, 12)):
        if rng.random() < 0.6:
            size = rng.choice((0, 1, 2, 3, 7, 20, 60))
            data = bytes(rng.choice(b"ab\r\n") for _ in range(size))
            yield "feed_data", bytearray(data) if rng.random() < 0.2 else data
        else:
            yield rng.choice(
                (
                    ("read", rng.choice((0, 1, 5, 1000, 2**70))),
                    ("readexactly", rng.choice((0, 1, 4, 30, -1))),
                    ("readline", None),
                    ("readuntil", rng.choice((b"\n", b"\r\n", b"ab", bytearray(b"aab"), b""))),
                    ("readuntil", rng.choice(((b"\r", b"\n"), (b"ab", b"\n"), (b"b\r\n", b"b")))),
                    ("at_eof", None),
                    ("look", None),
                )
            )
    yield "feed_eof", None
    for _ in range(3):
        yield rng.choice((("readline", None), ("read", -1), ("readexactly", 3)))


async def played(reader: Any, script: list[Step]) -> list[Any]:
    """What each step gave; a read that would wait is cancelled."""
    seen: list[Any] = []
    for name, argument in script:
        if name == "look":
            seen.append(bytes(reader._buffer))
            continue
        if name == "readuntil" and isinstance(argument, tuple) and not TUPLES:
            continue
        method = getattr(reader, name)
        arguments = () if argument is None else (argument,)
        if not name.startswith("read"):
            seen.append(method(*arguments))
            continue
        task = asyncio.ensure_future(method(*arguments))
        await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append("waits")
            assert task.cancelled()
        elif (error := task.exception()) is not None:
            details = [getattr(error, each, None) for each in ("partial", "consumed", "expected")]
            seen.append((type(error), str(error), details))
        else:
            seen.append(task.result())
            assert type(task.result()) is bytes
    return seen


@pytest.mark.parametrize("limit", [3, 10, 2**16])
def test_whatever_is_fed_and_read_it_gives_what_asyncios_gives(limit: int) -> None:
    rng = random.Random(limit)

    async def compare() -> None:
        for _ in range(400):
            script = list(steps(rng))
            loop = asyncio.get_running_loop()
            stock = await played(asyncio.StreamReader(limit=limit, loop=loop), script)
            native = await played(rondel.StreamReader(limit=limit, loop=loop), script)
            assert native == stock, script

    rondel.run(compare())
    asyncio.run(compare())


async def test_a_subclass_overrides_what_asyncios_methods_call(aio: ModuleType) -> None:
    class Loud(aio.StreamReader):  # type: ignore[misc,name-defined]
        async def readuntil(self, separator: bytes = b"\n") -> bytes:
            return (await super().readuntil(separator)).upper()  # type: ignore[no-any-return]

    reader = Loud()
    reader.feed_data(b"hello\nrest")
    assert await reader.readline() == b"HELLO\n"
    assert await reader.read(10) == b"rest"


async def test_a_buffer_that_was_seen_is_the_buffer(aio: ModuleType) -> None:
    reader = aio.StreamReader()
    reader.feed_data(b"abc")
    buffer = reader._buffer
    reader.feed_data(b"def\n")
    assert buffer == b"abcdef\n"
    del buffer[:1]
    assert await reader.readline() == b"bcdef\n"
    assert buffer == b""


@pytest.mark.skipif(not TUPLES, reason="tuples of separators came with Python 3.13")
async def test_the_earliest_end_of_any_separator_counts(aio: ModuleType) -> None:
    reader = aio.StreamReader()
    reader.feed_data(b"ABCDEFG")
    assert await reader.readuntil((b"DEF", b"BCDE")) == b"ABCDE"


# ---------------------------------------------------------------------------- over a connection


async def test_data_that_a_cancelled_reader_was_woken_for_is_there_for_the_next(
    aio: ModuleType,
) -> None:
    async with connected(aio) as (reader, _, peer):
        task = aio.create_task(reader.read(100))
        await waiting(aio, reader)
        peer.sendall(b"hello")
        await woken(aio, reader)
        task.cancel()
        with pytest.raises(aio.CancelledError):
            await task
        assert await aio.wait_for(reader.read(100), PATIENCE) == b"hello"


async def test_an_end_that_a_cancelled_reader_was_woken_for_is_noticed(aio: ModuleType) -> None:
    async with connected(aio) as (reader, _, peer):
        task = aio.create_task(reader.readline())
        await waiting(aio, reader)
        peer.sendall(b"last words")
        peer.shutdown(socket.SHUT_WR)
        await woken(aio, reader)
        task.cancel()
        with pytest.raises(aio.CancelledError):
            await task
        async with aio.timeout(PATIENCE):
            while not reader._eof:  # nobody reads
                await aio.sleep(0)
        assert not reader.at_eof()
        assert await reader.read() == b"last words"
        assert reader.at_eof()


async def test_whoever_looks_before_the_woken_task_sees_the_data(aio: ModuleType) -> None:
    async with connected(aio) as (reader, _, peer):
        task = aio.create_task(reader.readexactly(3))
        await waiting(aio, reader)
        peer.sendall(b"abc")
        await woken(aio, reader)
        assert reader._buffer == b"abc"
        assert await task == b"abc"


async def test_an_error_in_receiving_reaches_the_read(aio: ModuleType) -> None:
    async with connected(aio) as (reader, writer, peer):
        task = aio.create_task(reader.readexactly(1000))
        await waiting(aio, reader)
        peer.sendall(b"a part")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        with pytest.raises((ConnectionResetError, aio.IncompleteReadError)):
            await aio.wait_for(task, PATIENCE)
        async with aio.timeout(PATIENCE):
            while reader.exception() is None:
                await aio.sleep(0)
        with pytest.raises(ConnectionResetError):
            await writer.drain()
        writer.close()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()


async def test_a_peer_that_is_faster_is_held_back(aio: ModuleType) -> None:
    payload = bytes(range(256)) * 64 * 1024
    loop = aio.get_running_loop()
    async with connected(aio, limit=10_000) as (reader, _, peer):
        sending = loop.run_in_executor(None, peer.sendall, payload)
        async with aio.timeout(PATIENCE):
            while not reader._paused:
                await aio.sleep(0.001)
        held = len(reader._buffer)
        # One more receive than twice the limit, at most.
        assert 20_000 < held <= 20_000 + 256 * 1024
        await spin(aio)
        assert len(reader._buffer) == held
        assert await reader.readexactly(len(payload)) == payload
        await sending


async def test_one_connection_does_not_starve_another(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    async with connected(aio) as (reader, _, peer), connected(aio) as (other, _, quiet):
        flood = loop.run_in_executor(None, peer.sendall, bytes(30_000_000))
        reading = aio.create_task(reader.readexactly(30_000_000))
        turns = 0
        while not reading.done():
            quiet.sendall(b"?")
            assert await aio.wait_for(other.readexactly(1), PATIENCE) == b"?"
            turns += 1
        assert turns > 3
        assert await reading == bytes(30_000_000)
        await flood


async def test_pausing_by_hand_keeps_what_a_reader_was_woken_for(aio: ModuleType) -> None:
    async with connected(aio) as (reader, writer, peer):
        task = aio.create_task(reader.read(100))
        await waiting(aio, reader)
        peer.sendall(b"hello")
        await woken(aio, reader)
        writer.transport.pause_reading()
        await spin(aio)
        writer.transport.resume_reading()
        assert await aio.wait_for(task, PATIENCE) == b"hello"


async def test_a_forgotten_reader_is_freed_and_its_data_dropped(aio: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reader, writer = await aio.open_connection(*listener.getsockname())
        peer, _ = listener.accept()
    with peer:
        gone = weakref.ref(reader)
        writer._reader = None
        del reader
        gc.collect()
        assert gone() is None
        peer.sendall(b"nobody reads this")
        writer.write(b"hello")
        await writer.drain()
        assert peer.recv(100) == b"hello"
    writer.close()
    with contextlib.suppress(OSError):
        await aio.wait_for(writer.wait_closed(), PATIENCE)


# ---------------------------------------------------------------------------- the writer


async def test_a_writer_of_somebody_elses_transport_calls_its_methods(aio: ModuleType) -> None:
    helped = []

    class Helper:
        async def _drain_helper(self) -> None:
            helped.append(1)

    transport = mock.Mock()
    transport.is_closing.return_value = False
    writer = aio.StreamWriter(transport, Helper(), None, aio.get_running_loop())
    writer.write(b"data")
    writer.writelines([b"a", b"b"])
    await writer.drain()
    transport.write.assert_called_once_with(b"data")
    transport.writelines.assert_called_once_with([b"a", b"b"])
    assert helped == [1]
    transport.is_closing.return_value = True  # nothing is left to close


async def test_draining_waits_a_turn_when_the_connection_closes(aio: ModuleType) -> None:
    async with connected(aio) as (_, writer, _peer):
        writer.close()
        with pytest.raises(ConnectionResetError):
            await writer.drain()


async def test_what_connections_give_are_asyncios_classes(aio: ModuleType) -> None:
    async with connected(aio) as (reader, writer, _):
        assert isinstance(reader, asyncio.StreamReader)
        assert isinstance(writer, asyncio.StreamWriter)
        assert isinstance(writer._protocol, asyncio.StreamReaderProtocol)
        assert isinstance(reader, aio.StreamReader)
        assert repr(reader).startswith("<StreamReader transport=<")
        drain = writer.drain()
        assert asyncio.iscoroutine(drain)
        await drain


def test_after_install_connections_have_native_streams_and_stock_ones_work_on() -> None:
    done = python(
        """
        import asyncio
        from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
        import rondel
        rondel.install()

        async def serve(reader, writer):
            assert type(reader) is rondel.StreamReader
            assert type(writer) is rondel.StreamWriter
            writer.write(await reader.readline())
            writer.close()

        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert type(reader) is rondel.StreamReader
            writer.write(b"hello\\n")
            assert await reader.read() == b"hello\\n"
            writer.close()
            # By hand, with what was imported before.
            loop = asyncio.get_running_loop()
            reader = StreamReader(loop=loop)
            protocol = StreamReaderProtocol(reader, loop=loop)
            transport, _ = await loop.create_connection(lambda: protocol, "127.0.0.1", port)
            writer = StreamWriter(transport, protocol, reader, loop)
            writer.write(b"again\\n")
            await writer.drain()
            assert await reader.read() == b"again\\n"
            writer.close()
            server.close()
            print("done")

        asyncio.run(main())
        """.replace("\n        ", "\n")
    )
    assert done.stdout.strip() == "done", done.stderr
