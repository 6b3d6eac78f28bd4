"""The seam between the server's Python half and the native HTTP server.

Python owns what happens once per process: sockets, lifespan, signals, logging. The native server
owns connections and requests. Everything that crosses is in this file.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

from rondel.server import formats
from rondel.server.config import ASGIApp, Config, Limits
from rondel.server.logs import AccessLog
from rondel.server.metrics import Metrics
from rondel.server.options import split_mounts
from rondel.server.threads import Blocking
from rondel.server.wsgi import WSGI

__all__ = ["NativeServer", "start_server"]


class NativeServer(Protocol):
    """A running native server."""

    def shutdown(self, deadline: float, idle: float = 0.0) -> "asyncio.Future[int]":
        """Stop accepting, let requests end for ``deadline`` seconds, then cut them off. Idle
        connections stay open for ``idle`` seconds: one more request is answered on each.

        The future resolves with the number of requests that had to be cut off. A second call
        with a shorter deadline shortens the wait.
        """

    def stats(self) -> dict[str, int]:
        """``connections`` open, ``requests`` in flight, ``waiting`` for that, ``served`` since the
        start.
        """


def start_server(
    loop: asyncio.AbstractEventLoop,
    app: ASGIApp,
    config: Config,
    sockets: list[socket.socket],
    state: dict[str, Any] | None,
    blocking: Blocking | None = None,
    shared: tuple[int, int, int] | None = None,
    metrics: Metrics | None = None,
    late: Callable[[str, Any, Any], object] | None = None,
    tls: Any = None,
    redirects: int = 0,
) -> NativeServer:
    """Serve ``app`` on ``loop`` over duplicates of listening ``sockets``.

    ``blocking`` is what threads answer of it. ``shared`` is set where other processes accept from
    the same sockets: a file in which each counts what it took (its descriptor, how many numbers it
    has, and which is this process's). ``late`` is told of late requests: ``watchdog.Late``. ``tls``
    is a ``TlsContext``, if connections begin with TLS; the last ``redirects`` of the sockets send
    clients to https.
    """
    from rondel import _rondel

    written = formats.parse(config.access_log_format, ids=config.request_id is not None)
    access = AccessLog(loop, written)
    fds = [sock.fileno() for sock in sockets]
    serving = len(fds) - redirects
    limits = config.limits
    server = _rondel.serve_http(
        loop,
        app,
        fds[:serving],
        root_path=config.root_path,
        state=state,
        access_log=access if config.access_log and access.enabled else None,
        access_fields=written.asks,
        request_id=config.request_id,
        health=config.health,
        metrics=None if metrics is None else (config.metrics or "", metrics.scrape),
        tally=None if metrics is None else metrics.tally,
        compression=config.compression,
        compression_least=config.compression_min,
        proxy_headers=config.proxy_headers,
        proxies=config.forwarded_allow_ips,
        proxy_protocol=config.proxy_protocol,
        header_timeout=config.limits.header_timeout,
        keep_alive_timeout=config.limits.keep_alive_timeout,
        header_bytes=config.limits.header_bytes,
        header_count=config.limits.header_count,
        shared=shared,
        websockets=None if isinstance(app, WSGI) else _websocket_options(config),
        limits=_limits(config.limits),
        late=late,
        tls=tls,
        http=(config.http, limits.streams, limits.ping_interval, limits.tls_handshake_timeout),
        redirect=(fds[serving:], sockets[0].getsockname()[1]) if redirects else None,
        mounts=split_mounts(config.static) or None,
        max_age=config.static_max_age,
        headers=("rondel" if config.server_header else None, config.date_header),
        early_hints=config.early_hints,
        **({} if blocking is None else _blocking_options(blocking, config)),
    )
    return cast(NativeServer, server)


def _websocket_options(config: Config) -> tuple[int, int, float, float, float, bool] | None:
    if config.ws == "none":
        return None
    return (
        config.ws_max_size,
        config.ws_max_queue,
        config.ws_ping_interval,
        config.ws_ping_timeout,
        config.ws_close_timeout,
        config.ws_per_message_deflate,
    )


def _limits(limits: Limits) -> dict[str, float | int]:
    return {
        "url_bytes": limits.url_bytes,
        "body_bytes": limits.body_bytes,
        "body_timeout": limits.body_timeout,
        "body_rate": limits.body_rate,
        "write_timeout": limits.write_timeout,
        "connections": limits.open_connections,
        "concurrency": limits.concurrency,
        "queue": limits.queue,
        "request_timeout": limits.request_timeout,
    }


def _blocking_options(blocking: Blocking, config: Config) -> dict[str, Any]:
    return {
        "handler": blocking.handler,
        "pool": blocking.pool.native,
        "routes": blocking.routes,
        "spool": blocking.spool,
        "queue": config.limits.queue,
        "environ": blocking.environ,
        "scoped": blocking.scoped,
        "inline": blocking.inline,
    }
