"""The traffic: servers, and what one session does with them, mishaps among it.

Servers and clients share one loop. A session opens a connection of a random kind, makes some
exchanges on it and closes it; most are compared byte for byte, some end in a mishap that is chosen
beforehand. What a mishap may raise is expected then and only then.

Everything is chosen by the session's own random.Random, so a seed gives the same sessions; when
they meet is the machine's choice.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import ssl
import struct
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LINGER_RESET = struct.pack("ii", 1, 0)
SIZES = [1, 100, 1000, 10_000, 100_000, 400_000]
SIZE_WEIGHTS = [4, 8, 8, 4, 2, 1]
# What an exchange may raise that was cut short on purpose.
CUT = (ConnectionError, asyncio.IncompleteReadError, TimeoutError, ssl.SSLError, OSError)
HEAD = struct.Struct("!cI")
ECHO, DIE, FLOOD = b"e", b"d", b"f"


# -- servers -------------------------------------------------------------------------------


class Parser:
    """Messages of HEAD and payload out of a stream of bytes: what the protocol servers speak."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes | memoryview) -> list[tuple[bytes, bytes]]:
        self._pending += data
        messages = []
        while len(self._pending) >= HEAD.size:
            kind, size = HEAD.unpack_from(self._pending)
            if len(self._pending) < HEAD.size + size:
                break
            messages.append((kind, bytes(self._pending[HEAD.size : HEAD.size + size])))
            del self._pending[: HEAD.size + size]
        return messages


class Server(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = Parser()

    def data_received(self, data: bytes) -> None:
        for kind, payload in self.parser.feed(data):
            if kind == DIE:
                self.transport.abort()
            else:
                self.transport.write(HEAD.pack(kind, len(payload)) + payload)

    # A peer that stops reading is not read from, either: the buffer is bounded.
    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.transport.resume_reading()


class BufferedServer(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.buffer = bytearray(50_000)
        self.plain = Server()

    def connection_made(self, transport: Any) -> None:
        self.plain.connection_made(transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, size: int) -> None:
        self.plain.data_received(bytes(self.buffer[:size]))

    def pause_writing(self) -> None:
        self.plain.pause_writing()

    def resume_writing(self) -> None:
        self.plain.resume_writing()


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(data, address)


async def serve_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            kind, size = HEAD.unpack(await reader.readexactly(HEAD.size))
            payload = await reader.readexactly(size)
            if kind == DIE:
                writer.transport.abort()
                return
            writer.write(HEAD.pack(kind, size))
            writer.write(payload)
            await writer.drain()
    except CUT:
        pass
    finally:
        writer.close()
        with contextlib.suppress(*CUT):
            await writer.wait_closed()


@dataclass
class Places:
    """Where the servers are."""

    protocol: Any = None
    buffered: Any = None
    streams: Any = None
    unix: str = ""
    tls: Any = None
    upgrade: Any = None
    udp: Any = None
    client_context: ssl.SSLContext | None = None


@contextlib.asynccontextmanager
async def servers(folder: Path) -> AsyncIterator[Places]:
    loop, places = asyncio.get_running_loop(), Places()
    contexts = tls_contexts(folder)
    async with contextlib.AsyncExitStack() as stack:

        async def listening(server: Any) -> Any:
            await stack.enter_async_context(server)
            return server.sockets[0].getsockname()

        here = ("127.0.0.1", 0)
        places.protocol = await listening(await loop.create_server(Server, *here))
        places.buffered = await listening(await loop.create_server(BufferedServer, *here))
        places.streams = await listening(await asyncio.start_server(serve_stream, *here))
        places.unix = str(folder / "socket")
        await listening(await asyncio.start_unix_server(serve_stream, places.unix))
        if contexts is not None:
            server_context, places.client_context = contexts
            places.tls = await listening(
                await asyncio.start_server(serve_stream, *here, ssl=server_context)
            )
            upgraded = Upgraded(server_context)
            places.upgrade = await listening(await asyncio.start_server(upgraded.serve, *here))
        udp, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=here)
        stack.callback(udp.close)
        places.udp = udp.get_extra_info("sockname")
        yield places


class Upgraded:
    """A stream server that starts TLS at a word of the client's."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(8)
            writer.write(b"starttls")
            await writer.start_tls(self.context)
        except CUT:
            writer.transport.abort()
            return
        await serve_stream(reader, writer)


def tls_contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext] | None:
    """For server and client; None where there is no `openssl` to make a certificate with."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    try:
        subprocess.run(
            [*command, "-keyout", key, "-out", certificate], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=certificate)


# -- sessions ------------------------------------------------------------------------------


class Wrong(AssertionError):
    """An exchange that went wrong without a reason."""


@dataclass
class Session:
    places: Places
    rng: random.Random
    counts: Counter[str]
    children: asyncio.Semaphore
    think: float
    """Mean pause between two exchanges, in seconds."""
    kinds: list[str]

    async def live(self, stop: asyncio.Event) -> None:
        """Connections, one after another, until `stop`."""
        while not stop.is_set():
            (kind,) = self.rng.choices(self.kinds, [KINDS[kind][0] for kind in self.kinds])
            if kind in ("tls", "upgrade") and self.places.client_context is None:
                continue
            mishap = self.rng.choices(MISHAPS, MISHAP_WEIGHTS)[0]
            await self.one(kind, KINDS[kind][1], mishap)
            await asyncio.sleep(self.think * 0.1 * self.rng.random())  # mostly it is connected

    async def one(
        self, kind: str, exchange: Callable[[Session, str], Awaitable[None]], mishap: str
    ) -> None:
        try:
            async with asyncio.timeout(60):  # whatever takes so long hangs
                if mishap == "timeout":
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self.rng.random() * 0.3):
                            await exchange(self, mishap)
                elif mishap == "cancel":
                    task = asyncio.ensure_future(exchange(self, mishap))
                    await asyncio.sleep(self.rng.random() * 0.3)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                else:
                    await exchange(self, mishap)
        except CUT as error:
            if mishap == "none":
                raise Wrong(f"{kind}, no mishap: {error!r}") from error
        self.counts[f"{kind}"] += 1
        self.counts[f"mishap {mishap}"] += 1

    async def pause(self) -> None:
        await asyncio.sleep(self.rng.expovariate(1 / self.think) if self.think else 0)

    def payload(self) -> bytes:
        size = self.rng.choices(SIZES, SIZE_WEIGHTS)[0]
        return self.rng.randbytes(min(size, 64)) * (size // 64 + 1)

    def compare(self, sent: bytes, got: bytes) -> None:
        if sent != got:
            raise Wrong(f"{len(sent)} bytes sent, {len(got)} other ones came back")


MISHAPS = ["none", "reset", "abort", "die", "stuck", "half", "timeout", "cancel"]
MISHAP_WEIGHTS = [56, 7, 5, 6, 4, 6, 8, 8]


def reset(sock: Any) -> None:
    """The close that follows sends an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)


async def over_streams(
    session: Session, mishap: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    rng, tls = session.rng, writer.get_extra_info("sslcontext") is not None
    try:
        for _ in range(rng.randint(1, 8)):
            sent = session.payload()
            writer.write(HEAD.pack(ECHO, len(sent)) + sent)
            if rng.random() < 0.5:
                await writer.drain()
            await reader.readexactly(HEAD.size)
            session.compare(sent, await reader.readexactly(len(sent)))
            session.counts["exchanges"] += 1
            await session.pause()
        if mishap == "reset":
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.family != socket.AF_UNIX:
                reset(sock)
            writer.write(HEAD.pack(ECHO, 100))
            writer.transport.abort()
        elif mishap == "abort":
            writer.write(HEAD.pack(ECHO, 200_000) + bytes(200_000))
            writer.transport.abort()
        elif mishap == "die":
            writer.write(HEAD.pack(DIE, 0))
            writer.write(HEAD.pack(ECHO, 50_000) + bytes(50_000))
            await reader.read()
        elif mishap == "stuck":
            for _ in range(10):
                writer.write(HEAD.pack(FLOOD, 100_000) + bytes(100_000))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(writer.drain(), 0.05)
            writer.transport.abort()
        elif mishap == "half" and not tls:
            writer.write_eof()
            session.compare(b"", await reader.read())
    finally:
        writer.close()
        if mishap != "cancel":
            with contextlib.suppress(*CUT):
                await asyncio.wait_for(writer.wait_closed(), 40)


async def streams(session: Session, mishap: str) -> None:
    pair = await asyncio.open_connection(*session.places.streams)
    await over_streams(session, mishap, *pair)


async def unix(session: Session, mishap: str) -> None:
    pair = await asyncio.open_unix_connection(session.places.unix)
    await over_streams(session, mishap, *pair)


async def tls(session: Session, mishap: str) -> None:
    context = session.places.client_context
    pair = await asyncio.open_connection(
        *session.places.tls, ssl=context, server_hostname="localhost"
    )
    await over_streams(session, mishap, *pair)


async def upgrade(session: Session, mishap: str) -> None:
    reader, writer = await asyncio.open_connection(*session.places.upgrade)
    context = session.places.client_context
    assert context is not None
    try:
        writer.write(b"starttls")
        session.compare(b"starttls", await reader.readexactly(8))
        await writer.start_tls(context, server_hostname="localhost")
    except BaseException:
        writer.transport.abort()
        raise
    await over_streams(session, mishap, reader, writer)


class Client(asyncio.Protocol):
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.parser = Parser()
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for _, payload in self.parser.feed(data):
            self.answers.put_nowait(payload)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():  # who waited for it may have been cancelled
            self.lost.set_result(None)

    async def ask(self, kind: bytes, payload: bytes) -> bytes:
        self.transport.write(HEAD.pack(kind, len(payload)) + payload)
        answer = asyncio.ensure_future(self.answers.get())
        try:
            await asyncio.wait([answer, self.lost], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ConnectionResetError("lost while asking")
            return answer.result()
        finally:
            answer.cancel()


class BufferedClient(asyncio.BufferedProtocol):
    """The same through a buffer of its own."""

    def __init__(self) -> None:
        self.plain, self.buffer = Client(), bytearray(30_000)

    def connection_made(self, transport: Any) -> None:
        self.plain.connection_made(transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, size: int) -> None:
        self.plain.data_received(bytes(self.buffer[:size]))

    def connection_lost(self, error: Exception | None) -> None:
        self.plain.connection_lost(error)


async def protocol(session: Session, mishap: str) -> None:
    loop = asyncio.get_running_loop()
    if session.rng.random() < 0.3:
        _, buffered = await loop.create_connection(BufferedClient, *session.places.buffered)
        client = buffered.plain
    else:
        _, client = await loop.create_connection(Client, *session.places.protocol)
    transport = client.transport
    try:
        for _ in range(session.rng.randint(1, 8)):
            sent = session.payload()
            session.compare(sent, await client.ask(ECHO, sent))
            session.counts["exchanges"] += 1
            await session.pause()
        if mishap == "reset":
            reset(transport.get_extra_info("socket"))
            transport.write(HEAD.pack(ECHO, 100))
            transport.abort()
        elif mishap == "abort":
            transport.write(HEAD.pack(ECHO, 300_000) + bytes(300_000))
            transport.abort()
        elif mishap == "die":
            await client.ask(DIE, b"")
        elif mishap == "stuck":
            transport.pause_reading()
            for _ in range(10):
                transport.write(HEAD.pack(FLOOD, 100_000) + bytes(100_000))
            await session.pause()
            transport.abort()
        elif mishap == "half":
            transport.write_eof()
        elif mishap == "none":
            transport.close()
        else:
            transport.abort()
        await client.lost
    finally:
        transport.abort()


async def low_level(session: Session, mishap: str) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, session.places.protocol)
        for _ in range(session.rng.randint(1, 5)):
            sent = session.payload()
            sending = asyncio.ensure_future(
                loop.sock_sendall(sock, HEAD.pack(ECHO, len(sent)) + sent)
            )
            try:
                got, wanted = bytearray(), HEAD.size + len(sent)
                buffer = bytearray(65536)
                while len(got) < wanted:
                    size = await loop.sock_recv_into(sock, buffer)
                    if not size:
                        raise ConnectionResetError("ended while asking")
                    got += buffer[:size]
                await sending
            finally:
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError, *CUT):
                    await sending
            session.compare(sent, bytes(got[HEAD.size :]))
            session.counts["exchanges"] += 1
            await session.pause()
        if mishap in ("reset", "abort"):
            reset(sock)


async def datagrams(session: Session, mishap: str) -> None:
    loop = asyncio.get_running_loop()
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    numbers = (b"%08d" % number for number in itertools.count())

    class Asking(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, address: Any) -> None:
            answers.put_nowait(data)

    transport, _ = await loop.create_datagram_endpoint(Asking, remote_addr=session.places.udp)
    try:
        for _ in range(session.rng.randint(1, 5)):
            sent = session.payload()[:1400]
            asked, answered, patience = next(numbers), False, 0.5
            while not answered:
                # A full socket buffer drops, and asyncio's loop reads one datagram in a turn: who
                # gets no answer asks again, ever more rarely, and gives up in the end. The number
                # tells a question's answers from late ones to the question before.
                transport.sendto(asked + sent)
                try:
                    async with asyncio.timeout(patience):
                        while not answered:
                            got = await answers.get()
                            answered = got.startswith(asked)
                except TimeoutError:
                    patience *= 2
                    session.counts["datagrams asked again"] += 1
                    if patience > 4:
                        session.counts["datagrams given up"] += 1
                        return
            session.compare(asked + sent, got)
            session.counts["exchanges"] += 1
            if mishap == "abort":
                transport.abort()
                return
            await session.pause()
    finally:
        transport.close()


def backwards(data: bytes) -> bytes:
    return data[::-1]


async def threads(session: Session, mishap: str) -> None:
    for _ in range(session.rng.randint(1, 10)):
        sent = session.payload()
        session.compare(sent[::-1], await asyncio.to_thread(backwards, sent))
        session.counts["exchanges"] += 1
    if mishap in ("die", "reset"):
        try:
            await asyncio.to_thread(int, "no number")
        except ValueError:
            return
        raise Wrong("an error in a thread was lost")


async def children(session: Session, mishap: str) -> None:
    async with session.children:
        child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
        try:
            if mishap in ("die", "reset", "abort"):
                child.kill()
                if await child.wait() != -9:
                    raise Wrong(f"a killed child ended with {child.returncode}")
            else:
                sent = session.payload()
                out, _ = await child.communicate(sent)
                session.compare(sent, out)
            session.counts["exchanges"] += 1
        finally:
            if child.returncode is None:
                child.kill()
            assert child.stdin is not None
            child.stdin.close()
            if mishap not in ("cancel", "timeout"):
                await child.wait()
            else:
                await asyncio.shield(asyncio.ensure_future(child.communicate()))


KINDS: dict[str, tuple[int, Callable[[Session, str], Awaitable[None]]]] = {
    "protocol": (30, protocol),
    "streams": (25, streams),
    "unix": (12, unix),
    "tls": (8, tls),
    "upgrade": (3, upgrade),
    "low level": (8, low_level),
    "datagrams": (8, datagrams),
    "threads": (5, threads),
    "children": (1, children),
}


def seeds(seed: int, count: int) -> list[random.Random]:
    return [random.Random(f"{seed}/{number}") for number in range(count)]
