"""TLS under load and at its end: flow control, large writes, buffered protocols, closing."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from random import Random
from types import ModuleType
from typing import Any

import pytest

from tests.net.certificates import client_context, listening, secured, server_context
from tests.net.peers import Recorder, listening_socket, until_closed
from tests.support import EARLY_311, PATIENCE, Runtime, spin

LARGE = bytes(range(256)) * 20_000  # 5 MB: more than sockets take


class Buffered(Recorder, asyncio.BufferedProtocol):
    """Takes data into a buffer of its own, a small one."""

    size = 1000

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self.memory = bytearray(self.size)
        self.hints: list[int] = []

    def get_buffer(self, sizehint: int) -> memoryview:
        self.hints.append(sizehint)
        return memoryview(self.memory)

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self.memory[:nbytes]))


class Roomy(Buffered):
    size = 300_000


@pytest.mark.parametrize("kind", [Recorder, Buffered, Roomy])
async def test_a_large_write_arrives_whole(aio: ModuleType, kind: type[Recorder]) -> None:
    async with secured(aio, server_type=kind) as (client, server):
        client.transport.write(LARGE)
        await server.received(len(LARGE))
        client.transport.close()
        await until_closed(client, server)
    assert bytes(server.data) == LARGE


async def test_closing_sends_everything_first(aio: ModuleType) -> None:
    async with secured(aio, server_options={"ssl_shutdown_timeout": PATIENCE}) as (client, server):
        client.transport.write(LARGE)
        client.transport.write(b"the end")
        client.transport.close()
        assert client.transport.is_closing()
        await until_closed(client, server)
    assert bytes(server.data) == LARGE + b"the end"
    assert client.events[-1] == "lost None"


async def test_what_is_written_after_closing_is_lost(aio: ModuleType) -> None:
    async with secured(aio) as (client, server):
        client.transport.write(b"before")
        client.transport.close()
        client.transport.write(b"after")
        await until_closed(client, server)
    assert bytes(server.data) == b"before"


async def test_what_is_written_before_an_abort_goes_out(aio: ModuleType) -> None:
    async with secured(aio) as (client, server):
        client.transport.write(b"last words")
        client.transport.abort()
        await until_closed(client, server)
    assert bytes(server.data) == b"last words"
    assert client.events == ["made", "lost None"]


def test_what_is_written_before_the_loop_stops_goes_out(runtime: Runtime) -> None:
    loop = runtime.new_event_loop()
    received: list[bytes] = []
    with listening_socket() as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with server_context().wrap_socket(sock, server_side=True) as secure:
                secure.settimeout(PATIENCE)
                received.append(secure.recv(100))

        thread = threading.Thread(target=serve)
        thread.start()
        connecting = loop.create_connection(
            lambda: Recorder(loop),
            *listener.getsockname(),
            ssl=client_context(),
            server_hostname="localhost",
        )
        transport, client = loop.run_until_complete(connecting)

        def write() -> None:
            transport.write(b"now")
            loop.stop()

        loop.call_soon(write)
        loop.run_forever()
        thread.join(PATIENCE)
        assert received == [b"now"]  # nobody runs the loop meanwhile
        transport.abort()
        loop.run_until_complete(until_closed(client))


async def test_a_protocol_is_paused_while_its_peer_does_not_read(aio: ModuleType) -> None:
    async with secured(aio) as (client, server):
        server.transport.pause_reading()
        client.transport.set_write_buffer_limits(high=100_000, low=1000)
        assert client.transport.get_write_buffer_limits() == (1000, 100_000)
        for _ in range(200):
            client.transport.write(b"x" * 100_000)
            if client.paused:
                break
        assert client.paused
        size = client.transport.get_write_buffer_size()
        assert size >= 100_000
        assert client.events == ["made", "pause"]
        server.transport.resume_reading()
        await aio.wait_for(client.resumed, PATIENCE)
        assert client.transport.get_write_buffer_size() <= 1000
        assert client.events == ["made", "pause", "resume"]


@pytest.mark.parametrize(("high", "low"), [(1, 2), (-1, None), (0, 1)])
async def test_limits_out_of_order_are_refused(aio: ModuleType, high: int, low: int) -> None:
    async with secured(aio) as (client, _):
        for name in ("set_write_buffer_limits", "set_read_buffer_limits"):
            with pytest.raises(ValueError, match="must be >= "):
                getattr(client.transport, name)(high=high, low=low)


async def test_no_data_comes_while_reading_is_paused(aio: ModuleType) -> None:
    async with secured(aio) as (client, server):
        server.transport.pause_reading()
        assert not server.transport.is_reading()
        client.transport.write(LARGE)
        for _ in range(20):
            await aio.sleep(0.001)
        assert server.events == ["made"]
        # What lies here is bounded: the rest waits with the peer.
        assert server.transport.get_read_buffer_size() < 1_000_000
        server.transport.resume_reading()
        await server.received(len(LARGE))
    assert bytes(server.data) == LARGE


async def test_a_plain_bytearray_is_filled(runtime: Runtime) -> None:
    if not runtime.native:
        pytest.skip("asyncio loses all but the first record: it slices the bytearray")

    class Plain(Roomy):
        def get_buffer(self, sizehint: int) -> Any:
            return self.memory

    async with secured(runtime.aio, server_type=Plain) as (client, server):
        client.transport.write(LARGE)
        await server.received(len(LARGE))
    assert bytes(server.data) == LARGE


async def test_pausing_at_once_does_not_keep_the_handshakes_end(runtime: Runtime) -> None:
    if not runtime.native:
        pytest.skip("asyncio sends it with the next write")

    class Pauses(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    # The server is only told of the connection when it has the client's last message.
    async with secured(runtime.aio, client_type=Pauses) as (client, server):
        server.transport.write(b"x")
        client.transport.resume_reading()
        await client.received(1)


async def test_a_buffered_protocol_may_switch_to_a_plain_one(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    async with secured(aio, server_type=Buffered) as (client, server):
        client.transport.write(b"one")
        await server.received(3)
        second = Recorder(loop)
        second.events.append("switched")
        server.transport.set_protocol(second)
        assert server.transport.get_protocol() is second
        client.transport.write(b"two")
        await second.received(3)
        client.transport.close()
        await until_closed(client, second)
        server.closed.set_result(None)  # the second was told in its stead
    assert bytes(second.data) == b"two"
    assert second.events == ["switched", "data", "eof", "lost None"]


async def test_an_empty_buffer_is_an_error(runtime: Runtime) -> None:
    if not runtime.native:
        pytest.skip("asyncio takes it for the peer's end")

    class Empty(Buffered):
        size = 0

    async with secured(runtime.aio, server_type=Empty) as (client, server):
        client.transport.write(b"x")
        await until_closed(server)
    (context,) = runtime.take_errors()
    assert "empty buffer" in str(context["exception"])


@pytest.mark.parametrize("seed", range(6))
async def test_traffic_of_every_kind_arrives_intact(aio: ModuleType, seed: int) -> None:
    random = Random(seed)
    kinds = [random.choice([Recorder, Buffered, Roomy]) for _ in range(2)]
    version = random.choice([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    context = client_context()
    context.minimum_version = context.maximum_version = version

    async def talk(side: Any) -> bytes:
        """Writes a megabyte in every way, reading only now and then."""
        said = bytearray()
        side.transport.set_write_buffer_limits(random.choice([0, 1, 50_000, 500_000]))
        while len(said) < 1_000_000:
            most = random.choice([1, 100, 20_000, 150_000])
            chunk = random.randbytes(random.randint(1, most))
            said += chunk
            match random.randrange(4):
                case 0:
                    side.transport.write(chunk)
                case 1:
                    side.transport.write(bytearray(chunk))
                case 2:
                    half = len(chunk) // 2
                    side.transport.writelines([chunk[:half], memoryview(chunk)[half:]])
                case _:
                    side.transport.write(memoryview(chunk))
                    side.transport.get_write_buffer_size()
            match random.randrange(8):
                case 0 if side.transport.is_reading():
                    side.transport.pause_reading()
                case 1 | 2 if not side.transport.is_reading():
                    side.transport.resume_reading()
                case 3 | 4:
                    await aio.sleep(0)
        if not side.transport.is_reading():
            side.transport.resume_reading()
        return bytes(said)

    class Patient(Recorder):
        def resume_writing(self) -> None:
            self.paused = False

    types = [type("Side", (Patient, kind), {}) for kind in kinds]
    async with secured(aio, client=context, server_type=types[0], client_type=types[1]) as sides:
        client, server = sides
        by_client, by_server = await aio.gather(talk(client), talk(server))
        await server.received(len(by_client))
        await client.received(len(by_server))
        client.transport.close()
        await until_closed(client, server)
    assert bytes(server.data) == by_client
    assert bytes(client.data) == by_server


# ------------------------------------------------------------------------------- the end


async def test_a_peer_that_just_hangs_up_is_an_end(aio: ModuleType) -> None:
    async with secured(aio) as (client, server):
        client.transport.write(b"x")
        await server.received(1)
        client.transport._ssl_protocol._transport.abort()
        await until_closed(server, client)
    assert server.events == ["made", "data", "eof", "lost None"] or server.events == [
        "made",
        "data",
        "lost None",
    ]


async def test_a_peer_that_does_not_answer_the_end_runs_into_the_timeout(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    done = threading.Event()
    with listening_socket() as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with server_context().wrap_socket(sock, server_side=True) as secure:
                secure.sendall(b"x")
                done.wait(PATIENCE)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            client = Recorder(loop)
            await loop.create_connection(
                lambda: client,
                *listener.getsockname(),
                ssl=client_context(),
                server_hostname="localhost",
                ssl_shutdown_timeout=0.05,
            )
            await client.received(1)
            client.transport.close()
            await until_closed(client)
        finally:
            done.set()
            await loop.run_in_executor(None, thread.join)
    assert isinstance(client.error, TimeoutError)
    assert str(client.error) == "SSL shutdown timed out"


async def test_a_transport_closed_twice_can_still_be_asked(runtime: Runtime) -> None:
    async with secured(runtime.aio) as (client, server):
        client.transport.close()
        client.transport.close()
        if runtime.native:
            assert client.transport.get_extra_info("ssl_object") is not None
            assert client.transport.get_protocol() is client
        await until_closed(client, server)
        if runtime.native or not EARLY_311:
            client.transport.abort()
        assert client.transport.is_closing()
    assert client.events == ["made", "eof", "lost None"]


async def test_a_transport_closed_twice_can_still_be_aborted(runtime: Runtime) -> None:
    if not runtime.native:
        pytest.skip("asyncio forgets the connection")
    async with secured(runtime.aio) as (client, server):
        server.transport._ssl_protocol._transport.pause_reading()  # never answers
        client.transport.close()
        client.transport.close()
        client.transport.abort()
        await until_closed(client)
    assert client.events == ["made", "lost None"]


async def test_info_outlives_the_connection(aio: ModuleType) -> None:
    async with secured(aio) as (client, server):
        client.transport.close()
        await until_closed(client, server)
        await spin(aio)
        assert client.transport.get_extra_info("cipher") is not None
        assert client.transport.get_extra_info("socket") is None
        assert client.transport.get_extra_info("nothing", 1) == 1


async def test_closing_in_data_received_answers_first(aio: ModuleType) -> None:
    class Answers(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.write(b"bye")
            self.transport.close()

    async with secured(aio, server_type=Answers) as (client, server):
        client.transport.write(b"x")
        await until_closed(client, server)
    assert bytes(client.data) == b"bye"
    assert server.events == ["made", "data", "eof", "lost None"]


async def test_a_forgotten_transport_warns(aio: ModuleType) -> None:
    async with secured(aio) as (client, _):
        forgotten = type(client.transport).__new__(type(client.transport))
        forgotten._closed = False
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            del forgotten


async def test_a_file_is_sent_through_tls(aio: ModuleType, tmp_path: Any) -> None:
    loop = aio.get_running_loop()
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    async with secured(aio) as (client, server):
        with path.open("rb") as file:
            assert await loop.sendfile(client.transport, file) == len(LARGE)
        await server.received(len(LARGE))
    assert bytes(server.data) == LARGE


async def test_connections_in_number_end_without_a_trace(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    sides: list[Recorder] = []

    def factory() -> Recorder:
        sides.append(Recorder(loop))
        return sides[-1]

    context = client_context()
    async with listening(aio, factory, server_context()) as where:

        async def visit(number: int) -> None:
            client = Recorder(loop)
            await loop.create_connection(
                lambda: client, *where, ssl=context, server_hostname="localhost"
            )
            client.transport.write(b"x" * number)
            with contextlib.suppress(ssl.SSLError):
                if number % 3:
                    client.transport.close()
                else:
                    client.transport.abort()
            await until_closed(client)

        await aio.gather(*(visit(number) for number in range(1, 60)))
        await until_closed(*(side for side in sides if side.events))
    assert sum(bool(side.events) for side in sides) == 59


async def test_a_large_write_to_a_peer_that_has_reset_is_one_write_in_vain(
    aio: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    # The transport below complains of the sixth.
    loop = aio.get_running_loop()
    go = threading.Event()
    with listening_socket() as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with server_context().wrap_socket(sock, server_side=True) as secure:
                secure.sendall(b"x")
                go.wait(PATIENCE)
                linger = struct.pack("ii", 1, 0)
                secure.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

        thread = threading.Thread(target=serve)
        thread.start()
        client = Recorder(loop)
        await loop.create_connection(
            lambda: client,
            *listener.getsockname(),
            ssl=client_context(),
            server_hostname="localhost",
        )
        await client.received(1)
        go.set()
        thread.join(PATIENCE)  # nobody polls meanwhile
        client.transport.write(bytes(1_000_000))
        await until_closed(client)
    assert "raised exception" not in caplog.text
