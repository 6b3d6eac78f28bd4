"""create_datagram_endpoint: protocols, transports, flow control."""

import asyncio
import contextlib
import errno
import gc
import socket
import sys
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest

from tests.support import PATIENCE, Runtime, spin


class Receiver(asyncio.DatagramProtocol):
    """Notes what it is told and offers a future for a number of datagrams."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.transport: Any = None
        self.got: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.events: list[str] = []
        self.closed = loop.create_future()
        self._wanted: tuple[int, Any] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert type(data) is bytes
        self.got.append((data, addr))
        self._check()

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)
        self._check()

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(f"lost {exc!r}")
        self.closed.set_result(None)

    async def until(self, count: int) -> None:
        """Until so many datagrams and errors have come."""
        if len(self.got) + len(self.errors) < count:
            self._wanted = count, self.loop.create_future()
            await asyncio.wait_for(self._wanted[1], PATIENCE)

    def _check(self) -> None:
        if self._wanted is None or self._wanted[1].done():
            return
        if len(self.got) + len(self.errors) >= self._wanted[0]:
            self._wanted[1].set_result(None)


@contextlib.asynccontextmanager
async def endpoint(
    aio: ModuleType, kind: type[Receiver] = Receiver, **options: Any
) -> AsyncIterator[Any]:
    loop = aio.get_running_loop()
    if not options:
        options = {"local_addr": ("127.0.0.1", 0)}
    transport, protocol = await loop.create_datagram_endpoint(lambda: kind(loop), **options)
    try:
        yield protocol
    finally:
        if not protocol.closed.done():
            transport.abort()
        await asyncio.wait_for(protocol.closed, PATIENCE)


def address(protocol: Any) -> Any:
    return protocol.transport.get_extra_info("sockname")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_datagrams_come_with_their_senders(aio: ModuleType, host: str) -> None:
    async with (
        endpoint(aio, local_addr=(host, 0)) as server,
        endpoint(aio, remote_addr=address(server)[:2]) as client,
    ):
        for number in range(100):
            client.transport.sendto(b"%d" % number)
        await server.until(100)
        assert server.got == [(b"%d" % number, address(client)) for number in range(100)]
        server.transport.sendto(b"to you", server.got[0][1])
        await client.until(1)
        assert client.got == [(b"to you", address(server))]


async def test_the_address_of_each_sender_is_its_own(aio: ModuleType) -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(endpoint(aio))
        clients = [
            await stack.enter_async_context(endpoint(aio, remote_addr=address(server)))
            for _ in range(150)
        ]
        for _ in range(2):
            for client in clients:
                client.transport.sendto(repr(address(client)).encode())
            await server.until(len(clients))
            assert len(server.got) == len(clients)
            for data, sender in server.got:
                assert data.decode() == repr(sender)
                server.transport.sendto(data, sender)
            server.got.clear()
            for client in clients:
                await client.until(1)
                assert client.got.pop()[0].decode() == repr(address(client))


@pytest.mark.later_asyncio
async def test_a_transport_is_what_asyncio_says(aio: ModuleType) -> None:
    async with endpoint(aio) as server:
        transport = server.transport
        assert isinstance(transport, asyncio.DatagramTransport) or sys.version_info < (3, 13)
        assert isinstance(transport, asyncio.Transport)
        assert transport.get_protocol() is server
        assert transport.get_extra_info("peername") is None
        sock = transport.get_extra_info("socket")
        assert sock.type == socket.SOCK_DGRAM
        assert sock.getsockname() == address(server)
        assert transport.get_extra_info("no such", 5) == 5
        assert transport.get_write_buffer_size() == 0
        assert transport.is_reading()
        assert not transport.is_closing()
        await spin(aio)
        text = repr(transport)
        assert f"fd={sock.fileno()} read=polling write=<idle, bufsize=0>" in text
    assert transport.is_closing()
    assert "closed" in repr(transport)


async def test_empty_datagrams(aio: ModuleType) -> None:
    async with endpoint(aio) as server, endpoint(aio, remote_addr=address(server)) as client:
        client.transport.sendto(b"")
        client.transport.sendto(bytearray(b"full"))
        await server.until(2 if sys.version_info >= (3, 13) else 1)
        got = [data for data, _ in server.got]
        assert got == ([b"", b"full"] if sys.version_info >= (3, 13) else [b"full"])


async def test_a_datagram_that_is_too_long_is_the_protocols_to_hear_of(aio: ModuleType) -> None:
    async with endpoint(aio) as server:
        server.transport.sendto(bytes(70_000), address(server))
        assert [exc.errno for exc in server.errors] == [errno.EMSGSIZE]
        server.transport.sendto(b"short", address(server))
        await server.until(2)
        assert server.got[0][0] == b"short"


async def test_nobody_at_the_other_end_is_an_error_and_no_end(aio: ModuleType) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        target = nobody.getsockname()
    async with endpoint(aio, remote_addr=target) as client:
        client.transport.sendto(b"anybody?")
        await client.until(1)
        assert isinstance(client.errors[0], ConnectionRefusedError)
        assert not client.transport.is_closing()


async def test_only_the_remote_address_may_be_named(aio: ModuleType) -> None:
    async with endpoint(aio) as server, endpoint(aio, remote_addr=address(server)) as client:
        with pytest.raises(ValueError, match="Invalid address: must be None or"):
            client.transport.sendto(b"x", ("127.0.0.1", 1))
        client.transport.sendto(b"x", address(server))
        await server.until(1)


@pytest.mark.parametrize("data", ["text", 5, None, [b"x"]])
async def test_what_is_no_bytes_is_refused(aio: ModuleType, data: Any) -> None:
    async with endpoint(aio) as server:
        with pytest.raises(TypeError, match="data argument must be a bytes-like object"):
            server.transport.sendto(data, address(server))


async def test_an_address_of_another_kind_ends_the_endpoint(runtime: Runtime) -> None:
    aio = runtime.aio
    async with endpoint(aio) as server:
        server.transport.sendto(b"x", "no tuple")
        await asyncio.wait_for(server.closed, PATIENCE)
    [context] = runtime.take_errors()
    assert context["message"] == "Fatal write error on datagram transport"
    assert isinstance(context["exception"], TypeError)


async def test_a_name_is_resolved(aio: ModuleType) -> None:
    async with endpoint(aio) as server:
        server.transport.sendto(b"by name", ("localhost", address(server)[1]))
        await server.until(1)
        assert server.got == [(b"by name", address(server))]


async def test_exceptions_of_the_protocol_are_reported_and_the_rest_goes_on(
    runtime: Runtime,
) -> None:
    class Failing(Receiver):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            if len(self.got) % 2:
                raise RuntimeError(f"number {len(self.got)}")

    aio = runtime.aio
    async with endpoint(aio, Failing) as server:
        for _ in range(5):
            server.transport.sendto(b"x", address(server))
        await server.until(5)
        await spin(aio)
    assert [str(context["exception"]) for context in runtime.take_errors()] == [
        "number 1",
        "number 3",
        "number 5",
    ]


async def test_a_flood_does_not_keep_the_loop_from_others(aio: ModuleType) -> None:
    class Reflecting(Receiver):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            self.transport.sendto(data, addr)  # to itself: there is always another one

    async with endpoint(aio, Reflecting) as server:
        server.transport.sendto(b"ball", address(server))
        await aio.sleep(0.02)
        assert len(server.got) > 5


async def test_closing_in_the_middle_of_a_burst_is_heeded(aio: ModuleType) -> None:
    class Closing(Receiver):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            self.transport.close()

    async with endpoint(aio, Closing) as server:
        for _ in range(10):
            server.transport.sendto(b"x", address(server))
        await asyncio.wait_for(server.closed, PATIENCE)
        assert len(server.got) == 1


@contextlib.asynccontextmanager
async def crowded(aio: ModuleType, path: Any) -> AsyncIterator[tuple[Any, socket.socket]]:
    """An endpoint whose peer, a Unix socket, has no room left, and reads when told to."""
    near = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    far = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    far.bind(str(path / "far"))
    far.settimeout(PATIENCE)
    near.connect(far.getsockname())
    near.setblocking(False)
    with far:
        async with endpoint(aio, sock=near) as client:
            with contextlib.suppress(BlockingIOError):
                while True:
                    near.send(b"filling")
            yield client, far


async def test_without_room_datagrams_are_queued_and_the_protocol_is_told(
    aio: ModuleType, tmp_path: Any
) -> None:
    async with crowded(aio, tmp_path) as (client, far):
        transport = client.transport
        transport.set_write_buffer_limits(high=1000)
        for number in range(10):
            transport.sendto(b"%d" % number * 200)
        header = 8 if sys.version_info >= (3, 13) else 0
        assert transport.get_write_buffer_size() == 10 * (200 + header)
        assert client.events == ["made", "pause"]
        got: list[bytes] = []
        while len(got) < 10:
            data = await aio.to_thread(far.recv, 1000)
            if data != b"filling":
                got.append(data)
        assert got == [b"%d" % number * 200 for number in range(10)]
        await spin(aio)
        assert client.events == ["made", "pause", "resume"]


async def test_close_sends_what_is_queued(aio: ModuleType, tmp_path: Any) -> None:
    async with crowded(aio, tmp_path) as (client, far):
        client.transport.sendto(b"last")
        client.transport.close()
        assert client.transport.is_closing()
        assert not client.closed.done()
        while await aio.to_thread(far.recv, 1000) != b"last":
            pass
        await asyncio.wait_for(client.closed, PATIENCE)
        assert client.events[-1] == "lost None"


async def test_abort_drops_what_is_queued(aio: ModuleType, tmp_path: Any) -> None:
    async with crowded(aio, tmp_path) as (client, _):
        client.transport.sendto(b"last")
        client.transport.abort()
        await asyncio.wait_for(client.closed, PATIENCE)


@pytest.mark.later_asyncio
async def test_reading_can_be_paused(aio: ModuleType) -> None:
    async with endpoint(aio) as server:
        server.transport.pause_reading()
        assert not server.transport.is_reading()
        server.transport.sendto(b"wait", address(server))
        await spin(aio, 10)
        await aio.sleep(0.01)
        assert server.got == []
        server.transport.resume_reading()
        await server.until(1)
        assert server.got[0][0] == b"wait"


async def test_unix_datagram_endpoints(aio: ModuleType, tmp_path: Any) -> None:
    path = str(tmp_path / "server")
    async with (
        endpoint(aio, local_addr=path, family=socket.AF_UNIX) as server,
        endpoint(aio, local_addr=f"\0{path}", family=socket.AF_UNIX) as client,
    ):
        client.transport.sendto(b"hello", path)
        await server.until(1)
        assert server.got == [(b"hello", f"\0{path}".encode())]


async def test_broadcast_and_shared_ports(aio: ModuleType) -> None:
    async with endpoint(
        aio, local_addr=("127.0.0.1", 0), allow_broadcast=True, reuse_port=True
    ) as one:
        sock = one.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        async with endpoint(aio, local_addr=address(one), reuse_port=True) as other:
            assert address(one) == address(other)


def test_a_forgotten_endpoint_warns(runtime: Runtime) -> None:
    loop: Any = runtime.new_event_loop()
    transport, _ = loop.run_until_complete(
        loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    )
    loop.close()
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport, _
        gc.collect()
