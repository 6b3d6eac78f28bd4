"""What the tests of `rondel top` share: answers that are made up."""

from typing import Any

from rondel.cli.top.tasks import TaskBook

__all__ = ["TOLD", "book", "task"]

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
