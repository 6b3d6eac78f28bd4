"""`http.route` of a request, from whoever matched it (`--otel`).

    noted in the scope      Starlette, FastAPI; Django, by `rondel.django.resolve`    route_in
    told by a signal        Flask
    seen at the matching    Falcon, which keeps the route in its own request object

Routes are templates without values in them. What a framework tells goes to the request that is
being answered in that context (`at`), on the loop's thread or on a pool's; without one nothing is
kept.

Invariant: no framework is imported for this. What is not loaded when the server begins tells
nothing.
"""

import re
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

__all__ = ["Routed", "at", "listen", "route_in"]

_NAMES_OF_ROUTES = re.compile(r"{(\w+)")


class Routed(Protocol):
    """A request that wants to know its route."""

    @property
    def prefix(self) -> str:
        """What the server's application is mounted at."""

    route: str | None


# The request that is being answered here.
at: ContextVar[Routed | None] = ContextVar("rondel_otel", default=None)


def route_in(scope: Mapping[str, Any], prefix: str) -> str | None:
    """The route that a framework has noted in the scope."""
    match = scope.get("rondel.match")
    if match is not None:
        route: str = match.route
        return route if route.startswith("^") else "/" + route
    path = getattr(scope.get("route"), "path", None)
    if not isinstance(path, str):
        return None
    mounted: str = scope.get("root_path", "")[len(prefix) :]
    if mounted and set(scope.get("path_params", ())) > set(_NAMES_OF_ROUTES.findall(path)):
        return None  # some of them are in the way there
    return mounted + path


def listen() -> Callable[[], None]:
    """Be told of routes by the frameworks that are loaded; how that ends."""
    ends = [_listen_to_flask(), _listen_to_falcon()]

    def end() -> None:
        for each in ends:
            each()

    return end


def _told(mount: str, template: str) -> None:
    """``mount``: where the framework's application is, the server's prefix included."""
    request = at.get()
    if request is not None:
        request.route = mount[len(request.prefix) :] + template


def _flask_begins(_app: object, **_more: object) -> None:
    """Flask has matched a request."""
    from flask import request

    if request.url_rule is not None:
        _told(request.environ.get("SCRIPT_NAME", ""), request.url_rule.rule)


def _listen_to_flask() -> Callable[[], object]:
    signals = sys.modules.get("flask.signals")
    if signals is None or not hasattr(signals.request_started, "connect"):
        return lambda: None
    signals.request_started.connect(_flask_begins)
    return lambda: signals.request_started.disconnect(_flask_begins)


def _listen_to_falcon() -> Callable[[], object]:
    """All of Falcon's applications, ASGI and WSGI, match by this method of their class.

    A middleware would be the public way, but is an application's, which may stand behind others;
    and another one before it may answer.
    """
    app: Any = getattr(sys.modules.get("falcon.app"), "App", None)
    match = getattr(app, "_get_responder", None)
    if match is None:
        return lambda: None

    def matching(slf: Any, req: Any) -> Any:
        found = match(slf, req)
        # (responder, parameters, resource, template): sinks and static files have no template.
        if len(found) == 4 and isinstance(found[3], str):
            _told(req.root_path, found[3])
        return found

    def end() -> None:
        # Unless somebody has put something around it since.
        if app._get_responder is matching:
            app._get_responder = match

    app._get_responder = matching
    return end
