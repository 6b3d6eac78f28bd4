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

__all__ = [
    "debugging",
    "depth_is_ours",
    "remember_lines",
    "tracking",
    "watch_from_environment",
    "watch_tasks",
]

_lock = threading.Lock()
# Guarded by `_lock`.
_watching = False
_remembering = False
_debugged_loops = 0

# Frames that a coroutine remembers for `rondel.hints`: the user's line is the nearest of them that
# is in no library.
_FRAMES = 4


class _Thread(threading.local):
    """The depth that this thread has from here, 0 for none."""

    raised = 0


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
    elif not _remembering:
        _lower_depth()
    return before


def remember_lines() -> None:
    """Have tasks and coroutines remember the lines that make them, and nothing reported.

    For ``rondel.hints``, for good, in the threads that :func:`watch_tasks` names.
    """
    global _remembering
    with _lock:
        _rondel._remember_tasks(True)
        _remembering = True
        _set_native_depth()
    _raise_depth()


def depth_is_ours() -> bool:
    """Whether the calling thread's coroutines remember lines for hints alone."""
    return not _watching and sys.get_coroutine_origin_tracking_depth() in (0, _thread.raised)


def watch_from_environment() -> None:
    """What ``RONDEL_WATCH_TASKS`` asks for: anything but nothing and 0 turns the watch on."""
    if os.environ.get("RONDEL_WATCH_TASKS", "0") not in ("", "0"):
        watch_tasks()


@contextlib.contextmanager
def tracking() -> Iterator[None]:
    """A loop's run: coroutines of its thread remember their line while tasks are watched."""
    if not _depth() or not _raise_depth():
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
    _rondel._trace_origins(deep if _debugged_loops else _depth())


def _depth() -> int:
    return _FRAMES if _remembering else int(_watching)


def _raise_depth() -> bool:
    """Make this thread's coroutines remember what is asked for; whether they did less before."""
    before = sys.get_coroutine_origin_tracking_depth()
    if before not in (0, _thread.raised) or before >= _depth():
        return False
    sys.set_coroutine_origin_tracking_depth(_depth())
    _thread.raised = _depth()
    return True


def _lower_depth() -> None:
    ours, _thread.raised = _thread.raised, 0
    if ours and sys.get_coroutine_origin_tracking_depth() == ours:
        sys.set_coroutine_origin_tracking_depth(0)
