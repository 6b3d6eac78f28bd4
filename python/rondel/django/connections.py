"""Databases, per thread: checked where they are used, closed where they are owned.

Django closes connections that are broken or too old when a request starts and when it is finished,
in the thread that deals with the signal. Here connections live in a pool's threads, so it is done
there: before a request's first call on its thread, and after its last one. A request that calls no
sync code touches no connection and needs no thread for that.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any

from django.db import close_old_connections, reset_queries

from rondel._pool import Pin
from rondel.django import leaks
from rondel.loop import EventLoop

__all__ = ["DatabasePin"]

logger = logging.getLogger("rondel.server")


def _begin(work: Callable[[], Any]) -> Any:
    reset_queries()
    close_old_connections()
    return work()


def _end(_pin: Any, scope: MutableMapping[str, Any]) -> None:
    try:
        leaks.end_request(scope)
        close_old_connections()
    except Exception:
        # Nobody waits for it.
        logger.exception("cleaning up behind %s failed", scope.get("path"))


class DatabasePin(Pin):
    """A request's pin, chosen when it is first used; its thread's connections are looked after."""

    def __init__(self, make: Callable[[], Pin]) -> None:
        self._make = make
        self._begun = False

    @property
    def thread(self) -> threading.Thread | None:
        """See ``Pin.thread``; none before the first use."""
        return super().thread if self._begun else None

    def _first(self, work: Callable[[], Any]) -> Callable[[], Any]:
        if self._begun:
            return work
        self._begun = True
        made = self._make()
        self.native, self._pool = made.native, made._pool
        return partial(_begin, work)

    def call(self, func: Callable[[], Any], about: object = None) -> Any:
        """See ``Pin.call``."""
        work = self._first(func)
        return self.native.call(work, func if about is None else about)

    def post(self, func: Callable[[], object]) -> None:
        """See ``Pin.post``."""
        work = self._first(func)
        self.native.post(work)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """See ``Executor.submit``."""
        work = self._first(partial(fn, *args, **kwargs))
        return super().submit(work)

    def run(
        self, loop: asyncio.AbstractEventLoop, work: Callable[[], Any], about: object = None
    ) -> "asyncio.Future[Any]":
        """Have the thread do it; on any loop. ``about``: see ``Pin.call``."""
        if isinstance(loop, EventLoop):
            return self.call(work, about).wait()  # type: ignore[no-any-return]
        return loop.run_in_executor(self, work)

    def release(self, scope: MutableMapping[str, Any]) -> None:
        """The request is over: no transaction of it is left, and no connection beyond its time.

        Until that is done the pin is kept, so that no other call gets at what it left.
        """
        if not self._begun:
            return
        # An errand: a call would wake the loop for nothing.
        self.native.post(partial(_end, self.native, scope))
