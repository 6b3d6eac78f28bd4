"""Middleware of the async chain: hooks of the inline list are called, not bridged.

``MiddlewareMixin.__acall__`` makes a ``SyncToAsync`` of each hook for each request and awaits its
call, twelve times with the default middleware: a seventh of the loop's time for an async view.
Most of those calls stay on the loop (``inlining``), and are made here as they are. All others go
through ``sync_to_async`` as before, and so does everything once somebody has replaced
``SyncToAsync.__call__``, who wants to see each call.

Replaced is Django's own method, of a series in which it was read (it is in
`tests/django/inline_reviewed.txt` with the entries of the list): a subclass's own ``__acall__``
stays, and so does what somebody else has put there.
"""

from typing import Any

import django
from asgiref.sync import sync_to_async
from django.utils import deprecation
from django.utils.deprecation import MiddlewareMixin

from rondel import bridge
from rondel.bridge.inline import NEEDS_THREAD, attempt

__all__ = ["STOCK", "install"]

# The last series whose `__acall__` was read.
_LAST_READ = (6, 1)

STOCK: Any = vars(MiddlewareMixin)["__acall__"]


def install() -> None:
    """Replace ``MiddlewareMixin.__acall__``, if it is Django's own and has been read."""
    code = getattr(STOCK, "__code__", None)
    is_djangos = code is not None and code.co_filename == deprecation.__file__
    if is_djangos and django.VERSION[:2] <= _LAST_READ:
        MiddlewareMixin.__acall__ = _call  # type: ignore[method-assign]


async def _call(self: Any, request: Any) -> Any:
    if not bridge.calls_are_ours():
        return await STOCK(self, request)
    response = None
    if hasattr(self, "process_request"):
        hook = self.process_request
        response = attempt(hook, (request,), {})
        if response is NEEDS_THREAD:
            response = await sync_to_async(hook, thread_sensitive=True)(request)
    response = response or await self.get_response(request)
    if hasattr(self, "process_response"):
        hook = self.process_response
        answer = attempt(hook, (request, response), {})
        if answer is NEEDS_THREAD:
            answer = await sync_to_async(hook, thread_sensitive=True)(request, response)
        return answer
    return response


_call.__name__, _call.__qualname__ = "__acall__", "MiddlewareMixin.__acall__"
