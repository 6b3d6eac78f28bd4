"""What the project tells the tests while it runs: an event log, threads, gates.

- `record` appends one line of JSON to the file RULES_EVENTS, in one write(2), so lines of several
  threads never mix. A test waits for a line, never for a while.
- `here` says where code runs: threads are numbered in the order in which they first report, and
  a number is never used again (the system's thread ids are).
- a gate is a FIFO that the test made: each byte that the test writes lets one waiter through.
"""

import asyncio
import contextvars
import itertools
import json
import os
import select
import threading
from typing import Any

from django.http import HttpRequest

# No wait outlives a test's patience.
PATIENCE_MS = 20_000

# Who has handled the request so far, as the contextvar's holders see it.
TRAIL: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("trail", default=())

_log = os.open(os.environ.get("RULES_EVENTS", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_numbers = itertools.count(1)
_own = threading.local()


def here() -> dict[str, Any]:
    """The running thread, and whether an event loop runs in it."""
    if not hasattr(_own, "number"):
        _own.number = next(_numbers)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return {"thread": _own.number, "loop": False}
    return {"thread": _own.number, "loop": True}


def record(event: str, **facts: Any) -> None:
    """Append an event to the log."""
    line = json.dumps({"event": event, **here(), **facts})
    os.write(_log, line.encode() + b"\n")


def mark(request: HttpRequest) -> str:
    """The name under which the test knows this request."""
    return request.headers.get("X-Mark", "")


class Gate:
    """The waiting side of a gate."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.fd)

    def passed(self) -> bool:
        """Try to get through."""
        try:
            return os.read(self.fd, 1) != b""
        except BlockingIOError:  # closed, or another waiter took the byte
            return False


def pass_gate(path: str) -> None:
    """Wait at a gate, blocking the thread."""
    with Gate(path) as gate:
        poll = select.poll()
        poll.register(gate.fd, select.POLLIN)
        while not gate.passed():
            if not poll.poll(PATIENCE_MS):
                raise TimeoutError(f"nobody opened {path}")


async def apass_gate(path: str) -> None:
    """Wait at a gate on the loop; cancellable at once."""
    loop = asyncio.get_running_loop()
    through: asyncio.Future[None] = loop.create_future()
    with Gate(path) as gate:

        def readable() -> None:
            if not through.done() and gate.passed():
                through.set_result(None)

        loop.add_reader(gate.fd, readable)
        try:
            await asyncio.wait_for(through, PATIENCE_MS / 1000)
        finally:
            loop.remove_reader(gate.fd)
