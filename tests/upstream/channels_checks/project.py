"""A Django project with Channels, in one module: SQLite in memory, an in-memory layer, one view."""

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="not secret",
    DEBUG=False,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="project",
    INSTALLED_APPS=["channels"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django.setup()

from django.http import HttpRequest, HttpResponse  # noqa: E402 (after setup)
from django.urls import path  # noqa: E402


def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"view {request.path}")


urlpatterns = [path("view", view)]
