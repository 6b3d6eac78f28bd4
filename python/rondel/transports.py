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

import sys
import warnings
from asyncio import constants
from typing import TYPE_CHECKING, Any

from rondel import _rondel
from rondel._submodules import of_asyncio
from rondel._transport import Reports

if TYPE_CHECKING:
    import asyncio
    import socket

__all__ = ["SocketTransport"]


# From 3.13 on a server knows its transports: `_attach(transport)` instead of `_attach()`.
_SERVER_KNOWS_TRANSPORTS = sys.version_info >= (3, 13)


def __getattr__(name: str) -> Any:
    return of_asyncio(name, "transports")


class SocketTransport(Reports, _rondel.TcpTransportBase):
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
        connected: bool = False,
    ) -> None:
        self._open(loop, sock, protocol, waiter, extra, server, connected)

    # Runs for every connection, hence native: calls `_forgotten` for one that was not closed.
    __del__ = _rondel.TcpTransportBase._finish

    def _forgotten(self, _warn: Any = warnings.warn) -> None:
        sock = self._sock
        _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
        sock.close()
        if _SERVER_KNOWS_TRANSPORTS and self._server is not None:
            self._server._detach(self)


_rondel._adopt_transport(SocketTransport)
