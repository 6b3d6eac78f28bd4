"""``sock_sendfile`` and ``sendfile`` over a plain socket: checks, then native code.

The fallbacks for what sendfile(2) refuses, and everything above, are asyncio's.
"""

# mypy: disable-error-code="attr-defined,misc,no-any-return"
# asyncio's private methods, which this class inherits and calls, are not in typeshed's stubs.

from __future__ import annotations

import io
import os
import socket
from asyncio import exceptions, unix_events
from typing import Any

__all__ = ["SendFile"]

_stock = unix_events._UnixSelectorEventLoop._sock_sendfile_native


class SendFile:
    """The part of the loop that sends files."""

    async def _sock_sendfile_native(
        self: Any, sock: socket.socket, file: Any, offset: int, count: int | None
    ) -> int:
        if type(sock) is not socket.socket:
            return await _stock(self, sock, file, offset, count)
        try:
            fileno = file.fileno()
        except (AttributeError, io.UnsupportedOperation):
            raise exceptions.SendfileNotAvailableError("not a regular file") from None
        try:
            size = os.fstat(fileno).st_size
        except OSError:
            raise exceptions.SendfileNotAvailableError("not a regular file") from None
        if not (count or size):
            return 0
        return await self._send_file(sock, file, fileno, offset, count or None)

    async def _send_rest(
        self: Any, sock: socket.socket, file: Any, offset: int, count: int | None, sent: int
    ) -> int:
        """What is left when the program watches the socket itself."""
        if count == 0:
            return sent
        return sent + await _stock(self, sock, file, offset, count)
