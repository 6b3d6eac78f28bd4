"""create_server and create_connection: protocols, transports and their ends."""

import asyncio
import errno
import socket
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.net.peers import Recorder, connected, listening_socket, until_closed
from tests.support import Runtime, spin


async def serve(
    aio: ModuleType, factory: Callable[[], Any], **options: Any
) -> tuple[Any, tuple[str, int]]:
    server = await aio.get_running_loop().create_server(factory, "127.0.0.1", 0, **options)
    return server, server.sockets[0].getsockname()


async def test_bytes_go_both_ways_and_callbacks_come_in_order(aio: ModuleType) -> None:
    async with connected(aio) as (client, server):
        client.transport.write(b"question")
        await server.received(8)
        server.transport.write(b"answer")
        await client.received(6)
        client.transport.close()
        await until_closed(client, server)
    assert bytes(server.data) == b"question"
    assert server.events == ["made", "data", "eof", "lost None"]
    assert client.events == ["made", "data", "lost None"]


async def test_connection_made_runs_before_create_connection_returns(aio: ModuleType) -> None:
    async with connected(aio) as (client, _):
        assert client.events[0] == "made"
        assert client.transport.get_protocol() is client


async def test_many_small_writes_arrive_in_order(aio: ModuleType) -> None:
    async with connected(aio) as (client, server):
        for number in range(1000):
            client.transport.write(b"%d," % number)
        expected = b"".join(b"%d," % number for number in range(1000))
        await server.received(len(expected))
    assert bytes(server.data) == expected


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_any_bytes_like_object_is_written(aio: ModuleType, kind: Any) -> None:
    async with connected(aio) as (client, server):
        client.transport.write(kind(b"payload"))
        await server.received(7)
    assert bytes(server.data) == b"payload"


async def test_a_bytearray_changed_after_write_does_not_change_what_is_sent(
    runtime: Runtime,
) -> None:
    if not runtime.native and sys.version_info >= (3, 12):
        pytest.skip("asyncio keeps a view of the caller's buffer since Python 3.12")
    aio = runtime.aio
    async with connected(aio) as (client, server):
        server.transport.pause_reading()
        payload = bytearray(b"a" * 8_000_000)  # more than the sockets take at once
        client.transport.write(payload)
        payload[:] = b"b" * len(payload)
        server.transport.resume_reading()
        await server.received(8_000_000)
    assert server.data.count(b"a") == 8_000_000


async def test_a_large_write_arrives_whole(aio: ModuleType) -> None:
    payload = bytes(range(256)) * 40_000
    async with connected(aio) as (client, server):
        client.transport.write(payload)
        client.transport.close()  # must flush first
        await until_closed(client, server)
    assert bytes(server.data) == payload


async def test_writelines_joins_what_it_is_given(aio: ModuleType) -> None:
    async with connected(aio) as (client, server):
        client.transport.writelines([b"one ", bytearray(b"two "), memoryview(b"three")])
        await server.received(13)
    assert bytes(server.data) == b"one two three"


@pytest.mark.parametrize("bad", ["text", 3, None])
async def test_only_bytes_are_written(aio: ModuleType, bad: Any) -> None:
    async with connected(aio) as (client, _):
        with pytest.raises(TypeError):
            client.transport.write(bad)


async def test_an_empty_write_sends_nothing(aio: ModuleType) -> None:
    async with connected(aio) as (client, server):
        client.transport.write(b"")
        client.transport.write(b"x")
        await server.received(1)
    assert bytes(server.data) == b"x"


async def test_writing_after_close_is_ignored(aio: ModuleType) -> None:
    async with connected(aio) as (client, server):
        client.transport.write(b"before")
        client.transport.close()
        assert client.transport.is_closing()
        client.transport.write(b"after")
        client.transport.close()
        await until_closed(client, server)
    assert bytes(server.data) == b"before"
    assert client.events.count("lost None") == 1


# -- the ends ------------------------------------------------------------------------------


async def test_write_eof_half_closes(aio: ModuleType) -> None:
    async with connected(aio, keep_open=True) as (client, server):
        assert client.transport.can_write_eof()
        client.transport.write(b"request")
        client.transport.write_eof()
        await server.eof
        server.transport.write(b"late answer")
        await client.received(11)
        assert not client.transport.is_closing()
        with pytest.raises(RuntimeError, match="eof"):
            client.transport.write(b"more")
        server.transport.close()
        await until_closed(server)
        client.transport.close()
        await until_closed(client)
    assert bytes(server.data) == b"request"


async def test_eof_closes_the_transport_unless_the_protocol_says_no(aio: ModuleType) -> None:
    async with connected(aio) as (client, server):
        client.transport.write_eof()
        await until_closed(server, client)
    assert server.events[-2:] == ["eof", "lost None"]


async def test_write_eof_flushes_what_is_buffered(aio: ModuleType) -> None:
    async with connected(aio, keep_open=True) as (client, server):
        client.transport.write(b"x" * 3_000_000)
        client.transport.write_eof()
        await server.eof
        assert len(server.data) == 3_000_000
        for side in (server, client):
            side.transport.close()
        await until_closed(client, server)


async def test_abort_drops_the_buffer_and_ends_at_once(aio: ModuleType) -> None:
    async with connected(aio) as (client, server):
        server.transport.pause_reading()
        client.transport.write(b"x" * 8_000_000)
        assert client.transport.get_write_buffer_size() > 0
        client.transport.abort()
        await until_closed(client)
        assert client.transport.get_write_buffer_size() == 0
        server.transport.resume_reading()
        await until_closed(server)
    assert client.events[-1] == "lost None"
    assert len(server.data) < 8_000_000


async def test_a_reset_by_the_peer_reaches_connection_lost(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with listening_socket() as listener:
        protocol = Recorder(loop)
        await loop.create_connection(lambda: protocol, *listener.getsockname())
        peer, _ = listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        await until_closed(protocol)
    assert isinstance(protocol.error, ConnectionResetError)


async def test_writing_to_a_closed_peer_ends_in_connection_lost(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with listening_socket() as listener:
        protocol = Recorder(loop, keep_open=True)
        await loop.create_connection(lambda: protocol, *listener.getsockname())
        peer, _ = listener.accept()
        peer.close()
        await protocol.eof
        for _ in range(100):
            protocol.transport.write(b"x" * 1000)
            await aio.sleep(0.001)
            if protocol.closed.done():
                break
        await until_closed(protocol)
    assert isinstance(protocol.error, ConnectionError)


async def test_closing_before_the_loop_ends_leaves_no_socket(runtime: Runtime) -> None:
    # The runtime's descriptor check at the end of the test is the assertion.
    aio = runtime.aio
    async with connected(aio) as (client, server):
        client.transport.close()
        server.transport.close()
        await until_closed(client, server)


# -- flow control --------------------------------------------------------------------------


async def test_pause_reading_stops_data_until_resume(aio: ModuleType) -> None:
    async with connected(aio) as (client, server):
        assert server.transport.is_reading()
        server.transport.pause_reading()
        assert not server.transport.is_reading()
        client.transport.write(b"held back")
        await aio.sleep(0.02)
        assert not server.data
        server.transport.resume_reading()
        await server.received(9)
        server.transport.pause_reading()
        server.transport.pause_reading()  # twice is once
        server.transport.resume_reading()
        client.transport.write(b"!")
        await server.received(10)


@pytest.mark.later_asyncio
async def test_reading_paused_in_connection_made_stays_paused(aio: ModuleType) -> None:
    class Paused(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    async with connected(aio, server_type=Paused) as (client, server):
        client.transport.write(b"early")
        await aio.sleep(0.02)
        assert not server.data
        server.transport.resume_reading()
        await server.received(5)


async def test_a_full_buffer_pauses_the_writer_and_an_empty_one_resumes_it(
    aio: ModuleType,
) -> None:
    async with connected(aio) as (client, server):
        server.transport.pause_reading()
        client.transport.set_write_buffer_limits(high=100_000, low=1000)
        assert client.transport.get_write_buffer_limits() == (1000, 100_000)
        sent = 0
        while not client.paused:
            client.transport.write(b"x" * 50_000)
            sent += 50_000
        assert client.transport.get_write_buffer_size() > 100_000
        assert client.events.count("pause") == 1
        server.transport.resume_reading()
        await client.resumed
        assert client.transport.get_write_buffer_size() <= 1000
        await server.received(sent)
    assert client.events.count("resume") == 1


async def test_write_buffer_limits_are_checked_and_derived(aio: ModuleType) -> None:
    async with connected(aio) as (client, _):
        transport = client.transport
        transport.set_write_buffer_limits()
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.set_write_buffer_limits(high=400)
        assert transport.get_write_buffer_limits() == (100, 400)
        transport.set_write_buffer_limits(low=100)
        assert transport.get_write_buffer_limits() == (100, 400)
        transport.set_write_buffer_limits(high=0)
        assert transport.get_write_buffer_limits() == (0, 0)
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(high=1, low=2)


# -- protocols that misbehave --------------------------------------------------------------


async def test_a_server_factory_that_raises_is_reported_and_the_server_lives_on(
    runtime: Runtime,
) -> None:
    if not runtime.native:
        pytest.skip("asyncio drops the error outside debug mode, and leaks the socket")
    aio = runtime.aio
    loop = aio.get_running_loop()
    made: list[Recorder] = []

    def factory() -> Recorder:
        if not made:
            made.append(Recorder(loop))
            raise ZeroDivisionError("factory")
        made.append(Recorder(loop))
        return made[-1]

    server, address = await serve(aio, factory)
    first, second = Recorder(loop), Recorder(loop)
    await loop.create_connection(lambda: first, *address)
    await until_closed(first)
    assert [type(c["exception"]) for c in runtime.take_errors()] == [ZeroDivisionError]
    await loop.create_connection(lambda: second, *address)
    second.transport.write(b"alive")
    await aio.wait_for(spin_until(aio, lambda: len(made) == 2), 5)
    await made[1].received(5)
    second.transport.close()
    await until_closed(second, made[1])
    server.close()
    await server.wait_closed()


async def spin_until(aio: ModuleType, condition: Callable[[], bool]) -> None:
    while not condition():
        await aio.sleep(0)


async def test_a_client_factory_that_raises_raises_from_create_connection(
    runtime: Runtime,
) -> None:
    if not runtime.native:
        pytest.skip("asyncio leaks the socket")

    def factory() -> asyncio.Protocol:
        raise ZeroDivisionError("factory")

    with listening_socket() as listener, pytest.raises(ZeroDivisionError):
        await runtime.aio.get_running_loop().create_connection(factory, *listener.getsockname())


@pytest.mark.parametrize("method", ["data_received", "eof_received", "connection_lost"])
async def test_a_protocol_method_that_raises_is_reported(runtime: Runtime, method: str) -> None:
    class Broken(Recorder):
        pass

    def broken(self: Broken, *args: Any) -> None:
        if method == "connection_lost":
            Recorder.connection_lost(self, *args)
        raise ZeroDivisionError(method)

    setattr(Broken, method, broken)
    async with connected(runtime.aio, server_type=Broken) as (client, server):
        client.transport.write(b"x")
        client.transport.close()
        await until_closed(client, server)
        await spin(runtime.aio)
    (context,) = runtime.take_errors()
    assert isinstance(context["exception"], ZeroDivisionError)


# -- BufferedProtocol ----------------------------------------------------------------------


class Buffered(asyncio.BufferedProtocol):
    """Fills a buffer of its own, and keeps what came."""

    def __init__(self, loop: Any, size: int = 10) -> None:
        self.buffer: Any = bytearray(size)
        self.data = bytearray()
        self.events: list[str] = []
        self.closed = loop.create_future()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer  # type: ignore[no-any-return]

    def buffer_updated(self, nbytes: int) -> None:
        assert 0 < nbytes <= len(self.buffer)
        self.data += self.buffer[:nbytes]

    def eof_received(self) -> None:
        self.events.append("eof")

    def connection_lost(self, error: Exception | None) -> None:
        self.events.append(f"lost {type(error).__name__}")
        self.closed.set_result(None)


async def test_a_buffered_protocol_gets_its_bytes_in_its_own_buffer(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    server_side: list[Buffered] = []

    def factory() -> Buffered:
        server_side.append(Buffered(loop))
        return server_side[0]

    server, address = await serve(aio, factory)
    client = Recorder(loop)
    await loop.create_connection(lambda: client, *address)
    client.transport.write(bytes(range(256)) * 20)
    client.transport.close()
    await until_closed(client)
    await aio.wait_for(server_side[0].closed, 5)
    assert bytes(server_side[0].data) == bytes(range(256)) * 20
    assert server_side[0].events == ["eof", "lost NoneType"]
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("buffer", [b"", bytearray(), b"read only", 3])
async def test_a_buffer_that_cannot_be_filled_ends_the_connection(
    runtime: Runtime, buffer: Any
) -> None:
    aio = runtime.aio
    loop = aio.get_running_loop()
    with listening_socket() as listener:
        protocol = Buffered(loop)
        protocol.buffer = buffer
        await loop.create_connection(lambda: protocol, *listener.getsockname())
        peer, _ = listener.accept()
        peer.send(b"data")
        await aio.wait_for(protocol.closed, 5)
        peer.close()
    assert protocol.events[-1] != "lost NoneType"
    assert runtime.take_errors()


async def test_the_protocol_can_be_changed_from_plain_to_buffered_and_back(
    aio: ModuleType,
) -> None:
    loop = aio.get_running_loop()
    async with connected(aio) as (client, server):
        client.transport.write(b"plain")
        await server.received(5)
        buffered = Buffered(loop)
        server.transport.set_protocol(buffered)
        assert server.transport.get_protocol() is buffered
        client.transport.write(b"buffered")
        while len(buffered.data) < 8:
            await aio.sleep(0.001)
        server.transport.set_protocol(server)
        client.transport.write(b" again")
        await server.received(11)
    assert bytes(server.data) == b"plain again"


# -- connecting ----------------------------------------------------------------------------


async def test_a_refused_connection_says_so(aio: ModuleType) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound but not listening: nobody else can take the port
        with pytest.raises(ConnectionRefusedError) as caught:
            await aio.get_running_loop().create_connection(asyncio.Protocol, *bound.getsockname())
    assert caught.value.errno == errno.ECONNREFUSED
    assert "127.0.0.1" in str(caught.value)


async def test_a_connection_attempt_can_be_cancelled(aio: ModuleType) -> None:
    # A full backlog leaves connect() pending.
    with listening_socket(backlog=0) as listener:
        address = listener.getsockname()
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        task = aio.create_task(aio.get_running_loop().create_connection(asyncio.Protocol, *address))
        await aio.sleep(0.01)
        assert not task.done()
        task.cancel()
        with pytest.raises(aio.CancelledError):
            await task
        for filler in fillers:
            filler.close()


async def test_a_connected_socket_can_be_handed_over(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    ours, theirs = socket.socketpair()
    with theirs:
        protocol = Recorder(loop)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        assert ours.getblocking() is False
        theirs.send(b"through the pair")
        await protocol.received(16)
        transport.close()
        await until_closed(protocol)


async def test_a_socket_and_an_address_together_are_refused(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with socket.socket() as sock, pytest.raises(ValueError, match="host/port and sock"):
        await loop.create_connection(asyncio.Protocol, "127.0.0.1", 1, sock=sock)
    with pytest.raises(ValueError, match="host and port was not specified"):
        await loop.create_connection(asyncio.Protocol)


async def test_local_addr_binds_the_client(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with listening_socket() as listener:
        protocol = Recorder(loop)
        await loop.create_connection(
            lambda: protocol, *listener.getsockname(), local_addr=("127.0.0.2", 0)
        )
        assert protocol.transport.get_extra_info("sockname")[0] == "127.0.0.2"
        protocol.transport.close()
        await until_closed(protocol)


async def test_an_unknown_host_is_a_gaierror(aio: ModuleType) -> None:
    with pytest.raises(socket.gaierror):
        await aio.get_running_loop().create_connection(asyncio.Protocol, "host.invalid", 80)


async def test_extra_info_has_asyncios_keys(aio: ModuleType) -> None:
    async with connected(aio) as (client, server):
        sock = client.transport.get_extra_info("socket")
        assert sock.fileno() >= 0
        assert sock.family == socket.AF_INET
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert client.transport.get_extra_info("peername") == server.transport.get_extra_info(
            "sockname"
        )
        assert client.transport.get_extra_info("sockname") == sock.getsockname()
        assert client.transport.get_extra_info("unknown") is None
        assert client.transport.get_extra_info("unknown", "default") == "default"
        assert client.transport.get_extra_info("sslcontext") is None


async def test_transports_are_asyncio_transports_with_a_telling_repr(aio: ModuleType) -> None:
    async with connected(aio) as (client, _):
        assert isinstance(client.transport, asyncio.Transport)
        assert "Transport" in repr(client.transport)
        client.transport.close()
        assert "clos" in repr(client.transport)


async def test_an_unclosed_transport_warns_when_it_is_freed(aio: ModuleType) -> None:
    async with connected(aio) as (client, server):
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            client.transport.__del__()
        server.transport.abort()
        await until_closed(server)
        client.transport.abort()
