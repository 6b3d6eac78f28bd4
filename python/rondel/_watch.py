"""``rondel.watch_tasks``: reports of lost work, off until asked for.

What happens to a task is native (``crates/rondel/src/watch.rs``). Here are the switch, and the
depth to which coroutines remember where they were created: the interpreter's depth is a thread's
own (``sys.set_coroutine_origin_tracking_depth``), that of native coroutines is the process's.

Invariant: a depth that somebody else set is never lowered, and what was raised here is put back.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from asyncio import constants
from typing import TYPE_CHECKING

from rondel import _rondel

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["debugging", "tracking", "watch_from_environment", "watch_tasks"]

_lock = threading.Lock()
# Guarded by `_lock`.
_watching = False
_debugged_loops = 0


class _Thread(threading.local):
    """Whether this thread's depth is the one set here."""

    raised = False


_thread = _Thread()


def watch_tasks(on: bool = True, /) -> bool:
    """Report work that gets lost, at the moment it is lost; ``False`` stops it.

    * A task that fails while nobody waits for it is reported to its loop's exception handler
      (Python docs: *Error Handling API* of the event loop) with the keys ``message``,
      ``exception``, ``task`` and ``created_at``: file, line and function of the call that created
      it, if it was created while this was on. To wait for a task is to ``await`` it, to have it in
      ``gather``, ``wait``, a ``TaskGroup`` and so on, or to have given it a done callback; a method
      of a built-in set, dict or list (``tasks.discard``) does not count. That is the failure's only
      report: asyncio's "Task exception was never retrieved" does not follow. Awaiting the task
      later still raises.
    * Tasks that are destroyed pending are reported by asyncio anyway; the report gains
      ``created_at``.
    * The ``RuntimeWarning`` about a coroutine that was never awaited names the line that created
      it, as with ``sys.set_coroutine_origin_tracking_depth(1)``: in the calling thread, and in
      every thread that starts to run a Rondel loop from now on.

    This is for tasks of Rondel's loops, in all threads. Off, it costs one test of a flag for each
    task that is created. On, a task or a coroutine costs about half a microsecond more.

    Args:
        on: whether to watch from now on.

    Returns:
        Whether tasks were watched until now.
    """
    global _watching
    with _lock:
        before: bool = _rondel._watch_tasks(on)
        _watching = bool(on)
        _set_native_depth()
    if on:
        _raise_depth()
    else:
        _lower_depth()
    return before


def watch_from_environment() -> None:
    """What ``RONDEL_WATCH_TASKS`` asks for: anything but nothing and 0 turns the watch on."""
    if os.environ.get("RONDEL_WATCH_TASKS", "0") not in ("", "0"):
        watch_tasks()


@contextlib.contextmanager
def tracking() -> Iterator[None]:
    """A loop's run: coroutines of its thread remember their line while tasks are watched."""
    if not _watching or not _raise_depth():
        yield
        return
    try:
        yield
    finally:
        _lower_depth()


def debugging(change: int) -> None:
    """A loop in debug mode began (1) or ended (-1) to run: natives remember what others do."""
    global _debugged_loops
    with _lock:
        _debugged_loops += change
        _set_native_depth()


def _set_native_depth() -> None:
    deep: int = constants.DEBUG_STACK_DEPTH
    _rondel._trace_origins(deep if _debugged_loops else int(_watching))


def _raise_depth() -> bool:
    """Make this thread's coroutines remember one frame, if they remember none; whether it did."""
    if sys.get_coroutine_origin_tracking_depth():
        return False
    sys.set_coroutine_origin_tracking_depth(1)
    _thread.raised = True
    return True


def _lower_depth() -> None:
    if _thread.raised:
        _thread.raised = False
        if sys.get_coroutine_origin_tracking_depth() == 1:
            sys.set_coroutine_origin_tracking_depth(0)
