"""Inline calls that block, found while they do: for debug mode.

A function of the inline list runs on the event loop, so what it waits for everybody waits for. A
call counts as blocking that takes more than `SLOW` seconds of which the thread had the processor
for less than `BUSY`; the time that it wanted a processor and got none does not count at all. It is
reported once and leaves the list.

A thread looks every few milliseconds which inline call each loop's thread is in. One that it meets
twice has its stack taken then, so that the report shows the line that waits, which nobody can tell
afterwards.

    loop's thread   ──[ call ]──────[ call ·········································· ]── report
    watchdog            ·       ·        ·(met)          ·(met again: its stack)   ·

Waiting for the GIL looks the same. So while other threads of the bridge are at work a function is
given a second chance.
"""

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from rondel.bridge import observe
from rondel.bridge.inline import forbid, place_of
from rondel.bridge.threads import any_busy

__all__ = ["Watch", "watch"]

logger = logging.getLogger("rondel.server.inline")

# Seconds of a call, and the share of them on the processor.
SLOW = 0.005
BUSY = 0.2
# Seconds between two looks; without inline calls for `IDLE` of them the watchdog sleeps.
PERIOD = 0.002
IDLE = 1.0


class _Running:
    """An inline call under way."""

    __slots__ = ("func", "met", "stack", "thread")

    def __init__(self, func: Callable[..., Any], thread: int) -> None:
        self.func = func
        self.thread = thread
        self.met = False
        self.stack: list[str] | None = None


class Watch(observe.Observer):
    """Measures inline calls, and reports those that block."""

    def __init__(self) -> None:
        # By thread. An inline call may make another one in a loop of its own: the outer one counts.
        self._running: dict[int, _Running] = {}
        self._strikes: dict[Callable[..., Any], int] = {}
        # Descriptors of the kernel's counts, by process and thread.
        self._schedstat: dict[tuple[int, int], int] = {}
        self._awake = threading.Event()
        self._last = 0.0
        self._thread: threading.Thread | None = None

    def inline(self, func: Callable[..., Any], call: Callable[[], Any]) -> Any:
        """See ``Observer.inline``."""
        thread = threading.get_ident()
        if thread in self._running:
            return call()
        running = self._running[thread] = _Running(func, thread)
        patrol = self._thread
        if patrol is None or not (self._awake.is_set() and patrol.is_alive()):
            self._wake()
        queued = self._queued()
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            return call()
        finally:
            cpu = time.thread_time() - cpu
            self._last = now = time.perf_counter()
            wall = now - wall
            del self._running[thread]
            if wall > SLOW:
                wall -= self._queued() - queued
            if wall > SLOW and cpu < wall * BUSY:
                self._blocked(running, wall, cpu)

    def _blocked(self, running: _Running, wall: float, cpu: float) -> None:
        func = running.func
        plain = getattr(func, "__func__", func)
        strikes = self._strikes[plain] = self._strikes.get(plain, 0) + 1
        if any_busy() and strikes < 2:
            return
        forbid(func)
        stack = "".join(running.stack or traceback.format_stack(sys._getframe(2))).rstrip()
        logger.warning(
            "%s blocked the event loop for %.0f ms, of which it computed %.1f ms; "
            "it is called on a thread from here on. It waited here:\n%s",
            place_of(func),
            wall * 1000,
            cpu * 1000,
            stack,
        )

    def _queued(self) -> float:
        """Seconds that this thread has waited for a processor, since it began."""
        key = (os.getpid(), threading.get_native_id())
        fd = self._schedstat.get(key)
        try:
            if fd is None:
                # Kept open: it is read twice for each call.
                path = f"/proc/self/task/{key[1]}/schedstat"
                fd = self._schedstat[key] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            return int(os.pread(fd, 100, 0).split()[1]) * 1e-9
        except (OSError, ValueError, IndexError):
            # A kernel that does not count it.
            return 0.0

    # ---------------------------------------------------------------------------- the watchdog

    def _wake(self) -> None:
        self._last = time.perf_counter()
        self._awake.set()
        if self._thread is None or not self._thread.is_alive():
            # A daemon: it holds nothing, and must not keep the process.
            self._thread = threading.Thread(
                target=self._patrol, name="rondel-inline-watch", daemon=True
            )
            self._thread.start()

    def _patrol(self) -> None:
        while True:
            self._awake.wait()
            time.sleep(PERIOD)
            for running in list(self._running.values()):
                if not running.met:
                    running.met = True
                elif running.stack is None:
                    frame = sys._current_frames().get(running.thread)
                    if frame is not None:
                        running.stack = traceback.format_stack(frame)
            if not self._running and time.perf_counter() - self._last > IDLE:
                self._awake.clear()


_watch: Watch | None = None


def watch() -> None:
    """Look on from now on; calling it again changes nothing."""
    global _watch
    if _watch is None:
        _watch = Watch()
    observe.add(_watch)
