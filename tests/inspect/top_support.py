"""What the tests of `rondel top` share: made-up answers, and a watcher that ends with its test."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rondel.cli.top.asking import News, Want, Watcher
from rondel.cli.top.tasks import TaskBook
from tests.cli.support import PATIENCE

__all__ = ["TOLD", "Watched", "book", "task", "watching"]

# As `{"ask": "requests"}` is answered.
TOLD: dict[str, Any] = {
    "v": 1,
    "requests": [
        {"id": 7, "method": "GET", "path": "/books/", "age": 0.2, "task": 2, "state": "thread"}
        | {"view": "shelf.views.index", "hops": 3, "hop_wait": 0.004, "thread_run": 0.1},
        {"id": 8, "method": "POST", "path": "/\x1b[2J", "age": 2.5, "state": "waiting"},
    ],
    "recent": [
        {"id": 5, "method": "GET", "path": "/ok", "seconds": 0.01, "status": 200, "hops": 1},
        {"id": 6, "method": "GET", "path": "/bad", "seconds": 0.02, "status": 500},
    ],
}


def task(number: int, **more: Any) -> dict[str, Any]:
    told = {"id": number, "name": f"Task-{number}", "loop": 1, "state": "waiting"}
    return told | {"coro": "main", "chain": 0} | more


def book(*tasks: dict[str, Any], **more: Any) -> TaskBook:
    data = {"frames": [["/a/program.py", 7, "main"]], "chains": [[0]], "loops": []}
    return TaskBook({**data, "ages": [[100, 5.0]], "tasks": list(tasks)}, **more)


class Watched:
    """A watcher, and what it has posted."""

    def __init__(self, want: Want, interval: float) -> None:
        self.posted: list[News] = []
        self.watcher = Watcher(want, interval, self.posted.append)

    def until(self, seen: Callable[[list[News]], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not seen(self.posted):
            assert time.monotonic() < end, self.posted[-5:]
            time.sleep(0.01)


@contextlib.contextmanager
def watching(want: Want, interval: float) -> Iterator[Watched]:
    """It asks until the block ends, however that ends.

    Its threads open descriptors again and again: left behind, they fail every later test here.
    """
    watched = Watched(want, interval)
    watched.watcher.start()
    try:
        yield watched
    finally:
        watched.watcher.stop()
        for thread in watched.watcher._threads:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive()
