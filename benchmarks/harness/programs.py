"""The servers' programs and their command lines, for every benchmark that starts some.

One worker unless a setting says otherwise, no access log, quiet, connections kept; everything else
is as each server has it by default, but what makes it faster and is installed with it: uvloop under
those that take it, httptools under uvicorn.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness.environment import BENCHMARKS, Environment
from harness.process import Starter, running


@dataclass(frozen=True)
class Setting:
    """What is served, and how."""

    app: str = "asgi_app:app"
    interface: str = "asgi"
    """`asgi` or `wsgi`."""
    workers: int = 1
    threads: int | None = None
    """For sync code, where a server has them."""
    http2: bool = False
    """With prior knowledge, or by ALPN with a certificate; for who has to be told."""
    certificate: tuple[Path, Path] | None = None
    """The chain and its key, for TLS."""
    files: Path | None = None
    """Served below `/static`."""
    preload: bool = False
    """Where the server can."""


@dataclass(frozen=True)
class Program:
    """A server that can be installed."""

    packages: frozenset[str]
    words: Callable[[Setting, int], list[str]] = field(repr=False)
    """Of the command line, of a setting and a port."""


def address(port: int) -> list[str]:
    return ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]


def rondel(setting: Setting, port: int) -> list[str]:
    words = ["rondel", "serve", setting.app, *address(port)]
    if setting.threads is not None:
        words += ["--threads", str(setting.threads)]
    if setting.workers > 1:
        words += ["--workers", str(setting.workers)]
    if setting.certificate:
        chain, key = setting.certificate
        words += ["--ssl-certfile", str(chain), "--ssl-keyfile", str(key)]
    if setting.files:
        words += ["--static", f"/static={setting.files}"]
    return words + ["--preload"] * setting.preload


def uvicorn(*options: str) -> Callable[[Setting, int], list[str]]:
    def words(setting: Setting, port: int) -> list[str]:
        found = ["uvicorn", setting.app, *address(port), "--log-level", "warning"]
        found += ["--loop", "uvloop", "--http", "httptools", *options]
        if setting.workers > 1:
            found += ["--workers", str(setting.workers)]
        if setting.certificate:
            chain, key = setting.certificate
            found += ["--ssl-certfile", str(chain), "--ssl-keyfile", str(key)]
        return found

    return words


def granian(setting: Setting, port: int) -> list[str]:
    words = ["granian", setting.app, *address(port), "--log-level", "warning"]
    words += ["--interface", setting.interface, "--workers", str(setting.workers)]
    words += ["--http", "2" if setting.http2 else "1"]
    if setting.interface == "asgi":
        words += ["--loop", "uvloop"]
    elif setting.threads is not None:
        words += ["--blocking-threads", str(setting.threads)]
    if setting.certificate:
        chain, key = setting.certificate
        words += ["--ssl-certificate", str(chain), "--ssl-keyfile", str(key)]
    if setting.files:
        words += ["--static-path-mount", str(setting.files)]
    return words


def hypercorn(setting: Setting, port: int) -> list[str]:
    words = ["hypercorn", setting.app, "--bind", f"127.0.0.1:{port}", "--log-level", "warning"]
    words += ["--worker-class", "uvloop", "--workers", str(setting.workers)]
    if setting.certificate:
        chain, key = setting.certificate
        words += ["--certfile", str(chain), "--keyfile", str(key)]
    return words


def gunicorn(setting: Setting, port: int) -> list[str]:
    """`gthread`, for WSGI; with uvicorn's worker class it would be uvicorn."""
    words = ["gunicorn", setting.app, "--bind", f"127.0.0.1:{port}", "--log-level", "warning"]
    words += ["--worker-class", "gthread", "--workers", str(setting.workers), "--keep-alive", "75"]
    if setting.threads is not None:
        words += ["--threads", str(setting.threads)]
    return words + ["--preload"] * setting.preload


UVICORN = frozenset({"uvicorn", "uvloop", "httptools"})
PROGRAMS = {
    "rondel": Program(frozenset({"rondel"}), rondel),
    "uvicorn": Program(UVICORN, uvicorn()),
    "uvicorn-sansio": Program(UVICORN | {"websockets"}, uvicorn("--ws", "websockets-sansio")),
    "uvicorn-wsproto": Program(UVICORN | {"wsproto"}, uvicorn("--ws", "wsproto")),
    "granian": Program(frozenset({"granian", "uvloop"}), granian),
    "hypercorn": Program(frozenset({"hypercorn", "uvloop"}), hypercorn),
    "gunicorn": Program(frozenset({"gunicorn"}), gunicorn),
}


BARE = "bare"
"""The server in Rust without Python, which answers what `asgi_app` does; it takes no settings."""


def available(
    environment: Environment, names: Iterable[str], wanted: Container[str] | None
) -> list[str]:
    """Those that are there and asked for, in the order given; Rondel need not be asked for."""

    def there(name: str) -> bool:
        if name == "rondel":
            return environment.rondel
        if name == BARE:
            return environment.bare_server is not None
        return PROGRAMS[name].packages <= environment.packages.keys()

    return [
        name
        for name in names
        if there(name) and (wanted is None or name == "rondel" or name in wanted)
    ]


def command(environment: Environment, name: str, setting: Setting, port: int) -> list[str]:
    if name == BARE:
        return [str(environment.bare_server), str(port)]
    program, *words = PROGRAMS[name].words(setting, port)
    return [str(environment.bin / program), *words]


def starter(
    environment: Environment,
    name: str,
    setting: Setting,
    folder: Path = BENCHMARKS,
    variables: dict[str, str] | None = None,
) -> Starter:
    """Starts the server in `folder` whenever it is called."""
    given = environment.variables() if variables is None else variables
    return partial(running, partial(command, environment, name, setting), folder, given)
