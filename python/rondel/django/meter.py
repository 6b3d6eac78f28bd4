"""Where the tax report takes its times: records of calls, and who writes them.

Calls of the bridge are told by ``bridge.observe``. Everything else is found by replacing methods of
Django and asgiref (``points``) for as long as there is a report to write: ``AsyncToSync.__call__``,
and what a sync request does on its one thread: middleware, the view, receivers, queries.

A record hangs under the one in whose course it was made (the context variable `place`, which
travels with the context to threads and back). So a call's own time is its time without that of the
records under it.

Threads: a record is filled in by the thread that makes the call. Lists of records are appended to.
"""

import asyncio
import copy
import functools
import inspect
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter
from typing import Any, Literal

from rondel.bridge import observe
from rondel.django.names import MATCH, VIEW

__all__ = ["HOPS", "Kind", "Meter", "Points", "Record", "measure", "place"]

# request  a whole request on a thread      thread  sync_to_async    loop  async_to_sync
# inline   sync_to_async without a hop      call    something within one of these, on its thread
# view     an async view on the loop: its time is that of what it awaits, too
Kind = Literal["request", "thread", "loop", "inline", "call", "view"]
HOPS: frozenset[Kind] = frozenset({"request", "thread", "loop"})


class Record:
    """One call. A record without a parent is a request's."""

    __slots__ = (
        "begun",
        "ended",
        "func",
        "kind",
        "parent",
        "records",
        "submitted",
        "thread",
        "within",
    )

    def __init__(
        self, records: "list[Record]", parent: "Record | None", func: Any, kind: Kind
    ) -> None:
        # All of this request.
        self.records = records
        self.parent = parent
        # The function, or a name.
        self.func = func
        self.kind: Kind = kind
        self.submitted = perf_counter()
        # 0: not yet (perhaps never, if it was cancelled before).
        self.begun = self.ended = 0.0
        # Of a hop to a thread: which.
        self.thread = 0
        # Seconds of the records under it; for whoever adds up.
        self.within = 0.0

    def child(self, func: Any, kind: Kind) -> "Record":
        """A call made in its course."""
        record = Record(self.records, self, func, kind)
        self.records.append(record)
        return record


# In whose course calls are made here; None: of nothing that is reported.
place: ContextVar[Record | None] = ContextVar("rondel_tax", default=None)


def measure(record: Record, call: Callable[[], Any]) -> Any:
    """Make the call, in the record's course."""
    token = place.set(record)
    record.begun = perf_counter()
    try:
        return call()
    finally:
        record.ended = perf_counter()
        place.reset(token)


def _on_thread(record: Record, call: Callable[[], Any]) -> Any:
    record.thread = threading.get_ident()
    return measure(record, call)


class Meter(observe.Observer):
    """Writes down the bridge's calls."""

    def inline(self, func: Callable[..., Any], call: Callable[[], Any]) -> Any:
        """See ``Observer.inline``."""
        here = place.get()
        return call() if here is None else measure(here.child(func, "inline"), call)

    def hop(self, func: Callable[..., Any], call: Callable[[], Any]) -> Callable[[], Any]:
        """See ``Observer.hop``."""
        here = place.get()
        if here is None:
            return call
        return functools.partial(_on_thread, here.child(func, "thread"), call)


# ------------------------------------------------------------------------------------------- points


class Points:
    """The methods that are replaced: with the first report, for what is imported then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Owner, name, its own, ours.
        self._replaced: list[tuple[Any, str, Any, Any]] = []
        self.set = False

    def replace(self) -> None:
        """Replace them, once."""
        with self._lock:
            if self.set:
                return
            self.set = True
            for module, owner_name, name, make in _POINTS:
                if module not in sys.modules:
                    continue
                owner: Any = getattr(sys.modules[module], owner_name)
                original = vars(owner)[name]
                ours = make(original)
                self._replaced.append((owner, name, original, ours))
                setattr(owner, name, ours)

    def restore(self) -> None:
        """Put their own back, but for those that somebody else has replaced in between."""
        with self._lock:
            for owner, name, original, ours in self._replaced:
                if vars(owner).get(name) is ours:
                    setattr(owner, name, original)
            self._replaced.clear()


def _to_loop(original: Callable[..., Any]) -> Callable[..., Any]:
    """``AsyncToSync.__call__``. Whosever it is, it calls ``self.awaitable``."""

    @functools.wraps(original)
    def measured(self: Any, *args: Any, **kwargs: Any) -> Any:
        here = place.get()
        if here is None:
            return original(self, *args, **kwargs)
        awaitable = self.awaitable
        record = here.child(awaitable, "loop")

        @functools.wraps(awaitable, updated=())
        async def begin(*args: Any, **kwargs: Any) -> Any:
            token = place.set(record)
            record.begun = perf_counter()
            try:
                return await awaitable(*args, **kwargs)
            finally:
                record.ended = perf_counter()
                place.reset(token)

        # The object may be called on several threads at once: a copy has the awaitable.
        stand_in = copy.copy(self)
        stand_in.awaitable = begin
        return original(stand_in, *args, **kwargs)

    return measured


def _resolve(original: Callable[..., Any]) -> Callable[..., Any]:
    """``BaseHandler.resolve_request``: without the hybrid handler nobody else tells the view."""

    @functools.wraps(original)
    def measured(self: Any, request: Any) -> Any:
        match = original(self, request)
        scope = getattr(request, "scope", {})
        scope[VIEW], scope[MATCH] = match.func, match
        return match

    return measured


def _view(original: Callable[..., Any]) -> Callable[..., Any]:
    """``BaseHandler.make_view_atomic``, which every view goes through right before it is called.

    (``_get_response`` is not asked for at each request: the chain of middleware has it.)
    """

    @functools.wraps(original)
    def measured(self: Any, view: Any) -> Any:
        made = original(self, view)
        here = place.get()
        if here is None:
            return made
        on_loop = asyncio._get_running_loop() is not None
        if inspect.iscoroutinefunction(made):
            # On a thread it is a hop to the loop, and measured as that.
            return _awaited(made, here) if on_loop else made
        # On the loop it is a hop to a thread.
        return made if on_loop else _called(made, here)

    return measured


def _called(view: Callable[..., Any], here: Record) -> Callable[..., Any]:
    @functools.wraps(view)
    def measured(*args: Any, **kwargs: Any) -> Any:
        return measure(here.child(view, "call"), lambda: view(*args, **kwargs))

    return measured


def _awaited(view: Callable[..., Any], here: Record) -> Callable[..., Any]:
    @functools.wraps(view)
    async def measured(*args: Any, **kwargs: Any) -> Any:
        record = here.child(view, "view")
        token = place.set(record)
        record.begun = perf_counter()
        try:
            return await view(*args, **kwargs)
        finally:
            record.ended = perf_counter()
            place.reset(token)

    return measured


def _middleware(original: Callable[..., Any]) -> Callable[..., Any]:
    """``MiddlewareMixin.__call__``: its hooks, as what is inside of it is measured as well."""

    @functools.wraps(original)
    def measured(self: Any, request: Any) -> Any:
        here = place.get()
        if here is None or asyncio._get_running_loop() is not None:
            return original(self, request)
        return measure(here.child(type(self).__name__, "call"), lambda: original(self, request))

    return measured


def _receivers(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Signal._live_receivers``: on a thread each receiver is measured."""

    @functools.wraps(original)
    def measured(self: Any, sender: Any) -> Any:
        found = original(self, sender)
        if place.get() is None or asyncio._get_running_loop() is not None:
            return found
        # From Django 5.0 on: (sync, async).
        if isinstance(found, tuple):
            return [_receiver(each) for each in found[0]], found[1]
        return [_receiver(each) for each in found]

    return measured


def _receiver(receiver: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(receiver, updated=())
    def measured(*args: Any, **kwargs: Any) -> Any:
        here = place.get()
        if here is None:
            return receiver(*args, **kwargs)
        return measure(here.child(receiver, "call"), lambda: receiver(*args, **kwargs))

    return measured


def _query(original: Callable[..., Any]) -> Callable[..., Any]:
    """``CursorWrapper._execute_with_wrappers``: every query."""

    @functools.wraps(original)
    def measured(self: Any, *args: Any, **kwargs: Any) -> Any:
        here = place.get()
        if here is None:
            return original(self, *args, **kwargs)
        record = here.child(f"query ({self.db.alias})", "call")
        return measure(record, lambda: original(self, *args, **kwargs))

    return measured


_POINTS: tuple[tuple[str, str, str, Callable[[Callable[..., Any]], Callable[..., Any]]], ...] = (
    ("asgiref.sync", "AsyncToSync", "__call__", _to_loop),
    ("django.core.handlers.base", "BaseHandler", "resolve_request", _resolve),
    ("django.core.handlers.base", "BaseHandler", "make_view_atomic", _view),
    ("django.utils.deprecation", "MiddlewareMixin", "__call__", _middleware),
    ("django.dispatch.dispatcher", "Signal", "_live_receivers", _receivers),
    ("django.db.backends.utils", "CursorWrapper", "_execute_with_wrappers", _query),
)
