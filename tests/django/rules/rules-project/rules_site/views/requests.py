"""What a view sees of its request."""

import hashlib
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseNotModified, JsonResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse

from rules_site.errors import DeliberateError, DeliberateExit
from rules_site.events import TRAIL, here, mark, record

ERRORS: dict[str, type[BaseException]] = {
    "error": DeliberateError,
    "exit": SystemExit,
    "interrupt": KeyboardInterrupt,
    "base": DeliberateExit,
}


def _facts(request: HttpRequest) -> dict[str, Any]:
    record("view", mark=mark(request), trail=TRAIL.get())
    trail = TRAIL.get()
    TRAIL.set((*trail, "view"))
    return {
        "trail": trail,
        "method": request.method,
        "path": request.path,
        "path_info": request.path_info,
        "here_url": reverse("sync"),
        "query": dict(request.GET.lists()),
        "cookies": request.COOKIES,
        "scheme": request.scheme,
        "host": request.get_host(),
        "scope": sorted(getattr(request, "scope", {})),
        "scope_path": getattr(request, "scope", {}).get("path"),
        "request_class": type(request).__name__,
        **here(),
    }


def sync_facts(request: HttpRequest, name: str = "") -> HttpResponseBase:
    """Everything that is not a body."""
    return JsonResponse(_facts(request))


async def async_facts(request: HttpRequest, name: str = "") -> HttpResponseBase:
    """The same on the loop."""
    return JsonResponse(_facts(request))


def meta(request: HttpRequest) -> HttpResponseBase:
    """The whole of META, with the type of what is no string."""
    return JsonResponse(
        {
            name: value if isinstance(value, str) else f"{type(value).__name__}: {value}"
            for name, value in request.META.items()
        }
    )


def _file_facts(file: Any) -> dict[str, Any]:
    return {
        "name": file.name,
        "size": file.size,
        "sha": hashlib.sha256(file.read()).hexdigest(),
        "class": type(file).__name__,
    }


def body(request: HttpRequest) -> HttpResponseBase:
    """Read the body by `?by=`: body, read, lines, chunks, post, nothing."""
    by = request.GET.get("by", "body")
    if by == "body":
        content = request.body
    elif by == "read":
        content = request.read()
    elif by == "lines":
        content = b"".join(request)
    elif by == "chunks":
        content = b"".join(iter(lambda: request.read(1000), b""))
    elif by == "post":
        files = {name: _file_facts(file) for name, file in request.FILES.items()}
        return JsonResponse({"post": dict(request.POST.lists()), "files": files})
    else:
        content = b""
    return JsonResponse({"size": len(content), "sha": hashlib.sha256(content).hexdigest()})


async def async_body(request: HttpRequest) -> HttpResponseBase:
    """The same on the loop."""
    return body(request)


def answer(request: HttpRequest) -> HttpResponseBase:
    """An answer of any shape: `?status=`, `?size=`, `?cookie=`, `?header=NAME:VALUE`."""
    if request.GET.get("status") == "304":
        return HttpResponseNotModified()
    response = HttpResponse(
        b"x" * int(request.GET.get("size", "0")), status=int(request.GET.get("status", "200"))
    )
    for cookie in request.GET.getlist("cookie"):
        name, _, value = cookie.partition("=")
        response.set_cookie(name, value, httponly=True, samesite="Lax")
    for header in request.GET.getlist("header"):
        name, _, value = header.partition(":")
        response[name] = value
    return response


def raise_sync(request: HttpRequest, what: str) -> HttpResponseBase:
    """Raise."""
    record("raising", mark=mark(request))
    raise ERRORS[what]("asked for")


async def raise_async(request: HttpRequest, what: str) -> HttpResponseBase:
    """Raise on the loop."""
    record("raising", mark=mark(request))
    raise ERRORS[what]("asked for")


def nothing_sync(request: HttpRequest) -> Any:
    """Forget the response."""


async def nothing_async(request: HttpRequest) -> Any:
    """Forget the response, on the loop."""


def template_sync(request: HttpRequest, name: str) -> HttpResponseBase:
    """A response that is rendered later."""
    return TemplateResponse(request, "hello.html", {"greeting": "hello", "name": name})


async def template_async(request: HttpRequest, name: str) -> HttpResponseBase:
    """The same on the loop."""
    return TemplateResponse(request, "hello.html", {"greeting": "hello", "name": name})
