"""What a request leaves behind in its databases.

*An open transaction*, always: found on the request's thread when it is over. It is rolled back, the
connection is closed, and an error in the log names the view. Django's ``close_old_connections``
would close the connection as well, but keep it as one that was closed inside of ``atomic``, so that
each later request on that thread fails. It closes without a word where autocommit was left off; so
it is looked at before (``SyncSide.close``).

*An open connection on a thread that nobody cleans*, in debug mode only: threads of calls with
``thread_sensitive=False``, and a program's own. Django closes connections in the thread in which a
request ends; on other threads they stay, beyond ``CONN_MAX_AGE``, as many as there are threads. A
connection counts as left when the function that its thread was running when it was opened is over.
It is reported once, with the place where it was opened.

Debug mode: ``settings.DEBUG``, ``RONDEL_DEBUG=1`` in the environment, or a loop in debug mode.
"""

import asyncio
import functools
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from contextvars import ContextVar
from types import CodeType, FrameType
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from rondel.bridge.threads import serves_requests
from rondel.django.names import view_of

__all__ = ["Detector", "debugging", "detect", "end_request", "entered", "in_transaction"]

logger = logging.getLogger("rondel.server.leaks")

Scope = MutableMapping[str, Any]


def debugging() -> bool:
    """Whether the project is in debug mode."""
    return bool(settings.DEBUG) or os.environ.get("RONDEL_DEBUG") == "1"


# ------------------------------------------------------------------------------------ transactions


class _Here(threading.local):
    """The connections that were made for this thread, open or not, by their alias.

    Django's own list takes a microsecond and a half to look through, and is asked after every call.
    A connection that is lent to this thread is not in it: a test's may well be in a transaction.
    """

    def __init__(self) -> None:
        own = threading.get_ident()
        self.made: dict[str, BaseDatabaseWrapper] = {
            connection.alias: connection
            for connection in connections.all(initialized_only=True)
            if getattr(connection, "_thread_ident", own) == own
        }


_here = _Here()


def _note_connections() -> None:
    """Have each connection that a thread gets from ``django.db.connections`` noted as it is made.

    Once per thread and database: a receiver of ``connection_created`` would be called, and have the
    signal look for receivers, each time that it is opened: each request, with CONN_MAX_AGE 0.
    """
    make = connections.create_connection

    @functools.wraps(make)
    def create_connection(alias: str) -> BaseDatabaseWrapper:
        known = _here.made  # as it was before, where this thread has none yet
        made = make(alias)
        # On a loop each context has connections of its own, which end with it and are never opened
        # (`async_unsafe`): to note them would be to keep those of each request.
        if asyncio._get_running_loop() is None:
            known[alias] = made
        return made

    connections.create_connection = create_connection  # type: ignore[method-assign]


_note_connections()


def end_request(scope: Scope) -> bool:
    """The request's last call on this thread is over: end what transactions it has left open.

    Whether there were any.
    """
    found = False
    # A copy: a log handler may ask another database.
    for connection in tuple(_here.made.values()):
        if connection.in_atomic_block or _is_open(connection):
            _abandon(connection, scope)
            found = True
    return found


def in_transaction() -> bool:
    """Whether this thread has a transaction open, so that nobody else's calls may run here."""
    # A loop: a generator would cost as much again, and this is asked after every call.
    for connection in _here.made.values():
        if connection.in_atomic_block or _is_open(connection):
            return True
    return False


def _is_open(connection: BaseDatabaseWrapper) -> bool:
    """Whether there is a transaction outside of ``atomic``."""
    raw: Any = connection.connection
    if raw is None or not connection.settings_dict["AUTOCOMMIT"]:
        return False
    if not connection.autocommit:
        return True
    if connection.vendor == "sqlite":
        return bool(getattr(raw, "in_transaction", False))
    if connection.vendor == "postgresql":
        # libpq's: 0 is idle, 4 unknown (the connection is broken). Of psycopg 3 it can be had
        # without making an `info`, which takes longer than all else here; psycopg 2 has that alone.
        told = getattr(raw, "pgconn", None) or getattr(raw, "info", None)
        status = getattr(told, "transaction_status", 0)
        return int(status) in (1, 2, 3)
    return False


def _abandon(connection: BaseDatabaseWrapper, scope: Scope) -> None:
    logger.error(
        "%s %s: %s left a transaction open on the database %r; it is rolled back and the "
        "connection closed. Use `with transaction.atomic():`, which ends by itself",
        scope.get("method", "?"),
        scope.get("path", "?"),
        view_of(scope),
        connection.alias,
    )
    # The blocks that would have ended it are lost. Out of them first: inside one, Django refuses to
    # roll back, and keeps a closed connection as broken.
    connection.in_atomic_block = False
    connection.atomic_blocks = []
    connection.savepoint_ids = []
    connection.run_on_commit = []
    connection.needs_rollback = False
    connection.commit_on_exit = True
    if connection.closed_in_transaction:
        # By Django, which keeps it: the database has rolled back then.
        connection.closed_in_transaction = False
        connection.connection = None
        return
    try:
        connection.rollback()
        # An in-memory database of SQLite's is not closed by `close`.
        connection.set_autocommit(connection.settings_dict["AUTOCOMMIT"])
    except Exception:
        logger.debug("rolling back on %r failed", connection.alias, exc_info=True)
    finally:
        connection.close()


# ------------------------------------------------------------------------------------- connections

# The scope of the request whose code runs here, in debug mode.
_request: ContextVar[Scope | None] = ContextVar("rondel_leaks_request", default=None)

# Modules between a thread's start and the code that it is there for.
_MACHINERY = (
    "threading",
    "concurrent.",
    "asyncio",
    "rondel.",
    "asgiref.",
    "contextvars",
    "functools",
)
# Modules that are never the place where a connection was opened.
_LIBRARY = ("django.", *_MACHINERY)


class _Opened:
    """A connection on a thread that nobody cleans."""

    __slots__ = ("connection", "entry", "ident", "place", "scope", "thread")

    def __init__(
        self, connection: BaseDatabaseWrapper, entry: CodeType, place: str, scope: Scope | None
    ) -> None:
        # Not a weak reference: a thread's end must not hide what it has left.
        self.connection = connection
        self.thread = threading.current_thread().name
        self.ident = threading.get_ident()
        self.entry = entry
        self.place = place
        self.scope = scope


class Detector:
    """Knows the connections opened on such threads. Used from any thread, with its lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: list[_Opened] = []

    def on_created(self, connection: BaseDatabaseWrapper, **_: Any) -> None:
        """Receiver of ``connection_created``, on the thread that opened it."""
        thread = threading.current_thread()
        if thread is threading.main_thread() or serves_requests(thread):
            return
        frames = list(_frames(sys._getframe(1)))
        own = [frame for frame in frames if not _is_from(frame, _LIBRARY)]
        entry = next((f for f in reversed(frames) if not _is_from(f, _MACHINERY)), frames[-1])
        place = "".join(
            traceback.format_list(
                traceback.StackSummary.extract(
                    ((frame, frame.f_lineno) for frame in reversed(own or frames)),
                    lookup_lines=True,
                )
            )
        ).rstrip()
        opened = _Opened(connection, entry.f_code, place, _request.get())
        with self._lock:
            self._opened.append(opened)

    def look(self) -> None:
        """Report what has been left since the last look."""
        if not self._opened:
            return
        running = sys._current_frames()
        left: list[_Opened] = []
        kept: list[_Opened] = []
        with self._lock:
            for opened in self._opened:
                if opened.connection.connection is None:
                    continue  # closed, as it should be
                frame = running.get(opened.ident)
                at_work = any(f.f_code is opened.entry for f in _frames(frame))
                (kept if at_work else left).append(opened)
            self._opened = kept
        for opened in left:
            _report(opened)


def _report(opened: _Opened) -> None:
    scope = opened.scope
    who = "code outside of any request" if scope is None else view_of(scope)
    logger.warning(
        "%s left a connection to the database %r open on the thread %r, which nobody cleans. Close "
        "it there (connection.close()), or query in calls with thread_sensitive=True. "
        "It was opened here:\n%s",
        who,
        opened.connection.alias,
        opened.thread,
        opened.place,
    )


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """From the innermost outwards."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_from(frame: FrameType, modules: tuple[str, ...]) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return f"{name}.".startswith(modules)


# Set in debug mode.
_detector: Detector | None = None


def detect() -> None:
    """Look for connections that are left open from now on; calling it again changes nothing."""
    global _detector
    if _detector is None:
        _detector = Detector()
        connection_created.connect(
            _detector.on_created, weak=False, dispatch_uid="rondel.django.leaks"
        )


def entered(scope: Scope) -> Callable[[], None] | None:
    """A request begins: its connections are known by its scope. What to call when it is over."""
    detector = _detector
    if detector is None:
        return None
    token = _request.set(scope)

    def over() -> None:
        _request.reset(token)
        detector.look()

    return over
