"""asyncio's locks with native hand-offs (Python docs: *Synchronization Primitives*).

Each class derives from a native base and from asyncio's class, so ``isinstance`` and subclasses
written for asyncio's hold. Constructors, ``repr()`` and what is rare are asyncio's own methods, of
the Python that runs; they work on the same fields as the native ones.

``rondel.locks`` offers all of them beside asyncio's other names.
"""

from __future__ import annotations

import asyncio
from typing import Any

from rondel import _rondel

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "Semaphore"]


class Copied:
    """Copying and pickling: the native fields belong to the state, as ``__dict__`` does.

    asyncio's locks are plain Python objects, which ``copy.copy()`` and ``pickle`` take as they are.
    """

    _fields: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.update((name, getattr(self, name)) for name in self._fields)
        return state

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Before protocol 2 pickle asks the base for the state, which a native one has not.
        return super().__reduce_ex__(max(protocol, 2))

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


class Lock(Copied, _rondel.LockBase, asyncio.Lock):  # type: ignore[misc]
    """A mutual exclusion lock for tasks; fair: first come, first served (``asyncio.Lock``)."""

    __module__ = "rondel.locks"
    _fields = ("_locked", "_waiters", "_loop")


class Event(Copied, _rondel.EventBase, asyncio.Event):  # type: ignore[misc]
    """A flag that tasks can wait for (``asyncio.Event``)."""

    __module__ = "rondel.locks"
    _fields = ("_value", "_waiters", "_loop")


class Semaphore(Copied, _rondel.SemaphoreBase, asyncio.Semaphore):  # type: ignore[misc]
    """A counter that tasks take from and give back to (``asyncio.Semaphore``).

    ``value`` (an int, 1 by default): how many may hold it at once. ValueError if it is negative.
    """

    __module__ = "rondel.locks"
    _fields = ("_value", "_waiters", "_loop")


class BoundedSemaphore(asyncio.BoundedSemaphore, Semaphore):  # type: ignore[misc]
    """A semaphore whose ``release()`` raises ValueError above the initial value
    (``asyncio.BoundedSemaphore``).
    """

    __module__ = "rondel.locks"


class Condition(Copied, _rondel.ConditionBase, asyncio.Condition):  # type: ignore[misc]
    """A lock and a queue of those that wait to be notified (``asyncio.Condition``).

    ``lock`` (an ``asyncio.Lock``; a new native one by default).
    """

    __module__ = "rondel.locks"
    _fields = ("_lock", "_waiters", "_loop")

    def __init__(self, lock: asyncio.Lock | None = None) -> None:
        super().__init__(Lock() if lock is None else lock)

    def __getstate__(self) -> dict[str, Any]:
        # The methods of a native lock are derived from it; a copy's are those of its own lock.
        return super().__getstate__() | self._exports()


class Barrier(Copied, _rondel.BarrierBase, asyncio.Barrier):  # type: ignore[misc]
    """A point that a number of tasks reach together (``asyncio.Barrier``).

    ``parties`` (an int): how many. ValueError if it is less than one.
    """

    __module__ = "rondel.locks"
    _fields = ("_cond", "_parties", "_state", "_count")

    def __init__(self, parties: int) -> None:
        super().__init__(parties)
        self._cond = Condition()


_rondel._adopt_locks(Lock, Event, Semaphore, Condition, Barrier)
