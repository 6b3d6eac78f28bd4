"""The threads of a server, and applications that use them for whole requests.

A Django application is served through the hybrid handler (``rondel.django.handler``): requests for
sync views go from the connection to a thread and back, and the loop's Python has no part in them.
All requests of a WSGI application go that way (``wsgi``); with one thread it is the loop's own that
runs the application, without a hand-over.
"""

import asyncio
import contextlib
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rondel import _rondel, bridge
from rondel._pool import ThreadPool
from rondel.bridge.inline import turn_off
from rondel.server.config import ASGIApp, Config
from rondel.server.errors import UsageError
from rondel.server.wsgi import SPOOL, WSGI

if TYPE_CHECKING:
    from rondel.django.tax import Tax
    from rondel.server.telemetry import Telemetry

__all__ = ["USUAL_THREADS", "Blocking", "Threads", "hybrid_of", "with_hybrid", "with_static"]

# Threads of a worker that was told no number: enough for views that wait for something, and few
# enough for a database that counts connections.
USUAL_THREADS = 16


@dataclass(frozen=True, slots=True)
class Blocking:
    """How the native server has threads answer requests: see ``_rondel.serve_http``."""

    handler: Any
    pool: ThreadPool
    routes: "_rondel.Routes"
    # Bytes of a request's body that are kept in memory.
    spool: int
    # For a WSGI application: what every request's `environ` has.
    environ: "dict[str, Any] | None" = None
    # Whether the handler is given scopes.
    scoped: bool = True
    # The loop's own thread is the one that answers.
    inline: bool = False


class Threads:
    """The pool of one server, from its start to its stop."""

    def __init__(self, config: Config) -> None:
        self._pool = ThreadPool(config.threads or USUAL_THREADS, "rondel-worker")
        if not config.inline:
            turn_off()
        self._tax: Tax | None = None
        if config.tax != "off":
            from rondel.django import tax

            self._tax = tax.Tax(config.tax)
        self._otel = config.otel
        self._telemetry: Telemetry | None = None
        # Whether the loop's own thread runs the application.
        self._inline = False

    @property
    def inline(self) -> bool:
        """Whether the application runs on the loop's own thread, which it may block."""
        return self._inline

    @property
    def pool(self) -> ThreadPool:
        """The threads."""
        return self._pool

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop judge how many threads run, and the bridge use them."""
        self._pool.native.pace(loop)
        bridge.set_bridge_pool(self._pool)

    def adopt(
        self, app: ASGIApp, config: Config, loop: asyncio.AbstractEventLoop
    ) -> tuple[ASGIApp, Blocking | None]:
        """The application to serve on the loop, and what threads answer of it.

        Raises UsageError for settings of Django's that can't be served.
        """
        try:
            app, blocking = self._adopt(app, config, loop)
        except Exception as error:
            django = sys.modules.get("django.core.exceptions")
            if django is None or not isinstance(error, django.ImproperlyConfigured):
                raise
            raise UsageError(f"the project's settings: {error}") from error
        if self._tax is not None:
            app = self._tax.application(app)
            if blocking is not None:
                handler = self._tax.on_threads(blocking.handler)
                blocking = replace(blocking, handler=handler, scoped=True)
        if self._otel:
            # Whatever else is around the application is within its span.
            from rondel.server.telemetry import Telemetry

            telemetry = self._telemetry = Telemetry()
            if not isinstance(app, WSGI):
                app = telemetry.application(app)
            if blocking is not None:
                handler = telemetry.on_threads(blocking.handler)
                blocking = replace(blocking, handler=handler, scoped=True)
        return app, blocking

    def _adopt(
        self, app: ASGIApp, config: Config, loop: asyncio.AbstractEventLoop
    ) -> tuple[ASGIApp, Blocking | None]:
        if isinstance(app, WSGI):
            if _has_django("django.db"):
                self._keep_databases()
            routes = _rondel.routes()
            routes.take_all()
            self._inline = config.threads == 1
            return app, Blocking(
                app.handler(),
                self._pool,
                routes,
                SPOOL,
                environ=app.template(config),
                scoped=False,
                inline=self._inline,
            )
        django = _has_django("django.core.handlers.asgi")
        if django:
            self._keep_databases()
        if not config.hybrid:
            return app, None
        app, hybrid = with_hybrid(app, config.root_path)
        if hybrid is None:
            if django:
                # Its application is inside of another: Channels' router, say.
                from rondel.django import inlining

                inlining.install()
            return app, None
        from django.conf import settings

        routes = _rondel.routes()
        hybrid.forecast.learn = routes.learn
        hybrid.sync.serve_on(loop)
        spool: int = settings.FILE_UPLOAD_MAX_MEMORY_SIZE
        return app, Blocking(hybrid.sync.run, self._pool, routes, spool)

    def _keep_databases(self) -> None:
        """No other request runs on a thread with a transaction open; a thread ends without any."""
        from django.db import connections

        from rondel.bridge.threads import set_hold
        from rondel.django.leaks import in_transaction

        set_hold(in_transaction)
        self._pool.at_thread_end.append(connections.close_all)

    def stop(self) -> None:
        """No further calls; those under way end by themselves."""
        if self._inline:
            # The loop's own thread was the pool's. Django closes no connection within a loop.
            self._inline = False
            running = asyncio._get_running_loop()
            asyncio._set_running_loop(None)
            try:
                for func in self._pool.at_thread_end:
                    func()
            finally:
                asyncio._set_running_loop(running)
        if bridge.bridge_pool() is self._pool:
            bridge.set_bridge_pool(None)
        self._pool.shutdown(wait=False)
        if self._telemetry is not None:
            telemetry, self._telemetry = self._telemetry, None
            telemetry.close()
        if self._tax is not None:
            tax, self._tax = self._tax, None
            sys.stderr.write(tax.finish())


def prepared(app: ASGIApp, config: Config) -> ASGIApp:
    """The application with as much of ``Threads.adopt`` as can be done before a fork: what a Django
    project imports and builds for its first request is then shared by all workers.

    What fails here is left as it was, to fail where it is told.
    """
    if not _has_django("django.core.handlers.base"):
        return app
    from rondel.django.ahead import prepare

    with contextlib.suppress(Exception):  # settings that are wrong: told by whoever needs them
        prepare()
    if config.hybrid and config.inline and config.tax == "off":
        with contextlib.suppress(Exception):
            return hybrid_of(app, config.root_path) or app
    return app


def with_hybrid(app: ASGIApp, root_path: str = "") -> tuple[ASGIApp, Any]:
    """The application to call, with the hybrid handler in Django's place, and that; else ``None``.

    Django's own ``ASGIStaticFilesHandler`` around it keeps its place, and has files streamed.
    """
    hybrid = hybrid_of(app, root_path)
    if hybrid is not None:
        return hybrid, hybrid
    static = sys.modules.get("django.contrib.staticfiles.handlers")
    # 4.2 has it, too. A subclass may do anything.
    if static is not None and type(app) is static.ASGIStaticFilesHandler:
        return with_static(app, root_path)
    return app, None


def with_static(around: Any, root_path: str = "") -> tuple[ASGIApp, Any]:
    """Django's ``ASGIStaticFilesHandler`` likewise; whatever application it is around."""
    from rondel.django.static import StaticFiles

    files: Any
    hybrid = hybrid_of(around.application, root_path)
    if hybrid is None:
        files = StaticFiles(around, around.application)
    else:
        files = StaticFiles(around, hybrid, hybrid.forecast)
        hybrid.sync.static = files.sync
    return files, hybrid


def _has_django(module: str) -> bool:
    """Whether a Django project was set up in this process, and that part of Django is in use."""
    part, conf = sys.modules.get(module), sys.modules.get("django.conf")
    if part is None or conf is None or not conf.settings.configured:
        return False
    from django.apps import apps

    return apps.ready


def hybrid_of(app: ASGIApp, root_path: str = "") -> Any:
    """The hybrid handler of a Django application; None for any other."""
    asgi = sys.modules.get("django.core.handlers.asgi")
    if asgi is None or not isinstance(app, asgi.ASGIHandler):
        return None
    from rondel.django.handler import HybridHandler

    if isinstance(app, HybridHandler):
        return app
    # A subclass that deals with requests in its own way is left alone.
    ours = ("__call__", "handle", "run_get_response", "send_response", "create_request")
    # Django 4.2 has not all of them.
    stock = asgi.ASGIHandler
    if any(getattr(type(app), name, None) is not getattr(stock, name, None) for name in ours):
        return None
    return HybridHandler(app, root_path=root_path)
