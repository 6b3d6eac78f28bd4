"""TLS by `ssl=`: handshakes, what a connection tells, data, and errors, on both loops alike."""

import asyncio
import ssl
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.net.certificates import client_context, listening, secured, server_context
from tests.net.peers import Recorder, listening_socket, until_closed
from tests.support import PATIENCE, Runtime, spin

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def only(version: ssl.TLSVersion, context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = version
    return context


async def hear_the_server(runtime: Runtime) -> None:
    """In debug mode a server tells of a failed handshake, perhaps after the client has given up."""
    aio = runtime.aio
    if aio.get_running_loop().get_debug():
        async with aio.timeout(PATIENCE):
            while not runtime.take_errors():
                await aio.sleep(0.001)


@pytest.mark.parametrize("version", VERSIONS, ids=str)
async def test_data_goes_both_ways_and_callbacks_come_in_order(
    aio: ModuleType, version: ssl.TLSVersion
) -> None:
    async with secured(aio, client=only(version, client_context())) as (client, server):
        client.transport.write(b"question")
        await server.received(8)
        server.transport.write(b"answer")
        await client.received(6)
        client.transport.close()
        await until_closed(client, server)
    assert bytes(server.data) == b"question"
    assert server.events == ["made", "data", "eof", "lost None"]
    assert client.events == ["made", "data", "eof", "lost None"]


async def test_a_connection_tells_of_its_session(aio: ModuleType) -> None:
    context = client_context()
    async with secured(aio, client=context) as (client, server):
        info = client.transport.get_extra_info
        assert info("sslcontext") is context
        assert isinstance(info("ssl_object"), ssl.SSLObject)
        assert info("peercert")["subject"] == ((("commonName", "localhost"),),)
        assert info("cipher") == info("ssl_object").cipher()
        assert info("compression") is None
        assert info("peername") == server.transport.get_extra_info("sockname")
        assert info("sockname") == server.transport.get_extra_info("peername")
        assert info("socket").fileno() > 0
        assert info("nothing") is None
        assert info("nothing", 7) == 7
        assert server.transport.get_extra_info("peercert") is None


async def test_the_transport_is_asyncios(aio: ModuleType) -> None:
    async with secured(aio) as (client, _):
        assert isinstance(client.transport, asyncio.Transport)
        assert isinstance(client.transport, asyncio.sslproto._SSLProtocolTransport)
        assert client.transport.get_protocol() is client
        assert not client.transport.is_closing()
        assert client.transport.is_reading()
        assert not client.transport.can_write_eof()
        with pytest.raises(NotImplementedError):
            client.transport.write_eof()


async def test_both_sides_agree_on_a_protocol(aio: ModuleType) -> None:
    server, client = server_context(), client_context()
    server.set_alpn_protocols(["h2", "http/1.1"])
    client.set_alpn_protocols(["http/1.1"])
    async with secured(aio, server=server, client=client) as sides:
        for side in sides:
            session = side.transport.get_extra_info("ssl_object")
            assert session.selected_alpn_protocol() == "http/1.1"


async def test_a_servers_callback_chooses_the_certificate(aio: ModuleType) -> None:
    asked = []
    server = server_context()
    other = server_context("other.test")

    def choose(session: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        asked.append(name)
        session.context = other

    server.sni_callback = choose
    async with secured(
        aio, server=server, client=client_context("other.test"), server_hostname="other.test"
    ) as (client, _):
        subject = client.transport.get_extra_info("peercert")["subject"]
    assert subject == ((("commonName", "other.test"),),)
    assert asked == ["other.test"]


async def test_a_server_sees_the_clients_certificate(aio: ModuleType) -> None:
    server = server_context(trusts="client.test")
    async with secured(aio, server=server, client=client_context(shows="client.test")) as (_, side):
        subject = side.transport.get_extra_info("peercert")["subject"]
    assert subject == ((("commonName", "client.test"),),)


async def test_a_client_without_the_certificate_asked_for_is_refused(runtime: Runtime) -> None:
    aio = runtime.aio
    loop = aio.get_running_loop()
    made: list[Recorder] = []

    def factory() -> Recorder:
        made.append(Recorder(loop))
        return made[-1]

    context = only(ssl.TLSVersion.TLSv1_2, server_context(trusts="client.test"))
    async with listening(aio, factory, context) as where:
        with pytest.raises((ssl.SSLError, ConnectionError)):  # the alert, or the end behind it
            await loop.create_connection(
                lambda: Recorder(loop), *where, ssl=client_context(), server_hostname="localhost"
            )
        await spin(aio)
    assert [side.events for side in made] == [[]]
    await hear_the_server(runtime)


@pytest.mark.parametrize(
    ("trusted", "name"), [("other.test", "localhost"), ("localhost", "other.test")]
)
async def test_an_unknown_certificate_or_name_is_refused(
    runtime: Runtime, trusted: str, name: str
) -> None:
    aio = runtime.aio
    loop = aio.get_running_loop()
    client = Recorder(loop)
    async with listening(aio, lambda: Recorder(loop), server_context()) as where:
        with pytest.raises(ssl.SSLCertVerificationError):
            await loop.create_connection(
                lambda: client, *where, ssl=client_context(trusted), server_hostname=name
            )
    assert client.events == []
    await hear_the_server(runtime)


async def test_a_peer_without_tls_fails_the_handshake(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    client = Recorder(loop)

    class Plain(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(aio, Plain, None) as where:
        with pytest.raises(ssl.SSLError):
            await loop.create_connection(
                lambda: client, *where, ssl=client_context(), server_hostname="localhost"
            )
    assert client.events == []


async def test_a_peer_that_hangs_up_fails_the_handshake(aio: ModuleType) -> None:
    loop = aio.get_running_loop()

    class Leaves(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.close()

    async with listening(aio, Leaves, None) as where:
        with pytest.raises(ConnectionResetError):
            await loop.create_connection(
                lambda: Recorder(loop), *where, ssl=client_context(), server_hostname="localhost"
            )


async def test_a_silent_peer_runs_into_the_handshakes_timeout(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with (
        listening_socket() as silent,
        pytest.raises(ConnectionAbortedError, match="longer than 0.05 seconds"),
    ):
        await loop.create_connection(
            lambda: Recorder(loop),
            *silent.getsockname(),
            ssl=client_context(),
            server_hostname="localhost",
            ssl_handshake_timeout=0.05,
        )


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
async def test_a_timeout_must_be_positive(runtime: Runtime, name: str) -> None:
    if not runtime.native:
        pytest.skip("asyncio leaks the socket")
    aio = runtime.aio
    loop = aio.get_running_loop()
    with listening_socket() as server:
        where = server.getsockname()
        with pytest.raises(ValueError, match=f"{name} should be a positive number, got 0"):
            await loop.create_connection(
                asyncio.Protocol, *where, ssl=client_context(), **{name: 0}
            )
        # Nothing keeps the refused connection: its other end has come.
        with server.accept()[0] as accepted:
            accepted.settimeout(PATIENCE)
            assert accepted.recv(1) == b""


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_any_bytes_like_object_is_written(aio: ModuleType, kind: Any) -> None:
    async with secured(aio) as (client, server):
        client.transport.write(kind(b"payload"))
        client.transport.writelines([kind(b", more"), kind(b""), b" of it"])
        client.transport.write(kind(b""))
        await server.received(19)
    assert bytes(server.data) == b"payload, more of it"


async def test_a_bytearray_may_change_after_it_was_written(aio: ModuleType) -> None:
    async with secured(aio) as (client, server):
        data = bytearray(b"a" * 100)
        client.transport.write(data)
        data[:] = b"b" * 100
        await server.received(100)
    assert bytes(server.data) == b"a" * 100


async def test_what_is_no_bytes_is_refused(aio: ModuleType) -> None:
    async with secured(aio) as (client, _):
        with pytest.raises(TypeError, match="expecting a bytes-like instance, got str"):
            client.transport.write("text")


async def test_many_small_writes_arrive_in_order(aio: ModuleType) -> None:
    async with secured(aio) as (client, server):
        for number in range(1000):
            client.transport.write(b"%d," % number)
            if number % 100 == 0:
                await aio.sleep(0)
        expected = b"".join(b"%d," % number for number in range(1000))
        await server.received(len(expected))
    assert bytes(server.data) == expected


async def test_one_turns_writes_are_one_record(runtime: Runtime) -> None:
    if not runtime.native:
        pytest.skip("asyncio encrypts each write by itself")
    aio = runtime.aio
    context = server_context()
    records = record_counter(context)
    async with secured(aio, server=context) as (client, server):
        before = records()
        client.transport.write(b"head")
        client.transport.writelines([b"and", b"body"])
        assert client.transport.get_write_buffer_size() == 0  # asking sends
        client.transport.write(b"next")
        await server.received(15)
    assert bytes(server.data) == b"headandbodynext"
    assert records() - before == 2


def record_counter(context: ssl.SSLContext) -> Callable[[], int]:
    """How many records of data a side has read: OpenSSL tells each to its context's callback."""
    seen = []

    def note(_: Any, direction: str, __: Any, content: int, ___: Any, data: bytes) -> None:
        if direction == "read" and content == 0x101 and data == b"\x17":  # the type within
            seen.append(data)

    context._msg_callback = note  # type: ignore[attr-defined]
    return lambda: len(seen)


async def test_a_failing_protocol_loses_its_connection(runtime: Runtime) -> None:
    aio = runtime.aio

    class Fails(Recorder):
        def data_received(self, data: bytes) -> None:
            self.transport.write(b"the last word")
            raise ZeroDivisionError

    async with secured(aio, server_type=Fails) as (client, server):
        client.transport.write(b"x")
        await until_closed(server, client)
    assert isinstance(server.error, ZeroDivisionError)
    assert bytes(client.data) == b"the last word"
    (context,) = runtime.take_errors()
    assert context["message"] == "Fatal error on SSL protocol"
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["transport"].get_extra_info("socket") is not None
    assert isinstance(context["protocol"], asyncio.sslproto.SSLProtocol)


async def test_a_broken_record_ends_the_connection(aio: ModuleType) -> None:
    async with secured(aio) as (client, server):
        await spin(aio)
        client.transport._ssl_protocol._transport.write(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        await until_closed(server)
    assert isinstance(server.error, ssl.SSLError)
    assert server.events[0] == "made"
    assert server.events[-1].startswith("lost SSLError")


async def test_a_server_closes_its_clients(aio: ModuleType) -> None:
    if sys.version_info < (3, 13):
        pytest.skip("from Python 3.13 on")
    loop = aio.get_running_loop()
    sides: list[Recorder] = []

    def factory() -> Recorder:
        sides.append(Recorder(loop))
        return sides[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_context())
    client = Recorder(loop)
    await loop.create_connection(
        lambda: client,
        *server.sockets[0].getsockname(),
        ssl=client_context(),
        server_hostname="localhost",
    )
    client.transport.write(b"x")
    while not sides or not sides[0].data:
        await aio.sleep(0)
    server.close()
    server.close_clients()
    await aio.wait_for(server.wait_closed(), PATIENCE)
    await until_closed(client, *sides)
    assert client.events == ["made", "eof", "lost None"]
    assert sides[0].events == ["made", "data", "lost None"]


async def test_a_default_context_is_made_for_ssl_true(runtime: Runtime) -> None:
    aio = runtime.aio
    loop = aio.get_running_loop()
    async with listening(aio, lambda: Recorder(loop), server_context()) as where:
        with pytest.raises(ssl.SSLCertVerificationError):
            await loop.create_connection(
                lambda: Recorder(loop), *where, ssl=True, server_hostname="localhost"
            )
    await hear_the_server(runtime)
