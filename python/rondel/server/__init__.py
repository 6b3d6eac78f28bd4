"""The server's Python half: what happens once per process.

Two ways in: ``serve(app)`` blocks until a signal stops it; ``Server`` is the same on a loop that
already runs. Requests never pass through this package: the native server drives them.
"""

from typing import TYPE_CHECKING

from rondel.server.config import ASGIApp, Config, Interface, LifespanMode, Limits
from rondel.server.errors import ServeError
from rondel.server.lifecycle import Server

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__all__ = [
    "ASGIApp",
    "Config",
    "Interface",
    "LifespanMode",
    "Limits",
    "ServeError",
    "Server",
    "serve",
]


def serve(
    app: "ASGIApp | WSGIApplication | str",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    uds: str | None = None,
    backlog: int = 2048,
    interface: Interface = "auto",
    root_path: str = "",
    lifespan: LifespanMode = "auto",
    lifespan_timeout: float = 60.0,
    graceful_timeout: float = 30.0,
    access_log: bool = True,
    access_log_format: str = "plain",
    log_level: str = "info",
    log_format: str = "text",
    request_id: str | None = None,
    limits: Limits | None = None,
) -> int:
    """Serve an ASGI or WSGI application until SIGINT or SIGTERM, and return the exit status.

    ``app`` is the application or its name, ``"mysite.asgi:application"``. Raises ``ServeError``,
    whose text is one complete line, when it cannot be served.

        import rondel.server
        rondel.server.serve("mysite.asgi:application", port=8080)
    """
    from rondel.server.process import run_process

    name = app if isinstance(app, str) else f"{type(app).__module__}.{type(app).__qualname__}"
    config = Config(
        host=host,
        port=port,
        uds=uds,
        backlog=backlog,
        interface=interface,
        root_path=root_path,
        lifespan=lifespan,
        lifespan_timeout=lifespan_timeout,
        graceful_timeout=graceful_timeout,
        access_log=access_log,
        access_log_format=access_log_format,
        log_level=log_level,
        log_format=log_format,
        request_id=request_id,
        limits=limits or Limits(),
        name=getattr(app, "__qualname__", name),
    )
    return run_process(app, config)
