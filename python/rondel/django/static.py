"""Static files: Django's ``ASGIStaticFilesHandler``, with each file in one hop and never collected.

Django's own makes a list of a file's parts before it sends the first, and takes four hops for it.
Which paths are static, what is looked up, and what is answered (404, If-Modified-Since) stays the
handler's; here its sync half, the one that its WSGI sibling uses, answers on a thread, and the
system sends the file. As ever, other paths go to the application behind it.

Threads: ``StaticSide`` runs on any thread. The handler in it is shared and not changed.
"""

from functools import partial
from typing import Any

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

from rondel.django import inlining
from rondel.django.answering import Answering, OnThread, Receive, Scope, Send, pin_of_request
from rondel.django.resolve import Forecast
from rondel.django.threads import SyncSide

__all__ = ["StaticFiles", "StaticSide"]


class StaticSide(SyncSide):
    """The half that runs on threads."""

    def __init__(self, files: "StaticFiles") -> None:
        self._handler = files
        self._files = files.django
        self._loop = None
        self.possible = True
        self.static = None

    def handles(self, path: str) -> bool:
        """Whether the path is a static file's."""
        return bool(self._files._should_handle(path))

    def _get_response(self, request: Any) -> Any:
        # `StaticFilesHandlerMixin`'s: a file that is not there is a 404.
        response: Any = self._files.get_response(request)
        # As `BaseHandler.get_response` does.
        response._resource_closers.append(request.close)
        return response

    def _is_the_loops(self, scope: Scope) -> bool:
        return False


class StaticFiles(Answering):
    """Static files, and the application behind them.

    ``around`` is Django's handler, of that very class; ``application`` what is to be called in the
    place of its own. With ``forecast`` the server learns which paths threads answer.
    """

    def __init__(
        self,
        around: ASGIStaticFilesHandler,
        application: Any,
        forecast: Forecast | None = None,
    ) -> None:
        inlining.install()
        self.django = around
        self.application = application
        self._forecast = forecast
        self.signal_sender = type(around)
        self.sync: StaticSide = StaticSide(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, on the loop."""
        if scope["type"] != "http" or not self.sync.handles(scope["path"]):
            await self.application(scope, receive, send)
            return
        if self._forecast is not None:
            self._forecast.learn_below(self.django.base_url.path, scope["path"])
        with pin_of_request(scope) as pin:
            await self._answer_sync(scope, receive, send, pin)

    async def _close_sync(self, response: Any, scope: Scope, thread: OnThread) -> None:
        # Of what a static file's response holds, nothing needs the thread that opened it.
        if not await inlining.close_inline(response, files=True):
            await thread(partial(self.sync.close, response, scope))
