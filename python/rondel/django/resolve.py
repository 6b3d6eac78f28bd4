"""The forecast: whether the view that a request will get is sync or async.

The path is resolved before the middleware runs, as the way to go (loop or thread) must be chosen
before. ``resolve_request``, which Django calls behind the middleware, uses that match again instead
of resolving twice, unless something it depends on has changed in between: the URLconf, the path, or
the language (``i18n_patterns``).

A server can learn from it which paths are a thread's (``learn``), so that such requests need not
come to the loop at all.
"""

import enum
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.handlers.base import BaseHandler
from django.urls import ResolverMatch, get_resolver
from django.utils.translation import get_language

from rondel.django.names import MATCH, VIEW
from rondel.django.requests import script_prefix

__all__ = ["Forecast", "Kind"]

# The scope's key for a forecast on its way to `resolve_request`.
KEY = "rondel.match"

Learn = Callable[[str, Iterable[str], bool], object]


class Kind(enum.Enum):
    """What the view is."""

    SYNC = "sync"
    ASYNC = "async"


class Forecast:
    """Resolves paths ahead of the middleware."""

    def __init__(self, root_path: str = "") -> None:
        self._root_path = root_path
        self.learn: Learn | None = None

    def kind(self, scope: MutableMapping[str, Any], *, teach: bool = False) -> Kind:
        """What will answer this request. A path that leads nowhere is a sync matter: a 404.

        With ``teach`` the server learns of the path.
        """
        path: str = scope["path"]
        path_info = path.removeprefix(script_prefix(scope))
        language = get_language() if settings.USE_I18N else None
        try:
            match = get_resolver(settings.ROOT_URLCONF).resolve(path_info)
        except Exception:
            # A 404, or an error of the URLconf's own: Django meets it again, where it deals with
            # it.
            return Kind.SYNC
        scope[KEY] = (match, path_info, language)
        kind = Kind.ASYNC if iscoroutinefunction(match.func) else Kind.SYNC
        if teach and self.learn is not None and kind is Kind.SYNC:
            captured = [*match.args, *match.captured_kwargs.values()]  # type: ignore[attr-defined]
            self.learn(path.removeprefix(self._root_path), map(str, captured), True)
        return kind

    def learn_below(self, prefix: str, path: str) -> None:
        """The server learns that a thread answers this path, and those like it below ``prefix``."""
        if self.learn is not None:
            named = prefix.split("/")
            below = [part for part in path.removeprefix(prefix).split("/") if part not in named]
            self.learn(path.removeprefix(self._root_path), below, True)

    def install(self, handler: BaseHandler) -> None:
        """Have the handler's ``resolve_request`` use forecasts."""
        resolve = handler.resolve_request

        def resolve_request(request: Any) -> ResolverMatch:
            scope = getattr(request, "scope", {})
            forecast = scope.pop(KEY, None)
            if forecast is not None and not hasattr(request, "urlconf"):
                match, path_info, language = forecast
                same = language is None or get_language() == language
                if same and request.path_info == path_info:
                    request.resolver_match = match
                    scope[VIEW], scope[MATCH] = match.func, match
                    return match  # type: ignore[no-any-return]
            match = resolve(request)
            scope[VIEW], scope[MATCH] = match.func, match
            return match

        handler.resolve_request = resolve_request  # type: ignore[method-assign]
