"""What Django leaves to a process's first requests, done before there are any.

The first requests don't wait for it, and what is imported and built here is set aside from garbage
collections with the rest of the application (``rondel.server.heap``); with ``--preload``, where
workers are forks of one process, all share it. Nothing here runs a view, opens a connection or asks
a service; what fails is left as it was, to fail where it is told: in the first request that wants
it. A URLconf that can't be imported is told here as well: requests may have another error for it,
when a second import of it stumbles over what the first one has left.

One thread; the application has been imported, so Django is set up.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from importlib import import_module

from django.conf import settings
from django.db import connections
from django.db.utils import load_backend
from django.template import engines
from django.template.backends.django import DjangoTemplates
from django.urls import get_resolver
from django.utils.formats import get_format
from django.utils.module_loading import import_string
from django.utils.translation import gettext

__all__ = ["prepare"]

logger = logging.getLogger("rondel.server")


def prepare() -> None:
    """Import the project's views, and of Django what its settings name and its queries need."""
    steps: tuple[Callable[[], object], ...] = (
        _import_urls,
        lambda: get_resolver().reverse_dict,  # the names that `reverse` finds
        _make_template_engines,
        lambda: gettext("yes"),  # the catalogue of LANGUAGE_CODE
        lambda: get_format("DATE_FORMAT"),  # and its formats
    )
    for step in steps:
        with contextlib.suppress(Exception):
            step()
    for alias in connections.settings:
        with contextlib.suppress(Exception):
            _import_database(alias)
    for name in _named():
        with contextlib.suppress(Exception):
            import_string(name)


def _import_urls() -> None:
    """The URLconf, and with it the views."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return  # middleware may answer everything
    try:
        _ = get_resolver().url_patterns
    except Exception:
        logger.warning(
            "the URLconf %s can't be imported, as requests will find",
            settings.ROOT_URLCONF,
            exc_info=True,
        )


def _make_template_engines() -> None:
    """The engines with what tags, loaders and context processors are in. Reads no template."""
    for each in engines.all():
        if isinstance(each, DjangoTemplates):
            _ = each.engine.template_loaders, each.engine.template_context_processors


def _import_database(alias: str) -> None:
    """Of one database's backend what it imports for its first query. Does not connect."""
    backend = load_backend(connections.settings[alias]["ENGINE"])
    import_module(backend.DatabaseWrapper.ops_class.compiler_module)


def _named() -> Iterator[str]:
    """Dotted names that settings have, of what the project's middleware and apps are to use."""
    if "django.contrib.sessions.middleware" in sys.modules:
        yield settings.SESSION_SERIALIZER
    if "django.contrib.messages.middleware" in sys.modules:
        yield settings.MESSAGE_STORAGE
    if "django.contrib.auth.middleware" in sys.modules:
        yield from settings.AUTHENTICATION_BACKENDS
    yield from settings.FILE_UPLOAD_HANDLERS
    for choice in (settings.CACHES, settings.STORAGES):
        yield from (each["BACKEND"] for each in choice.values())
