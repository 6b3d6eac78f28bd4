"""The hybrid handler: each request is answered where its view belongs.

    sync view   the whole request (signals, middleware, view, close) in one hop, as under WSGI
    async view  on the loop, where Django's own async chain runs it

Django's ASGI handler runs every request on the loop and hops to a thread for each sync part: 16
times with the default middleware. Which way a request goes is decided by its view, resolved
beforehand from the path. It is a forecast: a middleware may still choose another URLconf. Then
Django's adaption does what is needed, since each chain can run either kind of view.

Two chains of middleware exist, as ``load_middleware`` makes them: Django's async one, and a sync
one that is made for the first sync request (so each middleware class is instantiated twice). With a
middleware that is async only everything goes through the async chain.

* ``threads``: what runs on a thread. ``answering``: what the loop does about that.
* ``requests``: the body, the response's head. ``resolve``: the forecast.
* ``connections``: databases, per thread. ``static``: static files around it.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from rondel.django import inlining
from rondel.django.answering import Answering, Receive, Scope, Send, pin_of_request
from rondel.django.requests import read_body, script_prefix
from rondel.django.resolve import Forecast, Kind
from rondel.django.threads import SyncSide

__all__ = ["HybridHandler"]


class HybridHandler(Answering):
    """Django's ASGI application, with sync requests in one hop.

    ``inner`` is an ``ASGIHandler`` whose loaded middleware is used; without one it is loaded here.
    Works under any ASGI server; under ``rondel serve`` sync requests do not even reach the loop's
    Python (``SyncSide.run`` is called by the server, on a thread).
    """

    def __init__(self, inner: ASGIHandler | None = None, *, root_path: str = "") -> None:
        inlining.install()
        if inner is None:
            super().__init__()
        else:
            # Its chain is made of its own bound methods and goes on using them.
            self.__dict__.update(inner.__dict__)
        self.chain_owner: ASGIHandler = self if inner is None else inner
        # Signals name the class that Django's own would name.
        self.signal_sender: type = ASGIHandler if inner is None else type(inner)
        self.forecast = Forecast(root_path)
        self.forecast.install(self.chain_owner)
        self.sync = SyncSide(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, on the loop."""
        if scope["type"] != "http":
            raise ValueError(f"Django can only handle ASGI/HTTP connections, not {scope['type']}.")
        with pin_of_request(scope) as pin:
            possible = self.sync.possible
            if self.forecast.kind(scope, teach=possible) is Kind.SYNC and possible:
                await self._answer_sync(scope, receive, send, pin)
            else:
                await self.handle(scope, receive, send)

    # ------------------------------------------------------------------------------ async views

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request through the async chain; as ``ASGIHandler.handle``, with fewer hops."""
        try:
            body_file = await read_body(receive)
        except RequestAborted:
            return
        set_script_prefix(script_prefix(scope))
        await inlining.send_signal(signals.request_started, sender=self.signal_sender, scope=scope)
        request: Any
        error_response: Any
        request, error_response = self.create_request(scope, body_file)
        if request is None:
            body_file.close()
            await self._send(error_response, send, _by_bridge)
            await self._close(error_response, scope)
            return
        response: Any = None
        answering = asyncio.current_task()
        watcher = asyncio.ensure_future(self._watch(receive, answering))
        gone = False
        try:
            response = await self.run_get_response(request)
            await self._send(response, send, _by_bridge)
        except asyncio.CancelledError:
            # By the client's leaving, which the view has been told by this; or by the server's.
            gone = watcher.done() and watcher.result() is True
            if not gone:
                raise
            if answering is not None:
                answering.uncancel()
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
            if response is None:
                await inlining.send_signal(signals.request_finished, sender=self.signal_sender)
            else:
                await self._close(response, scope)
            body_file.close()

    async def run_get_response(self, request: Any) -> HttpResponseBase:
        """The response of the async chain."""
        response: Any = await self.chain_owner.get_response_async(request)
        response._handler_class = self.signal_sender
        if hasattr(response, "block_size"):
            response.block_size = self.chunk_size
        return response  # type: ignore[no-any-return]

    async def _close(self, response: HttpResponseBase, scope: Scope) -> None:
        if not await inlining.close_inline(response):
            await sync_to_async(self.sync.close)(response, scope)


async def _by_bridge(work: Callable[[], Any]) -> Any:
    return await sync_to_async(work)()
