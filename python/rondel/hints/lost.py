"""Work that got lost: coroutines, tasks, and what a failed ``gather`` leaves behind.

How each is noticed, all on the loop's thread or the thread that collects:

* the interpreter calls ``warnings._warn_unawaited_coroutine``; ours says the same, then the hint;
* ``BaseEventLoop.call_exception_handler``, which Rondel's loops inherit, hears asyncio's reports;
* ``asyncio.runners._cancel_all_tasks`` knows what was not over at the end of a run;
* ``gather``, whose outcome gets a callback; it reads ``_exception``, as ``exception()`` would make
  asyncio believe that somebody has seen it;
* at exit, tasks that still hold an exception that was not taken.
"""

import asyncio
import atexit
import functools
import gc
import os
import sys
import warnings
import weakref
from asyncio import base_events, runners
from collections.abc import Callable, Iterable
from types import CodeType, ModuleType
from typing import Any

from rondel import _rondel, _watch
from rondel.hints import fixes
from rondel.hints.report import tell
from rondel.hints.source import Place, is_users
from rondel.hints.texts import say

__all__ = ["enable"]

_Future = asyncio.Future[Any]

# What a failed gather has left to itself: where the gather was called, and its error in words. The
# error itself has frames, which may have the task.
_left_behind: weakref.WeakKeyDictionary[_Future, tuple[Place, str]] = weakref.WeakKeyDictionary()


_pid = os.getpid()


def enable() -> None:
    """Listen from now on."""
    warnings._warn_unawaited_coroutine = _unawaited  # type: ignore[attr-defined]
    _wrap(base_events.BaseEventLoop, "call_exception_handler", _after_reports)
    _wrap(runners, "_cancel_all_tasks", _before_the_end)
    _watch_gather()
    atexit.register(_at_exit)


def _wrap(owner: Any, name: str, wrapper: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(wrapper(original)))


def _safely(function: Callable[..., None]) -> Callable[..., None]:
    """A hint that can't be made must not break what goes on."""

    @functools.wraps(function)
    def call(*arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception:
            return  # whatever the program's objects raise, or an interpreter that ends

    return call


# ------------------------------------------------------------------------------- coroutines

_stock_warning = warnings._warn_unawaited_coroutine  # type: ignore[attr-defined]


def _unawaited(coro: Any) -> None:
    """The interpreter's hook. Where only hints want the origin, the message is as without them."""
    try:
        if _watch.depth_is_ours():
            name = f"coroutine '{coro.__qualname__}' was never awaited"
            warnings.warn(name, category=RuntimeWarning, stacklevel=2, source=coro)
        else:
            _stock_warning(coro)
    finally:
        _tell_unawaited(coro)


@_safely
def _tell_unawaited(coro: Any) -> None:
    name = coro.__name__
    place = _made_by_user(coro.cr_origin or ())
    if place is not None:
        tell("unawaited", place, say("unawaited", name=name), fixes.unawaited(place, name))
        return
    place = _definition(coro)
    if place is not None:
        fix = [say("unawaited.handed", name=name)]
        tell("unawaited", place, say("unawaited", name=name), fix)


def _made_by_user(origin: Iterable[tuple[str, int, str]]) -> Place | None:
    """The innermost line of the user's; None if it only started the loop that made the call."""
    for file, line, function in origin:
        if is_users(file):
            return Place(file, line, function)
        if _is_loop(file):
            return None
    return None


def _is_loop(file: str) -> bool:
    return "/asyncio/" in file or "/rondel/" in file or "/concurrent/" in file


def _definition(coro: Any) -> Place | None:
    code: CodeType | None = getattr(coro, "cr_code", None)
    if not isinstance(code, CodeType) or not is_users(code.co_filename):
        return None
    return Place(code.co_filename, code.co_firstlineno, "")


# -------------------------------------------------------------------------------------- tasks


def _after_reports(original: Callable[..., None]) -> Callable[..., None]:
    def call_exception_handler(self: Any, context: dict[str, Any]) -> None:
        original(self, context)
        _heard(context)

    return call_exception_handler


@_safely
def _heard(context: dict[str, Any]) -> None:
    message = context.get("message", "")
    future = context.get("task") or context.get("future")
    if message == "Task was destroyed but it is pending!":
        _tell_dropped(future, "dropped")
    elif "failed while nobody waited for it" in message:  # `--watch-tasks`, which is on as well
        _tell_untaken(future, context["exception"])
    elif message.endswith("exception was never retrieved"):
        error = context["exception"]
        if isinstance(future, asyncio.Task):
            _tell_untaken(future, error)
        elif message.startswith("_GatheringFuture"):
            _tell_gather_untaken(future, error)


def _tell_untaken(task: Any, error: BaseException) -> None:
    place = _origin(task)
    if place is None:
        return
    what = say("untaken", name=task.get_name(), coro=_runs(task), error=_with_place(error))
    tell("untaken", place, what, fixes.untaken(place))


def _tell_dropped(task: Any, kind: str) -> None:
    place = _origin(task)
    if place is None:
        return
    where = ""
    waits = _waits_at(task)
    if waits is not None:
        where = say("dropped.where", place=waits)
    what = say(kind, name=task.get_name(), coro=_runs(task), where=where)
    tell("dropped", place, what, fixes.dropped(place))


def _origin(task: Any) -> Place | None:
    """The line that created a task; else where its coroutine is defined."""
    made = _rondel._task_origin(task)
    if made is not None and is_users(made[0]):
        return Place(*made)
    return _definition(task.get_coro())


def _runs(task: Any) -> str:
    coro = task.get_coro()
    return f"{getattr(coro, '__qualname__', type(coro).__name__)}()"


def _short(error: BaseException) -> str:
    text = "".join(str(error).splitlines()[:1])
    name = type(error).__name__
    return f"{name}: {text[:80]}" if text else name


def _with_place(error: BaseException) -> str:
    """The error and the innermost line of the user's in its traceback."""
    found: Place | None = None
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if is_users(code.co_filename):
            found = Place(code.co_filename, traceback.tb_lineno, code.co_name)
        traceback = traceback.tb_next
    text = _short(error)
    return say("raised", error=text, place=found) if found is not None else text


def _waits_at(task: Any) -> Place | None:
    """The innermost line of the user's in a task's await chain."""
    found: Place | None = None
    coro = task.get_coro()
    for _ in range(100):
        frame = getattr(coro, "cr_frame", None)
        if frame is None:
            break
        if is_users(frame.f_code.co_filename):
            found = Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        coro = coro.cr_await
    return found


# -------------------------------------------------------------------------- the end of a run


def _before_the_end(original: Callable[..., None]) -> Callable[..., None]:
    def _cancel_all_tasks(loop: asyncio.AbstractEventLoop) -> None:
        _left_at_the_end(loop)
        original(loop)

    return _cancel_all_tasks


@_safely
def _left_at_the_end(loop: asyncio.AbstractEventLoop) -> None:
    """Tasks that a run cancels although nobody could have waited for them."""
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    of_gathers: dict[tuple[Place, str], list[Any]] = {}
    for task in tasks:
        if task in _left_behind:
            of_gathers.setdefault(_left_behind[task], []).append(task)
            continue
        place_made = _origin(task)
        if place_made is not None and fixes.drops(place_made):
            _tell_dropped(task, "cancelled")
    for (place, error), left in of_gathers.items():
        names = ", ".join(_runs(task) for task in left[:5]) + (", …" if len(left) > 5 else "")
        what = say("gather.running", error=error, names=names)
        tell("gather", place, what, fixes.gather(place))


@_safely
def _at_exit() -> None:
    """Tasks that failed, are still kept, and will not be asked any more."""
    if os.getpid() != _pid:
        return  # a fork of the program, with its tasks
    for found in gc.get_objects():
        # By its type: a proxy's `__class__` is the program's code.
        if issubclass(type(found), asyncio.Task) and found._log_traceback:
            error = found._exception
            if error is not None:
                _tell_untaken(found, error)


# ------------------------------------------------------------------------------------- gather


def _watch_gather() -> None:
    from rondel import tasks

    wrapped: dict[Any, Any] = {}
    for original in (tasks.NATIVE["gather"], asyncio.gather):
        if original not in wrapped:
            wrapped[original] = _watched(original)
    tasks.NATIVE["gather"] = wrapped[tasks.NATIVE["gather"]]
    for name, module in list(sys.modules.items()):
        ours = name == "rondel" or name == "asyncio" or name.startswith("asyncio.")
        if ours and isinstance(module, ModuleType):
            found = vars(module).get("gather")
            if found is not None and found in wrapped:
                vars(module)["gather"] = wrapped[found]


def _watched(original: Callable[..., _Future]) -> Callable[..., _Future]:
    @functools.wraps(original)
    def gather(*awaitables: Any, return_exceptions: bool = False) -> _Future:
        outcome = original(*awaitables, return_exceptions=return_exceptions)
        if len(awaitables) > 1 and not return_exceptions:
            frame = sys._getframe(1)
            code = frame.f_code
            if is_users(code.co_filename):
                place = Place(code.co_filename, frame.f_lineno, code.co_name)
                outcome.add_done_callback(functools.partial(_gathered, place))
        return outcome

    return gather


@_safely
def _gathered(place: Place, outcome: Any) -> None:
    error = outcome._exception
    if error is None or isinstance(error, asyncio.CancelledError):
        return
    for child in {id(child): child for child in outcome._children}.values():
        if not child.done():
            _left_behind[child] = (place, _short(error))
            child.add_done_callback(functools.partial(_sibling_done, place, _short(error)))
        elif child._exception is not error:  # in the same turn
            _sibling_done(place, _short(error), child)


@_safely
def _sibling_done(place: Place, error: str, child: Any) -> None:
    """An awaitable of a gather that had failed before is done as well."""
    second = child._exception
    if second is None or child.cancelled():
        return
    name = _runs(child) if isinstance(child, asyncio.Task) else repr(child)
    what = say("gather.later", error=error, name=name, second=_with_place(second))
    tell("gather", place, what, fixes.gather(place))


def _tell_gather_untaken(outcome: Any, error: BaseException) -> None:
    """A gather that nobody awaited has failed. Its place is that of one of its tasks."""
    for child in outcome._children:
        place = _origin(child) if isinstance(child, asyncio.Task) else None
        if place is not None and fixes.gather_call(place) is not None:
            what = say("gather.untaken", error=_short(error))
            tell("untaken", place, what, fixes.gather_untaken(place))
            return
