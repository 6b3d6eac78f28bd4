"""connect_read_pipe and connect_write_pipe: transports of pipes, sockets and terminals."""

import asyncio
import contextlib
import contextvars
import errno
import gc
import logging
import os
import re
import socket
import sys
import tty
import warnings
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest

from tests.support import PATIENCE, Runtime, spin


class Reader(asyncio.Protocol):
    """Notes what it is told and offers futures to wait on."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.transport: Any = None
        self.data = bytearray()
        self.events: list[str] = []
        self.closed = loop.create_future()
        self._wanted: tuple[int, Any] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data
        self.data += data
        if self._wanted is not None and len(self.data) >= self._wanted[0]:
            self._wanted[1].set_result(None)
            self._wanted = None

    def eof_received(self) -> None:
        self.events.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(f"lost {exc!r}")
        self.closed.set_result(exc)

    async def received(self, size: int) -> None:
        if len(self.data) < size:
            self._wanted = size, self.loop.create_future()
            await asyncio.wait_for(self._wanted[1], PATIENCE)


class Writer(asyncio.BaseProtocol):
    def __init__(self, loop: Any) -> None:
        self.transport: Any = None
        self.events: list[str] = []
        self.closed = loop.create_future()
        self.resumed = loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")
        if not self.resumed.done():
            self.resumed.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(f"lost {exc!r}")
        self.closed.set_result(exc)


def opened(fd: int, mode: str) -> Any:
    return open(fd, mode, buffering=0)


@contextlib.asynccontextmanager
async def reading(
    aio: ModuleType, kind: type[Reader] = Reader, fds: tuple[int, int] | None = None
) -> AsyncIterator[tuple[Reader, int]]:
    """A transport that reads, and the descriptor to write to."""
    loop = aio.get_running_loop()
    end, other = os.pipe() if fds is None else fds
    _transport, protocol = await loop.connect_read_pipe(lambda: kind(loop), opened(end, "rb"))
    try:
        yield protocol, other
    finally:
        with contextlib.suppress(OSError):
            os.close(other)
        protocol.transport.close()
        await asyncio.wait_for(protocol.closed, PATIENCE)


@contextlib.asynccontextmanager
async def writing(
    aio: ModuleType, kind: type[Writer] = Writer, fds: tuple[int, int] | None = None
) -> AsyncIterator[tuple[Writer, int]]:
    """A transport that writes, and the descriptor to read from."""
    loop = aio.get_running_loop()
    other, end = os.pipe() if fds is None else fds
    _transport, protocol = await loop.connect_write_pipe(lambda: kind(loop), opened(end, "wb"))
    try:
        yield protocol, other
    finally:
        if not protocol.closed.done():
            protocol.transport.abort()
        await asyncio.wait_for(protocol.closed, PATIENCE)
        with contextlib.suppress(OSError):
            os.close(other)


async def read_all(aio: ModuleType, fd: int, size: int) -> bytes:
    """So many bytes from a descriptor, without holding up the loop."""
    data = bytearray()
    while len(data) < size:
        chunk = await asyncio.wait_for(aio.to_thread(os.read, fd, size - len(data)), PATIENCE)
        assert chunk, "the end came too soon"
        data += chunk
    return bytes(data)


# ------------------------------------------------------------------------------- reading


async def test_data_then_the_end(aio: ModuleType) -> None:
    async with reading(aio) as (protocol, other):
        os.write(other, b"one")
        await protocol.received(3)
        os.write(other, b"two")
        await protocol.received(6)
        os.close(other)
        assert await asyncio.wait_for(protocol.closed, PATIENCE) is None
        assert protocol.data == b"onetwo"
        assert protocol.events == ["made", "eof", "lost None"]
        assert protocol.transport.is_closing()


@pytest.mark.parametrize("size", [1, 4096, 5000, 60_000, 65_536])
async def test_what_was_written_before_the_end_comes_first(aio: ModuleType, size: int) -> None:
    end, other = os.pipe()
    sent = os.urandom(size)
    os.write(other, sent)
    os.close(other)
    async with reading(aio, fds=(end, other)) as (protocol, _):
        await asyncio.wait_for(protocol.closed, PATIENCE)
        assert protocol.data == sent
        assert protocol.events == ["made", "eof", "lost None"]


async def test_a_large_stream_arrives_whole(aio: ModuleType) -> None:
    sent = os.urandom(3_000_000)

    def send(fd: int) -> None:
        view = memoryview(sent)
        while view:
            view = view[os.write(fd, view[:100_000]) :]
        os.close(fd)

    async with reading(aio) as (protocol, other):
        sending = aio.get_running_loop().run_in_executor(None, send, other)
        await asyncio.wait_for(protocol.closed, PATIENCE)
        await sending
        assert protocol.data == sent


async def test_packets_written_at_once_all_come(aio: ModuleType) -> None:
    # A read ends with a packet: a short one has not emptied the pipe.
    end, other = os.pipe2(os.O_DIRECT)
    async with reading(aio, fds=(end, other)) as (protocol, _):
        for i in range(10):
            os.write(other, bytes([i]) * 100)
        await protocol.received(1000)
        for i in range(3):
            os.write(other, bytes([i]) * 4096)
        await protocol.received(1000 + 3 * 4096)


async def test_a_paused_transport_hears_nothing(aio: ModuleType) -> None:
    async with reading(aio) as (protocol, other):
        transport = protocol.transport
        transport.pause_reading()
        transport.pause_reading()
        os.write(other, b"x" * 5000)
        await spin(aio)
        assert not protocol.data
        os.close(other)
        await spin(aio)
        assert protocol.events == ["made"]
        transport.resume_reading()
        transport.resume_reading()
        await asyncio.wait_for(protocol.closed, PATIENCE)
        assert protocol.data == b"x" * 5000
        assert protocol.events == ["made", "eof", "lost None"]


async def test_pausing_within_data_received(aio: ModuleType) -> None:
    class Pausing(Reader):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    async with reading(aio, Pausing) as (protocol, other):
        os.write(other, b"x" * 6000)
        await protocol.received(6000)
        os.write(other, b"y" * 6000)
        await spin(aio)
        assert len(protocol.data) == 6000
        protocol.transport.resume_reading()
        await protocol.received(12_000)


async def test_a_protocol_may_pause_when_it_is_told_of_the_pipe(
    runtime: Runtime, aio: ModuleType
) -> None:
    class Patient(Reader):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    if not runtime.native and sys.version_info < (3, 12):
        pytest.skip("asyncio 3.11 reads all the same")
    async with reading(aio, Patient) as (protocol, other):
        os.write(other, b"data")
        await spin(aio)
        assert not protocol.data
        assert not protocol.transport.is_reading()
        protocol.transport.resume_reading()
        assert protocol.transport.is_reading()
        await protocol.received(4)


async def test_an_exception_of_the_protocol_is_reported_and_reading_goes_on(
    runtime: Runtime, aio: ModuleType
) -> None:
    class Failing(Reader):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if len(self.data) == 1:
                raise ValueError("spoiled")

    async with reading(aio, Failing) as (protocol, other):
        os.write(other, b"1")
        await protocol.received(1)
        os.write(other, b"2")
        await protocol.received(2)
    (context,) = runtime.take_errors()
    assert context["message"] == "Exception in callback _UnixReadPipeTransport._read_ready()"
    assert str(context["exception"]) == "spoiled"


async def test_a_protocol_may_be_switched(aio: ModuleType) -> None:
    async with reading(aio) as (first, other):
        second = Reader(first.loop)
        second.transport = first.transport
        assert first.transport.get_protocol() is first
        first.transport.set_protocol(second)
        assert first.transport.get_protocol() is second
        os.write(other, b"for the second")
        await second.received(14)
        os.close(other)
        await asyncio.wait_for(second.closed, PATIENCE)
        assert not first.data
        first.closed.set_result(None)


async def test_closing_ends_reading_at_once(aio: ModuleType) -> None:
    async with reading(aio) as (protocol, other):
        os.write(other, b"too late")
        protocol.transport.close()
        protocol.transport.close()
        protocol.transport.pause_reading()
        protocol.transport.resume_reading()
        await asyncio.wait_for(protocol.closed, PATIENCE)
        assert not protocol.data
        assert protocol.events == ["made", "lost None"]
        with pytest.raises(BrokenPipeError):
            os.write(other, b"?")


async def test_the_context_is_that_of_connecting(aio: ModuleType) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var")
    seen = []

    class Seeing(Reader):
        def data_received(self, data: bytes) -> None:
            seen.append(var.get())
            super().data_received(data)

    var.set("connecting")
    async with reading(aio, Seeing) as (protocol, other):
        var.set("later")
        os.write(other, b"1")
        await protocol.received(1)
        protocol.transport.pause_reading()
        protocol.transport.resume_reading()
        os.write(other, b"2")
        await protocol.received(2)
    assert seen == ["connecting", "later"]


# ------------------------------------------------------------------------------- writing


async def test_what_is_written_arrives_in_order(aio: ModuleType) -> None:
    async with writing(aio) as (protocol, other):
        transport = protocol.transport
        transport.write(b"one")
        transport.write(bytearray(b"two"))
        transport.write(memoryview(b"three"))
        transport.write(b"")
        transport.writelines([b"fo", b"ur"])
        assert transport.get_write_buffer_size() == 0
        assert os.read(other, 100) == b"onetwothreefour"


async def test_only_bytes_can_be_written(aio: ModuleType) -> None:
    async with writing(aio) as (protocol, _other):
        with pytest.raises(AssertionError):
            protocol.transport.write("text")


async def test_more_than_the_pipe_holds_waits(aio: ModuleType) -> None:
    sent = os.urandom(1_000_000)
    async with writing(aio) as (protocol, other):
        transport = protocol.transport
        for at in range(0, len(sent), 10_000):
            transport.write(sent[at : at + 10_000])
        waiting = transport.get_write_buffer_size()
        assert waiting > 500_000
        assert protocol.events == ["made", "pause"]
        assert transport.can_write_eof()
        transport.write_eof()
        assert transport.is_closing()
        assert await read_all(aio, other, len(sent)) == sent
        assert await asyncio.wait_for(protocol.closed, PATIENCE) is None
        assert protocol.events == ["made", "pause", "resume", "lost None"]
        assert os.read(other, 10) == b""


async def test_a_view_that_waits_is_a_copy(aio: ModuleType) -> None:
    async with writing(aio) as (protocol, other):
        data = bytearray(b"a" * 200_000)
        protocol.transport.write(data)
        left = protocol.transport.get_write_buffer_size()
        assert left
        data[:] = b"b" * len(data)
        assert await read_all(aio, other, len(data)) == b"a" * len(data)


async def test_the_limits_of_the_buffer(aio: ModuleType) -> None:
    async with writing(aio) as (protocol, other):
        transport = protocol.transport
        assert transport.get_write_buffer_limits() == (16_384, 65_536)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.set_write_buffer_limits(low=10)
        assert transport.get_write_buffer_limits() == (10, 40)
        with pytest.raises(ValueError, match=re.escape("high (1) must be >= low (2) must be >= 0")):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.set_write_buffer_limits(high=100_000, low=0)
        transport.write(b"x" * 150_000)
        assert protocol.events == ["made"]
        transport.write(b"x" * 50_000)
        assert protocol.events == ["made", "pause"]
        await read_all(aio, other, 200_000)
        await asyncio.wait_for(protocol.resumed, PATIENCE)
        assert transport.get_write_buffer_size() == 0


async def test_what_resume_writing_writes_is_sent_before_the_end(
    runtime: Runtime, aio: ModuleType
) -> None:
    if not runtime.native:
        pytest.skip("asyncio closes the pipe all the same")

    class Refilling(Writer):
        def resume_writing(self) -> None:
            super().resume_writing()
            self.transport.write(b"more" * 50_000)
            self.transport.write_eof()

    async with writing(aio, Refilling) as (protocol, other):
        protocol.transport.write(b"x" * 200_000)
        assert protocol.events == ["made", "pause"]
        data = await read_all(aio, other, 400_000)
        assert data == b"x" * 200_000 + b"more" * 50_000
        await asyncio.wait_for(protocol.closed, PATIENCE)
        assert os.read(other, 1) == b""


async def test_aborting_drops_what_waits(aio: ModuleType) -> None:
    async with writing(aio) as (protocol, other):
        protocol.transport.write(b"x" * 200_000)
        protocol.transport.abort()
        assert protocol.transport.get_write_buffer_size() == 0
        assert await asyncio.wait_for(protocol.closed, PATIENCE) is None
        assert len(await read_all(aio, other, 65_536)) == 65_536
        assert os.read(other, 1) == b""


@pytest.mark.parametrize("kind", ["pipe", "socket"])
async def test_the_readers_end_is_noticed_without_writing(aio: ModuleType, kind: str) -> None:
    fds = os.pipe()
    if kind == "socket":
        os.close(fds[0])
        os.close(fds[1])
        a, b = socket.socketpair()
        fds = a.detach(), b.detach()
    async with writing(aio, fds=fds) as (protocol, other):
        os.close(other)
        assert await asyncio.wait_for(protocol.closed, PATIENCE) is None
        assert protocol.events == ["made", "lost None"]


async def test_the_readers_end_with_data_left_is_an_error(aio: ModuleType) -> None:
    async with writing(aio) as (protocol, other):
        protocol.transport.write(b"x" * 200_000)
        os.close(other)
        exc = await asyncio.wait_for(protocol.closed, PATIENCE)
        assert type(exc) is BrokenPipeError
        assert protocol.transport.get_write_buffer_size() == 0


async def test_a_write_that_fails_ends_it_quietly(aio: ModuleType) -> None:
    async with writing(aio) as (protocol, other):
        os.close(other)
        protocol.transport.write(b"x")
        exc = await asyncio.wait_for(protocol.closed, PATIENCE)
        assert isinstance(exc, BrokenPipeError)
        assert exc.errno == errno.EPIPE
        assert protocol.events == ["made", f"lost {exc!r}"]


@pytest.mark.parametrize(("failed", "quiet"), [(False, 5), (True, 4)])
async def test_writes_to_a_lost_pipe_are_counted(
    aio: ModuleType, caplog: pytest.LogCaptureFixture, failed: bool, quiet: int
) -> None:
    async with writing(aio) as (protocol, other):
        transport = protocol.transport
        if failed:
            os.close(other)
            transport.write(b"x")
        else:
            transport.close()
        for _ in range(quiet):
            transport.write(b"x")
        assert not caplog.records
        transport.write(b"x")
        assert caplog.messages == ["pipe closed by peer or os.write(pipe, data) raised exception."]
        await asyncio.wait_for(protocol.closed, PATIENCE)


async def test_a_write_protocol_that_fails_to_pause_is_reported(
    runtime: Runtime, aio: ModuleType
) -> None:
    class Failing(Writer):
        def pause_writing(self) -> None:
            raise ValueError("will not")

    async with writing(aio, Failing) as (protocol, _other):
        protocol.transport.write(b"x" * 200_000)
        (context,) = runtime.take_errors()
        assert context["message"] == "protocol.pause_writing() failed"
        assert context["transport"] is protocol.transport
        assert context["protocol"] is protocol


# ------------------------------------------------------------------------------- both


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
