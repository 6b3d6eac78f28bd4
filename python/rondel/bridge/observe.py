"""Who looks on while the bridge calls functions: the tax report, the watch over inline calls.

``calls`` asks ``current`` once per call; it is None unless somebody looks on, so that nobody pays
for what nobody reads.

Threads: observers are added and removed seldom and under a lock; ``current`` is replaced as a
whole.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["Observer", "add", "remove"]

Call = Callable[[], Any]


class Observer:
    """Looks on. As it stands it does nothing but let calls be made."""

    def inline(self, func: Callable[..., Any], call: Call) -> Any:
        """Make an inline call of ``func`` on the loop's thread, and return what it returns."""
        return call()

    def hop(self, func: Callable[..., Any], call: Call) -> Call:
        """A call of ``func`` is handed to a thread now; what to call there, in its context."""
        return call


class _All(Observer):
    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self.observers = observers

    def inline(self, func: Callable[..., Any], call: Call) -> Any:
        for observer in self.observers:
            call = partial(observer.inline, func, call)
        return call()

    def hop(self, func: Callable[..., Any], call: Call) -> Call:
        for observer in self.observers:
            call = observer.hop(func, call)
        return call


# Whom to tell of calls; None: nobody. Read as ``observe.current``, never imported by name.
current: Observer | None = None

_lock = threading.Lock()
_observers: tuple[Observer, ...] = ()


def _set(observers: tuple[Observer, ...]) -> None:
    global _observers, current
    _observers = observers
    first = observers[0] if observers else None
    current = _All(observers) if len(observers) > 1 else first


def add(observer: Observer) -> None:
    """Tell ``observer`` of calls from now on; once, however often it is added."""
    with _lock:
        if observer not in _observers:
            _set((*_observers, observer))


def remove(observer: Observer) -> None:
    """Tell it no longer."""
    with _lock:
        _set(tuple(other for other in _observers if other is not observer))
