"""Threads for blocking calls: ``ThreadPool`` and ``Pin``, over the native pool.

The threads are ordinary ``threading.Thread`` objects that live as long as the pool; between calls
they wait in native code. At the interpreter's exit they are ended as those of
``concurrent.futures`` are: what was submitted is still run, then they are joined.

Both classes are executors (``concurrent.futures.Executor``): ``loop.run_in_executor(pin, f)`` works
on any loop. On a Rondel loop ``call`` is the short way.
"""

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

from rondel import _rondel
from rondel.bridge import deadlock

__all__ = ["Pin", "ThreadPool"]

P = ParamSpec("P")
T = TypeVar("T")

# Pools that may have threads: ended before the interpreter is.
_living: "weakref.WeakSet[ThreadPool]" = weakref.WeakSet()


def _run(future: "Future[Any]", work: Callable[[], Any]) -> None:
    """What ``concurrent.futures`` does with a work item."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
        # The frame and the exception's traceback refer to each other.
        del future
    else:
        future.set_result(result)


def show_name(name: str) -> None:
    """Have the system list the calling thread under ``name`` (``top -H``, ``rondel top``).

    Its first 15 bytes, as Python itself does from 3.14 on. Where that cannot be, it is listed under
    the process's.
    """
    if sys.version_info >= (3, 14):
        return
    with contextlib.suppress(OSError), open("/proc/thread-self/comm", "wb", buffering=0) as file:
        file.write(name.encode(errors="replace")[:15])


class PoolThread(threading.Thread):
    """A thread of a pool."""

    # The pool's native half.
    pool: "_rondel.ThreadPool"

    def run(self) -> None:
        show_name(self.name)
        super().run()


def _work(native: "_rondel.ThreadPool", seat: int, at_end: list[Callable[[], object]]) -> None:
    try:
        native.work(seat)
    finally:
        for func in at_end:
            func()


class ThreadPool(Executor):
    """At most ``limit`` long-lived threads, named ``name-0``, ``name-1`` ...

    Raises ValueError for a limit below 1.
    """

    def __init__(self, limit: int, name: str = "rondel") -> None:
        self._limit = limit
        self._name = name
        self._closed = False
        # Called on each thread before it ends.
        self.at_thread_end: list[Callable[[], object]] = []
        self._start_over()
        _living.add(self)

    def _start_over(self) -> None:
        """Begin without threads (at first, and in a forked child, which has none of them)."""
        self._threads: dict[int, threading.Thread] = {}
        mine = weakref.ref(self)

        def start(seat: int) -> None:
            pool = mine()
            if pool is None:
                raise RuntimeError("the pool is gone")
            pool._start(seat)

        self.native = _rondel.thread_pool(self._limit, start)

    def _start(self, seat: int) -> None:
        # Not a daemon: like those of concurrent.futures, it is joined at exit (`_end_all`), and a
        # daemon could be stopped in the middle of a call.
        thread = PoolThread(
            target=_work,
            args=(self.native, seat, self.at_thread_end),
            name=f"{self._name}-{seat}",
            daemon=False,
        )
        thread.pool = self.native
        thread.start()
        self._threads[seat] = thread

    def call(self, func: Callable[[], T], about: object = None) -> "_rondel.Hop[T]":
        """Have some thread call ``func``; from the running Rondel loop's thread.

        ``about`` is what the inspector shows as called, if that is another function. Raises
        RuntimeError without such a loop, or when the pool is closed.
        """
        return self.native.call(func, about)

    def post(self, func: Callable[[], object]) -> None:
        """Have some thread call ``func``; what it raises is reported as unraisable."""
        self.native.post(func)

    def pin(self, hold: Callable[[], bool] | None = None, *, beside: "Pin | None" = None) -> "Pin":
        """Calls that belong on one thread, if possible another one than ``beside`` has.

        ``hold`` is asked on that thread after each of them whether nobody else's calls may run
        there until the next one.
        """
        other = None if beside is None else beside.native
        return Pin(self.native.pin(hold, other), self)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """See ``concurrent.futures.Executor.submit``."""
        future: Future[T] = Future()
        self.native.post(partial(_run, future, partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse further calls; with ``wait``, return when those submitted have run."""
        self._closed = True
        self.native.close()
        if wait:
            for thread in list(self._threads.values()):
                # A call of its own that ends the pool cannot wait for itself.
                if thread is not threading.current_thread():
                    thread.join()

    def __del__(self) -> None:
        # Nobody can end its threads any more, and they would keep the interpreter from ending.
        native = getattr(self, "native", None)
        if native is not None:
            native.close()

    def stats(self) -> dict[str, int]:
        """``limit``, ``threads``, ``busy``, ``queued``, ``wanted``: counts of threads and calls."""
        return self.native.stats()


class Pin(Executor):
    """Calls that run on one thread of a pool, in their order. Dropped, it lets the thread go."""

    def __init__(self, native: _rondel.Pin, pool: ThreadPool) -> None:
        self.native = native
        self._pool = pool

    @property
    def thread(self) -> threading.Thread | None:
        """Its thread, once it was used."""
        seat = self.native.thread
        return None if seat is None else self._pool._threads.get(seat)

    def waiting_thread(self) -> threading.Thread | None:
        """Its thread, if that waits for async code (``async_to_sync``) at present."""
        if not deadlock.anybody():
            return None
        thread = self.thread
        return thread if thread is not None and deadlock.is_waiting(thread.ident) else None

    def call(self, func: Callable[[], T], about: object = None) -> "_rondel.Hop[T]":
        """As ``ThreadPool.call``, on the pin's thread."""
        return self.native.call(func, about)

    def post(self, func: Callable[[], object]) -> None:
        """As ``ThreadPool.post``, on the pin's thread."""
        self.native.post(func)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """See ``concurrent.futures.Executor.submit``."""
        future: Future[T] = Future()
        self.native.post(partial(_run, future, partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing to do: the thread is the pool's."""


def _end_all() -> None:
    for pool in list(_living):
        pool.shutdown(wait=True)


def _forked() -> None:
    for pool in list(_living):
        if not pool._closed:
            pool._start_over()


# Private, and what concurrent.futures uses: it runs before the interpreter joins threads, while
# an `atexit` function would come too late. Without it, threads that wait would hold up the exit.
threading._register_atexit(_end_all)  # type: ignore[attr-defined]
with contextlib.suppress(AttributeError):
    os.register_at_fork(after_in_child=_forked)
