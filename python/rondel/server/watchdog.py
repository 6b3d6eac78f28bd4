"""Requests that are late, loops that are blocked, and who is told.

    loop ──answers a ping each second──► Watchdog (a thread) ──► the log, with the stacks
    native server ──late, stuck──► Late ──────────────────────┘       └─► stuck(why): the supervisor

A request that is late was answered with 504 by the native server (``bounds``), and its task is
being cancelled: its stack is logged as it stood. What goes on in spite of that, and a loop that
does not answer its ping within ``limit_stall``, is stuck: the process is to be replaced. That is
asked for again after a minute, as the first successor may have failed.

A page (``beats``) in the supervisor's file has when the loop last answered, and when the thread
last looked: a worker whose thread does not run either is held by native code that keeps the GIL;
the supervisor sees that by itself.

Threads: the watchdog's own; ``Late`` is called on the loop's. Stacks are those of
``sys._current_frames``: as of the moment at which they are taken.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from rondel.server.beats import Beats

__all__ = ["Late", "Watchdog"]

logger = logging.getLogger("rondel.server")

Stuck = Callable[[str], object]

# Seconds between two pings, and before a successor is asked for again.
_EVERY = 1.0
_AGAIN = 60.0


class Late:
    """What the native server tells of late requests (``_rondel.serve_http``)."""

    def __init__(self, limit: float, stuck: Stuck | None) -> None:
        self._limit = limit
        self._stuck = stuck

    def __call__(self, what: str, which: Any, where: Any) -> None:
        """``which`` is a scope and ``where`` its task, or a method with its path, and a thread."""
        if what.startswith("thread"):
            name, stack = which, _stack_of(where)
            extra = {}
        else:
            # The scope is the application's by now; one of a WebSocket connection has no method.
            method, path = which.get("method", "WebSocket"), which.get("path")
            name = f"{method} {path}"
            stack = _stack_of_task(where)
            extra = {"method": method, "target": path}
            if isinstance(which.get("client"), (list, tuple)):
                extra["client"] = ":".join(map(str, which["client"]))
        if what.endswith("late"):
            logger.error(
                "%s: no response within %g s, answered with 504; it is at\n%s",
                name,
                self._limit,
                stack,
                extra=extra,
            )
            return
        said = "its thread goes on" if what.startswith("thread") else "it goes on, though cancelled"
        logger.error("%s: %s; it is at\n%s", name, said, stack, extra=extra)
        if self._stuck is not None:
            self._stuck(f"a request is stuck: {name}")


class Watchdog:
    """Looks whether the loop runs, from a thread. ``start`` on the loop, ``stop`` anywhere."""

    def __init__(self, limit: float, beats: Beats, stuck: Stuck | None) -> None:
        # Seconds; 0: only the beats are kept.
        self._limit = limit
        self._beats = beats
        self._stuck = stuck
        self._end = threading.Event()
        self._answered = 0.0
        self._loop_thread = 0
        self._thread: threading.Thread | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to look; on the loop's thread."""
        self._loop_thread = threading.get_ident()
        self._answer()
        self._thread = threading.Thread(
            target=self._look, args=(loop,), name="rondel-watchdog", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """No more looks: the loop may do what it likes."""
        self._end.set()
        self._beats.retire()

    def _answer(self) -> None:
        self._answered = time.monotonic()
        if not self._end.is_set():
            self._beats.loop_runs()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        told: float | None = None
        asked = self._answered
        try:
            loop.call_soon_threadsafe(self._answer)
            while not self._end.wait(self._pause()):
                self._beats.thread_runs()
                now = time.monotonic()
                if self._answered >= asked:
                    if told is not None:
                        logger.warning("the loop runs again")
                    told, asked = None, now
                    loop.call_soon_threadsafe(self._answer)
                elif self._limit and now - asked >= self._limit:
                    if told is None:
                        stack = _stack_of(self._loop_thread)
                        logger.error(
                            "the loop is blocked for %.3g s; it is at\n%s", now - asked, stack
                        )
                    if told is None or now - told >= _AGAIN:
                        told = now
                        if self._stuck is not None:
                            self._stuck(f"its loop is blocked for {now - asked:.3g} s")
        except RuntimeError:  # the loop is closed
            return

    def _pause(self) -> float:
        return min(_EVERY, self._limit / 4) if self._limit else _EVERY


def _stack_of(ident: int) -> str:
    frame = sys._current_frames().get(ident)
    if frame is None:
        return "  (that thread has ended)"
    return "".join(traceback.format_stack(frame)).rstrip()


def _stack_of_task(task: Any) -> str:
    """Down to where it waits: `Task.get_stack` ends at the first coroutine."""
    if not isinstance(task, asyncio.Task):
        return f"  {task!r}"
    lines = [f"  {task!r}\n"]
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            lines += traceback.format_list(
                traceback.StackSummary.extract([(frame, frame.f_lineno)])
            )
        below = getattr(awaited, "cr_await", None)
        awaited = getattr(awaited, "gi_yieldfrom", None) if below is None else below
    return "".join(lines).rstrip()
