"""The forecast: whether the view that a request will get is sync or async.

The path is resolved before the middleware runs, as the way to go (loop or thread) must be chosen
before. ``resolve_request``, which Django calls behind the middleware, uses that match again instead
of resolving twice, unless something it depends on has changed in between: the URLconf, the path, or
the language, where there are routes that differ by it (``i18n_patterns``, translated routes). To
ask for the language costs as much as to resolve.

Where all that is tried for a path is Django's own (``_may_differ``), the same path leads to the
same view, and the matches of some paths are remembered: Django tries a site's patterns one after
the other, for each request anew.

A server can learn from it which paths are a thread's (``learn``), so that such requests need not
come to the loop at all.
"""

import enum
import functools
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.handlers.base import BaseHandler
from django.urls import ResolverMatch, converters, get_resolver
from django.urls.resolvers import RegexPattern, RoutePattern, URLPattern, URLResolver
from django.utils.translation import get_language

from rondel.django.names import MATCH, VIEW
from rondel.django.requests import script_prefix

__all__ = ["Forecast", "Kind"]

# The scope's key for a forecast on its way to `resolve_request`.
KEY = "rondel.match"

# Paths whose match is remembered: those that are asked for again and again. Each match has a list
# of all the patterns that were tried before, some 20 KB where a site has 300 routes.
MOST = 256

Learn = Callable[[str, Iterable[str], bool], object]


class Kind(enum.Enum):
    """What the view is."""

    SYNC = "sync"
    ASYNC = "async"


_CONVERTERS = frozenset(map(type, converters.DEFAULT_CONVERTERS.values()))


@functools.cache
def _differs_by_language(resolver: URLResolver) -> bool:
    """Whether a path may lead elsewhere in another language; asked once for each URLconf."""
    try:
        return _may_differ(resolver)
    except Exception:
        # A part that cannot be imported, which Django meets where it deals with it.
        return True


def _may_differ(resolver: URLResolver | URLPattern) -> bool:
    # Patterns of unknown kinds may do anything.
    pattern: Any = resolver.pattern
    # What it was made of: a lazy string if it is translated.
    text = {RoutePattern: "_route", RegexPattern: "_regex"}.get(type(pattern), "")
    fixed = type(getattr(pattern, text, None)) is str
    if not fixed or not _CONVERTERS.issuperset(map(type, pattern.converters.values())):
        return True
    if type(resolver) is URLPattern:
        return False
    return type(resolver) is not URLResolver or any(map(_may_differ, resolver.url_patterns))


def _as_new(match: ResolverMatch) -> ResolverMatch:
    """One that a request may change, as it may change the one that Django makes for it."""
    new = ResolverMatch.__new__(ResolverMatch)
    new.__dict__.update(match.__dict__)
    for name in ("kwargs", "captured_kwargs", "extra_kwargs"):
        given = getattr(match, name)
        if given is not None:
            setattr(new, name, dict(given))
    return new


class Forecast:
    """Resolves paths ahead of the middleware."""

    def __init__(self, root_path: str = "") -> None:
        self._root_path = root_path
        self.learn: Learn | None = None
        # The matches of a resolver, by path. One object, as threads share it.
        self._known: tuple[URLResolver | None, dict[str, tuple[ResolverMatch, Kind]]] = None, {}

    def kind(self, scope: MutableMapping[str, Any], *, teach: bool = False) -> Kind:
        """What will answer this request. A path that leads nowhere is a sync matter: a 404.

        With ``teach`` the server learns of the path.
        """
        path: str = scope["path"]
        path_info = path.removeprefix(script_prefix(scope))
        try:
            match, kind, language = self._resolve(path_info)
        except Exception:
            # A 404, or an error of the URLconf's own: Django meets it again, where it deals with
            # it.
            return Kind.SYNC
        scope[KEY] = (match, path_info, language)
        if teach and self.learn is not None and kind is Kind.SYNC:
            captured = [*match.args, *match.captured_kwargs.values()]  # type: ignore[attr-defined]
            self.learn(path.removeprefix(self._root_path), map(str, captured), True)
        return kind

    def _resolve(self, path_info: str) -> tuple[ResolverMatch, Kind, str | None]:
        """The match, what its view is, and the language if that makes a difference."""
        resolver = get_resolver(settings.ROOT_URLCONF)
        of, known = self._known
        # `clear_url_caches` and another ROOT_URLCONF make another resolver.
        if of is not resolver:
            known = {}
            self._known = resolver, known
        found = known.get(path_info)
        if found is not None:
            return _as_new(found[0]), found[1], None
        match = resolver.resolve(path_info)
        kind = Kind.ASYNC if iscoroutinefunction(match.func) else Kind.SYNC
        if _differs_by_language(resolver):
            return match, kind, get_language()
        if type(match) is ResolverMatch:
            if len(known) >= MOST:
                known.clear()
            known[path_info] = (_as_new(match), kind)
        return match, kind, None

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
