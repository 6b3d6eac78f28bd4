"""connect_write_pipe: transports of the writing ends of pipes."""

import asyncio
import errno
import os
import re
import socket
from types import ModuleType

import pytest

from tests.net.pipes import Writer, read_all, writing
from tests.support import PATIENCE, Runtime


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
