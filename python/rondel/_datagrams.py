"""``DatagramTransport``: a datagram socket's transport, UDP or Unix.

The native base (``_rondel.UdpTransportBase``) does what happens per datagram. Here is what happens
once per endpoint: looking up its addresses, announcing it to the loop, describing it, and
complaining when it was forgotten.

Invariants: the base lets go of the loop, the socket and the protocol in ``_call_connection_lost``,
so ``_sock is None`` says that the endpoint is closed; the socket object owns the descriptor and is
closed there or in ``__del__``.
"""

from __future__ import annotations

import warnings
from asyncio import futures, transports, trsock
from typing import TYPE_CHECKING, Any

from rondel import _rondel
from rondel._transport import Reports

if TYPE_CHECKING:
    import asyncio
    import socket

__all__ = ["DatagramTransport"]


class DatagramTransport(Reports, _rondel.UdpTransportBase, transports.DatagramTransport):
    """A transport as ``asyncio``'s selector loop gives them to datagram protocols."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
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
        self._open(loop, sock, fd, protocol, extra, address)
        loop._claim(fd, self)  # type: ignore[attr-defined]
        loop.call_soon(protocol.connection_made, self)
        # Datagrams, and whoever waits for the endpoint, come after connection_made().
        loop.call_soon(self._start_reading)
        if waiter is not None:
            loop.call_soon(futures._set_result_unless_cancelled, waiter, None)  # type: ignore[attr-defined]

    def __del__(self, _warn: Any = warnings.warn) -> None:
        sock = self._sock
        if sock is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            sock.close()
