"""connect_read_pipe: transports of the reading ends of pipes."""

import asyncio
import contextvars
import os
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.net.pipes import Reader, reading
from tests.support import PATIENCE, Runtime, spin


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
