"""The seam between the server's Python half and the native HTTP server.

Python owns what happens once per process: sockets, lifespan, signals, logging. The native server
owns connections and requests. Everything that crosses is in this file.
"""

import asyncio
import socket
from typing import Any, Protocol, cast

from rondel.server.config import ASGIApp, Config
from rondel.server.logs import AccessLog

__all__ = ["NativeServer", "start_server"]


class NativeServer(Protocol):
    """A running native server."""

    def shutdown(self, deadline: float) -> "asyncio.Future[int]":
        """Stop accepting, let requests end for ``deadline`` seconds, then cut them off.

        The future resolves with the number of requests that had to be cut off. A second call
        with a shorter deadline shortens the wait.
        """


def start_server(
    loop: asyncio.AbstractEventLoop,
    app: ASGIApp,
    config: Config,
    sockets: list[socket.socket],
    state: dict[str, Any] | None,
) -> NativeServer:
    """Serve ``app`` on ``loop`` over duplicates of listening ``sockets``."""
    from rondel import _rondel

    access = AccessLog(loop)
    server = _rondel.serve_http(
        loop,
        app,
        [sock.fileno() for sock in sockets],
        root_path=config.root_path,
        state=state,
        access_log=access if config.access_log and access.enabled else None,
        header_timeout=config.limits.header_timeout,
        keep_alive_timeout=config.limits.keep_alive_timeout,
        header_bytes=config.limits.header_bytes,
        header_count=config.limits.header_count,
    )
    return cast(NativeServer, server)
