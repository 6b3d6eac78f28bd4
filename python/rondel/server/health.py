"""``--health-port``: a port of its own, answered by a thread, that tells whether loops run.

    GET /anything ──► 200 {"status": "ok", "workers": [{"worker": 1, "pid": 7, "silent": 0.4}]}
                  ──► 503 the same with "status": "blocked" or "down"

``--health PATH`` is answered on the loop, natively: one that is blocked does not answer, but where
several workers accept, another one does in its place. This port knows of all: with ``--workers``
the supervisor answers, otherwise a thread of the process that serves. ``silent`` is seconds since
the worker's loop last answered the ping of each second; a loop that was silent for ``BLOCKED``
seconds counts as blocked. Without any worker that serves it is "down".

Bounded: one connection at a time, each for a second at most; nothing of a request is looked at but
its end.
"""

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable

from rondel.server.beats import Beat
from rondel.server.config import Config
from rondel.server.errors import ServeError

__all__ = ["BLOCKED", "HealthPort", "answer"]

logger = logging.getLogger("rondel.server")

BLOCKED = 5.0
# Seconds, and bytes, that a client has.
_PATIENCE = 1.0
_MOST = 16 * 1024

Look = Callable[[], "list[tuple[int, Beat]]"]


def answer(workers: "list[tuple[int, Beat]]") -> tuple[int, bytes]:
    """Status and body."""
    there = [(number, beat) for number, beat in workers if beat.pid]
    if not there:
        status, what = 503, "down"
    elif any(beat.loop >= BLOCKED for _, beat in there):
        status, what = 503, "blocked"
    else:
        status, what = 200, "ok"
    told = [
        {"worker": number, "pid": beat.pid, "silent": round(beat.loop, 3)} for number, beat in there
    ]
    return status, json.dumps({"status": what, "workers": told}).encode() + b"\n"


class HealthPort:
    """Answers from now on, until closed. Raises ServeError if the port can't be had."""

    def __init__(self, config: Config, look: Look) -> None:
        host = config.host if config.uds is None and config.fd is None else "127.0.0.1"
        try:
            self._socket = socket.create_server((host, config.health_port or 0), backlog=16)
        except OSError as error:
            raise ServeError(
                f"health port {config.health_port} of {host} cannot be had: {error.strerror}"
            ) from None
        self.port: int = self._socket.getsockname()[1]
        self._look = look
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="rondel-health", daemon=True)
        self._thread.start()
        logger.info("health is told on http://%s:%d", host, self.port)

    def close(self) -> None:
        """The port is free."""
        self._closed = True
        # Wakes the thread's accept, which a close alone does not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(2 * _PATIENCE)

    def _serve(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                if not self._closed:
                    time.sleep(0.1)  # out of descriptors, say
                continue
            with connection, contextlib.suppress(OSError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        end, request = time.monotonic() + _PATIENCE, b""
        while b"\r\n\r\n" not in request and len(request) < _MOST:
            connection.settimeout(max(end - time.monotonic(), 0.001))
            data = connection.recv(4096)
            if not data:
                return
            request += data
        status, body = answer(self._look())
        reason = "OK" if status == 200 else "Service Unavailable"
        head = (
            f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\n"
            f"cache-control: no-store\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + (b"" if request.startswith(b"HEAD ") else body))
