"""Servers as objects: starting, closing, waiting, many addresses and many clients."""

import asyncio
import contextvars
import errno
import gc
import socket
import warnings
from types import ModuleType
from typing import Any

import pytest

from tests.net.peers import Recorder, until_closed
from tests.support import PATIENCE, Runtime


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def test_a_server_serves_at_once_and_tells_its_sockets(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    assert server.is_serving()
    assert server.get_loop() is loop
    (sock,) = server.sockets
    assert sock.getsockname()[0] == "127.0.0.1"
    assert isinstance(server, asyncio.AbstractServer)
    server.close()
    assert not server.is_serving()
    assert tuple(server.sockets) == ()  # type: ignore[attr-defined]
    await server.wait_closed()
    assert "sockets=" in repr(server)


async def test_a_closed_server_accepts_nobody(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    server.close()
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await loop.create_connection(asyncio.Protocol, *address)


async def test_start_serving_false_waits_to_be_started(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
    assert not server.is_serving()
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    client = Recorder(loop)
    await loop.create_connection(lambda: client, *server.sockets[0].getsockname())
    client.transport.write(b"echo")
    await client.received(4)
    client.transport.close()
    await until_closed(client)
    server.close()
    await server.wait_closed()


async def test_serve_forever_ends_with_its_cancellation_and_closes(aio: ModuleType) -> None:
    server = await aio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    task = aio.create_task(server.serve_forever())
    await aio.sleep(0)
    with pytest.raises(RuntimeError, match="already being awaited"):
        await server.serve_forever()
    task.cancel()
    with pytest.raises(aio.CancelledError):
        await task
    assert not server.is_serving()
    with pytest.raises(RuntimeError, match="is closed"):
        await server.serve_forever()


async def test_async_with_closes_the_server(aio: ModuleType) -> None:
    async with await aio.get_running_loop().create_server(Echo, "127.0.0.1", 0) as server:
        assert server.is_serving()
    assert not server.is_serving()


async def test_closing_the_server_leaves_its_connections_alone(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    client = Recorder(loop)
    await loop.create_connection(lambda: client, *server.sockets[0].getsockname())
    client.transport.write(b"before")
    await client.received(6)
    server.close()
    client.transport.write(b" after")
    await client.received(12)
    client.transport.close()
    await until_closed(client)
    await server.wait_closed()


async def test_a_taken_port_is_an_error_that_names_it(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="127.0.0.1") as caught:
            await loop.create_server(Echo, *taken.getsockname())
    assert caught.value.errno == errno.EADDRINUSE


async def test_one_server_listens_on_many_hosts(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    server = await loop.create_server(Echo, ["127.0.0.1", "127.0.0.2"], 0)
    hosts = set()
    for sock in server.sockets:
        client = Recorder(loop)
        await loop.create_connection(lambda client=client: client, *sock.getsockname())
        client.transport.write(b"x")
        await client.received(1)
        hosts.add(client.transport.get_extra_info("peername")[0])
        client.transport.close()
        await until_closed(client)
    assert hosts == {"127.0.0.1", "127.0.0.2"}
    server.close()
    await server.wait_closed()


async def test_a_listening_socket_can_be_handed_over(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server = await loop.create_server(Echo, sock=sock)
    client = Recorder(loop)
    await loop.create_connection(lambda: client, *sock.getsockname())
    client.transport.write(b"given")
    await client.received(5)
    client.transport.close()
    await until_closed(client)
    server.close()
    await server.wait_closed()
    assert sock.fileno() == -1


@pytest.mark.parametrize(
    "arguments",
    [{}, {"host": "127.0.0.1", "port": 0, "sock": "a socket"}, {"ssl": "not a context"}],
)
async def test_bad_arguments_are_refused(aio: ModuleType, arguments: dict[str, Any]) -> None:
    with socket.socket() as sock:
        if "sock" in arguments:
            arguments = {**arguments, "sock": sock}
        with pytest.raises((ValueError, TypeError)):
            await aio.get_running_loop().create_server(Echo, **arguments)


async def test_many_clients_at_once(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=300)
    address = server.sockets[0].getsockname()

    async def talk(number: int) -> bytes:
        client = Recorder(loop)
        await loop.create_connection(lambda: client, *address)
        payload = b"%06d" % number * 100
        client.transport.write(payload)
        await client.received(len(payload))
        client.transport.close()
        await until_closed(client)
        return bytes(client.data)

    answers = await aio.gather(*(talk(number) for number in range(200)))
    assert answers == [b"%06d" % number * 100 for number in range(200)]
    server.close()
    await server.wait_closed()


async def test_clients_that_come_and_go_leave_nothing_behind(aio: ModuleType) -> None:
    # The runtime's descriptor check is the assertion.
    loop = aio.get_running_loop()
    lost = 0

    class Counting(asyncio.Protocol):
        def connection_lost(self, error: Exception | None) -> None:
            nonlocal lost
            lost += 1

    server = await loop.create_server(Counting, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for _ in range(50):
        with socket.create_connection(address):
            pass
    async with aio.timeout(5):
        while lost < 50:
            await aio.sleep(0.001)
    server.close()
    await server.wait_closed()


def test_a_loop_closed_with_a_server_still_open_warns_but_ends(runtime: Runtime) -> None:
    async def main() -> None:
        runtime.kept = await runtime.aio.get_running_loop().create_server(  # type: ignore[attr-defined]
            Echo, "127.0.0.1", 0
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        runtime.run(main())
        del runtime.kept  # type: ignore[attr-defined]
        gc.collect()
        gc.collect()


async def test_an_accepted_connection_has_a_socket_when_asked(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    made = loop.create_future()

    class Server(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            made.set_result(self)

    server = await loop.create_server(lambda: Server(loop), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    client = Recorder(loop)
    await loop.create_connection(lambda: client, *address)
    accepted = await asyncio.wait_for(made, PATIENCE)
    sock = accepted.transport.get_extra_info("socket")
    assert isinstance(sock, asyncio.trsock.TransportSocket)
    assert sock is accepted.transport.get_extra_info("socket")
    assert (sock.family, sock.type, sock.proto) == (
        socket.AF_INET,
        socket.SOCK_STREAM,
        socket.IPPROTO_TCP,
    )
    assert sock.gettimeout() == 0
    assert sock.getsockname() == address
    assert sock.getpeername() == client.transport.get_extra_info("sockname")
    # The descriptor is the socket's from now on, and the connection goes on over it.
    client.transport.write(b"ping")
    await accepted.received(4)
    accepted.transport.write(b"pong")
    await client.received(4)
    client.transport.close()
    await until_closed(client, accepted)
    assert sock.fileno() == -1
    server.close()
    await server.wait_closed()


async def test_what_an_accepted_connection_was_is_told_after_its_end(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    made = loop.create_future()

    class Server(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            made.set_result(self)

    server = await loop.create_server(lambda: Server(loop), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    client = Recorder(loop)
    await loop.create_connection(lambda: client, *address)
    accepted = await asyncio.wait_for(made, PATIENCE)
    accepted.transport.abort()
    await until_closed(client, accepted)
    transport = accepted.transport
    assert transport.get_extra_info("nothing", 7) == 7
    assert transport.get_extra_info("sockname") == address
    assert transport.get_extra_info("peername") == client.transport.get_extra_info("sockname")
    sock = transport.get_extra_info("socket")
    assert sock.fileno() == -1
    assert (sock.family, sock.proto) == (socket.AF_INET, socket.IPPROTO_TCP)
    assert "closed" in repr(transport)
    server.close()
    await server.wait_closed()


async def test_variables_set_by_one_callback_of_a_connection_are_not_seen_by_the_next(
    aio: ModuleType,
) -> None:
    loop = aio.get_running_loop()
    where = contextvars.ContextVar("where", default="outside")
    seen: list[tuple[str, str]] = []

    class Guest(asyncio.Protocol):
        def __init__(self) -> None:
            where.set("factory")

        def connection_made(self, transport: Any) -> None:
            seen.append(("made", where.get()))
            where.set("made")
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            seen.append(("data", where.get()))
            where.set("data")
            self.transport.close()
            where.set("after close")

        def connection_lost(self, exc: Exception | None) -> None:
            seen.append(("lost", where.get()))
            over.set_result(None)

    over = loop.create_future()
    server = await loop.create_server(Guest, "127.0.0.1", 0)
    client = Recorder(loop)
    await loop.create_connection(lambda: client, *server.sockets[0].getsockname())
    client.transport.write(b"x")
    await asyncio.wait_for(over, PATIENCE)
    await until_closed(client)
    assert seen == [("made", "factory"), ("data", "factory"), ("lost", "data")]
    assert where.get() == "outside"
    server.close()
    await server.wait_closed()


@pytest.mark.no_debug_mode  # with it connections are accepted as asyncio does, with its loose ends
def test_connections_that_a_loop_never_came_to_are_closed(runtime: Runtime) -> None:
    """Accepted in the last turn: no protocol is made, and no descriptor is left."""
    if not runtime.native:
        pytest.skip("asyncio makes a task of each, which is destroyed while it is pending")
    loop = runtime.new_event_loop()
    made: list[int] = []
    server = loop.run_until_complete(
        loop.create_server(lambda: made.append(1), "127.0.0.1", 0)  # type: ignore[func-returns-value, arg-type, return-value]
    )
    clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(3)]
    loop.stop()
    loop.run_forever()  # a turn, which accepts them
    server.close()
    loop.close()
    del server
    gc.collect()
    for client in clients:
        client.settimeout(PATIENCE)
        assert client.recv(1) == b""
        client.close()
    assert not made


async def test_unix_sockets_serve_and_connect(aio: ModuleType, tmp_path: Any) -> None:
    loop = aio.get_running_loop()
    path = str(tmp_path / "socket")
    server = await loop.create_unix_server(Echo, path)
    client = Recorder(loop)
    await loop.create_unix_connection(lambda: client, path)
    client.transport.write(b"unix")
    await client.received(4)
    assert client.transport.get_extra_info("peername") == path
    client.transport.close()
    await until_closed(client)
    server.close()
    await server.wait_closed()
