"""The servers and their command lines: one worker, no access log, keep-alive.

Threads for sync code: granian's WSGI (`--blocking-threads`), gunicorn's gthread (`--threads`) and
Rondel (`--threads`, once it has it) are given the same number.  uvicorn and granian's ASGI have no
such option: under them asgiref makes one thread per request.
"""

from __future__ import annotations

import subprocess

from harness import programs
from harness.environment import Environment
from harness.programs import Setting

SERVERS = ("rondel", "uvicorn", "granian-asgi", "granian-wsgi", "gunicorn")
WSGI = {"granian-wsgi", "gunicorn"}
THREADED = {"rondel", *WSGI}
"""Whose figures depend on the number of threads."""

USUAL = 16
"""Rondel's, when it is given no number."""

PROGRAM = {"granian-asgi": "granian", "granian-wsgi": "granian"}


def available(environment: Environment, wanted: set[str] | None) -> list[str]:
    """The servers that are installed and asked for, in the table's order."""
    return [
        name
        for name in SERVERS
        if programs.available(environment, [PROGRAM.get(name, name)], None)
        and (wanted is None or name == "rondel" or name in wanted)
    ]


def rondel_takes_threads(environment: Environment) -> bool:
    """Whether this build of Rondel has `serve --threads`."""
    shown = subprocess.run(
        [str(environment.bin / "rondel"), "serve", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "--threads" in shown.stdout


def command(
    environment: Environment,
    server: str,
    threads: int,
    takes_threads: bool,
    port: int,
    *,
    site: str = "bench_site",
) -> list[str]:
    """Run in the project's folder; every other option as the server has it by default.

    `takes_threads` is about Rondel, which without has its own default; `site` is the package of
    `asgi.py` and `wsgi.py`.
    """
    wsgi = server in WSGI
    setting = Setting(
        f"{site}.{'wsgi' if wsgi else 'asgi'}:application",
        "wsgi" if wsgi else "asgi",
        threads=None if server == "rondel" and not takes_threads else threads,
    )
    return programs.command(environment, PROGRAM.get(server, server), setting, port)
