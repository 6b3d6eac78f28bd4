"""Applications that tell which process answers, and a client for them."""

import contextlib
import http.client
import os
import re
import select
import signal
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.cli.support import PATIENCE, RONDEL, Process, running

APPLICATION = """\
import asyncio, os, sys, time

GENERATION = "first"
with open("imports", "a") as file:
    print(os.getpid(), GENERATION, file=file)

def say(text):
    print(text, file=sys.stderr, flush=True)

async def lifespan(scope, receive, send):
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            say(f"shut down {os.getpid()}")
            return

async def reply(send, text):
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    path = scope["path"]
    if path == "/wait":
        say("in flight")
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
    elif path == "/for-ever":
        say("in flight")
        await asyncio.Event().wait()
    elif path == "/block":
        say("blocked")
        while not os.path.exists("go"):
            time.sleep(0.01)
    elif path == "/native":
        say("blocked")
        sum(range(10**13))
    elif path == "/stay":
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                say("stays")
    elif path == "/hold":
        held.append(bytearray(64 * 1024 * 1024))
    await reply(send, f"{os.getpid()} {GENERATION}")

held = []
"""


@dataclass
class Answer:
    """What `app` replies."""

    pid: int
    generation: str
    closes: bool = False


@dataclass
class Site:
    """A running `rondel serve --workers`."""

    process: Process
    url: str
    folder: Path
    announced: list[str] = field(default_factory=list)
    # How it is spoken to, where its URL is https.
    context: ssl.SSLContext | None = None

    def connect(self) -> http.client.HTTPConnection:
        """A connection of its own; the caller closes it."""
        if self.url.startswith("unix:"):
            connection = http.client.HTTPConnection("unix", timeout=PATIENCE)
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(PATIENCE)
            connection.sock.connect(self.url.removeprefix("unix:"))
            return connection
        parts = urllib.parse.urlsplit(self.url)
        assert parts.hostname is not None
        if self.context is not None:
            return http.client.HTTPSConnection(
                "localhost", parts.port, timeout=PATIENCE, context=self.context
            )
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE)

    def ask(self, path: str = "/", over: http.client.HTTPConnection | None = None) -> Answer:
        """One request, on a connection of its own unless one is given."""
        with contextlib.ExitStack() as stack:
            if over is None:
                over = stack.enter_context(contextlib.closing(self.connect()))
            over.request("GET", path)
            response = over.getresponse()
            body = response.read().decode()
            assert response.status == 200, body
            pid, generation = body.split()
            return Answer(int(pid), generation, response.getheader("connection") == "close")

    def workers(self, count: int) -> set[int]:
        """The processes that answer, once there are so many of them."""
        for _ in range(200):
            found = {self.ask().pid for _ in range(4 * count)}
            if len(found) == count:
                return found
        raise AssertionError(f"{len(found)} workers answer, not {count}")

    def until(self, generation: str) -> None:
        """Ask until the code of that generation answers: those that were replaced may have accepted
        a connection or two at the last moment.
        """
        for _ in range(100):
            if self.ask().generation == generation:
                return
        raise AssertionError(f"{generation} does not answer")

    def signal(self, number: signal.Signals) -> None:
        self.process.signal(number)

    def wait_for(self, pattern: str) -> re.Match[str]:
        return self.process.wait_for(pattern)

    def rewrite(self, generation: str) -> None:
        """New code, of which no cached bytecode is taken for the old."""
        text = APPLICATION.replace('"first"', repr(generation))
        (self.folder / "site_app.py").write_text(text)

    def let_go(self) -> None:
        """End what waits for it."""
        (self.folder / "go").touch()

    def imports(self) -> list[str]:
        """A line for each time that the application was imported: process and generation."""
        return (self.folder / "imports").read_text().splitlines()


@contextlib.contextmanager
def serving(
    folder: Path,
    *options: str,
    count: int = 2,
    address: tuple[str, ...] = ("--port", "0"),
    context: ssl.SSLContext | None = None,
) -> Iterator[Site]:
    """`rondel serve --workers COUNT` in the folder, ready."""
    if not (folder / "site_app.py").exists():
        (folder / "site_app.py").write_text(APPLICATION)
    command = [*RONDEL, "serve", "site_app:app", "--workers", str(count), *address, *options]
    with running(command, folder, PYTHONDONTWRITEBYTECODE="1") as process:
        banner = process.wait_for(r" serving \S+ on (\S+) \(pid (\d+)\) with (\d+) worker")
        assert (int(banner[2]), int(banner[3])) == (process.pid, count)
        yield Site(process, banner[1], folder, context=context)


def ends(pid: int) -> bool:
    """Whether a process that is not our child ends within our patience."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(PATIENCE * 1000))
    finally:
        os.close(pidfd)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that tells nobody when it happens, with a bound."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)
