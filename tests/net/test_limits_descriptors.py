"""No descriptor is left, or ten thousand are in use. Each in a process of its own."""

import importlib
import resource

import pytest

from tests.support import ONLY_ASYNCIO, python

LOOPS = ["asyncio"] if ONLY_ASYNCIO else ["asyncio", "rondel"]
SETUP = """
import asyncio, contextlib, errno, gc, importlib, os, resource, socket, sys, threading, time
aio = importlib.import_module(sys.argv[1])
HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
errors = []

def used():
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # listdir's own is gone by now
            os.readlink(f"/proc/self/fd/{name}")
            found.add(int(name))
    return found

def leave(free):
    '''So many more descriptors can be opened (None: as many as ever).'''
    soft = HARD
    if free is not None:
        taken, soft = used(), 0
        while free >= 0:
            free -= soft not in taken
            soft += 1
        soft -= 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, HARD))

def run(main):
    loop = aio.new_event_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    with aio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(asyncio.wait_for(main(), 20))

async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)
"""


def passes(loop: str, code: str, timeout: float = 40) -> None:
    # Not in debug mode, which says on stderr what took long.
    plain = {"PYTHONDEVMODE": "", "PYTHONASYNCIODEBUG": ""}
    ended = python(SETUP + code, loop, env=plain, timeout=timeout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""


SERVER = """
class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

async def start(loop):
    if KIND == "unix":
        path = "\\0limits-%d" % os.getpid()
        return await loop.create_unix_server(Echo, path), socket.AF_UNIX, path
    if KIND == "streams":
        async def echo(reader, writer):
            while data := await reader.read(100):
                writer.write(data)
            writer.close()
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
    else:
        server = await loop.create_server(Echo, "127.0.0.1", 0)
    return server, socket.AF_INET, server.sockets[0].getsockname()

def ask(peer, answers):
    peer.sendall(b"x")
    peer.settimeout(15)
    answers.append(peer.recv(1))
"""


@pytest.mark.parametrize("kind", ["tcp", "unix", "streams"])
@pytest.mark.parametrize("loop", LOOPS)
def test_accepting_backs_off_without_descriptors_and_goes_on_with_them(
    loop: str, kind: str
) -> None:
    passes(
        loop,
        f"KIND = {kind!r}\n"
        + SERVER
        + """
async def main():
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(int)  # its thread, and what else is made once
    server, family, address = await start(loop)
    peers = [socket.socket(family, socket.SOCK_STREAM) for _ in range(20)]
    leave(3)
    for peer in peers:
        peer.connect(address)
    # It says so, in asyncio's words, and not in a busy loop.
    await until(lambda: errors)
    assert errors[0]["message"] == "socket.accept() out of system resource", errors
    assert errors[0]["exception"].errno == errno.EMFILE
    # The loop and what was accepted live on.
    before = time.process_time()
    answers = []
    threading.Thread(target=ask, args=(peers[0], answers)).start()
    await until(lambda: answers)
    await asyncio.sleep(0.5)
    assert time.process_time() - before < 0.4
    # asyncio 3.11 and 3.12 report once for each of the backlog's places.
    assert len(errors) <= 300, len(errors)
    leave(None)
    answers = []
    asking = threading.Thread(target=lambda: [ask(peer, answers) for peer in peers])
    asking.start()
    await until(lambda: not asking.is_alive())
    assert answers == [b"x"] * 20
    for peer in peers:
        peer.close()
    await asyncio.sleep(0.05)
    server.close()

run(main)
""",
    )


# asyncio schedules the listening anew without a look at whether the server is still open, and so
# does a loop of ours whose accepting is still asyncio's.
@pytest.mark.skipif(
    ONLY_ASYNCIO or not hasattr(importlib.import_module("rondel").EventLoop, "_resume_serving"),
    reason="accepting is asyncio's own",
)
@pytest.mark.parametrize("loop", [loop for loop in LOOPS if loop != "asyncio"])
def test_a_server_closed_while_it_backs_off_stays_closed(loop: str) -> None:
    passes(
        loop,
        "KIND = 'tcp'\n"
        + SERVER
        + """
async def main():
    loop = asyncio.get_running_loop()
    before = used()
    server, family, address = await start(loop)
    peers = [socket.socket(family, socket.SOCK_STREAM) for _ in range(20)]
    leave(1)
    for peer in peers:
        peer.connect(address)
    await until(lambda: errors)
    errors.clear()
    server.close()
    leave(None)
    for peer in peers:
        peer.close()
    await asyncio.sleep(1.3)  # past the time at which it would have tried again
    assert not errors, (len(errors), errors[0])
    assert used() == before

run(main)
""",
    )


@pytest.mark.later_asyncio  # Python's Popen leaked pipes then
@pytest.mark.parametrize("loop", LOOPS)
def test_what_needs_a_descriptor_says_so_and_leaks_nothing(loop: str) -> None:
    passes(
        loop,
        """
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    await (await asyncio.create_subprocess_exec("true")).wait()  # the watcher, once
    await asyncio.sleep(0.01)
    before = used()
    for free in range(4):
        calls = [
            lambda: asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1, stderr=-1),
        ]
        if free == 0:
            calls += [
                lambda: loop.create_connection(asyncio.Protocol, *address),
                lambda: loop.create_unix_server(asyncio.Protocol, "\\0limits-x-%d" % os.getpid()),
                lambda: asyncio.open_connection(*address),
                lambda: loop.create_datagram_endpoint(
                    asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
                ),
            ]
            if sys.version_info >= (3, 13):  # before, asyncio makes a server without sockets
                calls.append(lambda: loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
        for call in calls:
            leave(free)
            try:
                await call()
            except OSError as error:
                # asyncio's create_server() tells none.
                assert error.errno in (errno.EMFILE, None), error
            else:
                raise AssertionError("no error")
            finally:
                leave(None)
            gc.collect()
            await asyncio.sleep(0.01)
            assert used() == before, (free, used() - before)
    server.close()
    assert not errors, errors

run(main)
""",
    )


# asyncio's own says that it was not closed, and fails to close it.
@pytest.mark.parametrize("loop", [loop for loop in LOOPS if loop != "asyncio"])
def test_a_loop_that_cannot_be_made_leaks_nothing(loop: str) -> None:
    passes(
        loop,
        """
before = used()
for free in range(6):
    leave(free)
    try:
        made = aio.new_event_loop()
    except OSError as error:
        assert error.errno == errno.EMFILE, error
    else:
        leave(None)
        made.close()
        assert free > 0
    leave(None)
    gc.collect()
    assert used() == before, (free, used() - before)
""",
    )


CROWD = 10_000
PEERS = """
import resource, socket, sys
HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (HARD, HARD))
port, count = int(sys.argv[1]), int(sys.argv[2])
peers = []
for number in range(count):
    # Several addresses: one has not ports enough for a second run within a minute.
    peer = socket.create_connection((f"127.0.0.{1 + number % 8}", port))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
    peers.append(peer)
print("connected", flush=True)
for line in sys.stdin:
    if line == "ask\\n":
        asked = peers[::97]
        for peer in asked:
            peer.sendall(b"x")
        print(sum(peer.recv(1) == b"x" for peer in asked), flush=True)
    else:
        for peer in peers:
            peer.close()
        print("closed", flush=True)
"""


@pytest.mark.timeout(90)
@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < CROWD + 100,
    reason=f"fewer than {CROWD} descriptors are allowed here",
)
@pytest.mark.parametrize("loop", LOOPS)
def test_ten_thousand_idle_connections_in_one_loop(loop: str) -> None:
    passes(
        loop,
        f"PEERS, CROWD = {PEERS!r}, {CROWD}\n"
        + """
resource.setrlimit(resource.RLIMIT_NOFILE, (HARD, HARD))

made = lost = 0

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        global made
        made += 1
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)
    def connection_lost(self, error):
        global lost
        lost += 1

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "0.0.0.0", 0, backlog=1000)
    port = server.sockets[0].getsockname()[1]
    peers = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PEERS, str(port), str(CROWD), stdin=-1, stdout=-1
    )
    assert await peers.stdout.readline() == b"connected\\n"
    await until(lambda: made == CROWD)
    # Idle for the loop too: it sleeps.
    before = time.process_time()
    await asyncio.sleep(0.3)
    assert time.process_time() - before < 0.1
    for _ in range(3):
        peers.stdin.write(b"ask\\n")
        assert int(await peers.stdout.readline()) == len(range(0, CROWD, 97))
    peers.stdin.write(b"close\\n")
    assert await peers.stdout.readline() == b"closed\\n"
    await until(lambda: lost == CROWD)
    peers.stdin.close()
    await peers.wait()
    server.close()

loop = aio.new_event_loop()
loop.set_exception_handler(lambda _, context: errors.append(context))
with aio.Runner(loop_factory=lambda: loop) as runner:
    runner.run(asyncio.wait_for(main(), 60))
assert not errors, errors
assert len(used()) < 20
""",
        timeout=80,
    )
