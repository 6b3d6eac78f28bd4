"""Connections being made and accepted: addresses, errors, what is left when it goes wrong."""

import asyncio
import errno
import inspect
import os
import resource
import socket
from types import ModuleType
from typing import Any

import pytest

from tests.net.peers import Recorder, listening_socket, until_closed
from tests.support import PATIENCE, Runtime


async def test_extra_info_outlives_the_connection(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    accepted = loop.create_future()

    class Server(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            accepted.set_result(self)

    for host in ("127.0.0.1", "::1"):
        accepted = loop.create_future()
        listener = await loop.create_server(lambda: Server(loop), host, 0)
        bound = listener.sockets[0].getsockname()
        client = Recorder(loop)
        await loop.create_connection(lambda client=client: client, *bound[:2])  # type: ignore[misc]
        server = await aio.wait_for(accepted, PATIENCE)
        client.transport.close()
        await until_closed(client, server)
        for near, far in ((client, server), (server, client)):
            sockname = near.transport.get_extra_info("sockname")
            assert sockname == far.transport.get_extra_info("peername")
            assert len(sockname) == len(bound)
            assert near.transport.get_extra_info("socket").fileno() == -1
        assert client.transport.get_extra_info("peername") == bound
        listener.close()
        await listener.wait_closed()


async def test_the_peer_of_the_unspecified_address_is_where_it_leads(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with listening_socket() as listener:
        client = Recorder(loop)
        await loop.create_connection(lambda: client, "0.0.0.0", listener.getsockname()[1])
        assert client.transport.get_extra_info("peername") == listener.getsockname()
        client.transport.abort()
        await until_closed(client)


async def test_small_writes_are_not_held_back_on_either_side(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    accepted = loop.create_future()

    class Server(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            accepted.set_result(self)

    listener = await loop.create_server(lambda: Server(loop), "127.0.0.1", 0)
    client = Recorder(loop)
    await loop.create_connection(lambda: client, *listener.sockets[0].getsockname())
    server = await aio.wait_for(accepted, PATIENCE)
    for side in (client, server):
        sock = side.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        side.transport.abort()
    await until_closed(client, server)
    listener.close()
    await listener.wait_closed()


async def test_literals_never_reach_the_resolver(
    aio: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"getaddrinfo{args}")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    loop = aio.get_running_loop()
    with listening_socket() as listener:
        host, port = listener.getsockname()
        client = Recorder(loop)
        await loop.create_connection(lambda: client, host, port)
        client.transport.abort()
        await until_closed(client)
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, (host, port))


@pytest.mark.parametrize("port", [-1, 65536, 10**20])
async def test_a_port_that_is_none_is_refused(aio: ModuleType, port: int) -> None:
    loop = aio.get_running_loop()
    with pytest.raises(OverflowError):
        await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)


async def test_a_refused_connection(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        host, port = nobody.getsockname()
        with pytest.raises(ConnectionRefusedError, match="Connect call failed"):
            await loop.create_connection(asyncio.Protocol, host, port)


async def test_a_connect_that_a_tool_has_replaced_is_asked(
    aio: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(sock: socket.socket, address: Any) -> None:
        asked.append(address)
        raise PermissionError("no connections here")

    loop = aio.get_running_loop()
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(PermissionError, match="no connections here"):
        await loop.create_connection(asyncio.Protocol, "127.0.0.1", 9)
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(PermissionError, match="no connections here"):
            await loop.sock_connect(sock, ("127.0.0.1", 9))
    assert asked == [("127.0.0.1", 9)] * 2


async def test_the_socket_of_a_lost_connection_says_that_it_is_closed(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with listening_socket() as listener:
        client = Recorder(loop)
        await loop.create_connection(lambda: client, *listener.getsockname())
        client.transport.abort()
        await until_closed(client)
    sock = client.transport.get_extra_info("socket")
    assert sock.fileno() == -1
    assert "[closed]" in repr(sock._sock)


async def test_a_cancelled_connection_leaves_nothing_behind(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with listening_socket(backlog=0) as listener:
        fillers = []
        for _ in range(3):  # the queue of connections is full: further ones have to wait
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
            fillers.append(sock)
        task = aio.create_task(loop.create_connection(asyncio.Protocol, *listener.getsockname()))
        await aio.sleep(0.02)
        assert not task.done()
        task.cancel()
        with pytest.raises(aio.CancelledError):
            await task
        for sock in fillers:
            sock.close()


async def test_a_raising_factory_closes_the_socket(runtime: Runtime, aio: ModuleType) -> None:
    if not runtime.native:
        pytest.skip("asyncio leaks the socket")
    loop = aio.get_running_loop()

    def refuse() -> Any:
        raise LookupError("no protocol")

    with listening_socket() as listener:
        with pytest.raises(LookupError):
            await loop.create_connection(refuse, *listener.getsockname())
        conn, _ = listener.accept()
        with conn:
            conn.settimeout(PATIENCE)
            assert conn.recv(1) == b""


async def test_an_accepting_factory_that_raises_ends_that_connection_alone(
    runtime: Runtime, aio: ModuleType
) -> None:
    if not runtime.native:
        pytest.skip("asyncio drops the error outside debug mode, and leaks the socket")
    loop = aio.get_running_loop()
    made: list[Recorder] = []

    def every_other() -> Recorder:
        made.append(Recorder(loop))
        if len(made) % 2:
            raise LookupError("not you")
        return made[-1]

    server = await loop.create_server(every_other, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()
    for _ in range(2):
        first = Recorder(loop)
        await loop.create_connection(lambda first=first: first, *target)  # type: ignore[misc]
        await until_closed(first)
        second = Recorder(loop)
        await loop.create_connection(lambda second=second: second, *target)  # type: ignore[misc]
        second.transport.write(b"x")
        await made[-1].received(1)
        second.transport.close()
        await until_closed(second, made[-1])
    server.close()
    await server.wait_closed()
    errors = runtime.take_errors()
    assert [str(context["exception"]) for context in errors] == ["not you"] * 2


async def test_a_server_outlives_a_lack_of_descriptors(
    runtime: Runtime, aio: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.05)
    loop = aio.get_running_loop()
    accepted: list[Recorder] = []
    arrived = loop.create_future()

    class Server(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            accepted.append(self)
            if not arrived.done():
                arrived.set_result(None)

    reported = loop.create_future()

    def report(_: Any, context: dict[str, Any]) -> None:
        if not reported.done():
            reported.set_result(context)

    loop.set_exception_handler(report)
    server = await loop.create_server(lambda: Server(loop), "127.0.0.1", 0)
    client = socket.create_connection(server.sockets[0].getsockname())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(client.fileno() + 5, 64), limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                spare.append(os.dup(client.fileno()))
        context = await aio.wait_for(reported, PATIENCE)
        assert context["message"] == "socket.accept() out of system resource"
        assert context["exception"].errno == errno.EMFILE
        assert not arrived.done()
    finally:
        for number in spare:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    await aio.wait_for(arrived, PATIENCE)
    # asyncio has a retry under way for each place of the backlog, all of them set before this
    # timer: one that came after the server's close would raise.
    await aio.sleep(0.05)
    loop.set_exception_handler(runtime._on_error)
    client.close()
    await until_closed(*accepted)
    server.close()
    await server.wait_closed()


async def test_more_clients_than_the_backlog_are_all_served(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    served: list[Recorder] = []

    class Server(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            served.append(self)
            transport.write(b"!")

    server = await loop.create_server(lambda: Server(loop), "127.0.0.1", 0, backlog=3)
    # The loop accepts 3 at a time; the kernel keeps more.
    server._sockets[0].listen(100)
    clients = [Recorder(loop) for _ in range(40)]

    async def visit(client: Recorder) -> None:
        await loop.create_connection(lambda: client, *server.sockets[0].getsockname())
        await client.received(1)
        client.transport.close()

    await aio.gather(*map(visit, clients))
    await until_closed(*clients, *served)
    server.close()
    await server.wait_closed()
    assert len(served) == 40


async def test_peers_that_reset_at_once_do_no_harm(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    served: list[Recorder] = []

    def make() -> Recorder:
        served.append(Recorder(loop))
        return served[-1]

    server = await loop.create_server(make, "127.0.0.1", 0)
    for _ in range(10):
        with socket.create_connection(server.sockets[0].getsockname()) as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    last = Recorder(loop)
    await loop.create_connection(lambda: last, *server.sockets[0].getsockname())
    last.transport.close()
    await until_closed(last)
    while served[-1].transport is None:
        await aio.sleep(0)
    await until_closed(*served)
    server.close()
    await server.wait_closed()


def test_create_connection_has_asyncios_signature(loop: Any) -> None:
    stock = inspect.signature(asyncio.SelectorEventLoop.create_connection)
    ours = inspect.signature(loop.create_connection)
    assert list(ours.parameters) == list(stock.parameters)[1:]


async def test_a_unix_connection_has_its_addresses(aio: ModuleType, tmp_path: Any) -> None:
    loop = aio.get_running_loop()
    for path in (str(tmp_path / "socket"), f"\0{tmp_path}/abstract"):
        accepted = loop.create_future()

        class Server(Recorder):
            def connection_made(self, transport: Any, accepted: Any = accepted) -> None:
                super().connection_made(transport)
                accepted.set_result(self)

        server = await loop.create_unix_server(lambda kind=Server: kind(loop), path)
        client = Recorder(loop)
        await loop.create_unix_connection(lambda client=client: client, path)  # type: ignore[misc]
        side = await aio.wait_for(accepted, PATIENCE)
        shown = path.encode() if path.startswith("\0") else path
        assert side.transport.get_extra_info("sockname") == shown
        assert client.transport.get_extra_info("peername") == shown
        client.transport.close()
        await until_closed(client, side)
        server.close()
        await server.wait_closed()


async def test_the_table_of_transports_is_asyncios(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with listening_socket() as listener:
        client = Recorder(loop)
        await loop.create_connection(lambda: client, *listener.getsockname())
        number = client.transport.get_extra_info("socket").fileno()
        assert loop._transports[number] is client.transport
        assert loop._transports.get(number + 1000) is None
        assert number in list(loop._transports)
        client.transport.abort()
        await until_closed(client)
