"""TLS: the certificates of a server, when their files change, and what applications are told.

The native half (rustls) does the rest. Files are looked at by time, not by inotify: what is renewed
is often a link to a link (certbot, Kubernetes), of which no file changes.
"""

import asyncio
import contextlib
import functools
import hmac
import logging
import os
import secrets
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

from rondel.server.config import Config
from rondel.server.errors import ServeError

__all__ = ["Certificates", "Tickets", "extension"]

logger = logging.getLogger("rondel.server")


class Certificates:
    """What TLS is set up by, loaded; raises ServeError if it cannot be.

    ``watch`` has it loaded again when a file changes, or on SIGHUP where nobody else listens to
    that. Workers share ``tickets``, so that a session begun with one is resumed by another.
    Connections that are open keep what they have; what cannot be loaded is told, and changes
    nothing.
    """

    def __init__(self, config: Config, tickets: "Tickets | None" = None) -> None:
        from rondel import _rondel

        keys: tuple[str | None, ...] = tuple(config.ssl_keyfile)
        pairs = zip(config.ssl_certfile, keys or (None,) * len(config.ssl_certfile), strict=True)
        self._every = config.ssl_reload
        self._files = [
            *config.ssl_certfile,
            *config.ssl_keyfile,
            *filter(None, (config.ssl_ca_certs, config.ssl_crlfile)),
        ]
        self._seen = self._stamps()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hears = False
        try:
            self.context = _rondel.tls_context(
                list(pairs),
                password=config.ssl_keyfile_password,
                client_auth=config.ssl_cert_reqs,
                authorities=config.ssl_ca_certs,
                revoked=config.ssl_crlfile,
                only_13=config.ssl_min_version == "1.3",
                http=config.http,
                tickets=None if tickets is None else (tickets.period, tickets.secret),
            )
        except ValueError as error:
            raise ServeError(str(error)) from None

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the files from now on, until ``close``."""
        self._loop = loop
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            loop.add_signal_handler(signal.SIGHUP, self.reload)
            self._hears = True
        self._look()

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._hears and self._loop is not None:
            with contextlib.suppress(RuntimeError, ValueError):
                self._loop.remove_signal_handler(signal.SIGHUP)
        self._timer, self._loop, self._hears = None, None, False

    def reload(self) -> None:
        """Load the files again, for connections to come."""
        self._seen = self._stamps()
        try:
            self.context.reload()
        except ValueError as error:
            logger.error("certificates were not loaded again, the old ones stay: %s", error)
        else:
            logger.info("certificates were loaded again")

    def _look(self) -> None:
        if self._loop is None or not self._every:
            return
        self._timer = self._loop.call_later(self._every, self._look)
        if self._stamps() != self._seen:
            self.reload()

    def _stamps(self) -> list[tuple[int, ...] | None]:
        return [*self._each_stamp()]

    def _each_stamp(self) -> Iterator[tuple[int, ...] | None]:
        for path in self._files:
            try:
                found = os.stat(path)
            except OSError:
                yield None
            else:
                yield found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


# Seconds for which a key of session tickets is used; the native half has the same number.
_PERIOD = 6 * 3600


class Tickets:
    """What the keys of session tickets come from: a secret, of a period of six hours.

    The next period's is derived from it, and never the other way round: what was recorded before
    cannot be read by it.
    """

    def __init__(self, period: int | None = None, secret: bytes | None = None) -> None:
        self.period = self._now() if period is None else period
        self.secret = secrets.token_bytes(32) if secret is None else secret

    @staticmethod
    def _now() -> int:
        return int(time.time()) // _PERIOD

    def told(self) -> dict[str, Any]:
        """For another process, brought up to date and with the past forgotten."""
        while self.period < self._now():
            self.secret = hmac.digest(self.secret, b"rondel next", "sha256")
            self.period += 1
        return {"period": self.period, "secret": self.secret.hex()}

    @classmethod
    def heard(cls, told: dict[str, Any]) -> "Tickets":
        """The same in the other process."""
        return cls(told["period"], bytes.fromhex(told["secret"]))


@functools.lru_cache(maxsize=64)
def _pem(certificate: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(certificate)


def extension(
    version: int,
    cipher_suite: int,
    certificate: bytes | None,
    chain: list[bytes],
    name: str | None,
) -> dict[str, Any]:
    """The scope's ``tls`` (ASGI TLS Extension 0.2). A certificate that is shown is one that was
    verified, so there is never an error to tell.
    """
    return {
        "server_cert": None if certificate is None else _pem(certificate),
        "client_cert_chain": tuple(ssl.DER_cert_to_PEM_cert(one) for one in chain),
        "client_cert_name": name,
        "client_cert_error": None,
        "tls_version": version,
        "cipher_suite": cipher_suite,
    }
