"""Django's own functions that need no thread, and what a project adds to them.

Django calls each sync middleware hook and each sync signal receiver through ``sync_to_async``. Most
of them compute for a microsecond. Each entry below was read in Django 4.2, 5.2, 6.0 and 6.1 and is
here for the reason given: it neither blocks (no I/O, no lock that is held for long) nor touches the
database, for the calls that its condition lets through. What was read is in the tests
(`tests/django/inline_reviewed.txt`): a Django whose code differs fails them until it has been read.

A subclass that overrides a hook has another function, which is not listed. A subclass that
overrides what a listed hook calls (``CommonMiddleware.should_redirect_with_slash``) is not either:
`_entries` lists the class a condition must find, exactly.

A project adds to the list with ``@rondel.django.inline`` or the setting ``RONDEL_INLINE``, a list
of dotted names. ``RONDEL_INLINE = None`` turns all of it off, as ``RONDEL_NO_INLINE=1`` in the
environment does.

An inline call that queries all the same is refused by Django (SynchronousOnlyOperation): it is made
again on a thread, and its function leaves the list. In debug mode so does one that blocks.
"""

import contextlib
import os
import pkgutil
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django import db
from django.conf import settings
from django.core import cache, signals
from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.core.handlers import base
from django.dispatch import Signal
from django.http.response import HttpResponseBase

from rondel.bridge import stalls
from rondel.bridge.inline import (
    NEEDS_THREAD,
    Condition,
    allow,
    ask_for_thread,
    call_here,
    inline,
    runs_inline,
)
from rondel.django import hooks, leaks

__all__ = ["close_inline", "inline", "install", "look_on", "send_signal"]

# Methods without an unsafe side by the HTTP specification: CSRF checks look into no body.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

_lock = threading.Lock()
_installed = False
# What is wrong with the setting: told to each who asks, as who asks first may do without.
_refused: str | None = None


def install() -> None:
    """List Django's functions and the project's. Calling it again changes nothing.

    Raises ImproperlyConfigured for a RONDEL_INLINE that names what is not there, each time.
    """
    global _installed, _refused
    with _lock:
        if _installed:
            if _refused is not None:
                raise ImproperlyConfigured(_refused)
            return
        _installed = True
    ask_for_thread(SynchronousOnlyOperation)
    if leaks.debugging():
        look_on()
    wanted = getattr(settings, "RONDEL_INLINE", ())
    if wanted is None or os.environ.get("RONDEL_NO_INLINE") == "1":
        return
    hooks.install()
    for func, when in _entries():
        allow(func, when)
    for name in wanted:
        # Not `import_string`: a method is named as `module.Class.method`.
        try:
            allow(pkgutil.resolve_name(name))
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            _refused = f"RONDEL_INLINE names {name!r}: {error}"
            raise ImproperlyConfigured(_refused) from error


def look_on() -> None:
    """Debug mode: report inline calls that block, and connections that are left open."""
    stalls.watch()
    leaks.detect()


def _exactly(cls: type, also: Condition | None = None) -> Condition:
    """Calls on an instance of this very class, and if the further condition holds."""

    def when(self: Any, *args: Any, **kwargs: Any) -> bool:
        return type(self) is cls and (also is None or also(self, *args, **kwargs))

    return when


def _entries() -> Iterator[tuple[Callable[..., Any], Condition | None]]:
    """Functions, and when they may run inline."""
    # Receivers of request_started and request_finished.
    #
    # `reset_queries` empties a list; `close_old_connections` looks at this thread's connections,
    # which on the loop's thread are none, as Django refuses queries there. (A request's pin does it
    # on its own thread: `connections.DatabasePin`.)
    yield db.reset_queries, None
    yield db.close_old_connections, _no_connections
    # Caches of the loop's thread: only those of async code, whose `close` may do I/O.
    yield cache.close_caches, _no_caches
    # Sets a context variable.
    yield base.reset_urlconf, None
    yield from _middleware()


def _no_connections(**kwargs: Any) -> bool:
    # System checks leave closed ones on the main thread.
    found = db.connections.all(initialized_only=True)
    return all(connection.connection is None for connection in found)


def _no_caches(**kwargs: Any) -> bool:
    # What they leave here, too, is caches: those with a `close` of their own count.
    found = cache.caches.all(initialized_only=True)
    return all(type(each).close is BaseCache.close for each in found)


def _middleware() -> Iterator[tuple[Callable[..., Any], Condition | None]]:
    from django.middleware.clickjacking import XFrameOptionsMiddleware
    from django.middleware.common import CommonMiddleware
    from django.middleware.csrf import CsrfViewMiddleware
    from django.middleware.http import ConditionalGetMiddleware
    from django.middleware.locale import LocaleMiddleware
    from django.middleware.security import SecurityMiddleware

    # Compares the scheme and the host, sets headers.
    security = _exactly(SecurityMiddleware)
    yield SecurityMiddleware.process_request, security
    yield SecurityMiddleware.process_response, security
    # Matches the user agent and the path against patterns; counts the content's bytes.
    common = _exactly(CommonMiddleware)
    yield CommonMiddleware.process_request, common
    yield CommonMiddleware.process_response, common
    # Sets one header.
    yield XFrameOptionsMiddleware.process_response, _exactly(XFrameOptionsMiddleware)
    # Reads the language from path, cookie and headers. Translations are loaded once per language;
    # whether there are any is looked up in the file system, and known for the last thousand codes.
    locale = _exactly(LocaleMiddleware)
    yield LocaleMiddleware.process_request, locale
    yield LocaleMiddleware.process_response, locale
    # A hash of the content: short for what is not large.
    yield ConditionalGetMiddleware.process_response, _exactly(ConditionalGetMiddleware, _is_small)
    # The token is in a cookie, unless it is kept in the session (a query). An unsafe request may
    # read the body to find it.
    csrf = _exactly(CsrfViewMiddleware, _cookie_csrf)
    yield CsrfViewMiddleware.process_request, csrf
    yield CsrfViewMiddleware.process_view, _exactly(CsrfViewMiddleware, _safe_csrf)
    yield CsrfViewMiddleware.process_response, csrf
    yield from _csp()
    yield from _contrib()


def _csp() -> Iterator[tuple[Callable[..., Any], Condition | None]]:
    try:
        from django.middleware.csp import ContentSecurityPolicyMiddleware
    except ImportError:
        return  # Django 6.0 has it
    # Makes a nonce that makes itself when it is looked at; joins the policy's words.
    csp = _exactly(ContentSecurityPolicyMiddleware)
    yield ContentSecurityPolicyMiddleware.process_request, csp
    yield ContentSecurityPolicyMiddleware.process_response, csp


def _contrib() -> Iterator[tuple[Callable[..., Any], Condition | None]]:
    """Middleware of applications; importing one needs it to be installed."""
    installed = set(settings.INSTALLED_APPS) | {
        path.rpartition(".middleware.")[0] for path in settings.MIDDLEWARE
    }
    if "django.contrib.sessions" in installed:
        from django.contrib.sessions.middleware import SessionMiddleware

        # Makes a session that loads itself when it is looked into; its cache, if it is in one, does
        # not connect before.
        yield SessionMiddleware.process_request, _exactly(SessionMiddleware)
        # Saves it only if it was changed: then it is a query.
        yield SessionMiddleware.process_response, _exactly(SessionMiddleware, _session_untouched)
    if "django.contrib.auth" in installed:
        from django.contrib.auth.middleware import AuthenticationMiddleware

        # Sets an attribute that finds the user when it is looked at.
        yield AuthenticationMiddleware.process_request, _exactly(AuthenticationMiddleware)
    if "django.contrib.messages" in installed:
        from django.contrib.messages.middleware import MessageMiddleware

        # Makes a storage that loads itself when it is looked into.
        yield MessageMiddleware.process_request, _exactly(MessageMiddleware)
        # Stores messages only if some were added or read: perhaps in the session.
        yield MessageMiddleware.process_response, _exactly(MessageMiddleware, _no_messages)


def _is_small(_self: Any, _request: Any, response: Any) -> bool:
    return response.streaming or len(response.content) <= 256 * 1024


def _cookie_csrf(_self: Any, *_args: Any, **_kwargs: Any) -> bool:
    return not settings.CSRF_USE_SESSIONS


def _safe_csrf(_self: Any, request: Any, *_args: Any, **_kwargs: Any) -> bool:
    return not settings.CSRF_USE_SESSIONS and request.method in _SAFE


def _session_untouched(_self: Any, request: Any, _response: Any) -> bool:
    if settings.SESSION_SAVE_EVERY_REQUEST:
        return False
    session = getattr(request, "session", None)
    return session is None or not (session.modified or session.accessed)


def _no_messages(_self: Any, request: Any, _response: Any) -> bool:
    storage = getattr(request, "_messages", None)
    return storage is None or not (storage.used or storage.added_new)


# ------------------------------------------------------------------------------------------ signals


def _receivers(signal: Signal) -> Iterator[Callable[..., Any]]:
    for entry in signal.receivers:
        # (key, receiver, ...): a receiver is the function, or a weak reference to it.
        receiver: Any = entry[1]
        found = receiver() if isinstance(receiver, weakref.ReferenceType) else receiver
        if found is not None:
            yield found


def _all_inline(signal: Signal, kwargs: dict[str, Any]) -> bool:
    return all(runs_inline(receiver, (), kwargs) for receiver in _receivers(signal))


async def send_signal(signal: Signal, sender: Any, **kwargs: Any) -> None:
    """Send a signal from the loop: without a hop if no receiver needs a thread."""
    if _all_inline(signal, {"signal": signal, "sender": sender, **kwargs}):
        if left := _send_inline(signal, sender, kwargs):
            await sync_to_async(_send_to)(left, signal, sender, kwargs)
    elif hasattr(signal, "asend"):
        await signal.asend(sender=sender, **kwargs)
    else:
        await sync_to_async(signal.send, thread_sensitive=True)(sender=sender, **kwargs)


def _send_inline(signal: Signal, sender: Any, kwargs: dict[str, Any]) -> list[Callable[..., Any]]:
    """As ``Signal.send``; returns the receivers that turned out to need a thread."""
    live: Any = signal._live_receivers(sender)
    # From Django 5.0 on: (sync, async); none of the latter is in the list.
    receivers = live[0] if isinstance(live, tuple) else live
    given = {"signal": signal, "sender": sender, **kwargs}
    return [receiver for receiver in receivers if call_here(receiver, (), given) is NEEDS_THREAD]


def _send_to(
    receivers: list[Callable[..., Any]], signal: Signal, sender: Any, kwargs: dict[str, Any]
) -> None:
    for receiver in receivers:
        receiver(signal=signal, sender=sender, **kwargs)


async def close_inline(response: Any, *, files: bool = False) -> bool:
    """Close the response on the loop if it needs no thread: the request is closed, a signal sent.

    With ``files`` what it holds is known to be plain files. False: it needs a thread, and is not
    closed.
    """
    closers = response._resource_closers
    if not files and (len(closers) > 1 or response.streaming):
        return False
    if not _closes_plainly(response):
        return False
    sender = response._handler_class
    if not _all_inline(
        signals.request_finished, {"signal": signals.request_finished, "sender": sender}
    ):
        return False
    # What `HttpResponseBase.close` does. Its signal is sent here, where a receiver that needs a
    # thread after all gets one, and the others are not called twice.
    for closer in closers:
        with contextlib.suppress(Exception):
            closer()
    closers.clear()
    response.closed = True
    if left := _send_inline(signals.request_finished, sender, {}):
        await sync_to_async(_send_to)(left, signals.request_finished, sender, {})
    return True


def _closes_plainly(response: Any) -> bool:
    """Whether ``close`` is Django's, neither overridden nor wrapped."""
    return type(response).close is HttpResponseBase.close and "close" not in vars(response)
