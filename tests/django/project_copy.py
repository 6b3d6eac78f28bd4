"""A copy of the demo project that a test may edit, and `manage.py runserver` or `serve` in it.

Invariants: every process runs in a process group of its own, as a terminal would start it, with
SIGINT as a terminal leaves it (a test run in the background has it ignored, and children inherit
that); a group is killed when its test is over, so that no reloader's child outlives it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import httpx
import pytest

from .site_server import (
    ON_PURPOSE,
    PATIENCE,
    SITE,
    SiteError,
    accidents,
    environment,
    free_port,
    until,
)

# Rondel's own commands are under test: there is nothing to see on plain asyncio.
needs_rondel = pytest.mark.skipif(
    os.environ.get("RONDEL_TEST_ONLY_ASYNCIO") == "1", reason="the commands are Rondel's"
)

# Django's own logging, as `startproject` leaves it, and a handshake: the reloader says that it
# watches a file from now on. An edit before that is one that it never sees, Django's own as well.
_SETTINGS = """
from site_project.settings import *

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"watching": {"()": "site_project.watching.Watching"}},
    "loggers": {"django.utils.autoreload": {"handlers": ["watching"], "level": "DEBUG"}},
}
ROOT_URLCONF = "site_project.own_urls"
"""
_WATCHING = """
import logging
import os


class Watching(logging.Handler):
    def emit(self, record):
        if "first seen" in record.msg and record.args[0].parent.name == "site_project":
            # One write: other threads write to the same file.
            os.write(1, f"watching {record.args[0].name}\\n".encode())
"""
# A page that says which version of the code answers, and views that never do.
_URLS = """
import threading

from django.http import HttpResponse
from django.urls import include, path

from site_project.version import VERSION


def version(request):
    return HttpResponse(VERSION)


def stuck(request):
    print("stuck in a thread", flush=True)
    threading.Event().wait()


async def stuck_loop(request):
    print("stuck in the loop", flush=True)
    threading.Event().wait()


urlpatterns = [
    path("version/", version),
    path("stuck/", stuck),
    path("stuck-loop/", stuck_loop),
    path("", include("site_project.urls")),
]
"""
# Without the static files that the demo's own application serves.
_ASGI = """
from django.core.asgi import get_asgi_application

application = get_asgi_application()
"""


class Project:
    """The copy: `root` is where `manage.py` is."""

    def __init__(self, root: Path, database: Path, **env: str) -> None:
        copytree(SITE, root, ignore=ignore_patterns("__pycache__", "*.sqlite3"))
        self.root = root
        self.env = environment(database, DJANGO_SETTINGS_MODULE="site_project.own", **env)
        # Bytecode is known by its source's whole second and size: an edit may change neither.
        self.env["PYTHONDONTWRITEBYTECODE"] = "1"
        self.write("own.py", _SETTINGS)
        self.write("watching.py", _WATCHING)
        self.write("own_urls.py", _URLS)
        self.write("asgi.py", _ASGI)
        self.write("version.py", "VERSION = 'one'\n")

    def write(self, name: str, text: str) -> None:
        """Write a module of `site_project`, whole at once: the reloader may look at any moment."""
        target = self.root / "site_project" / name
        new = target.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(target)

    def settings(self, text: str) -> None:
        """Add to the settings."""
        self.write("own.py", f"{_SETTINGS}\n{text}\n")

    def manage(self, *arguments: str) -> tuple[int, str]:
        """Run `manage.py` to its end: the status, and what it printed on both streams."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=self.root,
            env=self.env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout

    @contextlib.contextmanager
    def running(self, *arguments: str, port: int | None = None) -> "Iterator[Running]":
        """Run a `manage.py` command that serves until the block ends."""
        process = Running(self, arguments, free_port() if port is None else port)
        try:
            yield process
        finally:
            process.kill()


class Running:
    """`manage.py` in a group of its own."""

    def __init__(self, project: Project, arguments: tuple[str, ...], port: int) -> None:
        self.port = port
        self.log_path = project.root / "log.txt"
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", *(word.format(port=port) for word in arguments)],
                cwd=project.root,
                env=project.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The command's process: the server's, without the reloader."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def client(self, host: str = "127.0.0.1") -> httpx.Client:
        """A client of this server."""
        return httpx.Client(
            base_url=f"http://{host}:{self.port}", timeout=PATIENCE, trust_env=False
        )

    def until_logged(self, text: str, times: int = 1) -> None:
        """Wait for a text in the log."""

        def there() -> bool:
            if self.log.count(text) >= times:
                return True
            if (status := self._process.poll()) is not None:
                raise SiteError(f"ended with {status} before it said {text!r}:\n{self.log}")
            return False

        try:
            until(there, f"{text!r} in the log")
        except SiteError as error:
            raise SiteError(f"{error}:\n{self.log}") from None

    def until_watched(self, name: str, *, starts: int = 1) -> None:
        """Wait until the reloader would see an edit of that module, in its `starts`-th process."""
        self.until_logged(f"watching {name}\n", starts)

    def until_version(self, version: str) -> None:
        """Wait until the code of that version answers; a restart refuses or cuts connections."""

        def answers() -> bool:
            try:
                with self.client() as client:
                    return client.get("/version/", timeout=2).text == version
            except httpx.TransportError:
                return False

        until(answers, f"version {version!r} answers")

    def where(self) -> dict[str, Any]:
        """The demo's own report on where a request runs."""
        with self.client() as client:
            found: dict[str, Any] = json.loads(client.get("/api/where/").text)
            return found

    def signal(self, number: int) -> None:
        """A signal to the command alone, as `kill` sends it."""
        self._process.send_signal(number)

    def interrupt(self) -> None:
        """Ctrl+C, which a terminal sends to the whole group."""
        os.killpg(self._process.pid, signal.SIGINT)

    def wait(self) -> int:
        """The exit status; fails rather than waits for ever."""
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise SiteError(f"it did not end:\n{self.log}") from None

    def check_log(self) -> None:
        """Nothing of what no test allows."""
        assert list(accidents(self.log, ON_PURPOSE, ())) == []

    def kill(self) -> None:
        """End the whole group; harmless if it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
