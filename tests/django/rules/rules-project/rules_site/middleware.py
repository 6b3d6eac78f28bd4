"""Middleware of every kind, made by name.

`link_NAME_FORM` is one link of a chain that only reports: FORM is a key of `FORMS`. So a test's
MIDDLEWARE can hold any number of links in any order. `hooks_NAME_sync` and `hooks_NAME_async`
have every hook of a class. The others do one thing each.

A link reports `in` and `out` with its name, and what of the contextvar TRAIL it sees: on the way in
it appends its name, on the way out it reads what the view left there.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import (
    async_only_middleware,
    sync_and_async_middleware,
    sync_only_middleware,
)
from django.utils.deprecation import MiddlewareMixin

from rules_site.errors import DeliberateError
from rules_site.events import TRAIL, mark, record

Factory = Callable[[Any], Any]


def __getattr__(name: str) -> Factory:
    kind, _, rest = name.partition("_")
    label, _, form = rest.partition("_")
    if kind == "link" and form in FORMS:
        return FORMS[form](label)
    if kind == "hooks" and form in ("sync", "async"):
        return _hooks(label, form == "async")
    raise AttributeError(name)


def _enter(label: str, request: HttpRequest) -> None:
    record("in", mark=mark(request), label=label, trail=TRAIL.get())
    TRAIL.set((*TRAIL.get(), label))


def _leave(label: str, request: HttpRequest, response: HttpResponseBase) -> None:
    record("out", mark=mark(request), label=label, trail=TRAIL.get(), status=response.status_code)


def _sync_class(label: str) -> Factory:
    class SyncLink:
        def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
            self.get_response = get_response

        def __call__(self, request: HttpRequest) -> HttpResponseBase:
            _enter(label, request)
            response = self.get_response(request)
            _leave(label, request, response)
            return response

    return SyncLink


def _async_class(label: str) -> Factory:
    class AsyncLink:
        sync_capable = False
        async_capable = True

        def __init__(self, get_response: Callable[[HttpRequest], Awaitable[Any]]) -> None:
            self.get_response = get_response
            markcoroutinefunction(self)

        async def __call__(self, request: HttpRequest) -> HttpResponseBase:
            _enter(label, request)
            response: HttpResponseBase = await self.get_response(request)
            _leave(label, request, response)
            return response

    return AsyncLink


def _both_class(label: str) -> Factory:
    class BothLink:
        sync_capable = True
        async_capable = True

        def __init__(self, get_response: Any) -> None:
            self.get_response = get_response
            if iscoroutinefunction(get_response):
                markcoroutinefunction(self)

        def __call__(self, request: HttpRequest) -> Any:
            if iscoroutinefunction(self.get_response):
                return self.call_async(request)
            _enter(label, request)
            response = self.get_response(request)
            _leave(label, request, response)
            return response

        async def call_async(self, request: HttpRequest) -> HttpResponseBase:
            _enter(label, request)
            response: HttpResponseBase = await self.get_response(request)
            _leave(label, request, response)
            return response

    return BothLink


def _mixin_class(label: str) -> Factory:
    class MixinLink(MiddlewareMixin):
        def process_request(self, request: HttpRequest) -> None:
            _enter(label, request)

        def process_response(
            self, request: HttpRequest, response: HttpResponseBase
        ) -> HttpResponseBase:
            _leave(label, request, response)
            return response

    return MixinLink


def _sync_function(label: str) -> Factory:
    @sync_only_middleware
    def link(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> HttpResponseBase:
            _enter(label, request)
            response: HttpResponseBase = get_response(request)
            _leave(label, request, response)
            return response

        return middleware

    return link


def _async_function(label: str) -> Factory:
    @async_only_middleware
    def link(get_response: Any) -> Any:
        async def middleware(request: HttpRequest) -> HttpResponseBase:
            _enter(label, request)
            response: HttpResponseBase = await get_response(request)
            _leave(label, request, response)
            return response

        return middleware

    return link


def _both_function(label: str) -> Factory:
    sync_link, async_link = _sync_function(label), _async_function(label)

    @sync_and_async_middleware
    def link(get_response: Any) -> Any:
        return (async_link if iscoroutinefunction(get_response) else sync_link)(get_response)

    return link


FORMS: dict[str, Callable[[str], Factory]] = {
    "syncclass": _sync_class,
    "asyncclass": _async_class,
    "bothclass": _both_class,
    "mixin": _mixin_class,
    "syncfunction": _sync_function,
    "asyncfunction": _async_function,
    "bothfunction": _both_function,
}


def _hooks(label: str, asynchronous: bool) -> Factory:
    """A class with every hook; a request asks for an answer by `?LABEL=HOOK`."""

    def view(request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        record("process_view", mark=mark(request), label=label, kwargs=kwargs, view=view.__name__)
        return _answer(request, "view")

    def exception(request: HttpRequest, error: Exception) -> HttpResponse | None:
        record("process_exception", mark=mark(request), label=label, error=type(error).__name__)
        return _answer(request, "exception")

    def template(request: HttpRequest, response: Any) -> Any:
        record("process_template_response", mark=mark(request), label=label)
        response.context_data["greeting"] += f" {label}"
        return response

    def _answer(request: HttpRequest, hook: str) -> HttpResponse | None:
        wanted = request.GET.get(label) == hook
        return HttpResponse(f"{label} answered in process_{hook}", status=202) if wanted else None

    if not asynchronous:

        class Hooks(_sync_class(label)):  # type: ignore[misc]
            process_view = staticmethod(view)
            process_exception = staticmethod(exception)

            def process_template_response(self, request: HttpRequest, response: Any) -> Any:
                return template(request, response)

        return Hooks

    class AsyncHooks(_async_class(label)):  # type: ignore[misc]
        async def process_view(self, *args: Any) -> HttpResponse | None:
            return view(*args)

        async def process_exception(self, *args: Any) -> HttpResponse | None:
            return exception(*args)

        async def process_template_response(self, *args: Any) -> Any:
            return template(*args)

    return AsyncHooks


def unused(get_response: Any) -> NoReturn:
    """Take yourself out of the chain."""
    record("unused")
    raise MiddlewareNotUsed("not in this project")


def broken(get_response: Any) -> NoReturn:
    """Fail at the start."""
    raise DeliberateError("a middleware's factory")


def nothing(get_response: Any) -> None:
    """Forget to return the middleware."""


@sync_only_middleware
def short_circuit_sync(get_response: Any) -> Any:
    """Answer `?stop` without asking further."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if "stop" in request.GET:
            return HttpResponse("stopped", status=203)
        response: HttpResponseBase = get_response(request)
        return response

    return middleware


@async_only_middleware
def short_circuit_async(get_response: Any) -> Any:
    """The same, async."""

    async def middleware(request: HttpRequest) -> HttpResponseBase:
        if "stop" in request.GET:
            return HttpResponse("stopped", status=203)
        response: HttpResponseBase = await get_response(request)
        return response

    return middleware


@sync_only_middleware
def raise_sync(get_response: Any) -> Any:
    """Raise before or after the view: `?raise=before`, `?raise=after`."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        _raise_at("before", request)
        response: HttpResponseBase = get_response(request)
        _raise_at("after", request)
        return response

    return middleware


@async_only_middleware
def raise_async(get_response: Any) -> Any:
    """The same, async."""

    async def middleware(request: HttpRequest) -> HttpResponseBase:
        _raise_at("async-before", request)
        response: HttpResponseBase = await get_response(request)
        _raise_at("async-after", request)
        return response

    return middleware


def _raise_at(moment: str, request: HttpRequest) -> None:
    if request.GET.get("raise") == moment:
        raise DeliberateError(moment)
