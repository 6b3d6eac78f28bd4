"""A Django project whose requests are looked at, as `served` has it."""

import asyncio
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.db import models
from django.http import HttpResponse
from django.urls import path
from django.views import View

from tests.inspect.served import gates, held, loop_gates

settings.configure(
    SECRET_KEY="of the tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    LOGGING_CONFIG=None,
)
django.setup()


class SlowQuerySet(models.QuerySet[Any]):
    def get(self, *args: Any, **kwargs: Any) -> Any:
        return held(kwargs["key"])


class Book(models.Model):
    objects = SlowQuerySet.as_manager()

    class Meta:
        app_label = "tests"


def sync_view(request: Any, key: str) -> HttpResponse:
    return HttpResponse(held(key))


async def async_view(request: Any, key: str) -> HttpResponse:
    await loop_gates[key].wait()
    return HttpResponse("waited")


async def queries(request: Any, key: str) -> HttpResponse:
    return HttpResponse(await Book.objects.aget(key=key))


class ClassBased(View):
    async def get(self, request: Any, key: str) -> HttpResponse:
        await loop_gates[key].wait()
        return HttpResponse("waited")


async def open_gate(request: Any, key: str) -> HttpResponse:
    gates[key].set()
    loop_gates[key].set()
    await asyncio.sleep(0)
    return HttpResponse("open")


urlpatterns = [
    path("sync/<key>", sync_view),
    path("async/<key>", async_view),
    path("queries/<key>", queries),
    path("class/<key>", ClassBased.as_view()),
    path("open/<key>", open_gate),
]

application = get_asgi_application()
