"""A Django site as a child process: a database of its own, a server, and the checks on its log.

Invariants each test gets for free, checked by `SiteServer.check_end`:
- SIGTERM ends the server with status 0 within a bounded time;
- the log holds no traceback but those that tests provoke (`ON_PURPOSE`), and none of the signs of
  an accident listed in `ACCIDENTS`.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

SITE = Path(__file__).resolve().parents[2] / "examples" / "django_site"

# How long to wait for what should happen at once: generous, only a failing test waits for it.
PATIENCE = 20.0

TRACEBACK = "Traceback (most recent call last):"
# Exceptions that a test provokes: a view that fails on purpose, a foreign Host header.
ON_PURPOSE = ("DeliberateError: ", "DisallowedHost: ")

# Lines that a server with a fault leaves behind even where it answers every request.
ACCIDENTS = (
    "was never awaited",
    "was never retrieved",
    "was destroyed but it is pending",
    "panicked at",
    "Fatal Python error",
    "ResourceWarning",
    "RuntimeWarning",
    "Exception ignored",
    "CRITICAL",
)


class SiteError(AssertionError):
    """The site's process did something that no test allows."""


@dataclass(frozen=True)
class Kind:
    """A server program: how it is started and which exit statuses mean a clean stop."""

    name: str
    # What follows the interpreter; the application's name comes next.
    program: tuple[str, ...]
    clean_exits: frozenset[int]
    options: tuple[str, ...] = ()

    def command(self, port: int, app: str, *more: str) -> list[str]:
        """The command line that serves `app` on `port`; `more` are options every kind has."""
        return [
            *(sys.executable, *self.program, app),
            *("--host", "127.0.0.1", "--port", str(port)),
            *self.options,
            *more,
        ]


KINDS = {
    "rondel": Kind("rondel", ("-m", "rondel", "serve"), frozenset({0})),
    # The oracle: what a test expects of the server should hold here too. It ends itself with
    # the signal that stopped it.
    "uvicorn": Kind("uvicorn", ("-m", "uvicorn"), frozenset({0, -signal.SIGTERM})),
    # Another server's transports, streams and timers on Rondel's loop.
    "uvicorn-on-rondel": Kind(
        "uvicorn-on-rondel",
        ("-m", "uvicorn"),
        frozenset({0, -signal.SIGTERM}),
        ("--loop", "rondel:new_event_loop"),
    ),
}


def environment(database: Path, **settings: str) -> dict[str, str]:
    """The environment of the site's processes: this one's, without its own settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SITE_")}
    inherited.pop("DJANGO_SETTINGS_MODULE", None)
    # Warnings of the finalisers reach the log, so that `ACCIDENTS` sees a forgotten socket.
    return {
        **inherited,
        "SITE_DATABASE": str(database),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "default",
        **settings,
    }


def manage(env: Mapping[str, str], *arguments: str) -> str:
    """Run `manage.py`, expect success, return what it printed on both streams."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=SITE,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise SiteError(
            f"manage.py {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}"
        )
    return done.stdout


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], bool], what: str) -> None:
    """Poll for a state of another process that has no event of its own to wait for."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SiteError(f"not within {PATIENCE:.0f} s: {what}")
        time.sleep(0.02)


@dataclass
class SiteServer:
    """One server process serving a Django project, the demo site unless told otherwise."""

    kind: Kind
    env: Mapping[str, str]
    log_path: Path
    port: int = field(default_factory=free_port)
    # The project: its directory, its application, and options of the command line.
    site: Path = SITE
    app: str = "site_project.asgi:application"
    options: tuple[str, ...] = ()
    # Exceptions whose tracebacks the log may hold.
    on_purpose: tuple[str, ...] = ON_PURPOSE
    # Accidents that this project's settings make unavoidable.
    tolerated: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the site is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process."""
        if self._process is None:
            raise SiteError("the server was not started")
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait until its port takes connections."""
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self.kind.command(self.port, self.app, *self.options),
                cwd=self.site,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(self._answers, "the server takes connections")

    def _answers(self) -> bool:
        assert self._process is not None
        if (status := self._process.poll()) is not None:
            raise SiteError(f"the server ended with {status} at the start:\n{self.log()}")
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return False
        return True

    def connect(self) -> socket.socket:
        """A raw connection to the server."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def client(self) -> httpx.Client:
        """A client with a cookie jar, as one browser has."""
        # trust_env off: a proxy of the machine must not stand between test and server.
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False)

    def log(self) -> str:
        """What the server wrote so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def terminate(self) -> None:
        """Ask the server to stop, without waiting for it."""
        if self._process is not None:
            self._process.terminate()

    def wait(self) -> int:
        """Wait for the end of the process; kill it when it takes too long, which is a failure."""
        assert self._process is not None
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise SiteError(
                f"the server did not end {PATIENCE:.0f} s after SIGTERM:\n{self.log()}"
            ) from None

    def stop(self) -> None:
        """End the server as an operator does and check what it leaves behind."""
        self.terminate()
        self.check_end()

    def check_end(self) -> None:
        """Wait for the end of a server that was asked to stop, and check what it leaves behind."""
        status = self.wait()
        if status not in self.kind.clean_exits:
            raise SiteError(f"the server ended with status {status}:\n{self.log()}")
        if faults := list(accidents(self.log(), self.on_purpose, self.tolerated)):
            raise SiteError("in the server's log:\n" + "\n".join(faults))

    def kill(self) -> None:
        """End the process without any check, after a failure."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def accidents(log: str, on_purpose: tuple[str, ...], tolerated: tuple[str, ...]) -> Iterator[str]:
    """What in `log` no test allows: accidents, and tracebacks that no view raised on purpose."""
    for line in log.splitlines():
        if any(sign in line for sign in ACCIDENTS) and not any(sign in line for sign in tolerated):
            yield line
    _, *tracebacks = log.split(TRACEBACK)
    for traceback in tracebacks:
        if not any(error in traceback for error in on_purpose):
            yield TRACEBACK + traceback[:4000]


@contextlib.contextmanager
def running(server: SiteServer) -> Iterator[SiteServer]:
    """Run `server` for the block; a failing block is not hidden behind the checks of the stop."""
    try:
        server.start()
        yield server
    except BaseException:
        server.kill()
        raise
    server.stop()
