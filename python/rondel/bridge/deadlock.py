"""Threads that wait for the loop while the loop waits for them.

A thread that waits at a gate still makes calls for the async code that it waits for. A call that
reaches it by another way (its pin: from a task that was started elsewhere) is made only when the
wait is over. If the async code in turn waits for that task, neither ever ends. Nobody can be sure
of it from outside, so after some seconds it is reported, with both stacks, and nothing is broken
off.
"""

import asyncio
import contextlib
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

__all__ = ["PATIENCE", "anybody", "is_waiting", "waiting", "watch"]

logger = logging.getLogger("rondel.bridge")

# Seconds that a call may wait for a thread that waits for the loop before it is reported.
PATIENCE = 5.0

# Threads (by ident) that wait at a gate; the innermost gate of each is the last.
_waiting: dict[int, list[Any]] = {}


@contextlib.contextmanager
def waiting(gate: Any) -> Iterator[None]:
    """This thread waits at ``gate`` inside the block."""
    ident = threading.get_ident()
    gates = _waiting.setdefault(ident, [])
    gates.append(gate)
    try:
        yield
    finally:
        gates.pop()
        if not gates:
            _waiting.pop(ident, None)


def anybody() -> bool:
    """Whether some thread waits at a gate."""
    return bool(_waiting)


def is_waiting(ident: int | None) -> bool:
    """Whether that thread waits at a gate."""
    return ident in _waiting


def watch(
    loop: asyncio.AbstractEventLoop, thread: threading.Thread, func: Any
) -> asyncio.TimerHandle:
    """Report a call of ``func`` that waits for ``thread`` too long; the caller cancels the
    timer."""
    task = asyncio.current_task(loop)
    return loop.call_later(PATIENCE, _report, thread, task, func)


def _report(thread: threading.Thread, task: "asyncio.Task[Any] | None", func: Any) -> None:
    ident = thread.ident
    if ident is None or not is_waiting(ident):
        return
    frame = sys._current_frames().get(ident)
    stack = "".join(traceback.format_stack(frame)) if frame is not None else "  (it has ended)\n"
    lines = ["  (no task)\n"]
    if task is not None:
        lines = []
        for task_frame in task.get_stack():
            lines += traceback.format_stack(task_frame, limit=1)
    name = getattr(func, "__qualname__", None) or repr(func)
    logger.warning(
        "possible deadlock: %r waits for %s to call %s, and that thread waits for async code on "
        "this loop.\nThe thread:\n%sThe task:\n%s",
        task,
        thread.name,
        name,
        stack,
        "".join(lines),
    )
