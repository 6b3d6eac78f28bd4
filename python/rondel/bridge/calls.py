"""``SyncToAsync.__call__`` on native threads; ``waits`` has the other direction.

What a call does, in asgiref's order: choose a thread, copy the context, run the function there
(through ``thread_handler``, which subclasses override), carry the context's changes back. What is
different: the thread is one of a pool's for as long as the request lasts, not a new one per
request; a call takes one hand-over each way, without ``concurrent.futures`` objects and without
``shield``; and a function of the inline list needs no thread at all.

asgiref's releases from 3.8 to 3.13 differ in details; each is asked for what it has.
"""

import asyncio
import contextvars
import functools
import sys
from collections.abc import Callable, Coroutine, Iterator
from types import ModuleType
from typing import Any

from rondel._pool import Pin, ThreadPool
from rondel.bridge import deadlock, observe
from rondel.bridge.inline import NEEDS_THREAD, attempt
from rondel.bridge.threads import free_pool, late_pin, only_pin, request_pin
from rondel.bridge.waits import GateExecutor, sync_wait
from rondel.loop import EventLoop
from rondel.tasks import NATIVE

__all__ = ["replacements"]

sleep = NATIVE["sleep"]


def replacements(sync: ModuleType) -> Iterator[tuple[type, str, Any]]:
    """What to replace in ``asgiref.sync``: class, name, replacement."""
    yield sync.SyncToAsync, "__call__", _sync_call(sync)
    yield sync.AsyncToSync, "__call__", sync_wait(sync)
    yield sync.ThreadSensitiveContext, "__aexit__", _context_exit(sync)


def _sync_call(sync: ModuleType) -> Callable[..., Coroutine[Any, Any, Any]]:
    sync_to_async, async_to_sync = sync.SyncToAsync, sync.AsyncToSync
    original = vars(sync_to_async)["__call__"]
    restore = sync._restore_context
    rehomes = hasattr(sync, "_rehome")
    sensitive_context = sync_to_async.thread_sensitive_context
    deadlock_context = sync_to_async.deadlock_context
    executors = async_to_sync.executors
    loop_executors = async_to_sync.loop_thread_executors
    context_executors = sync_to_async.context_to_thread_executor
    stock_single = sync_to_async.single_thread_executor
    copy_context = contextvars.copy_context

    def choose(call: Any, loop: EventLoop) -> Any:
        """The executor, as asgiref chooses it; where it makes threads, ours."""
        if not call._thread_sensitive:
            return call._executor or _default(loop)
        # Somebody above waits in a sync frame: its thread is the one.
        current = getattr(executors, "current", None)
        if current:
            return current
        context = sensitive_context.get(None)
        if context:
            if getattr(context, "_exited", False):
                raise RuntimeError(
                    "ThreadSensitiveContext has exited. Tasks created inside a context with an "
                    "executor must finish before it exits."
                )
            found = context_executors.get(context)
            if found is None:
                before = getattr(context, "_rondel_pin", None)
                found = request_pin() if before is None else late_pin(before)
                context_executors[context] = found
            return found
        if loop in loop_executors:
            return loop_executors[loop]
        if deadlock_context.get(False):
            raise RuntimeError("Single thread executor already being used, would deadlock")
        deadlock_context.set(True)
        if call.single_thread_executor is not stock_single:
            return call.single_thread_executor  # a program's own
        return only_pin()

    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        __traceback_hide__ = True
        func = self.func
        result = attempt(func, args, kwargs)
        if result is not NEEDS_THREAD:
            return result
        loop = asyncio.get_running_loop()
        if not isinstance(loop, EventLoop):
            return await original(self, *args, **kwargs)
        executor = choose(self, loop)
        given = getattr(self, "context", None)
        context = copy_context() if given is None else given
        child: Callable[[], Any] = functools.partial(func, *args, **kwargs)
        watcher = observe.current
        if watcher is not None:
            child = watcher.hop(func, child)
        enter = functools.partial(_enter, context, restore) if rehomes else context.run
        nested: list[asyncio.Task[Any]] = []
        work = functools.partial(self.thread_handler, loop, sys.exc_info(), nested, enter, child)
        # Asked before the call: it may soon be this one that waits there.
        thread = executor.waiting_thread() if isinstance(executor, Pin) else None
        try:
            if isinstance(executor, (Pin, ThreadPool, GateExecutor)):
                hop = executor.call(work, func)
            else:
                hop = Borrowed(loop.run_in_executor(executor, work))
            watch = deadlock.watch(loop, thread, func) if thread else None
            try:
                if hop.done:
                    # As quick as that; but whoever calls counts on the loop's going round.
                    await sleep(0)
                return await hop.wait()
            except asyncio.CancelledError:
                if await _goes_on(hop, nested):
                    raise
            finally:
                if watch is not None:
                    watch.cancel()
            return await hop.wait()
        finally:
            if given is None:
                restore(context)
            deadlock_context.set(False)

    call.__name__, call.__qualname__ = "__call__", "SyncToAsync.__call__"
    call.__code__ = call.__code__.replace(co_name="__call__", co_qualname=call.__qualname__)
    return call


def _enter(
    context: contextvars.Context, restore: Callable[..., None], child: Callable[[], Any]
) -> Any:
    """Run ``child`` in the context, whose ``Local`` data belongs to this thread now."""

    def run() -> Any:
        restore(context)
        return child()

    return context.run(run)


async def _goes_on(hop: Any, nested: list[asyncio.Task[Any]]) -> bool:
    """The task is cancelled while the call is under way: so is the async code it waits for, if any.

    As in asgiref, the cancel goes on unless that code ended all the same: then the call's result
    counts.
    """
    if nested:
        task = nested[0]
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        else:
            return bool(hop.done)
    hop.cancel()
    return True


class Borrowed:
    """A call on somebody else's executor, as a ``Hop``."""

    __slots__ = ("_future",)

    def __init__(self, future: "asyncio.Future[Any]") -> None:
        self._future = future

    def wait(self) -> "asyncio.Future[Any]":
        return asyncio.shield(self._future)

    def cancel(self) -> bool:
        return self._future.cancel()

    @property
    def done(self) -> bool:
        return self._future.done()


def _default(loop: EventLoop) -> Any:
    """The loop's default executor: the program's own if it has set one, else a pool for all
    loops."""
    own = getattr(loop, "_default_executor", None)
    return free_pool() if own is None else own


def _context_exit(sync: ModuleType) -> Callable[..., Coroutine[Any, Any, None]]:
    original = vars(sync.ThreadSensitiveContext)["__aexit__"]
    executors = sync.SyncToAsync.context_to_thread_executor

    async def leave(self: Any, exc: Any, value: Any, tb: Any) -> None:
        # A pin needs no thread to be joined; without it asgiref's own has nothing to shut down.
        pin = executors.get(self) if self.token else None
        if isinstance(pin, Pin) and getattr(self, "_executor", None) is None:
            del executors[self]
            # Tasks that outlive the context get another thread: this one may be somebody's by then.
            self._rondel_pin = pin
        await original(self, exc, value, tb)

    leave.__name__, leave.__qualname__ = "__aexit__", "ThreadSensitiveContext.__aexit__"
    return leave
