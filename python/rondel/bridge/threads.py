"""Which pools the bridge's threads come from.

* Thread-sensitive calls (and a server's sync requests) share one pool. A server sets it for its
  process (``--threads``); a program without one gets a pool when it first needs it.
* Other calls have a second pool. Were it the same, sync code that waits for async code that calls
  sync code could use up all threads and wait for ever.

Both are as large as asyncio's default executor unless they are set.
"""

import os
import threading
from collections.abc import Callable

from rondel._pool import Pin, PoolThread, ThreadPool

__all__ = [
    "any_busy",
    "bridge_pool",
    "free_pool",
    "late_pin",
    "only_pin",
    "request_pin",
    "serves_requests",
    "set_bridge_pool",
    "set_hold",
]

_lock = threading.Lock()
# Guarded by `_lock`.
_pool: ThreadPool | None = None
_free: ThreadPool | None = None
_only: Pin | None = None
_only_pid = 0
# Asked on a pin's thread after each call: see `ThreadPool.pin`.
_hold: Callable[[], bool] | None = None


def _usual() -> int:
    return min(32, (os.cpu_count() or 1) + 4)


def bridge_pool() -> ThreadPool:
    """The pool of thread-sensitive calls, made when it is first asked for."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPool(_usual(), "rondel-sync")
        return _pool


def free_pool() -> ThreadPool:
    """The pool of calls that any thread may make."""
    global _free
    with _lock:
        if _free is None:
            _free = ThreadPool(_usual(), "rondel-free")
        return _free


def set_bridge_pool(pool: ThreadPool | None) -> None:
    """Use this pool from now on; calls in flight stay where they are. None: make one when
    needed."""
    global _pool, _only
    with _lock:
        _pool = pool
        _only = None


def any_busy() -> bool:
    """Whether some thread of the bridge is at a call."""
    return any(pool is not None and pool.stats()["busy"] for pool in (_pool, _free))


def serves_requests(thread: threading.Thread) -> bool:
    """Whether requests have this thread, so that it is looked after when they end."""
    pool = _pool
    return pool is not None and isinstance(thread, PoolThread) and thread.pool is pool.native


def set_hold(hold: Callable[[], bool] | None) -> None:
    """Who says, after a call, whether the pin keeps its thread to itself (Django: a
    transaction)."""
    global _hold
    _hold = hold


def request_pin() -> Pin:
    """A pin for one thread-sensitive context (one request)."""
    return bridge_pool().pin(_hold)


def late_pin(before: Pin) -> Pin:
    """A pin for what outlives its context, on another thread than the context's."""
    return bridge_pool().pin(_hold, beside=before)


def only_pin() -> Pin:
    """The thread of all thread-sensitive calls outside of any context.

    asgiref has one thread for them in the whole process; so have we.
    """
    global _only, _only_pid
    pool = bridge_pool()
    with _lock:
        if _only is None or _only_pid != os.getpid():
            _only, _only_pid = pool.pin(), os.getpid()
        return _only
