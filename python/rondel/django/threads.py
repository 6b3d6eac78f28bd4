"""Sync requests, each on one thread from the first signal to the last.

``run`` is what the server calls on a pool's thread, without any part of the request on the loop;
``respond`` is the same up to the response, for a request that came to the loop.
"""

import asyncio
import io
import os
import threading
from collections.abc import Callable, MutableMapping
from typing import IO, TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync, async_to_sync
from django.conf import settings
from django.core import signals
from django.core.handlers.base import BaseHandler
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix
from django.utils.module_loading import import_string

from rondel.django import inlining, leaks
from rondel.django.files import whole_file
from rondel.django.requests import script_prefix
from rondel.django.resolve import Kind

if TYPE_CHECKING:
    from rondel import _rondel
    from rondel.django.answering import Answering
    from rondel.django.handler import HybridHandler
    from rondel.django.static import StaticSide

__all__ = ["SyncSide"]


class _SyncChain(BaseHandler):
    """The middleware in sync mode, as Django's WSGI handler has it."""


class SyncSide:
    """The half of a hybrid handler that runs on threads."""

    # Signals' sender, and who makes requests.
    _handler: "Answering"

    def __init__(self, hybrid: "HybridHandler") -> None:
        self._hybrid = self._handler = hybrid
        # Whether every middleware can be sync.
        self.possible = all(
            getattr(import_string(path), "sync_capable", True) for path in settings.MIDDLEWARE
        )
        self._lock = threading.Lock()
        self._made: _SyncChain | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # What the handler around this one answers: the server calls this side for it as well.
        self.static: StaticSide | None = None

    @property
    def _chain(self) -> _SyncChain:
        made = self._made
        if made is None:
            with self._lock:
                made = self._made
                if made is None:
                    made = _SyncChain()
                    made.load_middleware()
                    self._hybrid.forecast.install(made)
                    self._made = made
        return made

    def serve_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop that async code called from sync code runs on."""
        self._loop = loop
        if self.static is not None:
            self.static.serve_on(loop)
        if loop.get_debug():
            inlining.look_on()

    def respond(
        self,
        scope: MutableMapping[str, Any],
        body_file: IO[bytes],
        loop: asyncio.AbstractEventLoop | None,
    ) -> HttpResponseBase:
        """The response, which the caller closes; on a thread."""
        handler = self._handler
        # Where async_to_sync finds the loop, as in a call by sync_to_async.
        local: Any = SyncToAsync.threadlocal
        local.main_event_loop = loop
        local.main_event_loop_pid = os.getpid()
        local.task_context = None
        set_script_prefix(script_prefix(scope))
        signals.request_started.send(sender=handler.signal_sender, scope=scope)
        request, error_response = handler.create_request(scope, body_file)
        if request is None:
            body_file.close()
            response: Any = error_response
        else:
            response = self._get_response(request)
            if hasattr(response, "block_size"):
                response.block_size = handler.chunk_size
        response._handler_class = handler.signal_sender
        return response  # type: ignore[no-any-return]

    def _get_response(self, request: Any) -> Any:
        return self._chain.get_response(request)

    def run(
        self, scope: MutableMapping[str, Any], body: bytes | int, reply: "_rondel.Reply"
    ) -> None:
        """One request from the server: ``body`` is its bytes, or a file's descriptor."""
        if self.static is not None and self.static.handles(scope["path"]):
            self.static.run(scope, body, reply)
            return
        if body == b"" and self._is_the_loops(scope):
            reply.bounce()
            return
        over = leaks.entered(scope)
        try:
            self._answer(scope, body, reply)
        finally:
            leaks.end_request(scope)
            if over is not None:
                over()

    def _is_the_loops(self, scope: MutableMapping[str, Any]) -> bool:
        return not self.possible or self._hybrid.forecast.kind(scope) is Kind.ASYNC

    def _answer(
        self, scope: MutableMapping[str, Any], body: bytes | int, reply: "_rondel.Reply"
    ) -> None:
        body_file: IO[bytes]
        body_file = io.BytesIO(body) if isinstance(body, bytes) else os.fdopen(body, "w+b")
        response = self.respond(scope, body_file, self._loop)
        try:
            headers = list(response.items())
            headers += [
                ("Set-Cookie", cookie.OutputString()) for cookie in response.cookies.values()
            ]
            if _respond_by_file(response, headers, reply):
                pass
            elif not response.streaming:
                reply.respond(response.status_code, headers, response.content)  # type: ignore[attr-defined]
            elif reply.start(response.status_code, headers):
                _stream(response, reply)
        finally:
            self.close(response, scope)

    def close(self, response: Any, scope: MutableMapping[str, Any]) -> None:
        """Close the response, on its request's thread."""
        # A stream's iterator may be inside of a transaction that its own close ends.
        if not response.streaming:
            leaks.end_request(scope)
        response.close()


def _respond_by_file(response: Any, headers: list[tuple[str, str]], reply: "_rondel.Reply") -> bool:
    """Have the server send the response's file while this thread goes on; whether it does."""
    if not response.streaming or (whole := whole_file(response)) is None:
        return False
    try:
        reply.respond_file(response.status_code, headers, whole.fd, whole.offset, whole.count)
    except (OSError, ValueError):
        # No regular file, or shorter than its length says: as it would be without.
        return False
    return True


def _stream(response: Any, reply: "_rondel.Reply") -> None:
    send: Callable[[bytes], bool] = reply.send
    if response.is_async:
        parts = aiter(response)
        step = async_to_sync(_next)
        while (part := step(parts)) is not _END:
            if not send(part):
                async_to_sync(_close)(parts)
                return
    else:
        for part in response:
            if not send(part):
                return
    reply.finish()


_END: Any = object()


async def _next(parts: Any) -> Any:
    return await anext(parts, _END)


async def _close(parts: Any) -> None:
    close = getattr(parts, "aclose", None)
    if close is not None:
        await close()
