"""TLS for connections of the loop: asyncio's API over a native layer.

``_rondel.TlsProtocolBase`` and ``TlsTransportBase`` do what happens per record. The classes here
put them before asyncio's own ``sslproto`` classes, from which they inherit what happens once per
connection: the handshake and its end, the shutdown, both timeouts, errors, debugging, extra
information. It is thus that of the Python version that runs, and ``isinstance`` checks hold.

Invariants: asyncio's ``__init__`` methods are not called (they would make buffers of 256 KiB per
connection); the state that its other methods use is set here or is a property of the native base.
What the native layer keeps back until the end of a turn is sent before anything that asyncio would
do after it.

Everything runs with the GIL held, on the loop's thread.
"""

# mypy: disable-error-code="attr-defined,misc"
# asyncio's private methods, which these classes inherit and call, are not in typeshed's stubs.

from __future__ import annotations

import inspect
import weakref
from asyncio import constants, sslproto
from typing import TYPE_CHECKING, Any

from rondel import _rondel
from rondel.transports import SocketTransport

try:
    import ssl
except ImportError:  # Python without OpenSSL
    ssl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import asyncio
    import socket

# Later releases hand the exception on.
_ABORTS_FOR_A_REASON = "exc" in inspect.signature(sslproto.SSLProtocol._abort).parameters

# What a transport that is not native is lent to receive into, in bytes.
_FOREIGN_BUFFER = 256 * 1024


class SSLTransport(  # type: ignore[override]
    _rondel.TlsTransportBase, sslproto._SSLProtocolTransport
):
    """What the protocol of a TLS connection gets: asyncio's transport, with native writes."""

    _let_go: weakref.ref[SSLProtocol] | None = None

    def __init__(self, ssl_protocol: SSLProtocol) -> None:
        self._ssl_protocol = ssl_protocol
        self._closed = False

    # The native base has a finalizer of its own, which would hide asyncio's warning.
    __del__ = sslproto._SSLProtocolTransport.__del__

    def close(self) -> None:
        """Close after what was written is sent and the peer has agreed (or the timeout is over).

        A second call lets go of the connection, as in asyncio, so that a protocol that keeps its
        transport keeps nothing else; unlike there, it can still be asked and aborted.
        """
        if not self._closed:
            super().close()
        elif self._ssl_protocol is not None:
            self._let_go = weakref.ref(self._ssl_protocol)
            self._ssl_protocol = None

    def abort(self) -> None:
        """Close at once; what was not sent is lost."""
        self._force_close(None)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        layer = self._layer()
        return default if layer is None else layer._get_extra_info(name, default)

    def get_protocol(self) -> Any:
        layer = self._layer()
        return None if layer is None else layer._app_protocol

    def _force_close(self, exc: BaseException | None) -> None:
        self._closed = True
        layer = self._layer()
        if layer is not None:
            layer._abort(exc)

    def _layer(self) -> SSLProtocol | None:
        return self._ssl_protocol or (None if self._let_go is None else self._let_go())

    def _test__append_write_backlog(self, data: bytes) -> None:
        # The hook of asyncio's tests.
        self._ssl_protocol._append_backlog(data)


class SSLProtocol(  # type: ignore[override]
    _rondel.TlsProtocolBase, sslproto.SSLProtocol
):
    """The layer between a transport and the application's protocol: asyncio's ``SSLProtocol``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        app_protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext | None,
        waiter: asyncio.Future[None] | None,
        server_side: bool = False,
        server_hostname: str | None = None,
        call_connection_made: bool = True,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> None:
        """Prepare the session; the handshake starts with ``connection_made()``.

        Args:
            ssl_handshake_timeout, ssl_shutdown_timeout: seconds; asyncio's defaults if None.

        Raises:
            RuntimeError: this Python has no ``ssl``.
            ValueError: a timeout is not positive, or a server has no context.
        """
        if ssl is None:
            raise RuntimeError("stdlib ssl module not available")
        self._ssl_handshake_timeout: Any = _timeout(
            "ssl_handshake_timeout", ssl_handshake_timeout, constants.SSL_HANDSHAKE_TIMEOUT
        )
        self._ssl_shutdown_timeout = _timeout(
            "ssl_shutdown_timeout", ssl_shutdown_timeout, constants.SSL_SHUTDOWN_TIMEOUT
        )
        if not sslcontext:
            sslcontext = sslproto._create_transport_context(server_side, server_hostname)
        self._server_side = server_side
        self._server_hostname = server_hostname if server_hostname and not server_side else None
        self._sslcontext = sslcontext
        self._extra = {"sslcontext": sslcontext}
        self._waiter: Any = waiter
        self._conn_lost = 0
        self._eof_received = False
        states = sslproto.AppProtocolState
        self._app_state = states.STATE_INIT if call_connection_made else states.STATE_CON_MADE
        self._foreign: memoryview | None = None
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        sslobj = sslcontext.wrap_bio(
            incoming,
            outgoing,
            server_side=server_side,
            server_hostname=self._server_hostname,
        )
        self._open(loop, incoming, outgoing, sslobj)
        self._set_app_protocol(app_protocol)
        self._set_read_buffer_limits()
        self._set_write_buffer_limits()
        self._app_transport = SSLTransport(self)
        self._app_transport_created = True

    # ------------------------------------------------------------------ the transport below

    def connection_lost(self, exc: BaseException | None) -> None:
        self._drop_backlog()
        super().connection_lost(exc)

    def get_buffer(self, n: int) -> memoryview:
        # Asked by transports that are not native; others hand over what they have received.
        if self._foreign is None:
            self._foreign = memoryview(bytearray(_FOREIGN_BUFFER))
        return self._foreign

    def buffer_updated(self, nbytes: int) -> None:
        self._feed(self.get_buffer(-1)[:nbytes])

    # ------------------------------------------------------------------ the end

    def _start_shutdown(self, *args: Any) -> None:
        self._flush()
        super()._start_shutdown(*args)

    def _do_flush(self) -> None:
        self._do_write()  # also what the transport below had no room for: close_notify is last
        super()._do_flush()

    def _abort(self, exc: BaseException | None = None) -> None:
        self._flush()
        if _ABORTS_FOR_A_REASON:
            super()._abort(exc)
        elif exc is None:
            super()._abort()  # type: ignore[call-arg, unused-ignore]
        else:  # asyncio calls its own with an argument that it does not take
            self._set_state(sslproto.SSLProtocolState.UNWRAPPED)
            if self._transport is not None:
                self._transport._force_close(exc)


def _timeout(name: str, given: float | None, default: float) -> float:
    if given is None:
        return default
    if given <= 0:
        raise ValueError(f"{name} should be a positive number, got {given}")
    return given


class TLSLoop:
    """What an event loop has for TLS."""

    # CPython's tests of the layer itself are run on it.
    _ssl_protocol_class = SSLProtocol

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext | None,
        waiter: asyncio.Future[None] | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        **more: Any,
    ) -> Any:
        self._ensure_fd_no_transport(rawsock)
        try:
            layer = SSLProtocol(
                self,  # type: ignore[arg-type]
                protocol,
                sslcontext,
                waiter,
                server_side,
                server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
                **more,
            )
        except BaseException:
            rawsock.close()  # asyncio leaves it to the collector
            raise
        transport = layer._app_transport
        SocketTransport(self, rawsock, layer, None, extra, server)  # type: ignore[arg-type]
        return transport

    async def start_tls(
        self,
        transport: Any,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Any:
        """Upgrade a connection to TLS (Python docs: *loop.start_tls()*).

        Returns:
            The transport to use from now on, with ``protocol`` above it.

        Raises:
            TypeError: ``sslcontext`` is no ``ssl.SSLContext``, or the transport can't be upgraded.
            ssl.SSLError, OSError: the handshake failed; the transport is closed.
        """
        if ssl is None:
            raise RuntimeError("Python ssl module is not available")
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(
                f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}"
            )
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        waiter = self.create_future()
        layer = SSLProtocol(
            self,  # type: ignore[arg-type]
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            call_connection_made=False,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        # No data may reach the layer before it knows its transport.
        transport.pause_reading()
        transport.set_protocol(layer)
        steps = [
            self.call_soon(layer.connection_made, transport),
            self.call_soon(transport.resume_reading),
        ]
        try:
            await waiter
        except BaseException:
            transport.close()
            for step in steps:
                step.cancel()
            raise
        return layer._app_transport
