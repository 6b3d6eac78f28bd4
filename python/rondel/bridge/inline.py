"""Functions that ``sync_to_async`` calls on the loop, as they neither block nor query.

A hop to a thread and back costs as much as many such functions together. Who is in the list is
decided by hand: Django's own in ``rondel.django.inlining``, a project's by ``@inline`` or a
setting. A function may be listed with a condition, asked with the call's arguments each time.

A function that turns out to need a thread after all (``expelled``) is on the list no more, for the
rest of the process; nothing lists it again.

Threads: reads are of one dictionary, writes replace single items; no lock is needed under the GIL.
"""

import logging
import traceback
from collections.abc import Callable
from functools import partial
from inspect import iscoroutinefunction
from types import MethodType
from typing import Any, TypeVar, overload

from rondel.bridge import observe

__all__ = [
    "NEEDS_THREAD",
    "Condition",
    "allow",
    "ask_for_thread",
    "attempt",
    "call_here",
    "expelled",
    "forbid",
    "inline",
    "place_of",
    "runs_inline",
    "turn_off",
]

logger = logging.getLogger("rondel.server.inline")

F = TypeVar("F", bound=Callable[..., Any])
Condition = Callable[..., bool]

# What `attempt` and `call_here` return if the call is to be made on a thread.
NEEDS_THREAD: Any = object()

# Functions (not bound methods), and their condition: called as they are, it says whether this call
# may run inline. None: always.
_listed: dict[Callable[..., Any], Condition | None] = {}
# Nothing is listed any more.
_off = False
# Functions that may never be in it again.
_forbidden: set[Callable[..., Any]] = set()

# Exceptions by which an inline call says that it should have been made on a thread.
_asking: tuple[type[Exception], ...] = ()


def allow(func: Callable[..., Any], when: Condition | None = None) -> None:
    """Let ``func`` run inline, always or for calls for which ``when(*args, **kwargs)`` is true.

    A method is given as the function of its class; ``when`` is called with its instance first. An
    override in a subclass is another function, and not listed. One that was forbidden stays so.
    Raises TypeError for what is not callable and for a coroutine function.
    """
    if not callable(func):
        raise TypeError(f"inline() decorates functions, got {func!r}")
    if iscoroutinefunction(func):
        raise TypeError(f"{place_of(func)} is a coroutine function: it needs no thread anyway")
    if func not in _forbidden and not _off:
        _listed[func] = when


def turn_off() -> None:
    """Have no list at all for the rest of the process."""
    global _off
    _off = True
    _listed.clear()


def forbid(func: Callable[..., Any]) -> None:
    """Take ``func`` out of the list for the rest of the process."""
    plain = _plain(func)
    _forbidden.add(plain)
    _listed.pop(plain, None)


def ask_for_thread(*errors: type[Exception]) -> None:
    """By these exceptions an inline call says that it should have been made on a thread."""
    global _asking
    _asking = errors


def expelled(func: Callable[..., Any], error: Exception) -> bool:
    """Whether the inline call that raised ``error`` has to be made again, on a thread.

    If so, ``func`` is forbidden, and the stack goes to the log.
    """
    if not isinstance(error, _asking):
        return False
    forbid(func)
    stack = "".join(traceback.format_exception(error)).rstrip()
    logger.warning(
        "%s ran inline on the event loop, but needs a thread: it gets one, now and from here on.\n"
        "%s",
        place_of(func),
        stack,
    )
    return True


def place_of(func: Callable[..., Any]) -> str:
    """What a function is called, and where it is."""
    plain: Any = _plain(func)
    name = getattr(plain, "__qualname__", None) or repr(plain)
    code = getattr(plain, "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"{getattr(plain, '__module__', '?')}.{name}{where}"


@overload
def inline(func: F, /) -> F: ...
@overload
def inline(*, when: Condition) -> Callable[[F], F]: ...
def inline(func: F | None = None, /, *, when: Condition | None = None) -> Any:
    """Decorator: ``sync_to_async`` may call this function on the event loop.

    For functions that neither block (no I/O, no locks, no long computation) nor touch the database.
    With ``when``, only calls for which ``when(*args, **kwargs)`` is true. Raises TypeError for what
    is not callable and for a coroutine function, which ``sync_to_async`` refuses.
    """
    if func is None:

        def decorate(decorated: F) -> F:
            allow(decorated, when)
            return decorated

        return decorate
    allow(func, when)
    return func


def _plain(func: Callable[..., Any]) -> Callable[..., Any]:
    return func.__func__ if type(func) is MethodType else func


def runs_inline(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether this call may run on the loop."""
    try:
        if type(func) is MethodType:
            when = _listed[func.__func__]
            return when is None or when(func.__self__, *args, **kwargs)
        when = _listed[func]
        return when is None or when(*args, **kwargs)
    except (KeyError, TypeError):
        # Not listed, or not hashable.
        return False


def attempt(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``func`` returns if it is listed; ``NEEDS_THREAD`` if this call belongs on a thread."""
    return call_here(func, args, kwargs) if runs_inline(func, args, kwargs) else NEEDS_THREAD


def call_here(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a listed function returns; ``NEEDS_THREAD`` if it is to be called again, on a thread."""
    watcher = observe.current
    try:
        if watcher is None:
            return func(*args, **kwargs)
        return watcher.inline(func, partial(func, *args, **kwargs))
    except Exception as error:
        if not expelled(func, error):
            raise
    return NEEDS_THREAD
