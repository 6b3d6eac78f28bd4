"""sock_recv() and its kin: operations on a program's own sockets."""

import asyncio
import contextlib
import errno
import inspect
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.net.peers import ALMOST_ALIKE, listening_socket
from tests.support import PATIENCE, Runtime, spin

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two connected stream sockets that do not block."""
    if request.param == "unix":
        near, far = socket.socketpair()
    else:
        with listening_socket() as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        yield near, far


@contextlib.contextmanager
def two_bound(family: int = socket.AF_INET, host: str = "127.0.0.1") -> Iterator[Pair]:
    """Two sockets for datagrams, bound, that do not block."""
    near = socket.socket(family, socket.SOCK_DGRAM)
    far = socket.socket(family, socket.SOCK_DGRAM)
    with near, far:
        for sock in (near, far):
            sock.setblocking(False)
            sock.bind((host, 0))
        yield near, far


@contextlib.asynccontextmanager
async def waiting(aio: ModuleType, coro: Any) -> AsyncIterator[Any]:
    """A task that is about to wait; it has ended or is cancelled afterwards."""
    task = aio.create_task(coro)
    await spin(aio)
    assert not task.done()
    try:
        yield task
    finally:
        task.cancel()
        await aio.wait([task], timeout=PATIENCE)


def exchange(near: socket.socket, far: socket.socket) -> None:
    """Bytes arrive at `near` that nobody has asked the loop for."""
    far.send(b"unasked")
    near.setblocking(True)
    assert near.recv(100) == b"unasked"
    near.setblocking(False)


@pytest.mark.parametrize(
    "name",
    [
        "sock_recv",
        "sock_recv_into",
        "sock_recvfrom",
        "sock_recvfrom_into",
        "sock_sendall",
        "sock_sendto",
        "sock_connect",
        "sock_accept",
        "sock_sendfile",
    ],
)
def test_they_look_like_coroutine_functions(loop: Any, name: str) -> None:
    method, stock = getattr(loop, name), getattr(asyncio.SelectorEventLoop, name)
    assert inspect.iscoroutinefunction(method)
    assert (
        list(inspect.signature(method).parameters)
        == (list(inspect.signature(stock).parameters)[1:])
    )


async def test_an_echo_of_many_messages(aio: ModuleType, pair: Pair) -> None:
    near, far = pair
    loop = aio.get_running_loop()

    async def echo() -> None:
        while data := await loop.sock_recv(far, 4096):
            await loop.sock_sendall(far, data)

    task = aio.create_task(echo())
    for number in range(200):
        message = b"%d." % number * (number % 50 + 1)
        await loop.sock_sendall(near, message)
        back = b""
        while len(back) < len(message):
            back += await loop.sock_recv(near, 7 if number % 3 else 65536)
        assert back == message
    near.shutdown(socket.SHUT_WR)
    await aio.wait_for(task, PATIENCE)


async def test_messages_of_any_size_in_a_row_arrive_whole(aio: ModuleType, pair: Pair) -> None:
    near, far = pair
    loop = aio.get_running_loop()
    payload = os.urandom(400_000)
    sizes = [10, 100_000, 100_000, 5, 40_000, 300_000, 20_000, 130_000, 1, 60_000, 250_000]
    sizes += ALMOST_ALIKE
    for room in (1 << 18, 50_000, 1 << 20):
        for size in sizes:
            sending = aio.create_task(loop.sock_sendall(far, payload[:size]))
            got = b""
            while len(got) < size:
                part = await aio.wait_for(loop.sock_recv(near, room), PATIENCE)
                assert 0 < len(part) <= room
                got += part
            assert got == payload[:size]
            assert await aio.wait_for(sending, PATIENCE) is None


async def test_a_datagram_is_never_cut_to_what_the_last_one_was(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with two_bound() as (near, far):
        far.connect(near.getsockname())
        for size in (17_000, 60_000, 20_000, 65_000, 10, 30_000):
            async with waiting(aio, loop.sock_recv(near, 1 << 16)) as task:
                far.send(bytes(size))
                assert len(await aio.wait_for(task, PATIENCE)) == size


async def test_the_end_that_comes_with_the_data_is_seen(aio: ModuleType, pair: Pair) -> None:
    near, far = pair
    loop = aio.get_running_loop()
    async with waiting(aio, loop.sock_recv(near, 100)) as task:
        far.send(b"last words")
        far.close()
        assert await aio.wait_for(task, PATIENCE) == b"last words"
    assert await aio.wait_for(loop.sock_recv(near, 100), PATIENCE) == b""


async def test_the_end_that_comes_after_a_short_read_is_seen(aio: ModuleType, pair: Pair) -> None:
    near, far = pair
    loop = aio.get_running_loop()
    async with waiting(aio, loop.sock_recv(near, 100)) as task:
        far.send(b"words")
        assert await aio.wait_for(task, PATIENCE) == b"words"
    async with waiting(aio, loop.sock_recv(near, 100)) as task:
        far.close()
        assert await aio.wait_for(task, PATIENCE) == b""


async def test_urgent_data_do_not_hide_what_follows(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with listening_socket() as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        near.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        async with waiting(aio, loop.sock_recv(near, 100)) as task:
            far.send(b"before")
            assert await aio.wait_for(task, PATIENCE) == b"before"
        far.send(b"up to the mark")
        far.send(b"!", socket.MSG_OOB)
        far.send(b"after")
        got = b""
        while len(got) < len(b"up to the mark!after"):
            got += await aio.wait_for(loop.sock_recv(near, 100), PATIENCE)
        assert got == b"up to the mark!after"


async def test_what_others_read_in_between_does_no_harm(aio: ModuleType, pair: Pair) -> None:
    near, far = pair
    loop = aio.get_running_loop()
    for _ in range(3):
        async with waiting(aio, loop.sock_recv(near, 100)) as task:
            far.send(b"asked")
            assert await aio.wait_for(task, PATIENCE) == b"asked"
        for _ in range(20):  # more than a registration lasts without anybody waiting
            exchange(near, far)
            await spin(aio, 2)


async def test_a_descriptor_number_that_is_used_again_is_another_socket(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    for _ in range(5):
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            async with waiting(aio, loop.sock_recv(near, 100)) as task:
                far.send(b"hello")
                assert await aio.wait_for(task, PATIENCE) == b"hello"


async def test_a_cancelled_receive_leaves_the_data_for_the_next(
    aio: ModuleType, pair: Pair
) -> None:
    near, far = pair
    loop = aio.get_running_loop()
    async with waiting(aio, loop.sock_recv(near, 100)) as task:
        task.cancel()
        with pytest.raises(aio.CancelledError):
            await task
    far.send(b"kept")
    assert await aio.wait_for(loop.sock_recv(near, 100), PATIENCE) == b"kept"


async def test_data_that_arrived_before_a_cancel_are_not_lost(
    runtime: Runtime, aio: ModuleType, pair: Pair
) -> None:
    if not runtime.native:
        pytest.skip("asyncio's future has the data by then, and they are lost with it")
    near, far = pair
    loop = aio.get_running_loop()
    task = aio.create_task(loop.sock_recv(near, 100))
    await spin(aio)
    far.send(b"kept")
    # The readiness is reported, the task not yet woken: asyncio's callback would have received.
    while near.recv(1, socket.MSG_PEEK) != b"k":
        pass
    loop.call_soon(task.cancel)
    with contextlib.suppress(aio.CancelledError):
        assert await task == b"kept"
        return
    assert await aio.wait_for(loop.sock_recv(near, 100), PATIENCE) == b"kept"


async def test_much_is_sent_to_a_slow_reader(aio: ModuleType, pair: Pair) -> None:
    near, far = pair
    loop = aio.get_running_loop()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)
    payload = os.urandom(3_000_000)
    for kind in (bytes, bytearray, memoryview):
        got = bytearray()
        async with waiting(aio, loop.sock_sendall(near, kind(payload))) as task:
            while len(got) < len(payload):
                got += await aio.wait_for(loop.sock_recv(far, 300_000), PATIENCE)
            assert await aio.wait_for(task, PATIENCE) is None
        assert got == payload


async def test_a_buffer_keeps_its_size_while_it_is_sent(aio: ModuleType, pair: Pair) -> None:
    near, _ = pair
    loop = aio.get_running_loop()
    data = bytearray(10_000_000)
    async with waiting(aio, loop.sock_sendall(near, data)):
        with pytest.raises(BufferError):
            data.clear()


async def test_receiving_into_a_buffer(aio: ModuleType, pair: Pair) -> None:
    near, far = pair
    loop = aio.get_running_loop()
    buffer = bytearray(10)
    async with waiting(aio, loop.sock_recv_into(near, memoryview(buffer)[2:6])) as task:
        far.send(b"abcdefgh")
        assert await aio.wait_for(task, PATIENCE) == 4
    assert await loop.sock_recv_into(near, buffer) == 4
    assert buffer == b"efghcd\0\0\0\0"
    with pytest.raises((TypeError, BufferError)):
        await loop.sock_recv_into(near, b"read-only")


async def test_datagrams_with_their_senders(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with two_bound(family, host) as (near, far):
            async with waiting(aio, loop.sock_recvfrom(near, 100)) as task:
                assert await loop.sock_sendto(far, b"ping", near.getsockname()) == 4
                data, address = await aio.wait_for(task, PATIENCE)
            assert (data, address) == (b"ping", far.getsockname())
            buffer = bytearray(10)
            async with waiting(aio, loop.sock_recvfrom_into(near, buffer, 3)) as task:
                await loop.sock_sendto(far, b"pong", near.getsockname())
                got = await aio.wait_for(task, PATIENCE)
            assert got == (3, far.getsockname())
            assert buffer[:4] == b"pon\0"
            with pytest.raises(ValueError, match="nbytes is greater"):
                await loop.sock_recvfrom_into(near, buffer, 11)


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (("localhost", 0), OSError),
        (("127.0.0.1", 1 << 16), OverflowError),
        (("127.0.0.1", "1"), TypeError),
        (("::1", 9), OSError),
        (("127.0.0.1", 9, 0), TypeError),
        ("/nowhere", TypeError),
        (None, TypeError),
    ],
)
async def test_sending_to_a_strange_address_fails_as_the_socket_says(
    aio: ModuleType, address: Any, error: type[Exception]
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        with pytest.raises(error) as own:
            sock.sendto(b"x", address)
        with pytest.raises(error) as raised:
            await aio.get_running_loop().sock_sendto(sock, b"x", address)
    assert raised.type is own.type
    assert raised.value.args == own.value.args


async def test_sending_to_reports_what_the_system_and_the_buffer_say(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with two_bound() as (near, far):
        address = near.getsockname()
        with pytest.raises(OSError, match="too long") as raised:
            await loop.sock_sendto(far, bytes(70_000), address)
        assert raised.value.errno == errno.EMSGSIZE
        with pytest.raises(TypeError, match="bytes-like object is required, not 'str'"):
            await loop.sock_sendto(far, "text", address)
        for data in (b"", bytearray(b"ab"), memoryview(b"abcd")[::2]):
            if not memoryview(data).contiguous:
                with pytest.raises(BufferError):
                    await loop.sock_sendto(far, data, address)
                continue
            assert await loop.sock_sendto(far, data, address) == len(data)
            got, _sender = await aio.wait_for(loop.sock_recvfrom(near, 100), PATIENCE)
            assert got == bytes(data)


async def test_sending_to_goes_by_the_function_that_somebody_put_there(
    aio: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tools do that forbid the network in tests."""

    def forbidden(_sock: socket.socket, *_args: Any) -> int:
        raise PermissionError("no network here")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        monkeypatch.setattr(socket.socket, "sendto", forbidden)
        with pytest.raises(PermissionError, match="no network here"):
            await aio.get_running_loop().sock_sendto(sock, b"x", ("127.0.0.1", 9))


def test_sending_to_is_an_audited_event() -> None:
    script = """
import asyncio, socket, sys
seen = []
def hook(event, args):
    if event == "socket.sendto":
        seen.append(args)
        if args[1][1] == 9:
            raise PermissionError("not to that one")
sys.addaudithook(hook)
async def main(runtime):
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near, \\
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        near.bind(("127.0.0.1", 0))
        far.setblocking(False)
        address = near.getsockname()
        await loop.sock_sendto(far, b"x", address)
        assert seen == [(far, address)], (runtime, seen)
        try:
            await loop.sock_sendto(far, b"x", ("127.0.0.1", 9))
        except PermissionError as error:
            assert str(error) == "not to that one"
        else:
            raise AssertionError(runtime)
    seen.clear()
asyncio.run(main("asyncio"))
import rondel
rondel.run(main("rondel"))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_unix_datagrams_with_their_senders(aio: ModuleType, tmp_path: Any) -> None:
    loop = aio.get_running_loop()
    near = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    far = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        near.setblocking(False)
        near.bind(str(tmp_path / "near"))
        far.bind(f"\0{tmp_path}/far")
        async with waiting(aio, loop.sock_recvfrom(near, 100)) as task:
            far.sendto(b"ping", near.getsockname())
            assert await aio.wait_for(task, PATIENCE) == (b"ping", far.getsockname())


async def test_accepted_sockets_do_not_block_and_know_what_they_are(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with listening_socket() as listener, socket.socket() as client:
        listener.setblocking(False)
        client.setblocking(False)
        async with waiting(aio, loop.sock_accept(listener)) as task:
            await loop.sock_connect(client, listener.getsockname())
            conn, address = await aio.wait_for(task, PATIENCE)
        with conn:
            assert type(conn) is socket.socket
            assert conn.gettimeout() == 0.0
            assert not os.get_blocking(conn.fileno())
            assert not os.get_inheritable(conn.fileno())
            assert (conn.family, conn.type, conn.proto) == (
                listener.family,
                listener.type,
                listener.proto,
            )
            assert address == client.getsockname() == conn.getpeername()


async def test_a_refused_connection_is_an_error_that_names_the_address(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with socket.socket() as taken, socket.socket() as client:
        taken.bind(("127.0.0.1", 0))
        client.setblocking(False)
        with pytest.raises(ConnectionRefusedError) as caught:
            await loop.sock_connect(client, taken.getsockname())
        assert caught.value.errno == errno.ECONNREFUSED
        assert str(caught.value).endswith(f"Connect call failed {taken.getsockname()}")


async def test_names_are_resolved_before_connecting(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with listening_socket() as listener, socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("localhost", listener.getsockname()[1]))
        assert client.getpeername() == listener.getsockname()


async def test_a_reset_connection_is_an_error(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with listening_socket() as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near:
        near.setblocking(False)
        async with waiting(aio, loop.sock_recv(near, 100)) as task:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            far.close()
            with pytest.raises(ConnectionResetError):
                await aio.wait_for(task, PATIENCE)
        with pytest.raises(BrokenPipeError):
            await loop.sock_sendall(near, b"x")


async def test_a_closed_socket_is_an_error(aio: ModuleType, pair: Pair) -> None:
    near, _ = pair
    near.close()
    loop = aio.get_running_loop()
    for coro in (loop.sock_recv(near, 1), loop.sock_sendall(near, b"x"), loop.sock_accept(near)):
        with pytest.raises(OSError, match="Bad file descriptor"):
            await coro


async def test_reading_and_writing_wait_independently(aio: ModuleType, pair: Pair) -> None:
    near, far = pair
    loop = aio.get_running_loop()
    async with (
        waiting(aio, loop.sock_recv(near, 100)) as reading,
        waiting(aio, loop.sock_sendall(near, bytes(10_000_000))) as writing,
    ):
        far.send(b"news")
        assert await aio.wait_for(reading, PATIENCE) == b"news"
        assert not writing.done()


async def test_a_socket_that_the_program_watches_itself(aio: ModuleType, pair: Pair) -> None:
    near, far = pair
    loop = aio.get_running_loop()
    with near.dup() as twin:
        writable = loop.create_future()
        loop.add_writer(near, lambda: writable.done() or writable.set_result(None))
        async with waiting(aio, loop.sock_recv(near, 100)) as task:
            await aio.wait_for(writable, PATIENCE)
            far.send(b"one")
            assert await aio.wait_for(task, PATIENCE) == b"one"
        loop.remove_writer(near)
        assert twin.fileno() >= 0
    # The other way round: who waits goes on to wait beside the writer.
    async with waiting(aio, loop.sock_recv(near, 100)) as task:
        writable = loop.create_future()
        loop.add_writer(near, lambda: writable.done() or writable.set_result(None))
        await aio.wait_for(writable, PATIENCE)
        loop.remove_writer(near)
        far.send(b"two")
        assert await aio.wait_for(task, PATIENCE) == b"two"


async def test_a_socket_may_become_a_transport_later(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with listening_socket() as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    with far:
        async with waiting(aio, loop.sock_recv(near, 100)) as task:
            far.send(b"by hand")
            assert await aio.wait_for(task, PATIENCE) == b"by hand"
        reader, writer = await aio.open_connection(sock=near)
        far.send(b"by stream")
        assert await aio.wait_for(reader.readexactly(9), PATIENCE) == b"by stream"
        far.setblocking(False)
        taken = writer.get_extra_info("socket")
        with socket.socket(fileno=os.dup(taken.fileno())) as twin:
            assert twin.fileno() != taken.fileno()
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(taken.fileno(), print)
        writer.close()
        await writer.wait_closed()


async def test_many_wait_for_one_socket(runtime: Runtime, aio: ModuleType, pair: Pair) -> None:
    if not runtime.native:
        pytest.skip("asyncio's second wait takes the first one's place, which then never ends")
    near, far = pair
    loop = aio.get_running_loop()
    tasks = [aio.create_task(loop.sock_recv(near, 1)) for _ in range(3)]
    await spin(aio)
    far.send(b"abc")
    assert sorted(await aio.wait_for(aio.gather(*tasks), PATIENCE)) == [b"a", b"b", b"c"]


async def test_sockets_of_other_classes(aio: ModuleType, pair: Pair) -> None:
    class Counting(socket.socket):
        received = 0

        def recv(self, *args: Any) -> bytes:
            self.received += 1
            return super().recv(*args)

    near, far = pair
    loop = aio.get_running_loop()
    with Counting(fileno=os.dup(near.fileno())) as counting:
        counting.setblocking(False)
        far.send(b"x")
        assert await aio.wait_for(loop.sock_recv(counting, 1), PATIENCE) == b"x"
        assert counting.received >= 1


async def test_ssl_sockets_are_refused(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    context = ssl.create_default_context()
    with (
        socket.socket() as plain,
        context.wrap_socket(plain, server_hostname="x") as sock,
        pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"),
    ):
        await loop.sock_recv(sock, 1)


def test_blocking_sockets_are_refused_in_debug_mode(runtime: Runtime) -> None:
    async def main() -> None:
        loop = runtime.aio.get_running_loop()
        with socket.socket() as sock:
            for coro in (
                loop.sock_recv(sock, 1),
                loop.sock_recv_into(sock, bytearray(1)),
                loop.sock_recvfrom(sock, 1),
                loop.sock_recvfrom_into(sock, bytearray(1)),
                loop.sock_sendall(sock, b"x"),
                loop.sock_sendto(sock, b"x", ("127.0.0.1", 1)),
                loop.sock_connect(sock, ("127.0.0.1", 1)),
                loop.sock_accept(sock),
            ):
                with pytest.raises(ValueError, match="the socket must be non-blocking"):
                    await coro

    runtime.run(main(), debug=True)


async def test_wrong_arguments_are_refused(aio: ModuleType, pair: Pair) -> None:
    near, _ = pair
    loop = aio.get_running_loop()
    with pytest.raises(TypeError):
        loop.sock_recv(near)
    with pytest.raises(ValueError, match="negative buffersize"):
        await loop.sock_recv(near, -1)
    with pytest.raises(TypeError):
        await loop.sock_recv(near, "many")
    with pytest.raises(TypeError):
        await loop.sock_sendall(near, "text")
    assert await loop.sock_recv(near, 0) == b""
