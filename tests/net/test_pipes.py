"""Transports of pipes: what reading and writing ones have in common, terminals, streams."""

import asyncio
import errno
import gc
import logging
import os
import re
import tty
import warnings
from types import ModuleType
from typing import Any

import pytest

from tests.net.pipes import Reader, Writer, opened, read_all, reading, writing
from tests.support import PATIENCE, Runtime, spin


async def test_what_they_are(aio: ModuleType) -> None:
    async with reading(aio) as (reader, _), writing(aio) as (writer, _):
        assert isinstance(reader.transport, asyncio.ReadTransport)
        assert not isinstance(reader.transport, asyncio.WriteTransport)
        assert isinstance(writer.transport, asyncio.WriteTransport)
        assert isinstance(reader.transport, asyncio.unix_events._UnixReadPipeTransport)
        assert isinstance(writer.transport, asyncio.unix_events._UnixWritePipeTransport)
        for transport in (reader.transport, writer.transport):
            pipe = transport.get_extra_info("pipe")
            assert not os.get_blocking(pipe.fileno())
            assert transport.get_extra_info("peername") is None
            assert transport.get_extra_info("peername", 7) == 7


async def test_their_descriptions(aio: ModuleType) -> None:
    async with reading(aio) as (reader, _), writing(aio) as (writer, _):
        r, w = reader.transport, writer.transport
        fds = [t.get_extra_info("pipe").fileno() for t in (r, w)]
        assert repr(r) == f"<_UnixReadPipeTransport fd={fds[0]} polling>"
        assert repr(w) == f"<_UnixWritePipeTransport fd={fds[1]} idle bufsize=0>"
        r.pause_reading()
        w.write(b"x" * 100_000)
        assert repr(r) == f"<_UnixReadPipeTransport fd={fds[0]} idle>"
        left = w.get_write_buffer_size()
        assert repr(w) == f"<_UnixWritePipeTransport fd={fds[1]} polling bufsize={left}>"
        r.close()
        w.close()
        assert repr(r) == f"<_UnixReadPipeTransport closing fd={fds[0]} idle>"
        assert repr(w) == f"<_UnixWritePipeTransport closing fd={fds[1]} polling bufsize={left}>"
        w.abort()
        await asyncio.wait_for(reader.closed, PATIENCE)
        await asyncio.wait_for(writer.closed, PATIENCE)
        await spin(aio, 1)
        assert repr(r) == f"<_UnixReadPipeTransport closed fd={fds[0]} closed>"
        assert repr(w) == f"<_UnixWritePipeTransport closed fd={fds[1]} closed>"


async def test_a_regular_file_is_refused(aio: ModuleType, tmp_path: Any) -> None:
    loop = aio.get_running_loop()
    path = tmp_path / "file"
    path.write_bytes(b"data")
    with path.open("rb") as file, pytest.raises(ValueError, match="for pipes/sockets only"):
        await loop.connect_read_pipe(lambda: Reader(loop), file)
    with path.open("wb") as file, pytest.raises(ValueError, match="only for pipes, sockets and"):
        await loop.connect_write_pipe(lambda: Writer(loop), file)


@pytest.mark.parametrize("side", ["read", "write"])
async def test_one_that_is_forgotten_says_so(aio: ModuleType, side: str) -> None:
    loop = aio.get_running_loop()
    end, other = os.pipe()
    if side == "read":
        pipe = opened(end, "rb")
        transport, protocol = await loop.connect_read_pipe(lambda: Reader(loop), pipe)
        transport.pause_reading()
        rest = other
    else:
        # A device: nothing watches it.
        os.close(end)
        os.close(other)
        rest, end = os.openpty()
        pipe = opened(end, "wb")
        transport, protocol = await loop.connect_write_pipe(lambda: Writer(loop), pipe)
    shown = repr(transport)
    with pytest.warns(ResourceWarning) as caught:
        protocol.transport = None
        del transport, protocol
        gc.collect()
    assert [str(w.message) for w in caught] == [f"unclosed transport {shown}"]
    assert pipe.closed
    os.close(rest)


async def test_one_that_ended_is_silent(aio: ModuleType) -> None:
    async with writing(aio), reading(aio):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()


def test_debug_mode_tells(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with reading(runtime.aio) as (reader, other):
            shown = re.sub(" (polling|idle)", "", repr(reader.transport))
            reader.transport.pause_reading()
            reader.transport.resume_reading()
            os.close(other)
            await asyncio.wait_for(reader.closed, PATIENCE)
        async with writing(runtime.aio) as (writer, other):
            os.close(other)
            writer.transport.write(b"x")
            await asyncio.wait_for(writer.closed, PATIENCE)
        async with writing(runtime.aio) as (writer, other):
            os.close(other)
            await asyncio.wait_for(writer.closed, PATIENCE)
        # As it was said then: the records know transports, which are closed by now.
        told = [re.sub(" (polling|idle)", "", line) for line in caplog.text.splitlines()]

        def heard(text: str) -> int:
            return sum(line.endswith(text) for line in told)

        assert heard(f"{shown} pauses reading") == 1
        assert heard(f"{shown} resumes reading") == 1
        assert heard(f"{shown} was closed by peer") == 1
        (failure,) = [r for r in caplog.records if "Fatal write error on pipe" in r.message]
        assert failure.levelno == logging.DEBUG
        assert failure.exc_info is not None
        assert isinstance(failure.exc_info[1], BrokenPipeError)
        assert heard("bufsize=0> was closed by peer") == 1
        assert sum(m.startswith("Read pipe ") for m in caplog.messages) == 1

    caplog.set_level(logging.DEBUG, "asyncio")
    runtime.run(main(), debug=True)


async def test_a_terminal_read_and_written_by_one_descriptor(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    master, slave = os.openpty()
    tty.setraw(slave)
    file = opened(master, "r+b")
    _, reader = await loop.connect_read_pipe(lambda: Reader(loop), file)
    _, writer = await loop.connect_write_pipe(lambda: Writer(loop), file)
    os.write(slave, b"to the reader")
    await reader.received(13)
    writer.transport.write(b"x" * 50_000)  # more than a terminal takes
    assert writer.transport.get_write_buffer_size()
    os.write(slave, b"again")
    await reader.received(18)
    assert await read_all(aio, slave, 50_000) == b"x" * 50_000
    writer.transport.close()
    await asyncio.wait_for(writer.closed, PATIENCE)
    reader.transport.close()
    await asyncio.wait_for(reader.closed, PATIENCE)
    os.close(slave)


async def test_a_terminal_whose_other_side_is_gone_is_no_news(aio: ModuleType) -> None:
    master, slave = os.openpty()
    async with reading(aio, fds=(master, slave)) as (protocol, _):
        os.close(slave)
        exc = await asyncio.wait_for(protocol.closed, PATIENCE)
        assert isinstance(exc, OSError)
        assert exc.errno == errno.EIO


async def test_streams_over_a_pipe(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    end, other = os.pipe()
    reader = aio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: aio.StreamReaderProtocol(reader), opened(end, "rb")
    )
    w_transport, w_protocol = await loop.connect_write_pipe(
        lambda: aio.StreamReaderProtocol(aio.StreamReader()), opened(other, "wb")
    )
    writer = aio.StreamWriter(w_transport, w_protocol, None, loop)
    sent = os.urandom(700_000)

    async def send() -> None:
        for at in range(0, len(sent), 70_000):
            writer.write(sent[at : at + 70_000])
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    sending = loop.create_task(send())
    assert await asyncio.wait_for(reader.read(), PATIENCE) == sent
    await asyncio.wait_for(sending, PATIENCE)
    transport.close()
    await spin(aio)


def test_keyboard_interrupt_passes_through(runtime: Runtime) -> None:
    class Interrupting(Reader):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if len(self.data) == 6000:
                raise KeyboardInterrupt

    loop = runtime.new_event_loop()
    end, other = os.pipe()
    transport, protocol = loop.run_until_complete(
        loop.connect_read_pipe(lambda: Interrupting(loop), opened(end, "rb"))
    )
    os.write(other, b"x" * 6000)
    received = loop.create_task(protocol.received(12_000))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(received)
    os.write(other, b"y" * 6000)
    loop.run_until_complete(received)
    transport.close()
    loop.run_until_complete(protocol.closed)
    os.close(other)


def test_after_the_loop_was_closed(runtime: Runtime) -> None:
    loop = runtime.new_event_loop()
    end, other = os.pipe()
    files = opened(end, "rb"), opened(other, "wb")

    async def connect() -> tuple[Any, Any]:
        reader, _ = await loop.connect_read_pipe(lambda: Reader(loop), files[0])
        writer, _ = await loop.connect_write_pipe(lambda: Writer(loop), files[1])
        return reader, writer

    reader, writer = loop.run_until_complete(connect())
    loop.close()
    if runtime.native:  # asyncio looks for the closed loop's selector
        assert repr(reader) == f"<_UnixReadPipeTransport fd={end} open>"
        assert repr(writer) == f"<_UnixWritePipeTransport fd={other} open>"
    for transport in (reader, writer):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            transport.close()
    for file in files:
        file.close()
    reader._pipe = writer._pipe = None  # or their end would complain
