"""Where the system, the peer or the program runs against a limit: resets, full pipes, signals in
the middle of calls, half-open connections, peers that never read.

The loop goes on, what is buffered is bounded, and each end is told once. Descriptors that run out
are in `test_limits_descriptors.py`.
"""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.net.peers import Recorder, connected, listening_socket, until_closed
from tests.support import EARLY_311, PATIENCE, Runtime, spin

RESET = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 s


def reset(sock: socket.socket) -> None:
    """Close with an RST, whatever is on its way."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


@contextlib.asynccontextmanager
async def with_peer(
    aio: ModuleType, *, keep_open: bool = False
) -> AsyncIterator[tuple[Recorder, socket.socket]]:
    """A protocol, and a blocking socket as its peer that the test plays by hand."""
    loop = aio.get_running_loop()
    protocol = Recorder(loop, keep_open=keep_open)
    with listening_socket() as listener:
        await loop.create_connection(lambda: protocol, *listener.getsockname())
        peer, _ = listener.accept()
    peer.settimeout(PATIENCE)
    with peer:
        yield protocol, peer
    if not protocol.closed.done():
        protocol.transport.abort()
    await until_closed(protocol)


@contextlib.asynccontextmanager
async def streams_with_peer(
    aio: ModuleType, **options: Any
) -> AsyncIterator[tuple[Any, Any, socket.socket]]:
    """Streams, and a blocking socket as their peer."""
    with listening_socket() as listener:
        reader, writer = await aio.open_connection(*listener.getsockname(), **options)
        peer, _ = listener.accept()
    peer.settimeout(PATIENCE)
    with peer:
        yield reader, writer, peer
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


# -- RST -----------------------------------------------------------------------------------


async def test_a_reset_in_the_middle_of_writing_drops_the_buffer(aio: ModuleType) -> None:
    async with with_peer(aio) as (protocol, peer):
        protocol.transport.write(b"x" * 20_000_000)
        assert protocol.transport.get_write_buffer_size() > 0
        await aio.get_running_loop().run_in_executor(None, peer.recv, 1000)
        reset(peer)
        await until_closed(protocol)
        assert isinstance(protocol.error, ConnectionError)
        assert protocol.transport.get_write_buffer_size() == 0
        assert [event for event in protocol.events if event.startswith("lost")] == [
            protocol.events[-1]
        ]
        protocol.transport.write(b"after")  # let pass, as asyncio does


async def test_a_reset_in_the_middle_of_reading_ends_the_reader(aio: ModuleType) -> None:
    async with streams_with_peer(aio) as (reader, _, peer):
        reading = aio.create_task(reader.readexactly(100_000))
        await spin(aio)
        peer.sendall(b"x" * 50_000)
        while len(reader._buffer) < 50_000:
            await aio.sleep(0.001)
        reset(peer)
        with pytest.raises(ConnectionResetError):
            await aio.wait_for(reading, PATIENCE)
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_a_reset_wakes_who_waits_in_drain(aio: ModuleType) -> None:
    async with streams_with_peer(aio) as (_, writer, peer):
        writer.write(b"x" * 20_000_000)
        draining = [aio.create_task(writer.drain()) for _ in range(3)]
        await spin(aio)
        assert not any(task.done() for task in draining)
        reset(peer)
        ended = await aio.wait_for(aio.gather(*draining, return_exceptions=True), PATIENCE)
        assert all(isinstance(error, ConnectionError) for error in ended)
        with pytest.raises(ConnectionError):
            await writer.wait_closed()


async def test_peers_that_reset_before_they_are_accepted_leave_the_server_alive(
    aio: ModuleType,
) -> None:
    loop, made = aio.get_running_loop(), list[Recorder]()

    def make() -> Recorder:
        made.append(Recorder(loop))
        return made[-1]

    server = await loop.create_server(make, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for _ in range(20):
        reset(socket.create_connection(address))
    with socket.create_connection(address) as last:
        last.sendall(b"alive")
        async with aio.timeout(PATIENCE):
            while not any(bytes(protocol.data) == b"alive" for protocol in made):
                await aio.sleep(0.001)
    await until_closed(*made)
    server.close()
    await server.wait_closed()


# -- EPIPE ---------------------------------------------------------------------------------


async def test_writing_after_a_reset_that_is_not_yet_read_ends_the_connection(
    aio: ModuleType,
) -> None:
    async with with_peer(aio) as (protocol, peer):
        protocol.transport.pause_reading()  # so that only a write can find out
        reset(peer)
        for _ in range(3):
            protocol.transport.write(b"x")
        await until_closed(protocol)
        assert isinstance(protocol.error, ConnectionError)


async def test_a_pipe_without_a_reader_ends_with_epipe(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    reading, writing = os.pipe()
    protocol = Recorder(loop)
    await loop.connect_write_pipe(lambda: protocol, os.fdopen(writing, "wb", 0))
    os.close(reading)
    protocol.transport.write(b"x" * 100_000)
    await until_closed(protocol)
    assert protocol.error is None or isinstance(protocol.error, BrokenPipeError)


@pytest.mark.later_asyncio
async def test_a_child_that_does_not_read_its_input_is_no_error(aio: ModuleType) -> None:
    child = await aio.create_subprocess_exec(
        sys.executable, "-c", "print('done')", stdin=-1, stdout=-1
    )
    out, _ = await aio.wait_for(child.communicate(b"x" * 3_000_000), PATIENCE)
    assert out == b"done\n"
    assert child.returncode == 0


# -- EINTR ---------------------------------------------------------------------------------


@pytest.fixture
def alarms() -> Iterator[list[int]]:
    """SIGALRM a thousand times a second, and the list that its handler appends to."""
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _frame: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    yield seen
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


async def test_signals_interrupt_neither_transfers_nor_timers(
    aio: ModuleType, alarms: list[int]
) -> None:
    loop = aio.get_running_loop()
    async with connected(aio) as (client, server):
        for _ in range(20):
            client.transport.write(b"x" * 500_000)
            await aio.sleep(0.002)
        await server.received(10_000_000)
        assert len(server.data) == 10_000_000
    start = loop.time()
    await aio.sleep(0.1)
    assert loop.time() - start >= 0.099
    assert len(alarms) > 20


async def test_signals_interrupt_no_low_level_call(aio: ModuleType, alarms: list[int]) -> None:
    loop = aio.get_running_loop()
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)

        async def receive() -> int:
            size = 0
            while data := await loop.sock_recv(right, 65536):
                size += len(data)
            return size

        receiving = aio.create_task(receive())
        for _ in range(10):
            await loop.sock_sendall(left, b"x" * 1_000_000)
            await aio.sleep(0.002)
        left.shutdown(socket.SHUT_WR)
        assert await aio.wait_for(receiving, PATIENCE) == 10_000_000
    assert alarms


# -- half-open -----------------------------------------------------------------------------


async def test_a_peer_that_has_ended_its_side_still_gets_everything(aio: ModuleType) -> None:
    async with with_peer(aio, keep_open=True) as (protocol, peer):
        peer.shutdown(socket.SHUT_WR)
        await aio.wait_for(protocol.eof, PATIENCE)
        protocol.transport.write(b"x" * 5_000_000)
        protocol.transport.write_eof()

        def read_all() -> int:
            size = 0
            while data := peer.recv(65536):
                size += len(data)
            return size

        assert await aio.get_running_loop().run_in_executor(None, read_all) == 5_000_000
        await aio.sleep(0)
        protocol.transport.close()
        await until_closed(protocol)
        assert protocol.error is None


async def test_our_half_closed_side_still_reads(aio: ModuleType) -> None:
    async with streams_with_peer(aio) as (reader, writer, peer):
        writer.write(b"question")
        writer.write_eof()
        loop = aio.get_running_loop()
        assert await loop.run_in_executor(None, peer.recv, 100) == b"question"
        assert await loop.run_in_executor(None, peer.recv, 100) == b""
        peer.sendall(b"answer")
        assert await reader.readexactly(6) == b"answer"
        peer.close()
        assert await reader.read() == b""


async def test_a_half_open_peer_that_resets_is_noticed(aio: ModuleType) -> None:
    async with with_peer(aio, keep_open=True) as (protocol, peer):
        peer.shutdown(socket.SHUT_WR)
        await aio.wait_for(protocol.eof, PATIENCE)
        reset(peer)
        # Nothing is left to read, so it shows when something is written.
        async with aio.timeout(PATIENCE):
            while not protocol.closed.done():
                protocol.transport.write(b"x")
                await aio.sleep(0.001)
        assert isinstance(protocol.error, ConnectionError)


# -- peers that never read, programs that do not -------------------------------------------


async def test_a_peer_that_never_reads_stops_a_writer_that_minds_flow_control(
    aio: ModuleType,
) -> None:
    chunk = 100_000
    async with with_peer(aio) as (protocol, _):
        transport = protocol.transport
        high = transport.get_write_buffer_limits()[1]
        largest = sent = 0
        # As long as the kernel takes more; then the protocol is told to pause.
        while not protocol.paused:
            transport.write(b"x" * chunk)
            sent += chunk
            largest = max(largest, transport.get_write_buffer_size())
            await aio.sleep(0)
        for _ in range(20):
            await aio.sleep(0.001)
        assert high < transport.get_write_buffer_size() <= largest <= high + chunk
        assert protocol.events.count("pause") == 1
        assert "resume" not in protocol.events
        transport.abort()
        await until_closed(protocol)
        assert protocol.error is None


async def test_drain_holds_a_writer_whose_peer_never_reads(aio: ModuleType) -> None:
    async with streams_with_peer(aio) as (_, writer, peer):
        sent = 0

        async def write() -> None:
            nonlocal sent
            while True:
                writer.write(b"x" * 50_000)
                sent += 50_000
                await writer.drain()

        with pytest.raises(TimeoutError):
            async with aio.timeout(0.3):
                await write()
        held = sent
        assert writer.transport.get_write_buffer_size() <= 2**16 + 50_000

        def read_all() -> None:
            left = held
            while left:
                left -= len(peer.recv(min(left, 1 << 20)))

        # Nothing was lost by the cancelled wait, and the writer goes on when the peer reads.
        await aio.get_running_loop().run_in_executor(None, read_all)
        await aio.wait_for(writer.drain(), PATIENCE)
        assert writer.transport.get_write_buffer_size() == 0


async def test_a_stream_that_nobody_reads_stops_its_peer(aio: ModuleType) -> None:
    limit = 10_000
    async with streams_with_peer(aio, limit=limit) as (reader, _, peer):
        peer.setblocking(False)
        sent = quiet = 0
        while quiet < 20:
            try:
                sent += peer.send(b"x" * 65536)
                quiet = 0
            except BlockingIOError:
                quiet += 1
                await aio.sleep(0.002)
        # What the stream holds: twice its limit, and the one read that went over it.
        assert len(reader._buffer) <= 2 * limit + 256 * 1024
        got = 0
        while got < sent:
            got += len(await aio.wait_for(reader.read(1 << 20), PATIENCE))
        assert got == sent


async def test_closing_with_a_peer_that_never_reads_waits_and_abort_does_not(
    aio: ModuleType,
) -> None:
    async with with_peer(aio) as (protocol, _):
        protocol.transport.write(b"x" * 20_000_000)
        protocol.transport.close()
        for _ in range(20):
            await aio.sleep(0.001)
        assert not protocol.closed.done()
        protocol.transport.abort()
        await until_closed(protocol)
        assert protocol.error is None


async def test_stuck_peers_do_not_hold_the_others_up(runtime: Runtime) -> None:
    # Of 60 peers every second one never reads what it asked for.
    aio = runtime.aio
    loop = aio.get_running_loop()
    made: list[Recorder] = []

    class Echo(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.write(data if data != b"flood" else b"x" * 4_000_000)

    def make() -> Recorder:
        made.append(Echo(loop))
        return made[-1]

    server = await loop.create_server(make, "127.0.0.1", 0)
    address, peers = server.sockets[0].getsockname(), list[socket.socket]()

    def play() -> None:
        for number in range(60):
            peers.append(socket.create_connection(address, PATIENCE))
            peers[-1].sendall(b"flood" if number % 2 else b"echo")
        for peer in peers[::2]:
            assert peer.recv(100) == b"echo"

    try:
        await aio.wait_for(loop.run_in_executor(None, play), PATIENCE)
        # The last one may be through before the loop has told its protocol of it.
        async with aio.timeout(PATIENCE):
            while sum(protocol.transport is not None for protocol in made) < 60:
                await aio.sleep(0.001)
    finally:
        server.close()
        told = [protocol for protocol in made if protocol.transport is not None]
        for protocol in told:
            protocol.transport.abort()
        await until_closed(*told)
        for peer in peers:
            peer.close()
    if not EARLY_311:
        await server.wait_closed()
