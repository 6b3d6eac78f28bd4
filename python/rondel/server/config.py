"""The options of one server, spelled once.

The command line, ``rondel.server.serve`` and ``rondel.server.Server`` all read this dataclass;
limits end in their unit or are counts, durations are seconds.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rondel.server.errors import UsageError

__all__ = ["ASGIApp", "Config", "LifespanMode", "Limits", "Message", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

LifespanMode = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what a peer may make the server hold or wait for."""

    # Seconds a connection may take to send a request's head, from its first byte.
    header_timeout: float = 30.0
    # Seconds an idle kept-alive connection stays open.
    keep_alive_timeout: float = 75.0
    # Bytes of one request's head (request line and headers).
    header_bytes: int = 64 * 1024
    # Headers of one request.
    header_count: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a server needs to know but the application."""

    host: str = "127.0.0.1"
    port: int = 8000
    # Path of a Unix domain socket; replaces host and port.
    uds: str | None = None
    # Length of the kernel's queue of connections not yet accepted.
    backlog: int = 2048
    # The ASGI scope's root_path: the prefix a proxy strips.
    root_path: str = ""
    lifespan: LifespanMode = "auto"
    # Seconds the application's startup may take, and again its shutdown.
    lifespan_timeout: float = 60.0
    # Seconds that requests in flight get to end once a stop was asked for.
    graceful_timeout: float = 30.0
    access_log: bool = True
    log_level: str = "info"
    workers: int = 1
    limits: Limits = field(default_factory=Limits)
    # How the application is called in the start banner.
    name: str = "application"

    def __post_init__(self) -> None:
        if self.workers != 1:
            raise UsageError(
                f"{self.workers} workers were asked for, but this version runs one: several "
                "workers come with a later version; until then start one server per port or --uds"
            )
        if self.lifespan not in ("auto", "on", "off"):
            raise UsageError(f"lifespan is {self.lifespan!r}; it must be 'auto', 'on' or 'off'")
