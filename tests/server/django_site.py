"""A Django project in a file, served by its WSGI application."""

import asyncio
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path, reverse

settings.configure(
    SECRET_KEY="of the tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.common.CommonMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(Path(tempfile.mkdtemp()) / "db.sqlite3"),
        }
    },
    LOGGING_CONFIG=None,
)


def page(request: Any, name: str) -> HttpResponse:
    where = reverse("page", args=[name])
    return HttpResponse(f"{name} at {where} of {request.get_host()}, {request.GET.get('q')}")


def upload(request: Any) -> JsonResponse:
    file = request.FILES["file"]
    return JsonResponse({"name": file.name, "digest": hashlib.sha256(file.read()).hexdigest()})


def raw(request: Any) -> JsonResponse:
    length = int(request.META["CONTENT_LENGTH"])
    return JsonResponse({"length": length, "size": len(request.read())})


def stream(request: Any) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        for number in range(3):
            yield f"{request.path} {number}\n"

    return StreamingHttpResponse(parts(), content_type="text/plain")


def file(request: Any) -> FileResponse:
    return FileResponse(Path(__file__).with_name("flask_site.py").open("rb"))


def count(request: Any) -> HttpResponse:
    request.session["count"] = request.session.get("count", 0) + 1
    return HttpResponse(str(request.session["count"]))


def query(request: Any) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute("select 6 * 7")
        return HttpResponse(str(cursor.fetchone()[0]))


async def waits(request: Any) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse("waited")


def error(request: Any) -> HttpResponse:
    raise RuntimeError("a view's failure")


urlpatterns = [
    path("page/<name>", page, name="page"),
    path("upload", upload),
    path("raw", raw),
    path("stream", stream),
    path("file", file),
    path("count", count),
    path("query", query),
    path("waits", waits),
    path("error", error),
]

django.setup()
application = get_wsgi_application()
