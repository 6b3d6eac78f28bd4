"""What a transport reports is being handled meanwhile: `sys.exc_info()` has it in the handler.

asyncio's transports report within the `except` clause that has caught the error, so that a handler
may log with `logging.exception()`, and an error of the handler's own has the first as its context.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import pytest

from tests.net.certificates import secured
from tests.net.peers import Recorder, connected, listening_socket, until_closed
from tests.net.pipes import Reader, Writer, read_all, reading, writing
from tests.net.test_tcp import Buffered
from tests.net.test_udp import Receiver, address, endpoint
from tests.support import PATIENCE, Runtime, spin


def fail(*_: Any) -> Any:
    raise ZeroDivisionError


@contextlib.contextmanager
def handled(loop: Any, *expected: str) -> Any:
    """In the block the handler is called with messages that begin so, each error in hand."""
    seen: list[tuple[str, bool]] = []

    def handler(_: Any, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        seen.append((context["message"], exc is not None and sys.exc_info()[1] is exc))

    loop.set_exception_handler(handler)
    yield
    assert sys.exc_info() == (None, None, None)
    assert len(seen) == len(expected), seen
    for (message, in_hand), begin in zip(seen, expected, strict=True):
        assert message.startswith(begin)
        assert in_hand, message


FAILURES = {
    "data_received": "Fatal error: protocol.data_received() call failed.",
    "eof_received": "Fatal error: protocol.eof_received() call failed.",
    "connection_lost": "Exception in callback",
    "pause_writing": "protocol.pause_writing() failed",
    "resume_writing": "protocol.resume_writing() failed",
}


def failing(method: str) -> type[Recorder]:
    def fails(self: Any, *args: Any) -> None:
        getattr(Recorder, method)(self, *args)
        raise ZeroDivisionError

    return type("Failing", (Recorder,), {method: fails})


async def fill(aio: ModuleType, side: Any, peer: Any) -> None:
    """Writes until `side` is paused, then lets the peer take it all."""
    peer.transport.pause_reading()
    side.transport.set_write_buffer_limits(high=100_000, low=1000)
    while not side.paused:
        side.transport.write(bytes(100_000))
    peer.transport.resume_reading()
    await aio.wait_for(side.resumed, PATIENCE)


@pytest.mark.parametrize("method", FAILURES)
async def test_of_a_connections_protocol(aio: ModuleType, method: str) -> None:
    loop = aio.get_running_loop()
    with handled(loop, FAILURES[method]):
        async with connected(aio, server_type=failing(method)) as (client, server):
            if method.endswith("writing"):
                await fill(aio, server, client)
            client.transport.write(b"x")
            client.transport.write_eof()
            await until_closed(client, server)
            await spin(aio)


async def test_of_a_protocol_that_fails_at_once(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    protocol = Recorder(loop)

    class Failing(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.close()
            raise ZeroDivisionError

    server = await loop.create_server(Failing, "127.0.0.1", 0)
    with handled(loop, "Exception in callback"):
        await loop.create_connection(lambda: protocol, *server.sockets[0].getsockname())
        await until_closed(protocol)
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("method", ["get_buffer", "buffer_updated"])
async def test_of_a_buffered_protocol(aio: ModuleType, method: str) -> None:
    loop = aio.get_running_loop()
    kind = type("Failing", (Buffered,), {method: fail})
    protocol = kind(loop)
    with (
        handled(loop, f"Fatal error: protocol.{method}() call failed."),
        listening_socket() as listener,
    ):
        await loop.create_connection(lambda: protocol, *listener.getsockname())
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"x")
            await aio.wait_for(protocol.closed, PATIENCE)


@pytest.mark.parametrize("tls", [False, True])
async def test_of_a_servers_factory(runtime: Runtime, tls: bool) -> None:
    if not runtime.native:
        pytest.skip("asyncio drops the error outside debug mode, and leaks the socket")
    from tests.net.certificates import client_context, server_context

    aio = runtime.aio
    loop = aio.get_running_loop()
    context = server_context() if tls else None
    server = await loop.create_server(fail, "127.0.0.1", 0, ssl=context)
    where = server.sockets[0].getsockname()
    client = Recorder(loop)
    with handled(loop, "Error on transport creation for incoming connection"):
        options = {"ssl": client_context(), "server_hostname": "localhost"} if tls else {}
        with contextlib.suppress(ConnectionError):
            await loop.create_connection(lambda: client, *where, **options)
            await until_closed(client)
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("data_received", "Fatal error on SSL protocol"),
        ("eof_received", "Error calling eof_received()"),
        ("pause_writing", "protocol.pause_writing() failed"),
        ("resume_writing", "protocol.resume_writing() failed"),
        ("connection_lost", "Exception in callback"),
    ],
)
async def test_of_a_protocol_over_tls(aio: ModuleType, method: str, message: str) -> None:
    loop = aio.get_running_loop()
    with handled(loop, message):
        async with secured(aio, server_type=failing(method)) as (client, server):
            if method.endswith("writing"):
                await fill(aio, server, client)
            client.transport.write(b"x")
            client.transport.close()
            await until_closed(client, server)
            await spin(aio)


async def test_of_a_datagrams_protocol(aio: ModuleType) -> None:
    loop = aio.get_running_loop()

    class Failing(Receiver):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            raise ZeroDivisionError

    with handled(loop, "Exception in callback"):
        async with endpoint(aio, Failing) as server:
            server.transport.sendto(b"x", address(server))
            await server.until(1)
            await spin(aio)


async def test_of_an_address_that_is_none(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with handled(loop, "Fatal write error on datagram transport"):
        async with endpoint(aio) as protocol:
            protocol.transport.sendto(b"x", 5)
            await aio.wait_for(protocol.closed, PATIENCE)


@pytest.mark.parametrize("way", ["received", "sent"])
async def test_an_error_that_a_datagrams_protocol_is_told_is_in_hand(
    aio: ModuleType, way: str
) -> None:
    loop = aio.get_running_loop()
    contexts: list[Any] = []

    class Told(Receiver):
        def error_received(self, exc: Exception) -> None:
            assert sys.exc_info()[1] is exc
            super().error_received(exc)
            try:
                raise ZeroDivisionError
            except ZeroDivisionError as error:
                contexts.append(error.__context__)

    with handled(loop):
        if way == "sent":
            async with endpoint(aio, Told) as protocol:
                protocol.transport.sendto(bytes(1 << 17), address(protocol))  # too long
                await protocol.until(1)
        else:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
                silent.bind(("127.0.0.1", 0))
                nobody = silent.getsockname()
            async with endpoint(aio, Told, remote_addr=nobody) as protocol:
                protocol.transport.sendto(b"x")
                await protocol.until(1)
    assert contexts == protocol.errors


async def test_of_a_pipes_protocol(aio: ModuleType) -> None:
    loop = aio.get_running_loop()

    class Failing(Reader):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            raise ZeroDivisionError

    with handled(loop, "Exception in callback"):
        async with reading(aio, Failing) as (protocol, fd):
            os.write(fd, b"x")
            await protocol.received(1)
            await spin(aio)


async def test_of_a_pipe_that_cannot_be_read(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.send(b"which they never read")
    with handled(loop, "Fatal read error on pipe transport"):
        async with reading(aio, fds=(ours.detach(), theirs.detach())) as (protocol, fd):
            os.close(fd)
            assert isinstance(await aio.wait_for(protocol.closed, PATIENCE), ConnectionResetError)


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
async def test_of_a_pipe_that_is_written(aio: ModuleType, method: str) -> None:
    loop = aio.get_running_loop()

    def fails(self: Any) -> None:
        getattr(Writer, method)(self)
        raise ZeroDivisionError

    kind = type("Failing", (Writer,), {method: fails})
    with handled(loop, f"protocol.{method}() failed"):
        async with writing(aio, kind) as (protocol, fd):
            protocol.transport.set_write_buffer_limits(high=0)
            protocol.transport.write(bytes(1 << 17))
            await read_all(aio, fd, 1 << 17)
            await aio.wait_for(protocol.resumed, PATIENCE)


async def test_an_error_of_the_handlers_has_the_reported_one_as_context(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    contexts: list[Any] = []

    def handler(_: Any, context: dict[str, Any]) -> None:
        try:
            raise KeyError
        except KeyError as error:
            contexts.append(error.__context__)

    loop.set_exception_handler(handler)
    async with connected(aio, server_type=failing("data_received")) as (client, server):
        client.transport.write(b"x")
        await until_closed(server, client)
    assert [type(context) for context in contexts] == [ZeroDivisionError]
    assert server.error is contexts[0]


# ------------------------------------------------------------------------------- debug mode


async def broken_connection(aio: ModuleType) -> None:
    async with connected(aio) as (client, server):
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        client.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        client.transport.abort()
        await until_closed(server)


async def broken_session(aio: ModuleType) -> None:
    async with secured(aio) as (client, server):
        await spin(aio)
        client.transport._ssl_protocol._transport.write(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        await until_closed(server)


async def slow_handshake(aio: ModuleType) -> None:
    from tests.net.certificates import client_context

    with listening_socket() as listener, pytest.raises(ConnectionAbortedError):
        await aio.get_running_loop().create_connection(
            asyncio.Protocol,
            *listener.getsockname(),
            ssl=client_context(),
            server_hostname="localhost",
            ssl_handshake_timeout=0.01,
        )


@pytest.mark.parametrize(
    ("happening", "error"),
    [
        (broken_connection, "ConnectionResetError"),
        (broken_session, "SSLError"),
        # From a timer: no error is being handled, and asyncio logs none.
        (slow_handshake, None),
    ],
)
def test_what_debug_mode_logs_has_the_error(
    runtime: Runtime,
    caplog: pytest.LogCaptureFixture,
    happening: Callable[[ModuleType], Coroutine[Any, Any, None]],
    error: str | None,
) -> None:
    caplog.set_level(logging.DEBUG, "asyncio")
    runtime.run(happening(runtime.aio), debug=True)
    logged = {
        record.exc_info and record.exc_info[0] and record.exc_info[0].__name__
        for record in caplog.records
        if "atal" in record.getMessage() and record.exc_info
    }
    assert logged == {error}
