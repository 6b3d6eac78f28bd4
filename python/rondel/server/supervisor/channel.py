"""Messages between the supervisor and a process of its own.

A SOCK_SEQPACKET socket pair: one packet is one message, a JSON object whose ``is`` names it; the
end of one side is the end of the stream on the other. Descriptors travel along (SCM_RIGHTS,
unix(7)).

Messages of a worker or template: ``here`` (pid) of one that was forked; ``ready``; ``failed``
(text, status) before it ends; ``replace`` and ``stuck`` (why); of a template also ``ended`` (pid,
status), of a watcher ``changed`` (paths). To a worker: ``stop`` (idle: seconds that idle
connections stay open), ``cut``; to a template ``fork`` (number; the worker's channel as
descriptor). Everything else is said by signals.

Invariants: nothing blocks. A message that the other side does not take (it has stopped reading for
a thousand messages, or is gone) is dropped; whether a process lives is told by its end, never by
whether a message went out.
"""

import json
import socket
from collections.abc import Iterator
from typing import Any

__all__ = ["WORKERS", "Channel", "Message"]

Message = dict[str, Any]

# Numbers in the file in which workers count the connections that they took. With more workers than
# that some share one.
WORKERS = 512
# Bytes of a message, and of what it tells: an error's text is cut to fit.
_MOST = 60_000
_TEXT = 50_000


class Channel:
    """One end."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.ended = False

    @classmethod
    def pair(cls) -> "tuple[Channel, socket.socket]":
        """Our end, and the socket that is passed to the other process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def fileno(self) -> int:
        """For a selector or an event loop."""
        return self._sock.fileno()

    def send(self, what: str, descriptors: tuple[int, ...] = (), **told: Any) -> bool:
        """Whether it went out."""
        if isinstance(text := told.get("text"), str):
            told["text"] = text[-_TEXT:]
        packet = json.dumps({"is": what, **told}).encode()
        if len(packet) > _MOST:
            raise ValueError(f"a message of {len(packet)} bytes")
        try:
            if descriptors:
                socket.send_fds(self._sock, [packet], list(descriptors))
            else:
                self._sock.send(packet)
        except OSError:
            return False
        return True

    def received(self) -> Iterator[tuple[Message, list[int]]]:
        """What has come in, with the descriptors of each; ``ended`` is set at the end."""
        while not self.ended:
            try:
                packet, descriptors, _, _ = socket.recv_fds(self._sock, _MOST, 8)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                packet, descriptors = b"", []
            if not packet:
                self.ended = True
                return
            yield json.loads(packet), descriptors

    def close(self) -> None:
        """The other side sees the end."""
        self._sock.close()
