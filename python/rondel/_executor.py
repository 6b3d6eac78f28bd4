"""The loop's default executor: what ``run_in_executor(None, ...)`` and ``to_thread`` run on.

``LoopExecutor`` is a ``concurrent.futures.ThreadPoolExecutor`` for those who ask for it
(``loop._default_executor``, ``submit``, ``map``, ``shutdown``). The loop's own calls go past all
that: native code hands them to the pool and takes what they give (``pool/call.rs``).

The threads differ from those of ``concurrent.futures`` at the interpreter's exit alone: calls that
were submitted are waited for, but for ``EXIT_SECONDS`` at most; what is still running then is
reported, and ends with the process.
"""

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from rondel import _rondel
from rondel._pool import _run, show_name

__all__ = ["EXIT_SECONDS", "LoopExecutor"]

P = ParamSpec("P")
T = TypeVar("T")

# How long the interpreter's exit waits for calls that go on; the deadline that asyncio.run() has
# from 3.12 on (asyncio.constants.THREAD_JOIN_TIMEOUT). Programs may set it.
EXIT_SECONDS = 300.0

_living: "weakref.WeakSet[LoopExecutor]" = weakref.WeakSet()


def _call(
    worker: _rondel.Worker,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
) -> None:
    # As concurrent.futures' work item: a frame of its own, which the exception's traceback keeps,
    # and which must not keep what the call was given.
    try:
        value = func(*args, **kwargs) if kwargs else func(*args)
    except BaseException as error:
        worker.failed(error)
        del worker, func, args, kwargs
    else:
        worker.done(value)


def _serve(native: "_rondel.ThreadPool", seat: int) -> None:
    # In Python, so that no native frame lies beneath the program's function: see `pool/call.rs`.
    worker = native.worker(seat)
    while True:
        call = worker.next()
        if call is None:
            return
        _call(worker, *call)
        del call


class _Thread(threading.Thread):
    """A thread of a ``LoopExecutor``; the interpreter leaves it to us at its exit."""

    def run(self) -> None:
        # Started as a daemon, which the interpreter does not join: we do, with a deadline. To the
        # program it is none, and threads that it starts are none either: they inherit this.
        self._daemonic = False
        show_name(self.name)
        super().run()


class _Queue:
    """``_work_queue``, of which programs ask for its length."""

    def __init__(self, executor: "LoopExecutor") -> None:
        self._executor = executor

    def qsize(self) -> int:
        return self._executor._native_pool.stats()["queued"]

    def empty(self) -> bool:
        return not self.qsize()


class LoopExecutor(ThreadPoolExecutor):
    """At most ``max_workers`` threads, by default as many as ``ThreadPoolExecutor`` has."""

    def __init__(self, loop: Any, max_workers: int | None = None) -> None:
        super().__init__(max_workers, thread_name_prefix="asyncio")
        self._work_queue = _Queue(self)  # type: ignore[assignment]
        self._loop = weakref.ref(loop)
        self._start_over()
        _living.add(self)

    def _start_over(self) -> None:
        """Begin without threads: at first, and in a forked child, which has none of them."""
        self._threads: set[threading.Thread] = set()
        mine = weakref.ref(self)

        def start(seat: int) -> None:
            executor = mine()
            if executor is None:
                raise RuntimeError("the executor is gone")
            executor._start(seat)

        self._native_pool = _rondel.thread_pool(self._max_workers, start)

    def _start(self, seat: int) -> None:
        thread = _Thread(
            target=_serve,
            args=(self._native_pool, seat),
            name=f"{self._thread_name_prefix}_{seat}",
            daemon=True,
        )
        thread.start()
        self._threads.add(thread)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """See ``concurrent.futures.Executor.submit``."""
        future: Future[T] = Future()
        self._native_pool.submit(_run, (future, partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See ``concurrent.futures.Executor.shutdown``."""
        self._shutdown = True
        if cancel_futures:
            for _func, (future, _work) in self._native_pool.withdraw():
                future.cancel()
        self._native_pool.close()
        if wait:
            for thread in list(self._threads):
                thread.join()

    def __del__(self) -> None:
        # Nobody can end its threads any more.
        native = getattr(self, "_native_pool", None)
        if native is not None:
            native.close()


def _end_all() -> None:
    executors = list(_living)
    for executor in executors:
        executor.shutdown(wait=False)
    deadline = time.monotonic() + EXIT_SECONDS
    # Those of executors that were dropped as well.
    threads = [thread for thread in threading.enumerate() if isinstance(thread, _Thread)]
    try:
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    finally:
        left = [thread for thread in threads if thread.is_alive()]
        if left:
            _report(left, sum(executor._work_queue.qsize() for executor in executors))


def _report(threads: Sequence[threading.Thread], queued: int) -> None:
    """Say what the process's exit cuts off."""
    frames = sys._current_frames()
    lines = [
        f"rondel: {len(threads)} call(s) of to_thread() or run_in_executor() have not ended, "
        f"{queued} not begun; the process ends without them:"
    ]
    for thread in threads:
        frame = frames.get(thread.ident or 0)
        place = "" if frame is None else f" in {frame.f_code.co_qualname} "
        place += "" if frame is None else f"({frame.f_code.co_filename}:{frame.f_lineno})"
        lines.append(f"  {thread.name}{place}")
    print("\n".join(lines), file=sys.stderr, flush=True)


def _forked() -> None:
    for executor in list(_living):
        if executor._shutdown:
            executor._threads = set()
            continue
        executor._start_over()
        loop = executor._loop()
        if loop is not None and loop._default_executor is executor:
            loop._default_executor = executor


# Private, and what concurrent.futures uses: it runs before the interpreter joins threads.
threading._register_atexit(_end_all)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_forked)
