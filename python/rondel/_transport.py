"""How the native transports report their errors, and those of sockets describe themselves.

Mixins in front of a native base: ``ErrorReports`` for pipes too, ``Reports`` for connections and
for datagrams. Everything here runs with the GIL held, on the loop's thread, and rarely.
"""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["ErrorReports", "Reports"]

logger = logging.getLogger("asyncio")


class ErrorReports:
    """What is said of an error, and what debug mode logs: as asyncio's transports have it."""

    __slots__ = ()

    @staticmethod
    def _is_expected(exc: BaseException) -> bool:
        """Whether the error is everyday, as peers that vanish are: only debug mode tells of it."""
        return isinstance(exc, OSError)

    def _report_error(self: Any, exc: BaseException, message: str) -> None:
        if self._is_expected(exc):
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

    def _log_debug(self, event: str) -> None:
        """Debug mode: called by the base."""
        logger.debug("%r %s", self, event)


class Reports(ErrorReports):
    """``repr()``, the end by an error, what debug mode logs: as asyncio's transports have it."""

    __slots__ = ()

    def __repr__(self: Any) -> str:
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

    def _fatal_error(
        self: Any, exc: BaseException, message: str = "Fatal error on transport"
    ) -> None:
        """Report an exception of the protocol or the socket, and abort."""
        self._report_error(exc, message)
        self._force_close(exc)
