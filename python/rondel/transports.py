"""``SocketTransport``: a stream socket's transport, TCP or Unix.

The native base (``_rondel.TcpTransportBase``) does what happens per packet: receiving, sending,
flow control, closing. Here is what happens once per connection: looking up its addresses,
announcing it to the loop and the server, describing it, and complaining when it was forgotten.

Invariants: the base lets go of the loop, the socket and the protocol in ``_call_connection_lost``,
so ``_sock is None`` says that the connection is over; the socket object owns the descriptor and is
closed there or in ``__del__``.

It is also ``rondel.transports``, which stands for ``asyncio.transports`` under ``import rondel as
asyncio``: every other name is asyncio's.
"""

from __future__ import annotations

import logging
import sys
import warnings
from asyncio import base_events, constants, futures, trsock
from typing import TYPE_CHECKING, Any

from rondel import _rondel
from rondel._submodules import of_asyncio

if TYPE_CHECKING:
    import asyncio
    import socket

__all__ = ["SocketTransport"]

logger = logging.getLogger("asyncio")

# From 3.13 on a server knows its transports: `_attach(transport)` instead of `_attach()`.
_SERVER_KNOWS_TRANSPORTS = sys.version_info >= (3, 13)


def __getattr__(name: str) -> Any:
    return of_asyncio(name, "transports")


class SocketTransport(_rondel.TcpTransportBase):
    """A transport as ``asyncio``'s selector loop gives them to protocols (see its docs)."""

    # What asyncio's `start_tls` and `sendfile` ask of a transport.
    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
    ) -> None:
        if extra is None:
            extra = {}
        extra["socket"] = trsock.TransportSocket(sock)
        try:
            extra["sockname"] = sock.getsockname()
        except OSError:
            extra["sockname"] = None
        if "peername" not in extra:
            try:
                extra["peername"] = sock.getpeername()
            except OSError:
                extra["peername"] = None
        fd = sock.fileno()
        self._open(loop, sock, fd, protocol, extra, server)
        if server is not None:
            if _SERVER_KNOWS_TRANSPORTS:
                server._attach(self)
            else:
                server._attach()
        loop._transports[fd] = self  # type: ignore[attr-defined]
        # Small writes are sent without waiting for the peer's acknowledgement.
        base_events._set_nodelay(sock)  # type: ignore[attr-defined]
        loop.call_soon(protocol.connection_made, self)
        # Data, and whoever waits for the connection, come after connection_made().
        loop.call_soon(self._start_reading)
        if waiter is not None:
            loop.call_soon(futures._set_result_unless_cancelled, waiter, None)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        info = [self.__class__.__name__]
        if self._sock is None:
            info.append("closed")
        elif self._closing:
            info.append("closing")
        info.append(f"fd={self._sock_fd}")
        if self._loop is not None and not self._loop.is_closed():
            reads, writes = self._polling()
            info.append("read=polling" if reads else "read=idle")
            state = "polling" if writes else "idle"
            info.append(f"write=<{state}, bufsize={self.get_write_buffer_size()}>")
        return f"<{' '.join(info)}>"

    def __del__(self, _warn: Any = warnings.warn) -> None:
        sock = self._sock
        if sock is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            sock.close()
            if _SERVER_KNOWS_TRANSPORTS and self._server is not None:
                self._server._detach(self)

    def _fatal_error(self, exc: BaseException, message: str = "Fatal error on transport") -> None:
        """Report an exception of the protocol or the socket, and abort the connection."""
        if isinstance(exc, OSError):
            # Peers that vanish are everyday: only debug mode tells.
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=exc)
        else:
            self._loop.call_exception_handler(
                {
                    "message": message,
                    "exception": exc,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
        self._force_close(exc)

    def _log_debug(self, event: str) -> None:
        """Debug mode: called by the base."""
        logger.debug("%r %s", self, event)
