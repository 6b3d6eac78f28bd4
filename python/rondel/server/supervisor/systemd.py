"""What systemd is told of a ``Type=notify`` service: sd_notify(3), without its library.

Invariant: whether anybody listens never matters to the service; a message that can't be delivered
is dropped.
"""

import contextlib
import os
import socket
import time

__all__ = ["notify", "reloading"]


def notify(*assignments: str) -> None:
    """Send ``READY=1`` and the like; nothing happens outside of such a service."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto("\n".join(assignments).encode(), address)


def reloading() -> None:
    """A reload begins; ``notify("READY=1")`` ends it (``Type=notify-reload``)."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
