"""Who waits for what, in this process: its loops, their tasks, and steps that take too long.

    import rondel.inspect

    for task in rondel.inspect.tasks():
        print(task.name, task.state, task.waits_for)
    print(rondel.inspect.tree())

The same from outside: ``rondel ps``, ``rondel tree PID``, ``rondel stalls PID``,
``rondel requests PID``.

Every function may be called from any thread, on or off a loop, and sees all Rondel loops that run
in the process. Nothing of the program is run for it (no ``__repr__``), and nothing is kept alive. A
suspended coroutine that was looked at keeps its frame object until it ends (some 200 bytes).

Invariant: this module is the public one; the others of the package are private.
"""

import json
from typing import Any

from rondel import _rondel
from rondel.inspect._model import (
    Frame,
    LoopStats,
    LoopWindow,
    Request,
    Stall,
    StallRequest,
    Task,
    Tree,
    Wait,
)
from rondel.inspect._stalls import StallHandler, on_stall

__all__ = [
    "Frame",
    "LoopStats",
    "LoopWindow",
    "Request",
    "Stall",
    "StallHandler",
    "StallRequest",
    "Task",
    "Tree",
    "Wait",
    "ended_requests",
    "on_stall",
    "requests",
    "stalls",
    "stats",
    "tasks",
    "tree",
]


def _snapshot() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_rondel._inspect_tasks())
    return found


def tasks() -> list[Task]:
    """Every task of the running loops that is not done, the newest first in each loop."""
    from rondel.inspect._model import read_tasks

    return read_tasks(_snapshot())


def tree() -> Tree:
    """The tasks by who created whom; ``str(tree)`` is what ``rondel tree`` prints.

    A task whose creator is done, or was no task, is at the top.
    """
    return Tree(_snapshot())


def stats() -> list[LoopStats]:
    """What each running loop counts about itself, as of now.

    Of a span of time: ``later.since(earlier)``, of two looks at the same loop.
    """
    from rondel.inspect._model import read_stats

    return read_stats(json.loads(_rondel._inspect_stats()))


def stalls() -> list[Stall]:
    """The last 64 places where a step of a loop took too long, the oldest first."""
    from rondel.inspect._model import read_stall

    return [read_stall(one) for one in json.loads(_rondel._inspect_stalls())["stalls"]]


def requests(*, stacks: bool = False) -> list[Request]:
    """The requests that servers of this process are answering, in the order in which they came.

    With ``stacks`` those that a thread is at have its stack. Empty with ``RONDEL_INSPECT=0``.
    """
    from rondel.inspect._model import read_requests

    return read_requests(json.loads(_rondel._inspect_requests(stacks)))


def ended_requests() -> list[Request]:
    """The last 256 requests that have ended, and the last 64 that took 0.1 s or more; those that
    ended first in front.
    """
    from rondel.inspect._model import read_ended

    return read_ended(json.loads(_rondel._inspect_requests()))
