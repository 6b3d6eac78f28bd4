"""add_reader, add_writer and the loop's sock_* methods."""

import asyncio
import os
import socket
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.net.peers import listening_socket
from tests.support import Runtime, spin

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


async def test_a_reader_is_called_when_there_is_something_to_read(
    aio: ModuleType, pair: Pair
) -> None:
    loop, (left, right) = aio.get_running_loop(), pair
    got = loop.create_future()
    loop.add_reader(left, lambda: got.done() or got.set_result(left.recv(100)))
    right.send(b"data")
    assert await aio.wait_for(got, 5) == b"data"
    assert loop.remove_reader(left) is True
    assert loop.remove_reader(left) is False


async def test_readers_are_level_triggered(aio: ModuleType, pair: Pair) -> None:
    # A callback that takes one byte at a time is called until all are taken.
    loop, (left, right) = aio.get_running_loop(), pair
    got, done = bytearray(), loop.create_future()

    def read_one() -> None:
        got.extend(left.recv(1))
        if len(got) == 10:
            done.set_result(None)

    loop.add_reader(left, read_one)
    right.send(b"0123456789")
    await aio.wait_for(done, 5)
    loop.remove_reader(left)
    assert bytes(got) == b"0123456789"


async def test_a_reader_that_does_not_read_is_called_again_and_again(
    aio: ModuleType, pair: Pair
) -> None:
    loop, (left, right) = aio.get_running_loop(), pair
    calls, enough = 0, loop.create_future()

    def look_away() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            enough.set_result(None)

    right.send(b"x")
    loop.add_reader(left, look_away)
    await aio.wait_for(enough, 5)
    loop.remove_reader(left)


async def test_writers_are_level_triggered(aio: ModuleType, pair: Pair) -> None:
    loop, (left, _) = aio.get_running_loop(), pair
    calls, enough = 0, loop.create_future()

    def writable() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            enough.set_result(None)

    loop.add_writer(left, writable)
    await aio.wait_for(enough, 5)
    assert loop.remove_writer(left) is True
    assert loop.remove_writer(left) is False


async def test_a_removed_reader_is_not_called_any_more(aio: ModuleType, pair: Pair) -> None:
    loop, (left, right) = aio.get_running_loop(), pair
    calls: list[str] = []
    loop.add_reader(left, calls.append, "called")
    loop.remove_reader(left)
    right.send(b"x")
    await aio.sleep(0.01)
    assert calls == []


async def test_a_reader_may_remove_itself_and_its_neighbour(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    pairs = [socket.socketpair() for _ in range(2)]
    calls: list[int] = []

    def read(number: int) -> None:
        calls.append(number)
        for left, _ in pairs:
            loop.remove_reader(left)

    for number, (left, right) in enumerate(pairs):
        loop.add_reader(left, read, number)
        right.send(b"x")
    await aio.sleep(0.02)
    assert len(calls) == 1  # both were ready in one poll: the second must not be called
    for both in pairs:
        for sock in both:
            sock.close()


async def test_a_second_reader_replaces_the_first(aio: ModuleType, pair: Pair) -> None:
    loop, (left, right) = aio.get_running_loop(), pair
    calls: list[str] = []
    loop.add_reader(left, calls.append, "first")
    loop.add_reader(left, lambda: (left.recv(1), calls.append("second")))  # type: ignore[func-returns-value]
    right.send(b"x")
    await aio.sleep(0.01)
    assert calls == ["second"]
    loop.remove_reader(left)


async def test_reader_and_writer_on_one_descriptor_are_independent(
    aio: ModuleType, pair: Pair
) -> None:
    loop, (left, right) = aio.get_running_loop(), pair
    read, wrote = loop.create_future(), loop.create_future()
    loop.add_reader(left, lambda: read.done() or read.set_result(left.recv(1)))
    loop.add_writer(left, lambda: wrote.done() or wrote.set_result(None))
    await aio.wait_for(wrote, 5)
    loop.remove_writer(left)
    assert not read.done()
    right.send(b"x")
    assert await aio.wait_for(read, 5) == b"x"
    loop.remove_reader(left)


async def test_the_end_of_the_peer_is_readable(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    left, right = socket.socketpair()
    ended = loop.create_future()
    loop.add_reader(left, lambda: ended.done() or ended.set_result(left.recv(1)))
    right.close()
    assert await aio.wait_for(ended, 5) == b""
    loop.remove_reader(left)
    left.close()


async def test_a_watched_socket_can_be_removed_after_it_was_closed(aio: ModuleType) -> None:
    # anyio closes first: the loop has to know the object, as its number is -1 by then.
    loop = aio.get_running_loop()
    left, right = socket.socketpair()
    loop.add_reader(left, print)
    loop.add_writer(right, print)
    left.close()
    right.close()
    assert loop.remove_reader(left) is True
    assert loop.remove_writer(right) is True


async def test_a_plain_descriptor_number_works(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    reading, writing = os.pipe()
    got = loop.create_future()
    loop.add_reader(reading, lambda: got.done() or got.set_result(os.read(reading, 10)))
    os.write(writing, b"pipe")
    assert await aio.wait_for(got, 5) == b"pipe"
    loop.remove_reader(reading)
    os.close(reading)
    os.close(writing)


async def test_a_descriptor_number_that_is_used_again_works(aio: ModuleType) -> None:
    # Closed without remove_reader, then reused by another pipe: the new one must be watched.
    loop = aio.get_running_loop()
    for turn in range(3):
        reading, writing = os.pipe()
        got = loop.create_future()
        loop.add_reader(reading, lambda got=got, fd=reading: got.set_result(os.read(fd, 1)))
        os.write(writing, b"x")
        assert await aio.wait_for(got, 5) == b"x", turn
        loop.remove_reader(reading)
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("bad", [-1, "text", None, object()])
async def test_what_is_no_descriptor_is_refused(aio: ModuleType, bad: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        aio.get_running_loop().add_reader(bad, print)


async def test_a_regular_file_is_refused(aio: ModuleType, tmp_path: object) -> None:
    with open(f"{tmp_path}/file", "w+b") as file, pytest.raises(PermissionError):
        aio.get_running_loop().add_reader(file, print)


async def test_an_error_in_a_reader_is_reported(runtime: Runtime, pair: Pair) -> None:
    loop, (left, right) = runtime.aio.get_running_loop(), pair

    def broken() -> None:
        loop.remove_reader(left)
        raise ZeroDivisionError

    loop.add_reader(left, broken)
    right.send(b"x")
    await runtime.aio.sleep(0.01)
    (context,) = runtime.take_errors()
    assert isinstance(context["exception"], ZeroDivisionError)


async def test_watching_a_transports_descriptor_is_refused(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    left, right = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=left)
    with pytest.raises(RuntimeError, match="is used by transport"):
        loop.add_reader(left.fileno(), print)
    transport.abort()
    await spin(aio)
    right.close()


async def test_sock_recv_and_sendall(aio: ModuleType, pair: Pair) -> None:
    loop, (left, right) = aio.get_running_loop(), pair
    payload = os.urandom(1 << 20)

    async def receive() -> bytes:
        got = bytearray()
        while len(got) < len(payload):
            got += await loop.sock_recv(right, 1 << 16)
        return bytes(got)

    _, got = await aio.gather(loop.sock_sendall(left, payload), receive())
    assert got == payload


async def test_sock_recv_into_and_its_cancellation(aio: ModuleType, pair: Pair) -> None:
    loop, (left, right) = aio.get_running_loop(), pair
    buffer = bytearray(10)
    task = aio.create_task(loop.sock_recv_into(left, buffer))
    await aio.sleep(0)
    task.cancel()
    with pytest.raises(aio.CancelledError):
        await task
    right.send(b"after")
    assert await loop.sock_recv_into(left, buffer) == 5
    assert buffer[:5] == b"after"


async def test_sock_connect_and_accept(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with listening_socket() as listener, socket.socket() as client:
        listener.setblocking(False)
        client.setblocking(False)
        accepted = aio.create_task(loop.sock_accept(listener))
        await loop.sock_connect(client, listener.getsockname())
        server, address = await accepted
        with server:
            assert address == client.getsockname()
            await loop.sock_sendall(server, b"accepted")
            assert await loop.sock_recv(client, 100) == b"accepted"


async def test_a_blocking_socket_is_refused_in_debug_mode(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    loop.set_debug(True)
    with socket.socket() as sock, pytest.raises(ValueError, match="non-blocking"):
        await loop.sock_recv(sock, 1)
    loop.set_debug(False)


async def test_getaddrinfo_and_getnameinfo(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    infos = await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert infos[0][4] == ("127.0.0.1", 80)
    name = await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    assert name == ("127.0.0.1", "80")


async def test_datagrams_go_both_ways(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    answered = loop.create_future()

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: object) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
            self.transport.sendto(data.upper(), address)  # type: ignore[attr-defined]

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
            answered.set_result(data)

    server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    client, _ = await loop.create_datagram_endpoint(
        Client, remote_addr=server.get_extra_info("sockname")
    )
    client.sendto(b"hello")
    assert await aio.wait_for(answered, 5) == b"HELLO"
    client.close()
    server.close()
    await spin(aio)


async def test_subprocesses_talk_through_pipes(aio: ModuleType) -> None:
    process = await aio.create_subprocess_exec(
        "cat", stdin=aio.subprocess.PIPE, stdout=aio.subprocess.PIPE
    )
    out, _ = await process.communicate(b"through cat")
    assert out == b"through cat"
    assert process.returncode == 0


async def test_a_busy_loop_sees_a_readable_descriptor_within_its_turns(
    aio: ModuleType, pair: Pair
) -> None:
    # docs/differences.md: up to 256 turns after a quiet time. Each is one sleep(0).
    left, right = pair
    loop = aio.get_running_loop()
    got: list[bytes] = []
    loop.add_reader(left, lambda: got.append(left.recv(1)))
    for _ in range(2000):
        await aio.sleep(0)
    for byte in (b"1", b"2"):
        right.send(byte)
        turns = 0
        while not got:
            await aio.sleep(0)
            turns += 1
            assert turns <= 260
        assert got.pop() == byte
    loop.remove_reader(left)
