"""A Redis server and a sentinel of our own, on ports that nobody else has.

Each side of a comparison has its own, so that neither sees the other's keys. Both end with the
`with` block; they keep nothing on disk but their configuration.
"""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.suites import SuiteError

PROGRAM = "redis-server"  # Debian and Ubuntu: the package of that name
START = 10.0  # seconds


@dataclass(frozen=True)
class Redis:
    port: int
    # The sentinel's port. Its master is named "sentinel", as in channels_redis' tests.
    sentinel: int


def program() -> str | None:
    return shutil.which(PROGRAM)


@contextlib.contextmanager
def redis() -> Iterator[Redis]:
    """A server and a sentinel that watches it.

    Raises:
        SuiteError: there is no Redis on PATH, or it does not start.
    """
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upstream-redis-")))
        port, sentinel = _free_ports(2)
        server = f"port {port}\nbind 127.0.0.1\nsave ''\nappendonly no\ndir {home}\n"
        stack.enter_context(_running(home, "server", port, server))
        watch = f"port {sentinel}\nbind 127.0.0.1\ndir {home}\n"
        watch += f"sentinel monitor sentinel 127.0.0.1 {port} 1\n"
        stack.enter_context(_running(home, "sentinel", sentinel, watch, "--sentinel"))
        yield Redis(port, sentinel)


@contextlib.contextmanager
def _running(home: Path, name: str, port: int, text: str, *options: str) -> Iterator[None]:
    found = program()
    if found is None:
        raise SuiteError(f"no {PROGRAM} on PATH (Debian and Ubuntu: apt-get install {PROGRAM})")
    configuration, log = home / f"{name}.conf", home / f"{name}.log"
    configuration.write_text(text)
    with log.open("wb") as output:
        server = subprocess.Popen(
            [found, str(configuration), *options], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait(server, port, log)
        yield
    finally:
        server.kill()
        server.wait()


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until it answers."""
    end = time.monotonic() + START
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as peer:
            peer.sendall(b"PING\r\n")
            if peer.recv(16).startswith(b"+PONG"):
                return
        time.sleep(0.02)  # nothing is listening yet, so there is nothing to wait on
    raise SuiteError(f"{PROGRAM} does not start:\n{log.read_text(errors='replace')[-500:]}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
