"""``rondel.background``: tasks that nobody awaits and nobody loses.

asyncio keeps weak references to tasks (Python docs: ``asyncio.create_task``, the note "Save a
reference"), and tells of a failure only when the task is collected. A background task is kept until
it is done, and its failure is told one turn of the loop after it happened.

Invariant: the references to a loop's tasks hang on the loop itself, so that a loop which is dropped
with pending tasks is collected along with them, and asyncio reports each as it always does.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextvars import Context

__all__ = ["background"]

T = TypeVar("T")

_Tasks = set["asyncio.Task[Any]"]

# For loops that take no attributes.
_homeless: _Tasks = set()


def background(
    coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
) -> asyncio.Task[T]:
    """Run a coroutine in a task that nobody has to keep or to await.

    The task is kept alive until it is done. If it fails, the loop's exception handler is called one
    turn later, whether somebody awaits the task or not, with the keys ``message`` (which has the
    task's name), ``exception``, ``task`` and ``created_at`` (file, line and function of this
    call); by default that is logged. A cancelled task is not reported, and neither are
    ``KeyboardInterrupt`` and ``SystemExit``, which end the loop themselves.

    It works on every asyncio loop, and by the loop's task factory if it has one.

    Args:
        coro: the coroutine to run.
        name: the task's name; by default the loop chooses one.
        context: the ``contextvars.Context`` to run in; by default a copy of the present one.

    Returns:
        The task, to cancel it or to ask for its state.

    Raises:
        RuntimeError: no loop runs in this thread.
        TypeError: ``coro`` is no coroutine.
    """
    task = asyncio.get_running_loop().create_task(coro, name=name, context=context)
    caller = sys._getframe(1)
    created_at = f"{caller.f_code.co_filename}:{caller.f_lineno}, in {caller.f_code.co_name}"
    kept = _kept_by(task.get_loop())
    kept.add(task)
    task.add_done_callback(partial(_done, kept, created_at))
    return task


def _done(kept: _Tasks, created_at: str, task: asyncio.Task[Any]) -> None:
    kept.discard(task)
    if task.cancelled():
        return
    error = task.exception()
    if error is None or isinstance(error, (KeyboardInterrupt, SystemExit)):
        return
    context: dict[str, Any] = {
        "message": f"Background task {task.get_name()!r} failed",
        "exception": error,
        "task": task,
        "created_at": created_at,
    }
    # Debug mode, as in asyncio's own reports.
    stack = getattr(task, "_source_traceback", None)
    if stack:
        context["source_traceback"] = stack
    task.get_loop().call_exception_handler(context)


def _kept_by(loop: asyncio.AbstractEventLoop) -> _Tasks:
    """The loop's background tasks that are not done."""
    try:
        kept: _Tasks = loop._rondel_background  # type: ignore[attr-defined]
    except AttributeError:
        kept = set()
        try:
            loop._rondel_background = kept  # type: ignore[attr-defined]
        except AttributeError:
            return _homeless
    return kept
