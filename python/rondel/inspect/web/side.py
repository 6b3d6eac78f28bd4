"""Starts the page's process, beside the program that it shows.

The socket is bound here, so a port in use is told at once. The process is started by an
intermediate one, so it is no child of the program's: a program that waits for its children meets
only its own. It ends when its stdin does, which is the end of this process, however that ends;
forks close their copy of the pipe.
"""

import os
import secrets
import socket
import subprocess
import sys
from dataclasses import dataclass

from rondel.inspect.web.address import Address

__all__ = ["PageError", "SidePage", "start"]

# Seconds for an interpreter to start and fork.
_PATIENCE = 60.0


class PageError(Exception):
    """The page cannot be served; the text is one whole line."""


@dataclass(slots=True)
class SidePage:
    """A page that is served by another process."""

    #: What to open; with the token, if one is needed.
    url: str
    #: The pipe's end that keeps it alive; -1 when it was closed.
    _lifeline: int

    def close(self) -> None:
        """Have the process end."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


def bind(address: Address) -> socket.socket:
    """A socket that listens there. Raises PageError."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise PageError(f"no address {address.host!r}: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise PageError(
            f"the inspector's page cannot listen on {address}: {error.strerror}"
        ) from None
    return sock


def start(address: Address, pid: int | None = None) -> SidePage:
    """Serve the page of process ``pid`` (default: this one) and of those that it starts.

    Raises PageError.
    """
    token = "" if address.is_loopback else secrets.token_urlsafe(32)
    with bind(address) as sock:
        port = sock.getsockname()[1]
        here, lifeline = os.pipe()
        try:
            _spawn(address, sock.fileno(), here, pid or os.getpid(), token)
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            os.close(here)
    page = SidePage(url_of(address, port, token), lifeline)
    os.register_at_fork(after_in_child=page.close)
    return page


def url_of(address: Address, port: int, token: str) -> str:
    """What a person opens."""
    shown = Address(address.host, port)
    if address.host in ("0.0.0.0", "::"):
        shown = Address(socket.gethostname(), port)
    return f"http://{shown}/" + (f"?token={token}" if token else "")


def _spawn(address: Address, listener: int, lifeline: int, pid: int, token: str) -> None:
    command = [
        *(sys.executable, "-m", "rondel.inspect.web"),
        *(str(listener), str(address), str(pid)),
    ]
    # Who is looked at is told by its sockets' folders; it is none of the page's own concern.
    env = {**os.environ, "RONDEL_INSPECT": "0", "RONDEL_STALL": "0", "RONDEL_PAGE_TOKEN": token}
    # The program's own directory may have modules that are named as ours or Python's.
    env["PYTHONSAFEPATH"] = "1"
    try:
        ended = subprocess.run(
            command,
            stdin=lifeline,
            stdout=subprocess.DEVNULL,
            pass_fds=(listener,),
            env=env,
            start_new_session=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PageError(f"the inspector's page cannot be started: {error}") from None
    if ended.returncode:
        raise PageError("the inspector's page could not be started")
