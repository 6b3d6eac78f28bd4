"""Listening sockets: binding them, telling who is in the way, and cleaning up after them.

Invariants: sockets are bound before the application starts but listen only when it is ready, so
that a client is refused rather than left waiting; a Unix socket's file is removed only if nobody
listens on it (at the start) or if it is still ours (at the end). A socket that we were started with
(``--fd``, systemd's socket activation: sd_listen_fds(3)) is whoever's who made it: it is used as it
is, and its file is left alone.
"""

import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass

from rondel.server.config import Config
from rondel.server.errors import ServeError, UsageError

__all__ = ["Listeners", "adopt", "listeners_of"]

logger = logging.getLogger("rondel.server")

# The first descriptor that systemd passes.
_SYSTEMD_FIRST = 3


@dataclass(slots=True)
class Listeners:
    """The sockets of one server, and the name under which a browser finds it."""

    sockets: list[socket.socket]
    url: str
    uds: str | None = None
    # (device, inode) of our Unix socket's file, to know it again.
    uds_identity: tuple[int, int] | None = None
    # How many of the sockets, the last ones, send clients to https.
    redirects: int = 0
    redirect_url: str | None = None

    def listen(self, backlog: int) -> None:
        """Start to accept. Only now can another listener on the same port show up."""
        for sock in self.sockets:
            try:
                sock.listen(backlog)
            except OSError as error:
                raise ServeError(_refused(error, self.url.partition("//")[2])) from None

    def tell_redirect(self) -> None:
        """Log where clients are sent to https, if anywhere."""
        if self.redirect_url is not None:
            logger.info("%s sends to %s", self.redirect_url, self.url)

    def close(self) -> None:
        """Close what is still open and remove the Unix socket's file if it is ours."""
        for sock in self.sockets:
            sock.close()
        if self.uds is None or self.uds_identity is None:
            return
        with contextlib.suppress(OSError):
            if _identity(self.uds) == self.uds_identity:
                os.unlink(self.uds)


def listeners_of(config: Config) -> Listeners:
    """The sockets that the options ask for; systemd's, if this process was started with some."""
    listeners = _serving(config)
    if config.ssl_certfile:
        listeners.url = listeners.url.replace("http:", "https:", 1)
    if config.http_redirect is not None:
        try:
            _add_redirect(listeners, config.host, config.http_redirect)
        except BaseException:
            listeners.close()
            raise
    return listeners


def _serving(config: Config) -> Listeners:
    if config.fd is not None:
        return adopt([config.fd])
    given = _systemd()
    if given:
        return adopt(given)
    if config.uds is not None:
        return _bind_uds(config.uds, config.uds_mode, config.uds_owner)
    return _bind_tcp(config.host, config.port)


def _add_redirect(listeners: Listeners, host: str, port: int) -> None:
    if listeners.sockets[0].family == socket.AF_UNIX:
        raise UsageError("http_redirect sends clients to a port, and a Unix socket has none")
    plain = _bind_tcp(host, port)
    listeners.sockets += plain.sockets
    listeners.redirects = len(plain.sockets)
    listeners.redirect_url = plain.url


def adopt(descriptors: list[int]) -> Listeners:
    """Sockets that somebody else has opened. Raises UsageError for what is no stream socket."""
    sockets = []
    for number in descriptors:
        try:
            sock = socket.socket(fileno=number)
        except OSError as error:
            raise UsageError(f"descriptor {number} is not a socket: {error.strerror}") from None
        if sock.type != socket.SOCK_STREAM or sock.family not in (
            socket.AF_INET,
            socket.AF_INET6,
            socket.AF_UNIX,
        ):
            raise UsageError(f"descriptor {number} is not a socket of TCP or a Unix stream socket")
        sock.setblocking(False)
        sock.set_inheritable(False)
        sockets.append(sock)
    return Listeners(sockets, _url_of(sockets[0]))


def _url_of(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(name)}"
    return f"http://{_authority(name[0], name[1])}"


def _systemd() -> list[int]:
    """Descriptors by sd_listen_fds(3); the variables are removed, so that no child takes them."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    return list(range(_SYSTEMD_FIRST, _SYSTEMD_FIRST + int(count)))


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


def _bind_uds(path: str, mode: int | None = None, owner: str | None = None) -> Listeners:
    full = os.path.abspath(path)
    ids = _ids_of(owner) if owner is not None else None
    _clear_stale(full)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # With a mode asked for, nobody but the owner gets in before it is set.
        before = os.umask(0o177) if mode is not None else None
        try:
            sock.bind(full)
        finally:
            if before is not None:
                os.umask(before)
    except OSError as error:
        sock.close()
        raise ServeError(_refused(error, full)) from None
    listeners = Listeners([sock], f"unix:{full}", full, _identity(full))
    try:
        if ids is not None:
            os.chown(full, *ids)
        if mode is not None:
            os.chmod(full, mode)
    except OSError as error:
        listeners.close()
        raise ServeError(
            f"{full} cannot be given to {owner or oct(mode or 0)}: {error.strerror}; only root may "
            "give files away"
        ) from None
    return listeners


def _ids_of(owner: str) -> tuple[int, int]:
    """``user``, ``user:group`` or ``:group``, by name or number; -1 for what is to stay."""
    import grp
    import pwd

    user, _, group = owner.partition(":")

    def number(name: str, find: Callable[[str], int], kind: str) -> int:
        if not name:
            return -1
        if name.isdigit():
            return int(name)
        try:
            return find(name)
        except KeyError:
            raise UsageError(f"uds_owner: no {kind} {name!r} on this machine") from None

    return (
        number(user, lambda name: pwd.getpwnam(name).pw_uid, "user"),
        number(group, lambda name: grp.getgrnam(name).gr_gid, "group"),
    )


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
