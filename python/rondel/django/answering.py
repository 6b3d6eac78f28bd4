"""What answers a request by sync code, from the loop: in one hop, and sends what came of it.

The base of the hybrid handler (``handler``) and of static files (``static``). `Answering._send` is
also how the hybrid handler sends the responses of async views. A sync iterator is sent part by
part, as its thread makes them, never collected; a file is sent by the system where the server can.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from functools import partial
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler

from rondel.bridge import observe
from rondel.bridge.threads import request_pin
from rondel.django import leaks
from rondel.django.connections import DatabasePin
from rondel.django.files import whole_file
from rondel.django.requests import asgi_headers, read_body
from rondel.django.threads import SyncSide
from rondel.server.sends import EXTENSION, takes_files

__all__ = ["Answering", "OnThread", "Receive", "Scope", "Send", "pin_of_request"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
# Has the request's thread do something.
OnThread = Callable[[Callable[[], Any]], Awaitable[Any]]


@contextlib.contextmanager
def pin_of_request(scope: Scope) -> Iterator[DatabasePin]:
    """The pin that all sync code of a request uses within the block."""
    context = ThreadSensitiveContext()
    pin = DatabasePin(request_pin)
    SyncToAsync.context_to_thread_executor[context] = pin
    token = SyncToAsync.thread_sensitive_context.set(context)
    over = leaks.entered(scope)
    try:
        yield pin
    finally:
        SyncToAsync.thread_sensitive_context.reset(token)
        SyncToAsync.context_to_thread_executor.pop(context, None)
        pin.release(scope)
        if over is not None:
            over()


class Answering(ASGIHandler):
    """An ASGI handler with a side that runs on threads."""

    sync: SyncSide
    # Whom signals name.
    signal_sender: type

    async def _answer_sync(
        self, scope: Scope, receive: Receive, send: Send, pin: DatabasePin
    ) -> None:
        try:
            body = await read_body(receive)
        except RequestAborted:
            return
        loop = asyncio.get_running_loop()
        # The variables that the request sets are its own, not the thread's.
        thread = partial(_complete, pin, contextvars.copy_context())
        response = await thread(partial(self.sync.respond, scope, body, loop))
        sending = self._send(response, send, thread)
        try:
            await (self._until_gone(sending, receive) if response.streaming else sending)
        finally:
            await self._close_sync(response, scope, thread)

    async def _close_sync(self, response: Any, scope: Scope, thread: OnThread) -> None:
        await thread(partial(self.sync.close, response, scope))

    async def _until_gone(self, sending: Awaitable[None], receive: Receive) -> None:
        """Send a stream, or what the client stays for: an iterator may have no end of its own."""
        answering = asyncio.current_task()
        watcher = asyncio.ensure_future(self._watch(receive, answering))
        try:
            await sending
        except asyncio.CancelledError:
            if not (watcher.done() and watcher.result() is True):
                raise
            if answering is not None:
                answering.uncancel()
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher

    async def _watch(self, receive: Receive, answering: "asyncio.Task[Any] | None") -> bool:
        """Cancel the view if the client leaves, as Django documents."""
        message = await receive()
        if message["type"] != "http.disconnect":
            raise AssertionError(f"Invalid ASGI message after request body: {message['type']}")
        if answering is not None:
            answering.cancel()
        return True

    async def _send(self, response: Any, send: Send, thread: OnThread) -> None:
        """Send a response, which somebody else closes (Django 4.2's own ``send_response``
        would)."""
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": asgi_headers(response),
            }
        )
        if not response.streaming:
            await send({"type": "http.response.body", "body": response.content})
            return
        if response.is_async:
            async with contextlib.aclosing(aiter(response)) as parts:
                async for part in parts:
                    await self._send_part(part, send)
        elif takes_files(send) and (whole := whole_file(response)):
            file = {"file": whole.fd, "offset": whole.offset, "count": whole.count}
            await send({"type": EXTENSION, **file})
            return
        else:
            # Part by part from its thread: Django's own collects a sync iterator first.
            iterator, end = iter(response), object()
            while (part := await thread(partial(next, iterator, end))) is not end:
                await self._send_part(part, send)
        await send({"type": "http.response.body"})

    async def _send_part(self, part: bytes, send: Send) -> None:
        for chunk, _ in self.chunk_bytes(part):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _complete(pin: DatabasePin, context: contextvars.Context, work: Callable[[], Any]) -> Any:
    """What a thread makes of it. A sync call cannot be broken off: a cancel waits for its end."""
    loop = asyncio.get_running_loop()
    about = work
    if (watcher := observe.current) is not None:
        work = watcher.hop(work, work)
    call = pin.run(loop, partial(context.run, work), about)
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        # Its thread goes on; what it leaves (an open response) is dealt with when it is done.
        with contextlib.suppress(BaseException):
            await call
        raise
