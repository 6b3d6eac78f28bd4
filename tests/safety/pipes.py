"""Workloads of pipes, of children behind them, and of files over sockets."""

import asyncio
import contextlib
import gc
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from tests.safety.workloads import Boom, batches, workload
from tests.support import PATIENCE

LARGE = b"x" * 200_000
"""More than a pipe holds."""


class End(asyncio.Protocol):
    """What an end of a pipe tells; a reader can be made to raise."""

    def __init__(self, loop: Any) -> None:
        self.raises = False
        self.left = 0
        self.arrived: asyncio.Future[None] = loop.create_future()
        self.resumed: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.raises:
            raise Boom
        self.left -= len(data)
        if self.left <= 0 and not self.arrived.done():
            self.arrived.set_result(None)

    def resume_writing(self) -> None:
        if not self.resumed.done():
            self.resumed.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)
        if self.raises:
            raise Boom


async def two_ends(loop: Any) -> tuple[End, End]:
    reads, writes = os.pipe()
    _, reader = await loop.connect_read_pipe(lambda: End(loop), os.fdopen(reads, "rb", 0))
    _, writer = await loop.connect_write_pipe(lambda: End(loop), os.fdopen(writes, "wb", 0))
    return reader, writer


@workload(100)
async def pipes(aio: ModuleType, count: int) -> None:
    """Written to in every way and more than they hold, and ended in every way."""
    loop = aio.get_running_loop()

    async def over(*ends: End) -> None:
        for end in ends:
            await aio.wait_for(end.lost, PATIENCE)

    for visit in range(batches(count, 10)):
        reader, writer = await two_ends(loop)
        out, way = writer.transport, visit % 5
        reader.left = len(LARGE) + 9
        for small in (b"one", bytearray(b"two"), memoryview(b"and")):
            out.write(small)
        reader.transport.pause_reading()
        out.write(LARGE if visit % 2 else bytearray(LARGE))
        assert out.get_write_buffer_size() > 0
        if way == 0:  # the writer gives up, with a queue
            out.abort()
            await over(writer)
            reader.transport.close()
        elif way == 1:  # the reader's end goes, with a queue
            reader.transport.close()
            await over(reader, writer)
            out.write(b"lost")
        else:
            reader.transport.resume_reading()
            await aio.wait_for(writer.resumed, PATIENCE)
            await aio.wait_for(reader.arrived, PATIENCE)
            if way == 2:  # the end of all that was written, queued or not
                out.write(LARGE)
                out.write_eof()
            elif way == 3:
                out.write(b"last")
                out.close()
                repr(out), repr(reader.transport)
            else:
                with contextlib.suppress(AssertionError):
                    out.write("no bytes")
                reader.transport.set_protocol(End(loop))
                out.close()
                await aio.wait_for(reader.transport.get_protocol().lost, PATIENCE)
                reader.lost.set_result(None)
        await over(reader, writer)


@workload(100)
async def pipes_whose_protocols_raise(aio: ModuleType, count: int) -> None:
    """Which a pipe survives, as long as it is data that they are called with."""
    loop = aio.get_running_loop()
    reported: list[Any] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    for _ in range(batches(count, 10)):
        reader, writer = await two_ends(loop)
        reader.raises = writer.raises = True
        writer.transport.write(b"some")
        async with aio.timeout(PATIENCE):
            while not reported:
                await aio.sleep(0)
        reader.transport.close()
        await aio.wait_for(reader.lost, PATIENCE)
        await aio.wait_for(writer.lost, PATIENCE)
        await aio.sleep(0)
        reported.clear()
    loop.set_exception_handler(None)


@workload(100)
async def forgotten_pipes(aio: ModuleType, count: int) -> None:
    """Neither watched nor closed, and in a cycle with their protocols: the collector ends them."""
    loop = aio.get_running_loop()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(batches(count, 10)):
            reader, writer = await two_ends(loop)
            reader.transport.pause_reading()
            other = os.dup(writer.transport.get_extra_info("pipe").fileno())
            loop.remove_reader(writer.transport.get_extra_info("pipe").fileno())
            writer.transport.write(b"never read")
            del reader, writer
            await aio.sleep(0)
            gc.collect()
            os.close(other)


TALK = "import sys\nfor line in sys.stdin: print(line.strip(), flush=True)"
CHILD = [sys.executable, "-S", "-E", "-c", TALK]


@workload(2000)
async def children(aio: ModuleType, count: int) -> None:
    """Talked to by streams; they end by themselves, by a signal, or while they are waited for."""
    pipe = asyncio.subprocess.PIPE
    for visit in range(batches(count, 40)):
        child = await aio.create_subprocess_exec(*CHILD, stdin=pipe, stdout=pipe, stderr=pipe)
        waiting = aio.create_task(child.wait())
        child.stdin.write(b"word\n")
        await child.stdin.drain()
        assert await aio.wait_for(child.stdout.readline(), PATIENCE) == b"word\n"
        if visit % 3 == 0:
            assert await aio.wait_for(child.communicate(b"more\n" * 5000), PATIENCE)
        elif visit % 3 == 1:
            child.kill()
        else:
            waiting.cancel()
            child.stdin.close()
        await aio.wait_for(child.wait(), PATIENCE)
        await aio.gather(waiting, return_exceptions=True)
        while not child._transport.is_closing() or child._transport._pipes[1].pipe is None:
            await aio.sleep(0.001)
        for reader in (child.stdout, child.stderr):
            await aio.wait_for(reader.read(), PATIENCE)
        del child, waiting, reader
        for _ in range(3):
            await aio.sleep(0)


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        # Small, and not enlarged by the system: a large file has to wait.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


@workload(200)
async def files_over_sockets(aio: ModuleType, count: int) -> None:
    """Whole and in parts; cancelled, and with the file or the socket closed before the end."""
    loop = aio.get_running_loop()

    async def receive(sock: socket.socket, size: int) -> None:
        while size > 0:
            data = await aio.wait_for(loop.sock_recv(sock, 1_000_000), PATIENCE)
            assert data
            size -= len(data)
        assert size == 0

    with tempfile.TemporaryFile() as large:
        large.truncate(5_000_000)
        for visit in range(batches(count, 20)):
            way = visit % 5
            with connected() as (ours, theirs), open(large.fileno(), "rb", closefd=False) as file:
                if way == 0:
                    sending = aio.create_task(loop.sock_sendfile(ours, file, fallback=False))
                    await receive(theirs, 5_000_000)
                    assert await sending == 5_000_000
                    sending = aio.create_task(loop.sock_sendfile(ours, file, 10, 100_000))
                    await receive(theirs, 100_000)
                    assert await sending == 100_000
                    continue
                if way == 1:  # by a transport
                    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
                    sending = aio.create_task(loop.sendfile(transport, file, 1000))
                    await receive(theirs, 4_999_000)
                    assert await sending == 4_999_000
                    transport.close()
                    await aio.sleep(0)
                    continue
                own = open(os.dup(file.fileno()), "rb")  # noqa: SIM115
                sending = aio.create_task(loop.sock_sendfile(ours, own, fallback=way == 2))
                await receive_some(aio, loop, theirs)
                if way == 2:
                    sending.cancel()
                elif way == 3:
                    own.close()
                    async with aio.timeout(PATIENCE):
                        while not sending.done():  # it hears of it when there is room again
                            with contextlib.suppress(BlockingIOError):
                                theirs.recv(1_000_000)
                            await aio.sleep(0)
                else:
                    theirs.close()
                await aio.wait([sending], timeout=PATIENCE)
                with contextlib.suppress(OSError, ValueError, asyncio.CancelledError):
                    await sending
                own.close()


async def receive_some(aio: ModuleType, loop: Any, sock: socket.socket) -> None:
    assert await aio.wait_for(loop.sock_recv(sock, 50_000), PATIENCE)
