"""Listening sockets: binding them, telling who is in the way, and cleaning up after them.

Invariants: sockets are bound before the application starts but listen only when it is ready, so
that a client is refused rather than left waiting; a Unix socket's file is removed only if nobody
listens on it (at the start) or if it is still ours (at the end).
"""

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass

from rondel.server.errors import ServeError

__all__ = ["Listeners", "bind"]


@dataclass(slots=True)
class Listeners:
    """The sockets of one server, and the name under which a browser finds it."""

    sockets: list[socket.socket]
    url: str
    uds: str | None = None
    # (device, inode) of our Unix socket's file, to know it again.
    uds_identity: tuple[int, int] | None = None

    def listen(self, backlog: int) -> None:
        """Start to accept. Only now can another listener on the same port show up."""
        for sock in self.sockets:
            try:
                sock.listen(backlog)
            except OSError as error:
                raise ServeError(_refused(error, self.url.partition("//")[2])) from None

    def close(self) -> None:
        """Close what is still open and remove the Unix socket's file if it is ours."""
        for sock in self.sockets:
            sock.close()
        if self.uds is None or self.uds_identity is None:
            return
        with contextlib.suppress(OSError):
            if _identity(self.uds) == self.uds_identity:
                os.unlink(self.uds)


def bind(host: str, port: int, uds: str | None = None) -> Listeners:
    """Bind a Unix socket, or each address that ``host`` stands for."""
    return _bind_uds(uds) if uds is not None else _bind_tcp(host, port)


def _bind_tcp(host: str, port: int) -> Listeners:
    name = host.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(
            name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ServeError(f"host {host!r} cannot be resolved: {error.strerror}") from None
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            # Port 0: all addresses of the host share the port that the first was given.
            chosen = sockets[0].getsockname()[1] if sockets else port
            target = (address[0], chosen, *address[2:])
            try:
                sock = _open_tcp(family, kind, protocol, target, dual=name == "::")
            except OSError as error:
                # "localhost" may stand for ::1 on a machine without IPv6.
                missing = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
                if error.errno in missing and len(found) > 1 and family == socket.AF_INET6:
                    continue
                raise ServeError(_refused(error, _authority(str(target[0]), chosen))) from None
            sockets.append(sock)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    actual = sockets[0].getsockname()[1]
    return Listeners(sockets, f"http://{_authority(name or '0.0.0.0', actual)}")


def _open_tcp(
    family: int, kind: int, protocol: int, address: tuple[object, ...], *, dual: bool
) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" means every address, of both families; any other IPv6 address means itself.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        sock.setblocking(False)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_uds(path: str) -> Listeners:
    full = os.path.abspath(path)
    _clear_stale(full)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(full)
    except OSError as error:
        sock.close()
        raise ServeError(_refused(error, full)) from None
    return Listeners([sock], f"unix:{full}", full, _identity(full))


def _clear_stale(path: str) -> None:
    """Remove a socket file that a dead server left; refuse anything else that is in the way."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # absent, or bind() will tell better
    if not stat.S_ISSOCK(mode):
        raise ServeError(f"{path} exists and is not a socket; choose another --uds")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Non-blocking: a listener with a full queue answers EAGAIN, and is alive.
        probe.setblocking(False)
        outcome = probe.connect_ex(path)
    if outcome != errno.ECONNREFUSED:
        raise ServeError(f"{path} is already in use; stop the other server or choose another --uds")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _refused(error: OSError, where: str) -> str:
    advice = {
        errno.EADDRINUSE: "is already in use; stop the other server or choose another --port",
        errno.EACCES: "needs privileges; choose a port above 1023 or a writable directory",
        errno.EADDRNOTAVAIL: "is not an address of this machine; choose another --host",
        errno.ENOENT: "cannot be created: its directory does not exist",
    }
    if error.errno in advice:
        return f"{where} {advice[error.errno]}"
    return f"{where} cannot be bound: {error.strerror or error}"
