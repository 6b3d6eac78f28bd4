"""System checks: what makes a Django project slow or unsafe on an asynchronous server.

    rondel.W001  middleware that only runs synchronously
    rondel.W002  persistent database connections without a bound on threads (asked by `manage.py
                 serve --no-bridge` alone: otherwise Rondel's threads are bounded)
    rondel.W003  DEBUG while `manage.py serve` runs (asked by that command alone: in development
                 DEBUG is as it should be)
    rondel.W004  another app's `runserver` comes first in INSTALLED_APPS
    rondel.W005  no ASGI_APPLICATION

Invariants: a check reads settings and classes, never the database; it never raises for a mistake
that Django reports itself (a middleware that cannot be imported); each has a hint that says what
to write where, and an id for SILENCED_SYSTEM_CHECKS.
"""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Warning
from django.core.management import find_commands
from django.utils.module_loading import import_string

__all__ = [
    "REGISTERED",
    "TAG",
    "asgi_application_name",
    "debug_while_serving",
    "missing_asgi_hint",
    "persistent_connections",
]

TAG = "rondel"


def asgi_application_name() -> str | None:
    """ASGI_APPLICATION, which has no default among Django's settings."""
    return getattr(settings, "ASGI_APPLICATION", None) or None


def sync_only_middleware(
    app_configs: Sequence[AppConfig] | None = None, **_: Any
) -> list[CheckMessage]:
    """W001. The attributes are the ones by which Django decides, with its defaults."""
    if asgi_application_name() is None:
        return []
    found = [path for path in settings.MIDDLEWARE if _is_sync_only(path)]
    if not found:
        return []
    names, it = ", ".join(found), "it" if len(found) == 1 else "each of them"
    return [
        Warning(
            f"Middleware that only runs synchronously: {names}.",
            hint=(
                "Under ASGI a request to an async view changes to a thread and back for "
                f"{it}, and waits for both. Use a version that has async_capable = True, derive a "
                "class from django.utils.deprecation.MiddlewareMixin, or mark a function with "
                "django.utils.decorators.sync_and_async_middleware."
            ),
            id="rondel.W001",
        )
    ]


def persistent_connections() -> list[CheckMessage]:
    """W002. SQLite has no server that could run out of connections."""
    found: list[CheckMessage] = [
        Warning(
            f"DATABASES[{alias!r}] keeps its connections (CONN_MAX_AGE is {age!r}), and without "
            "Rondel's bridge nothing bounds the number of threads that open them.",
            hint=(
                "The sync code of each request may run on a thread of its own, and every such "
                "thread leaves a connection behind: the database may run out of them. Serve with "
                "the bridge, or set CONN_MAX_AGE to 0; to save connecting for each request use a "
                'pool (with PostgreSQL on Django 5.1 or later: "OPTIONS": {"pool": True}).'
            ),
            obj=None,
            id="rondel.W002",
        )
        for alias, database in settings.DATABASES.items()
        if (age := database.get("CONN_MAX_AGE", 0)) != 0
        and not database.get("ENGINE", "").endswith(("sqlite3", "spatialite", "dummy"))
    ]
    return [message for message in found if not message.is_silenced()]


def debug_while_serving() -> list[CheckMessage]:
    """W003, for `manage.py serve`; empty as well if it is silenced."""
    if not settings.DEBUG:
        return []
    message = Warning(
        "DEBUG is on: error pages show code and settings to every visitor, and each query is kept "
        "in memory.",
        hint="Set DEBUG = False to serve; manage.py runserver is for development.",
        id="rondel.W003",
    )
    return [] if message.is_silenced() else [message]


def other_runserver(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """W004. Django takes a command from the first app in INSTALLED_APPS that has it."""
    for config in apps.get_app_configs():
        if config.name == "rondel.django":
            break
        if "runserver" in find_commands(os.path.join(config.path, "management")):
            return [
                Warning(
                    f"manage.py runserver is {config.name}'s, not Rondel's.",
                    hint=f'Put "rondel.django" before "{config.name}" in INSTALLED_APPS.',
                    id="rondel.W004",
                )
            ]
    return []


def no_asgi_application(
    app_configs: Sequence[AppConfig] | None = None, **_: Any
) -> list[CheckMessage]:
    """W005."""
    if asgi_application_name() is not None:
        return []
    return [
        Warning(
            "ASGI_APPLICATION is not set: manage.py runserver serves WSGI, by Django's own server, "
            "and manage.py serve has nothing to serve.",
            hint=missing_asgi_hint(),
            id="rondel.W005",
        )
    ]


def missing_asgi_hint() -> str:
    """The line to add to the settings, with the project's own module where it can be found."""
    wsgi = getattr(settings, "WSGI_APPLICATION", None) or ""
    packages = [
        name.rpartition(".")[0]
        for name in (wsgi.rpartition(".")[0], settings.ROOT_URLCONF, settings.SETTINGS_MODULE or "")
    ]
    for package in packages:
        if package and _module_exists(f"{package}.asgi"):
            return f'Add ASGI_APPLICATION = "{package}.asgi.application" to the settings.'
    return (
        'Add ASGI_APPLICATION = "mysite.asgi.application" to the settings, with mysite/asgi.py as '
        "django-admin startproject writes it."
    )


REGISTERED = (
    sync_only_middleware,
    other_runserver,
    no_asgi_application,
)


def _is_sync_only(path: str) -> bool:
    try:
        middleware = import_string(path)
    except Exception:
        return False  # Django says so when it loads the middleware
    return bool(
        getattr(middleware, "sync_capable", True)
        and not getattr(middleware, "async_capable", False)
    )


def _module_exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
