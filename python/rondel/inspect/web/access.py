"""Who may ask the page's process, and what every answer says to the browser.

On a loopback address: the users of this machine that may ask the inspector's socket (the same user
and root; the kernel tells whose a connection is), by the names that loopback has, so that no web
page of elsewhere gets in by a name that it makes point here (DNS rebinding). On any other address:
whoever has the token, in the URL once and in a cookie from then on, or as ``Authorization:
Bearer``.

Everywhere: nothing is done for a page of another origin.
"""

import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from rondel.inspect.web.address import Address
from rondel.inspect.web.peers import user_of
from rondel.server.config import Scope

__all__ = ["HEADERS", "Access", "Entered", "Refused"]

# No script, style, image or connection but the page's own.
HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Refused:
    """No; a status and the words."""

    status: int
    words: str


@dataclass(frozen=True, slots=True)
class Entered:
    """The token was in the URL: this cookie stands for it from now on."""

    cookie: bytes


class Access:
    """The door of one page."""

    def __init__(self, address: Address, token: str) -> None:
        self._address = address
        self._token = token.encode()
        # Cookies know no ports: pages on two ports of a host keep theirs apart by name.
        self._cookie = f"rondel-{address.port}" if address.port else f"rondel-{os.getpid()}"

    def check(self, scope: Scope) -> Refused | Entered | None:
        """Whether a request may be answered; None if it may."""
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        host = _only(headers, b"host")
        if host is None:
            return Refused(400, "one Host is needed")
        if not self._token:
            refused = self._loopback(scope, host)
            if refused is not None:
                return refused
        if not _same_origin(scope, headers, host):
            return Refused(403, "this page answers no other page")
        return self._known(scope, headers) if self._token else None

    def _loopback(self, scope: Scope, host: str) -> Refused | None:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if name.lower() not in _LOOPBACK | {self._address.host, f"[{self._address.host}]"}:
            return Refused(421, f"this page is not {name[:100]!r}")
        user = user_of(scope["client"], scope["server"])
        if user not in (os.geteuid(), 0):
            return Refused(403, "this process is another user's")
        return None

    def _known(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> Refused | Entered | None:
        bearer = _only(headers, b"authorization") or ""
        if bearer.startswith("Bearer ") and self._is_token(bearer[7:]):
            return None
        if any(self._is_token(value) for value in self._cookies(headers)):
            return None
        given = parse_qs(bytes(scope["query_string"]).decode("latin-1")).get("token", [])
        if scope["path"] == "/" and len(given) == 1 and self._is_token(given[0]):
            cookie = f"{self._cookie}={given[0]}; Path=/; HttpOnly; SameSite=Strict"
            return Entered(cookie.encode())
        return Refused(401, "the URL that was printed at the start has a token: open that")

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token)

    def _cookies(self, headers: Iterable[tuple[bytes, bytes]]) -> Iterable[str]:
        for name, value in headers:
            if name == b"cookie":
                try:
                    jar = SimpleCookie(value.decode("latin-1"))
                except CookieError:
                    continue
                if self._cookie in jar:
                    yield jar[self._cookie].value


def _only(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """A header's value; None if it is not there exactly once."""
    found = [value for key, value in headers if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


def _same_origin(scope: Scope, headers: list[tuple[bytes, bytes]], host: str) -> bool:
    origin = _only(headers, b"origin")
    if origin is not None and origin != f"http://{host}":
        return False
    site = _only(headers, b"sec-fetch-site")
    if site in (None, "same-origin", "none"):
        return True
    # A link to the page is no harm: it is not framed, and tells its opener nothing.
    mode = _only(headers, b"sec-fetch-mode")
    return scope["method"] == "GET" and scope["path"] == "/" and mode == "navigate"
