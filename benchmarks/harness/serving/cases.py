"""What is asked of which servers, and how they are set up for it.

Invariant: a group is one set-up of each server, and one table; all its cases have the same unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from asgi_app import HELLO

from harness.programs import BARE, Setting
from harness.server import BROWSER_HEADERS, HTTP_CASES
from harness.serving.load import EchoCase, H2loadCase, PacedCase
from harness.traffic import HttpCase, Request

ASGI = ("rondel", "uvicorn", "granian", "hypercorn")
WSGI = ("rondel", "granian", "gunicorn")
THREADS = 4


@dataclass(frozen=True)
class Place:
    """What the run has prepared."""

    files: Path
    """A folder that the servers are to serve."""
    certificate: tuple[Path, Path] | None


@dataclass(frozen=True)
class Group:
    name: str
    """For `--only`."""
    part: str
    """Its figures in a run; limits know the name before the slash."""
    title: str
    note: str
    servers: tuple[str, ...]
    cases: tuple[Request | PacedCase | Memory, ...]
    setting: Callable[[Place], Setting] = lambda place: Setting()
    secure: bool = False
    unit: str = "µs"


@dataclass(frozen=True)
class Memory:
    """Proportional memory per worker, after requests that all workers had a part of."""

    name: str
    title: str
    workers: int
    requests: int
    preload: bool = False
    django: bool = False


# ---------------------------------------------------------------------------- HTTP/1.1

SLEEP = HttpCase(
    "sleep", "`asyncio.sleep(0.01)`, 512 connections", "GET", "/sleep", HELLO, 60_000,
    connections=512,
)  # fmt: skip
WITHOUT_BARE = {SLEEP.name}
"""What the bare server does not answer."""

HTTP = Group(
    "http",
    "server-http",
    "ASGI over HTTP/1.1: CPU µs per request",
    "64 kept-alive connections, one worker. *Bare limit*: the same HTTP code in Rust, no Python.",
    (*ASGI, BARE),
    (*HTTP_CASES, SLEEP),
)

WS = Group(
    "ws",
    "server-ws",
    "WebSocket: CPU µs per echoed message",
    "Text, 64 connections with a message on its way each, no compression; uvicorn with its sans-I/O"
    " implementation by websockets, and with wsproto.",
    ("rondel", "uvicorn-sansio", "uvicorn-wsproto", "granian", "hypercorn"),
    (
        EchoCase("ws-32", "32 B", 32, 40_000),
        EchoCase("ws-1k", "1 KiB", 1024, 30_000),
        EchoCase("ws-64k", "64 KiB", 65_536, 8_000),
    ),
    lambda place: Setting("ws_app:app"),
)

# ---------------------------------------------------------------------------- TLS, HTTP/2

H2LOAD_NOTE = (
    "The load is h2load's: {}. The connections' beginning is in the figure; the certificate is of "
    "an ECDSA key."
)
STREAMS = "16 connections with 4 streams at once on each"


def hello(name: str, title: str, *, secure: bool, http2: bool, requests: int) -> H2loadCase:
    return H2loadCase(name, title, "/", HELLO, requests, secure, http2)


TLS = Group(
    "tls",
    "server-tls",
    "HTTP/1.1 over TLS: CPU µs per request",
    H2LOAD_NOTE.format("16 connections")
    + " hypercorn is not in it: its answers have no reason phrase, which h2load takes for a fault.",
    ("rondel", "uvicorn", "granian"),
    (hello("hello", "ASGI hello", secure=True, http2=False, requests=30_000),),
    lambda place: Setting(certificate=place.certificate),
    secure=True,
)
H2 = Group(
    "h2",
    "server-h2/clear",
    "HTTP/2 with prior knowledge: CPU µs per request",
    H2LOAD_NOTE.format(STREAMS),
    ("rondel", "granian", "hypercorn"),
    (hello("hello", "ASGI hello", secure=False, http2=True, requests=30_000),),
    lambda place: Setting(http2=True),
)
H2_TLS = Group(
    "h2-tls",
    "server-h2/tls",
    "HTTP/2 over TLS: CPU µs per request",
    H2LOAD_NOTE.format(STREAMS),
    ("rondel", "granian", "hypercorn"),
    (hello("hello", "ASGI hello", secure=True, http2=True, requests=30_000),),
    lambda place: Setting(http2=True, certificate=place.certificate),
    secure=True,
)

# ---------------------------------------------------------------------------- WSGI, files


def wsgi(threads: int, name: str) -> Group:
    return Group(
        name,
        f"server-wsgi/{threads}",
        f"WSGI, {threads} thread{'s' * (threads > 1)}: CPU µs per request",
        f"64 kept-alive connections, one worker; gunicorn with `gthread`; threads: {threads} each. "
        "*Bare limit*: the same HTTP code in Rust, without threads and without Python.",
        (*WSGI, BARE),
        tuple(replace(each, title=each.title.replace("ASGI", "WSGI")) for each in HTTP_CASES),
        lambda place: Setting("wsgi_app:app", "wsgi", threads=threads),
    )


SIZES = {"small": 1_000, "page": 16_000, "large": 100_000, "huge": 2_000_000}
END = b"the end of the file"


def content(size: int) -> bytes:
    return (bytes(range(128)) * (size // 128 + 1))[: size - len(END)] + END


def file(name: str, title: str, which: str, requests: int, *headers: tuple[str, str]) -> HttpCase:
    """Granian sends files in chunks: their length is in no head, so their end is looked for."""
    path, whole = f"/static/{which}", content(SIZES[which])
    return HttpCase(name, title, "GET", path, whole, requests, b"", headers, contains=END.decode())


STATIC = Group(
    "static",
    "server-static",
    "Static files: CPU µs per request",
    "Rondel's `--static`, granian's `--static-path-mount`; 64 kept-alive connections, one worker.",
    ("rondel", "granian"),
    (
        file("file-1k", "1 KB", "small", 20_000),
        file("file-browser", "1 KB, 12 headers", "small", 20_000, *BROWSER_HEADERS),
        file("file-16k", "16 KB", "page", 15_000),
        file("file-100k", "100 KB", "large", 8_000),
        file("file-2m", "2 MB", "huge", 500),
    ),
    lambda place: Setting("wsgi_app:app", "wsgi", files=place.files),
)

# ---------------------------------------------------------------------------- latency, memory

RATE = 1500

LATENCY = Group(
    "latency",
    "server-latency",
    "Latency under a fixed load: 99th percentile, µs",
    f"{RATE} requests per second on 64 kept-alive connections to one worker, each due at its own "
    "time whether or not earlier ones are answered; from when it was due to the end of its answer. "
    "The load runs on the same machine and has its part in it.",
    ASGI,
    (PacedCase(HttpCase("p99", "ASGI hello", "GET", "/", HELLO, 9_000), RATE),),
)

PSS = Group(
    "pss",
    "server-pss",
    "Memory: MiB per worker",
    "Proportional set size of the whole process tree, supervisors included, over the number of "
    "workers, after some thousand requests. Django: the project of benchmarks/django, its async "
    "view without a query, on 4 workers; Rondel with `--preload`.",
    ("rondel", "uvicorn", "granian", "hypercorn"),
    (
        Memory("workers-1", "ASGI hello, 1 worker", 1, 4_000),
        Memory("workers-4", "ASGI hello, 4 workers", 4, 8_000),
        Memory("django-4", "Django, 4 workers", 4, 4_000, preload=True, django=True),
    ),
    unit="MiB",
)

GROUPS = (HTTP, WS, TLS, H2, H2_TLS, wsgi(THREADS, "wsgi"), wsgi(1, "wsgi-1"), STATIC, LATENCY, PSS)
