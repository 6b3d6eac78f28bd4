"""The options of one server, spelled once.

The command line, the environment, configuration files (``settings``), ``rondel.server.serve`` and
``rondel.server.Server`` all read these dataclasses; each field made by ``option`` is one option
under all its names. Durations are seconds, sizes bytes.
"""

import os
import resource
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rondel.server import formats
from rondel.server.errors import UsageError
from rondel.server.options import kinds, option, options_of, split_mounts

__all__ = [
    "ASGIApp",
    "Config",
    "Interface",
    "LifespanMode",
    "Limits",
    "Message",
    "ProxyHeaders",
    "Receive",
    "Scope",
    "Send",
    "TaxMode",
    "WebSocketMode",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

Interface = Literal["auto", "asgi", "wsgi"]
LifespanMode = Literal["auto", "on", "off"]
ProxyHeaders = Literal["x-forwarded", "forwarded", "off"]
TaxMode = Literal["off", "ask", "all"]
HTTPMode = Literal["auto", "1", "2"]
CertReqs = Literal["none", "optional", "required"]
WebSocketMode = Literal["auto", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what a peer may make the server hold or wait for."""

    header_timeout: float = option(
        30.0, kinds.seconds, "limits", "to send a request's head", key="limit_header_timeout"
    )
    keep_alive_timeout: float = option(
        75.0, kinds.seconds, "limits", "idle between requests", key="limit_keep_alive"
    )
    header_bytes: int = option(
        64 * 1024, kinds.count, "limits", "bytes of a request's head", key="limit_header_bytes"
    )
    header_count: int = option(
        100, kinds.count, "limits", "headers of a request", key="limit_header_count"
    )
    url_bytes: int = option(
        16 * 1024,
        kinds.count,
        "limits",
        "bytes of a request's target, then 414",
        key="limit_url_bytes",
    )
    # Of those that follow 0 is no limit.
    body_bytes: int = option(
        1 << 30,
        kinds.bytes,
        "limits",
        "of a request's body, then 413; 0: any",
        key="limit_body_bytes",
    )
    body_timeout: float = option(
        30.0,
        kinds.seconds,
        "limits",
        "for a client whose body the application waits for, then 408; 0: none",
        key="limit_body_timeout",
    )
    body_rate: int = option(
        100,
        kinds.number,
        "limits",
        "bytes of a body per second, in the course of that timeout",
        key="limit_body_rate",
    )
    write_timeout: float = option(
        75.0,
        kinds.seconds,
        "limits",
        "for a client that takes nothing of its response; 0: none",
        key="limit_write_timeout",
    )
    # None: what the limit of open files leaves, see `connections_of`.
    connections: int | None = option(
        None,
        kinds.count,
        "limits",
        "of a worker at once; further ones wait (default: nine tenths of the open files allowed)",
        key="limit_connections",
    )
    concurrency: int = option(
        10_000,
        kinds.number,
        "limits",
        "requests that a worker's loop answers at once; further ones wait; 0: any",
        key="limit_concurrency",
    )
    tls_handshake_timeout: float = option(
        10.0, kinds.seconds, "limits", "to agree on TLS", key="limit_tls_handshake"
    )
    streams: int = option(
        128,
        kinds.count,
        "limits",
        "HTTP/2: requests at once on a connection",
        key="limit_streams",
    )
    ping_interval: float = option(
        60.0,
        kinds.seconds,
        "limits",
        "HTTP/2: ping a silent client so often, it has gone if it does not answer; 0: never",
        key="limit_ping",
    )
    queue: int = option(
        1024,
        kinds.count,
        "limits",
        "requests that wait for that, and sync ones for a thread, then 503",
        key="limit_queue",
    )
    request_timeout: float = option(
        300.0,
        kinds.seconds,
        "limits",
        "for a response to begin, then 504 and the application is cancelled; 0: none",
        key="limit_request_timeout",
    )
    stall: float = option(
        30.0,
        kinds.seconds,
        "limits",
        "for a loop that is blocked: where is logged, and its worker replaced; 0: none",
        key="limit_stall",
    )

    @property
    def open_connections(self) -> int:
        """How many connections a process has at most."""
        if self.connections is not None:
            return self.connections
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The rest is for files, databases, and connections that the application makes.
        return soft * 9 // 10 if soft != resource.RLIM_INFINITY else 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a server needs to know but the application."""

    interface: Interface = option(
        "auto",
        kinds.text,
        "application",
        "what the application speaks: by its looks, ASGI, WSGI",
        choices=("auto", "asgi", "wsgi"),
    )
    root_path: str = option("", kinds.path, "application", "prefix that a proxy strips")
    lifespan: LifespanMode = option(
        "auto",
        kinds.text,
        "application",
        "startup and shutdown events: if the application has them, always, never",
        choices=("auto", "on", "off"),
    )
    compression: tuple[str, ...] = option(
        (),
        kinds.codings,
        "application",
        "compress responses of text: gzip, br, zstd, what is liked best first "
        "(default: none; a secret beside what others choose can be guessed from lengths: BREACH)",
        metavar="CODINGS",
    )
    compression_min: int = option(
        1024, kinds.size, "application", "of a response, to be compressed"
    )
    # Off: clients that take 103 for the response exist, and proxies that do.
    early_hints: bool = option(
        False,
        kinds.flag,
        "application",
        "offer 103 Early Hints to applications for clients of HTTP/1.1, too: behind a proxy that "
        "passes them on",
    )
    server_header: bool = option(
        True, kinds.flag, "application", "send `Server: rondel` where the application has none"
    )
    date_header: bool = option(
        True, kinds.flag, "application", "send `Date` where the application has none"
    )
    lifespan_timeout: float = option(
        60.0, kinds.seconds, "application", "for the startup, and for the shutdown"
    )

    host: str = option("127.0.0.1", kinds.text, "address", "address or name", metavar="HOST")
    port: int = option(8000, kinds.port, "address", "0: a free one")
    uds: str | None = option(
        None, kinds.path, "address", "a Unix domain socket instead of host and port"
    )
    uds_mode: int | None = option(
        None, kinds.mode, "address", "of the Unix socket's file (default: what the umask leaves)"
    )
    uds_owner: str | None = option(
        None,
        kinds.text,
        "address",
        "of the Unix socket's file",
        metavar="USER[:GROUP]",
    )
    fd: int | None = option(
        None, kinds.number, "address", "a listening socket that this process was started with"
    )
    # Which of a proxy's headers say who the client is, and which proxies are believed.
    proxy_headers: ProxyHeaders = option(
        "x-forwarded",
        kinds.text,
        "address",
        "what trusted proxies say of the client's address and scheme: "
        "X-Forwarded-For and X-Forwarded-Proto, Forwarded (RFC 7239), or nothing",
        choices=("x-forwarded", "forwarded", "off"),
    )
    forwarded_allow_ips: tuple[str, ...] = option(
        ("127.0.0.1", "::1"),
        kinds.networks,
        "address",
        "trusted proxies: addresses, networks as 10.0.0.0/8, * for all; "
        "peers on a Unix socket always are",
        metavar="IP",
    )
    proxy_protocol: bool = option(
        False,
        kinds.flag,
        "address",
        "connections begin with a header of the PROXY protocol, from a trusted proxy; "
        "others are closed",
    )
    # Length of the kernel's queue of connections not yet accepted.
    backlog: int = option(2048, kinds.count, "address", "queue length")

    http: HTTPMode = option(
        "auto",
        kinds.text,
        "address",
        "versions: HTTP/1.1, and 2 with clients that ask for it; 1.1 only; 2 only",
        choices=("auto", "1", "2"),
    )

    ssl_certfile: tuple[str, ...] = option(
        (),
        kinds.paths,
        "tls",
        "serve HTTPS with this certificate and its chain, in PEM; may be given again, for other "
        "names",
    )
    ssl_keyfile: tuple[str, ...] = option(
        (),
        kinds.paths,
        "tls",
        "its key, in PEM (default: in the certificate's file); given as often, in the same order",
    )
    ssl_keyfile_password: str | None = option(
        None,
        kinds.text,
        "tls",
        "of keys that have one; better told in the environment",
        secret=True,
    )
    ssl_ca_certs: str | None = option(
        None, kinds.path, "tls", "authorities of clients' certificates, in PEM"
    )
    ssl_cert_reqs: CertReqs = option(
        "none",
        kinds.cert_reqs,
        "tls",
        "whether clients show certificates",
        choices=("none", "optional", "required"),
    )
    ssl_crlfile: str | None = option(
        None, kinds.path, "tls", "revocation lists of those authorities, in PEM"
    )
    ssl_min_version: Literal["1.2", "1.3"] = option(
        "1.2", kinds.text, "tls", "the oldest version of TLS", choices=("1.2", "1.3")
    )
    # How often files of certificates are looked at; 0: never.
    ssl_reload: float = option(
        5.0, kinds.seconds, "tls", "look so often whether these files have changed; 0: never"
    )
    http_redirect: int | None = option(
        None,
        kinds.port,
        "tls",
        "also listen there without TLS, and send clients to https by 308",
    )

    # None: this process serves by itself, and nobody restarts it.
    workers: int | Literal["auto"] | None = option(
        None,
        kinds.workers,
        "process",
        "processes that serve, and one that watches over them; auto: one per processor "
        "(default: this process alone serves)",
    )
    preload: bool = option(
        False,
        kinds.flag,
        "process",
        "import the application once and fork the workers from it: they share its memory",
    )
    gc_freeze: bool = option(
        True,
        kinds.flag,
        "process",
        "garbage collections leave alone what is there when serving starts: they are shorter",
    )
    start_timeout: float = option(
        300.0, kinds.seconds, "process", "for a worker to import the application and be ready"
    )
    max_requests: int | None = option(
        None, kinds.count, "process", "a worker is replaced after so many"
    )
    max_requests_jitter: int = option(
        0, kinds.number, "process", "and up to so many more, by chance"
    )
    max_age: float | None = option(
        None, kinds.seconds, "process", "a worker is replaced after so long"
    )
    max_age_jitter: float = option(
        0.0, kinds.seconds, "process", "and up to so much more, by chance"
    )
    max_rss: int | None = option(
        None, kinds.size, "process", "a worker that has more resident memory is replaced"
    )
    max_rss_jitter: int | None = option(
        None, kinds.size, "process", "and up to so much more, by chance"
    )
    # Threads for sync code, at most; None: 16.
    threads: int | None = option(
        None,
        kinds.count,
        "process",
        "for sync code: at most so many, and so many database connections (default: 16)",
    )
    # Whether asgiref's sync_to_async runs on these threads, natively.
    bridge: bool = option(
        True, kinds.flag, "process", "run asgiref's sync_to_async on these threads"
    )
    # Whether requests for a Django application's sync views are answered on a thread, in one hop.
    hybrid: bool = option(
        True, kinds.flag, "process", "answer a Django project's sync views on a thread, in one hop"
    )
    # Whether functions that need no thread are called on the loop (`rondel.django.inline`).
    inline: bool = option(
        True, kinds.flag, "process", "call Django's functions that need no thread on the loop"
    )
    # Which requests get a report of their hops and threads: none; those that ask for it; all, with
    # a table on stderr at the end. See ``rondel.django.tax``.
    tax: TaxMode = option(
        "off",
        kinds.tax,
        "process",
        "count hops between loop and threads: a table at the end, and a Server-Timing header "
        "for requests with Rondel-Tax: 1, whoever sends them",
    )
    # Seconds that requests in flight get to end once a stop was asked for.
    graceful_timeout: float = option(
        30.0, kinds.seconds, "process", "for requests in flight at a stop"
    )

    static: tuple[str, ...] = option(
        (),
        kinds.mounts,
        "static",
        "answer ROUTE/... with the files of DIR, natively; what is not there is the application's; "
        "may be given again (docs/static.md)",
    )
    static_max_age: float | None = option(
        None, kinds.seconds, "static", "say that they are good for so long (Cache-Control)"
    )

    reload: bool = option(
        False, kinds.flag, "reload", "replace the worker when files change; for development"
    )
    reload_dir: tuple[str, ...] = option(
        (), kinds.names, "reload", "watch that (default: --app-dir); may be given again"
    )
    reload_include: tuple[str, ...] = option(
        ("*.py",), kinds.names, "reload", "files that count, by pattern", metavar="GLOB"
    )
    reload_exclude: tuple[str, ...] = option(
        (), kinds.names, "reload", "files and directories that do not", metavar="GLOB"
    )

    access_log: bool = option(True, kinds.flag, "logs", "a line per request")
    # See ``formats``.
    access_log_format: str = option(
        "plain",
        kinds.text,
        "logs",
        "plain, common, combined, json, or fields: '%(client)s %(status)s' (docs/logs.md)",
        metavar="FORMAT",
    )
    log_level: str = option(
        "info",
        kinds.text,
        "logs",
        "",
        choices=("critical", "error", "warning", "info", "debug"),
    )
    log_format: str = option(
        "text",
        kinds.text,
        "logs",
        "of what is not the access log; json: a line each, exceptions as fields",
        choices=("text", "json"),
    )
    log_file: str | None = option(
        None, kinds.path, "logs", "instead of stderr; opened anew on SIGUSR1"
    )
    access_log_file: str | None = option(
        None, kinds.path, "logs", "instead of stdout; opened anew on SIGUSR1"
    )

    ws: WebSocketMode = option(
        "auto",
        kinds.text,
        "websocket",
        "serve WebSocket connections; none: a request for one is an ordinary request",
        choices=("auto", "none"),
    )
    ws_max_size: int = option(
        16 * 1024 * 1024,
        kinds.size,
        "websocket",
        "of a message that comes in, inflated; a larger one closes the connection (1009)",
    )
    ws_max_queue: int = option(
        32, kinds.count, "websocket", "messages that wait for the application, then none is read"
    )
    ws_ping_interval: float = option(
        20.0, kinds.seconds, "websocket", "between two pings; 0: no pings"
    )
    ws_ping_timeout: float = option(
        20.0, kinds.seconds, "websocket", "for the client to say anything after a ping; 0: for ever"
    )
    ws_close_timeout: float = option(
        10.0, kinds.seconds, "websocket", "for the client to answer a close"
    )
    ws_per_message_deflate: bool = option(
        True, kinds.flag, "websocket", "compress messages if the client can (permessage-deflate)"
    )

    # The header's name; None: requests have no ids.
    request_id: str | None = option(
        None,
        kinds.request_id,
        "logs",
        "each request has an id, the client's or a new one: in this header, in "
        'scope["state"]["request_id"], in the logs (default: none; on: X-Request-ID)',
    )

    metrics: str | None = option(
        None,
        kinds.url_path,
        "logs",
        "answer this path with metrics of all workers, in Prometheus' format",
    )
    health: str | None = option(
        None,
        kinds.url_path,
        "logs",
        "answer this path with 200, natively, before the application is asked",
    )

    otel: bool = option(
        False,
        kinds.flag,
        "logs",
        "OpenTelemetry's spans and metrics: by the program's providers, or as OTEL_* says",
    )
    health_port: int | None = option(
        None,
        kinds.port,
        "logs",
        "a port of its own that tells whether all workers' loops run, blocked or not",
    )

    # RONDEL_INSPECT says whether a process can be asked at all.
    inspect: str | None = option(
        None,
        kinds.page_address,
        "logs",
        "serve the inspector's web page there, from a process of its own: tasks, timeline, loops, "
        "requests, stalls; its URL has a token if others than this machine can reach HOST "
        "(default: no page; HOST: 127.0.0.1)",
        variable="RONDEL_INSPECT_PAGE",
    )

    limits: Limits = field(default_factory=Limits)
    # How the application is called in the start banner.
    name: str = "application"

    def __post_init__(self) -> None:
        for one in options_of(type(self)):
            owner = self.limits if one.within else self
            value = getattr(owner, one.field)
            if value != one.default or type(value) is not type(one.default):
                try:
                    # As written: a text where a list is meant, a size in words.
                    object.__setattr__(owner, one.field, one.accept(value))
                except ValueError as error:
                    raise UsageError(f"{one.key}: {error}") from None
        try:
            formats.parse(self.access_log_format)
        except ValueError as error:
            raise UsageError(f"access_log_format: {error}") from None
        for _, folder in split_mounts(self.static):
            if not os.path.isdir(folder):
                raise UsageError(f"static: there is no directory {folder!r}")
        if self.static_max_age is not None and not self.static:
            raise UsageError("static_max_age is about the files of static: give static as well")
        given = [name for name in ("uds", "fd") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError("uds and fd were both given; a server has one address")
        for name in ("uds_mode", "uds_owner"):
            if getattr(self, name) is not None and self.uds is None:
                raise UsageError(f"{name} is about the file of a Unix socket: give uds as well")
        self._check_tls()
        if self.otel:
            from rondel.server import telemetry

            telemetry.check()
        if not self.reload:
            for name in ("reload_dir", "reload_exclude"):
                if getattr(self, name):
                    raise UsageError(f"{name} says what --reload watches: give reload as well")
        if not self.is_supervised:
            for name in ("preload", "max_requests", "max_age", "max_rss"):
                if getattr(self, name):
                    raise UsageError(
                        f"{name} needs a process that watches over the one that serves: "
                        "give workers as well (1 is enough)"
                    )

    def _check_tls(self) -> None:
        keys, certificates = len(self.ssl_keyfile), len(self.ssl_certfile)
        if keys not in (0, certificates):
            raise UsageError(
                f"ssl_keyfile was given {keys} times, ssl_certfile {certificates} times: "
                "each certificate has its key"
            )
        if not certificates:
            for name in ("ssl_ca_certs", "ssl_crlfile", "http_redirect"):
                if getattr(self, name) is not None:
                    raise UsageError(f"{name} is about HTTPS: give ssl_certfile as well")
        if self.ssl_cert_reqs != "none" and self.ssl_ca_certs is None:
            raise UsageError(
                "ssl_cert_reqs asks for clients' certificates: give ssl_ca_certs as well, whom "
                "they may come from"
            )

    @property
    def is_supervised(self) -> bool:
        """Whether a process watches over those that serve."""
        return self.workers is not None or self.reload

    @property
    def worker_count(self) -> int:
        """How many processes serve."""
        if self.workers == "auto":
            return len(os.sched_getaffinity(0))
        return self.workers or 1
