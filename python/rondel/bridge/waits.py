"""``AsyncToSync.__call__`` at a native gate: sync code that waits for async code.

    the waiting thread                              the loop
    ──────────────────                              ────────
    make the coroutine, hand it over ─────────────► a task runs it
    wait at the gate, without the GIL
        run what it calls by sync_to_async ◄─────── gate.call
    return, or raise, what it gave ◄─────────────── gate.close

Where no loop waits for this thread (a script, a WSGI server, ``force_new_loop``) asgiref's own runs
the coroutine on a new loop in a new thread.

Bounds: the wait ends when the task does, or with a RuntimeError when its loop is closed or stopped
for good. A wait that lasts while the loop in turn waits for this thread is reported with both
stacks.
"""

import asyncio
import contextvars
import inspect
import os
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from types import ModuleType
from typing import Any

from rondel import _rondel
from rondel._pool import _run
from rondel.bridge import deadlock
from rondel.loop import EventLoop

__all__ = ["GateExecutor", "sync_wait"]

# Seconds between two looks whether the loop still lives.
_LOOK = 1.0


class GateExecutor(Executor):
    """Runs calls on the thread that waits at a gate; stands for asgiref's CurrentThreadExecutor."""

    def __init__(self, outer: Any) -> None:
        self._gate = _rondel.gate()
        self._outer = outer
        self._thread = threading.current_thread()
        # While it waits: what it waits for, for reports.
        self.awaited: object = None

    def _refuse(self) -> RuntimeError:
        return RuntimeError("CurrentThreadExecutor already quit or is broken")

    def _check_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("You cannot submit onto CurrentThreadExecutor from its own thread")

    def call(self, func: Callable[[], Any], about: object = None) -> Any:
        """Have the waiting thread call it, or the next one out that still waits; the ``Hop``."""
        self._check_thread()
        hop = self._gate.call(func, about)
        if hop is not None:
            return hop
        if isinstance(self._outer, GateExecutor):
            return self._outer.call(func, about)
        if self._outer is None:
            raise self._refuse()
        # asgiref's own kind, from a thread of a stock loop.
        from rondel.bridge.calls import Borrowed

        return Borrowed(asyncio.wrap_future(self._outer.submit(func)))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """The same from any loop; see ``Executor.submit``."""
        self._check_thread()
        future: Future[Any] = Future()
        if self._gate.post(partial(_run, future, partial(fn, *args, **kwargs))):
            return future
        if self._outer is None:
            raise self._refuse()
        submitted: Future[Any] = self._outer.submit(fn, *args, **kwargs)
        return submitted

    def wait_for(self, outcome: "_Outcome", loop: asyncio.AbstractEventLoop) -> None:
        """Make calls until the outcome is there. Raises RuntimeError if the loop is gone."""
        self.awaited = outcome
        with deadlock.waiting(self):
            while not self._gate.run(_LOOK):
                if loop.is_closed():
                    self._gate.close()
                    raise RuntimeError(
                        "the event loop was closed before the async code that async_to_sync "
                        "waits for was done"
                    )

    def close(self) -> None:
        self._gate.close()


class _Outcome:
    """What ``main_wrap`` tells; takes the place of its ``concurrent.futures.Future``."""

    __slots__ = ("_error", "_executor", "_value")

    def __init__(self, executor: GateExecutor) -> None:
        self._executor = executor
        self._error: BaseException | None = None
        self._value: Any = None

    def set_result(self, value: Any) -> None:
        self._value = value
        self._executor.close()

    def set_exception(self, error: BaseException) -> None:
        self._error = error
        self._executor.close()

    def take(self) -> Any:
        error = self._error
        if error is not None:
            try:
                raise error
            finally:
                # The exception's traceback has this frame.
                self._error = None
                del error
        return self._value


def sync_wait(sync: ModuleType) -> Callable[..., Any]:
    """``AsyncToSync.__call__`` for this asgiref."""
    async_to_sync, sync_to_async = sync.AsyncToSync, sync.SyncToAsync
    original = vars(async_to_sync)["__call__"]
    restore = sync._restore_context
    executors = async_to_sync.executors
    local = sync_to_async.threadlocal
    copy_context = contextvars.copy_context
    # Who looks at asgiref's attribute finds what asgiref would have put there.
    gated = type("GateExecutor", (GateExecutor, sync.CurrentThreadExecutor), {})
    # asgiref until 3.9.0 hands the arguments on, later ones the coroutine.
    takes_coroutine = "awaitable" in inspect.signature(async_to_sync.main_wrap).parameters

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        __traceback_hide__ = True
        loop = None
        if not self.force_new_loop and getattr(local, "main_event_loop_pid", None) == os.getpid():
            loop = getattr(local, "main_event_loop", None)
        usable = isinstance(loop, EventLoop) and loop.is_running()
        # Before 3.12 asgiref notes the loop where the wrapper is made, and runs there.
        if not usable or getattr(self, "main_event_loop", None) is not None or _loop_runs_here():
            return original(self, *args, **kwargs)
        assert isinstance(loop, EventLoop)
        outer = getattr(executors, "current", None)
        executors.current = executor = gated(outer)
        context = [copy_context()]
        outcome = _Outcome(executor)
        task_context = getattr(local, "task_context", None)
        try:
            if takes_coroutine:
                awaitable = self.awaitable(*args, **kwargs)
                wrapped = self.main_wrap(outcome, sys.exc_info(), task_context, context, awaitable)
            else:
                awaitable = None
                wrapped = self.main_wrap(
                    outcome, sys.exc_info(), task_context, context, *args, **kwargs
                )
            try:
                loop.call_soon_threadsafe(_begin, loop, wrapped, _rondel._request_key())
            except RuntimeError:
                # Closed in this moment: as if there had been none.
                _never_mind(wrapped, awaitable)
                return original(self, *args, **kwargs)
            executor.wait_for(outcome, loop)
        finally:
            restore(context[0])
            executors.current = outer
        return outcome.take()

    call.__name__, call.__qualname__ = "__call__", "AsyncToSync.__call__"
    call.__code__ = call.__code__.replace(co_name="__call__", co_qualname=call.__qualname__)
    return call


def _begin(loop: EventLoop, coroutine: Any, request: int) -> None:
    """Run it on the loop, as a task of the request that waits for it."""
    _rondel._belongs(loop.create_task(coroutine), request)


def _loop_runs_here() -> bool:
    return asyncio._get_running_loop() is not None


def _never_mind(*coroutines: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for coroutine in coroutines:
            if hasattr(coroutine, "close"):
                coroutine.close()
