"""The loop's methods that make datagram transports, connections and servers.

A mixin of ``EventLoop``, between the native base and asyncio's loop: the usual cases, which run
once per connection, in few frames. Everything else (names to resolve, TLS, sockets of the caller,
happy eyeballs) is asyncio's own code, and so are its errors.

Runs with the GIL held, on the loop's thread.
"""

# mypy: disable-error-code="attr-defined,misc"
# The class is only ever mixed into EventLoop, whose attributes it uses.

from __future__ import annotations

import collections.abc
import errno
import functools
import inspect
import logging
import socket
from asyncio import base_events, constants, trsock
from typing import TYPE_CHECKING, Any

from rondel._datagrams import DatagramTransport
from rondel.transports import SocketTransport

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

__all__ = ["SocketMethods"]

logger = logging.getLogger("asyncio")

_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class SocketMethods:
    """What asyncio's loop asks of its subclass for sockets."""

    @property
    def _transports(self) -> Transports:
        return Transports(self)

    # ------------------------------------------------------------------ datagrams

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> DatagramTransport:
        self._ensure_fd_no_transport(sock)
        return DatagramTransport(self, sock, protocol, address, waiter, extra)  # type: ignore[arg-type]

    # ------------------------------------------------------------------ servers

    def _start_serving(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], sock: socket.socket, *rest: Any
    ) -> None:
        # Connections have it from their listening socket (Linux): none needs a call of its own.
        base_events._set_nodelay(sock)
        self._add_reader(sock.fileno(), self._accept_connection, protocol_factory, sock, *rest)

    def _accept_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        *timeouts: Any,
    ) -> None:
        """A listening socket is readable: accept up to ``backlog`` connections.

        As asyncio's, but a connection without TLS needs no task, and one report is made, not
        ``backlog`` of them, when there is no descriptor left. Those over IP are
        accepted natively, except in debug mode (``_accept_many``).
        """
        for _ in range(backlog):
            try:
                if (
                    not sslcontext
                    and not self._debug
                    and self._accept_many(protocol_factory, sock, server, backlog)
                ):
                    return
                accepted = self._accept_one(sock)
            except OSError as exc:
                if exc.errno not in _OUT_OF_RESOURCES:
                    raise
                # It stays readable: look again in a while, or this would be a busy loop.
                self.call_exception_handler(
                    {
                        "message": "socket.accept() out of system resource",
                        "exception": exc,
                        "socket": trsock.TransportSocket(sock),
                    }
                )
                self._remove_reader(sock.fileno())
                self.call_later(
                    constants.ACCEPT_RETRY_DELAY,
                    self._resume_serving,
                    protocol_factory,
                    sock,
                    sslcontext,
                    server,
                    backlog,
                    *timeouts,
                )
                return
            if accepted is None:
                return
            conn, address = accepted
            if self._debug:
                logger.debug("%r got a new connection from %r: %r", server, address, conn)
            if sslcontext:
                extra = {"peername": address}
                self.create_task(
                    self._accept_connection2(
                        protocol_factory, conn, extra, sslcontext, server, *timeouts
                    )
                )
            else:
                # One turn later, as asyncio's task.
                self.call_soon(self._accepted, protocol_factory, conn, address, server)

    def _resume_serving(self, protocol_factory: Any, sock: socket.socket, *options: Any) -> None:
        if sock.fileno() >= 0:  # it may have been closed meanwhile
            self._start_serving(protocol_factory, sock, *options)

    def _accepted(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        conn: socket.socket,
        address: Any,
        server: Any,
    ) -> None:
        """Make the protocol and the transport; whatever goes wrong ends this connection alone."""
        try:
            protocol = protocol_factory()
            extra = {"peername": address}
            SocketTransport(self, conn, protocol, None, extra, server)  # type: ignore[arg-type]
        except BaseException as exc:
            conn.close()
            if isinstance(exc, (SystemExit, KeyboardInterrupt)):
                raise
            self._report_not_made(exc)

    def _report_not_made(self, exc: BaseException) -> None:
        """Within the ``except`` that has caught it, as all reports."""
        message = "Error on transport creation for incoming connection"
        self.call_exception_handler({"message": message, "exception": exc})

    # ------------------------------------------------------------------ connections

    async def create_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: Any = None,
        port: Any = None,
        **options: Any,
    ) -> Any:
        """Connect a stream socket and make a transport and a protocol for it.

        As in the Python docs (*Event Loop*, ``loop.create_connection()``).
        """
        family = None
        if not options and type(port) is int and type(host) is str:
            family = _literal(host)
        if family is None or self._debug:
            return await super().create_connection(protocol_factory, host, port, **options)
        # Not 0.0.0.0, which leads to 127.0.0.1; IPv6 has many spellings.
        peer_is_host = family == socket.AF_INET and host != "0.0.0.0"
        sock = socket.socket(family, _STREAM, socket.IPPROTO_TCP)
        address = (host, port)
        try:
            await self.sock_connect(sock, address)
            waiter = self.create_future()
            protocol = protocol_factory()
            # A socket that was never bound to another address reaches the very one that was given.
            known = {"peername": address} if peer_is_host else None
            transport = self._connected(sock, protocol, waiter, known, None, peer_is_host)
        except BaseException:
            sock.close()
            raise
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        return transport, protocol


# Its parameters are asyncio's: most of them go there as they are.
_signature = inspect.signature(base_events.BaseEventLoop.create_connection)
SocketMethods.create_connection.__signature__ = _signature
for _name in _signature.parameters:
    SocketMethods.create_connection.__annotations__.setdefault(_name, "Any")


class Transports(collections.abc.MutableMapping[int, Any]):
    """asyncio's table of transports by descriptor: a view of the native one."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop

    def __getitem__(self, fd: int) -> Any:
        transport = self._loop._claimed(fd)
        if transport is None:
            raise KeyError(fd)
        return transport

    def __setitem__(self, fd: int, transport: Any) -> None:
        self._loop._claim(fd, transport)

    def __delitem__(self, fd: int) -> None:
        if not self._loop._claim(fd, None):
            raise KeyError(fd)

    def __iter__(self) -> Iterator[int]:
        return (fd for fd in range(self._loop._claims()) if fd in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@functools.lru_cache(maxsize=256)
def _literal(host: str) -> int | None:
    """The family of an address that is given by number; None for names."""
    if "%" in host:
        return None
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError, UnicodeEncodeError):
            continue
        return family
    return None
