"""Workloads of a server's side: accepted connections, crowds of them, a turn's extra duties."""

import asyncio
import contextlib
import logging
import socket
import struct
import warnings
from types import ModuleType
from typing import Any

from tests.safety.workloads import Boom, batches, give, workload
from tests.support import PATIENCE

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets


class Accepted(asyncio.Protocol):
    """A connection that asks, or does not, for its socket at some moment of its life."""

    number = 0

    def __init__(self, way: int) -> None:
        self.way = way
        if way == 1:
            raise Boom("no protocol")

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.way == 2:
            raise Boom("made")
        if self.way == 3:
            transport.abort()
        elif self.way == 4:
            assert transport.get_extra_info("socket").fileno() >= 0
        elif self.way == 5:
            assert transport.get_extra_info("peername")

    def data_received(self, data: bytes) -> None:
        if self.way == 6:
            raise Boom("data")
        if self.way == 7:
            self.transport.get_extra_info("socket").getsockname()
            repr(self.transport)
        self.transport.write(data)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.way in (4, 8):
            self.transport.get_extra_info("socket").fileno()
        if self.way == 9:
            raise Boom("lost")


WAYS = 11


async def visited(aio: ModuleType, count: int) -> None:
    loop = aio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    ways = iter(range(10**9))
    server = await loop.create_server(lambda: Accepted(next(ways) % WAYS), "127.0.0.1", 0)
    where = server.sockets[0].getsockname()
    for batch in range(batches(count, 10)):
        guests = [socket.create_connection(where) for _ in range(WAYS)]
        for guest in guests:
            guest.setblocking(False)
        if batch % 2:  # gone when they are accepted
            guests[10].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            guests[10].close()
        for guest in guests:
            with guest, contextlib.suppress(OSError):
                await loop.sock_sendall(guest, b"hello")
                await aio.wait_for(loop.sock_recv(guest, 100), PATIENCE)
        await emptied(aio)
    # Some that were accepted, and no more than that, when the server ends.
    guests = [socket.create_connection(where) for _ in range(3)]
    server.close()
    await aio.sleep(0)
    for guest in guests:
        guest.close()
    await emptied(aio)
    loop.set_exception_handler(None)


async def emptied(aio: ModuleType) -> None:
    """No connection of the loop is left."""
    async with aio.timeout(PATIENCE):
        while aio.get_running_loop()._transports:
            await aio.sleep(0.001)
    await aio.sleep(0)


@workload(100)
async def accepted_connections(aio: ModuleType, count: int) -> None:
    """Their sockets are made late, or never; protocols raise wherever they are called."""
    await visited(aio, count)


@contextlib.contextmanager
def in_debug_mode(loop: Any) -> Any:
    """Callbacks count as slow by the slightest bit, so that each is reported; nobody listens."""
    before = loop.slow_callback_duration
    logging.disable(logging.CRITICAL)
    loop.slow_callback_duration = 0.0
    loop.set_debug(True)
    try:
        yield
    finally:
        loop.set_debug(False)
        loop.slow_callback_duration = before
        logging.disable(logging.NOTSET)


@workload(100)
async def accepted_in_debug_mode(aio: ModuleType, count: int) -> None:
    with in_debug_mode(aio.get_running_loop()):
        await visited(aio, batches(count, 2))


@workload(20)
async def turns_with_duties(aio: ModuleType, count: int) -> None:
    """Timers, threads that are woken late, and debug mode, set and unset within one batch."""
    loop = aio.get_running_loop()
    done = []
    for number in range(count):
        jobs = [loop.run_in_executor(None, int, 1) for _ in range(2)]
        loop.call_soon(loop.set_debug, number % 2 == 0)
        with in_debug_mode(loop) if number % 5 == 0 else contextlib.nullcontext():
            loop.call_later(0, done.append, 1)
            loop.call_soon(done.append, 1)
            task = loop.create_task(give(1))
            loop.call_soon(loop.set_debug, False)
            await aio.gather(task, *jobs)
            await aio.sleep(0)
    loop.set_debug(False)


class Buffered(asyncio.BufferedProtocol):
    def __init__(self, loop: Any) -> None:
        self.buffer = bytearray(64)
        self.got: asyncio.Future[int] = loop.create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.got.set_result(nbytes)


class Plain(asyncio.Protocol):
    def __init__(self, loop: Any) -> None:
        self.got: asyncio.Future[int] = loop.create_future()

    def data_received(self, data: bytes) -> None:
        self.got.set_result(len(data))


CROWD = 40
"""Events of one poll: more than what the loop has fetched ahead of its use."""


@workload(20)
async def a_crowd_of_connections(aio: ModuleType, count: int) -> None:
    """All become readable between two polls, and are waited for in every way there is."""
    loop = aio.get_running_loop()

    async def awaited(coro: Any) -> Any:
        return await coro

    for _ in range(batches(count, CROWD)):
        pairs = [socket.socketpair() for _ in range(CROWD)]
        transports, writers, waiters = [], [], []
        for number, (ours, _theirs) in enumerate(pairs):
            way = number % 8
            if way >= 6:
                kind: Any = Plain if way == 6 else Buffered
                made = await loop.create_connection(lambda k=kind: k(loop), sock=ours)
                transport, protocol = made
                transports.append(transport)
                waiters.append(protocol.got)
                continue
            reader, writer = await aio.open_connection(sock=ours)
            if way == 0:
                waiters.append(loop.create_task(reader.read(10)))
            elif way == 1:
                waiters.append(loop.create_task(awaited(reader.readline())))
            elif way == 2:  # asyncio's own task
                waiters.append(asyncio.tasks._PyTask(reader.readexactly(3), loop=loop))  # type: ignore[attr-defined]
            elif way == 3:  # a future with a callback ahead of the task's
                waiters.append(loop.create_task(awaited(aio.wait_for(reader.read(10), 60))))
            elif way == 4:  # given up in the same turn
                task = loop.create_task(reader.read(10))
                loop.call_soon(loop.call_soon, task.cancel)
                waiters.append(task)
            # The writer of way 5 is all there is of it, without its reader.
            transports.append(writer.transport)
            if number % 16 < 8:
                writers.append(writer)
            with warnings.catch_warnings():  # of the others, since 3.13
                warnings.simplefilter("ignore", ResourceWarning)
                del reader, writer
        await aio.sleep(0)
        for _ours, theirs in pairs:
            with contextlib.suppress(BrokenPipeError):  # a writer that is dropped closes (3.13)
                theirs.send(b"abc\n")
        transports[5].abort()
        await aio.wait(waiters, timeout=PATIENCE)
        await aio.gather(*waiters, return_exceptions=True)
        for _ours, theirs in pairs:
            theirs.close()
        for transport in transports:
            transport.close()
        # The loop's list of them holds none of these.
        transport = protocol = task = None
        del transports, writers, waiters, pairs, made, ours, theirs, _theirs, _ours
        await emptied(aio)
