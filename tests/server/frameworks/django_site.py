"""Django's ASGI application: async views, a sync one, files and uploads."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import (
    FileResponse,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.urls import path

from tests.server.frameworks import FILE, Sum, described, lines

settings.configure(
    SECRET_KEY="of the tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    LOGGING_CONFIG=None,
)

go = asyncio.Event()
done: list[str] = []


def page(request: Any, name: str) -> HttpResponse:
    text = f"{name} {request.GET.get('q')}"
    return HttpResponse(text, content_type="text/plain; charset=utf-8")


async def away(request: Any) -> HttpResponse:
    return HttpResponseRedirect("/page/x?q=redirected")


def upload(request: Any) -> JsonResponse:
    file = request.FILES.get("file")
    if file is None:
        return JsonResponse({}, status=400)
    told = described(request.POST["title"], file.name, file.content_type, file.read())
    return JsonResponse(told)


async def raw(request: Any) -> JsonResponse:
    got = Sum()
    while part := request.read(65536):
        got.add(part)
    return JsonResponse(got.told())


async def stream(request: Any) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for part in lines():
            yield part
            await go.wait()

    return StreamingHttpResponse(parts(), content_type="text/plain; charset=utf-8")


async def release(request: Any) -> HttpResponse:
    go.set()
    return HttpResponse(status=204)


def file(request: Any) -> FileResponse:
    return FileResponse(FILE.open("rb"), as_attachment=True, filename="né.py")


async def cookies(request: Any) -> HttpResponse:
    count = request.COOKIES.get("count", "0")
    response = HttpResponse(count, content_type="text/plain; charset=utf-8")
    response.set_cookie("count", str(int(count) + 1))
    response.set_cookie("other", "b", httponly=True)
    return response


async def endless() -> AsyncIterator[bytes]:
    try:
        while True:
            yield b"more" * 1000
            await asyncio.sleep(0.001)
    finally:
        done.append("stream ended")


async def endlessly(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(endless())


async def finished(request: Any) -> JsonResponse:
    gc.collect()  # a generator that was left suspended ends with its last reference
    return JsonResponse(done, safe=False)


async def error(request: Any) -> HttpResponse:
    raise RuntimeError("a handler's failure")


urlpatterns = [
    path("page/<name>", page),
    path("away", away),
    path("upload", upload),
    path("raw", raw),
    path("stream", stream),
    path("go", release),
    path("file", file),
    path("cookies", cookies),
    path("error", error),
    path("endless", endlessly),
    path("finished", finished),
]

django.setup()
app = get_asgi_application()
