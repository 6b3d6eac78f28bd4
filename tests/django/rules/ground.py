"""What a rule's test stands on: a server with settings of its own, its event log, gates, raw HTTP.

The project (rules-project/rules_site) appends an event to the server's log for whatever happens;
a test names its request by the header X-Mark and waits for events, never for a while. Signals carry
no mark, so `signals` looks at all events of the test: a test's server is quiet when it begins, as
`Ground.quiet` waits until as many requests have finished as have started.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django
import httpx
import pytest

from tests.django.site_server import (
    ON_PURPOSE,
    PATIENCE,
    Kind,
    SiteError,
    SiteServer,
    environment,
    until,
)

PROJECT = Path(__file__).resolve().parent / "rules-project"
Event = dict[str, Any]

# Threads that Rondel may use for sync code, where it can be told.
THREADS = 4


@dataclass(frozen=True)
class Profile:
    """Everything that tells one server of the rules from another."""

    middleware: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    database: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Equal profiles share a server."""
        return json.dumps([self.middleware, self.settings, self.database, self.options])


def links(*forms: str) -> tuple[str, ...]:
    """A chain of reporting middleware of these forms, outermost first, named by their numbers."""
    return tuple(f"rules_site.middleware.link_{n:02}_{form}" for n, form in enumerate(forms))


def project_environment(profile: Profile, folder: Path) -> dict[str, str]:
    """The environment of a process of the project."""
    settings = {**profile.settings, "MIDDLEWARE": list(profile.middleware)}
    database = {"NAME": str(folder / "rules.sqlite3"), **profile.database}
    return environment(
        folder,
        DJANGO_SETTINGS_MODULE="rules_site.settings",
        RULES_EVENTS=str(folder / "events.jsonl"),
        RULES_SETTINGS=json.dumps(settings),
        RULES_DATABASE=json.dumps(database),
    )


def make_tables(profile: Profile, folder: Path) -> None:
    """Create the database's tables."""
    done = subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--run-syncdb", "--verbosity", "0"],
        cwd=PROJECT,
        env=project_environment(profile, folder),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise SiteError(f"migrate ended with {done.returncode}:\n{done.stdout}{done.stderr}")


class Gate:
    """A FIFO at which the server's code waits; each byte lets one waiter through."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def open(self, count: int = 1) -> None:
        """Let `count` waiters through, now or when they come."""
        os.write(self._fd, b"." * count)

    def release(self) -> None:
        """Let everybody through who still waits, or comes late."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._fd, b"." * 4096)

    def close(self) -> None:
        """Nobody comes any more: what is in a FIFO that nobody holds open is lost."""
        os.close(self._fd)


class Ground:
    """A running server and what it reports, as one test sees it."""

    def __init__(self, server: SiteServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self._log = folder / "events.jsonl"
        self._from = 0
        self._settled = 0
        self.client = server.client()

    def close(self) -> None:
        """Hang up."""
        self.client.close()

    def quiet(self) -> None:
        """Wait until the server is idle, and begin a new test: earlier events are forgotten."""

        def idle() -> bool:
            names = [event["event"] for event in self._read(self._settled)]
            return all(names.count("started") == names.count(last) for last in LAST)

        try:
            until(idle, "every request that started has finished")
        finally:
            # Whoever left a request open fails one test, not all that follow.
            self._from = self._settled = self._log.stat().st_size if self._log.exists() else 0

    # -- events

    def _read(self, start: int) -> list[Event]:
        if not self._log.exists():
            return []
        with self._log.open("rb") as log:
            log.seek(start)
            # A line that is being written may be seen in part.
            whole, _, _ = log.read().rpartition(b"\n")
            return [json.loads(line) for line in whole.splitlines()]

    def events(self, name: str | None = None, **facts: Any) -> list[Event]:
        """This test's events of that name with these facts."""
        return [
            event
            for event in self._read(self._from)
            if (name is None or event["event"] == name)
            and all(event.get(fact) == value for fact, value in facts.items())
        ]

    def wait(self, name: str, count: int = 1, **facts: Any) -> list[Event]:
        """The same, once there are `count` of them."""
        found: list[Event] = []

        def enough() -> bool:
            found[:] = self.events(name, **facts)
            return len(found) >= count

        until(enough, f"{count} × {name} {facts}; there is {self.events()}")
        return found

    def signals(self, started: int = 1) -> dict[str, int]:
        """How often each receiver ran, once `started` requests have started and all are over."""
        self.wait("started", started)
        self._all_finished()
        # Nothing more may come: a whole further request goes through the same loop, is counted
        # too, and taken off again.
        assert self.client.get("/sync/").status_code == 200
        self._all_finished()
        names = [event["event"] for event in self.events()]
        counts = {name: names.count(name) for name in SIGNALS}
        return {name: count - ONE_MORE[name] for name, count in counts.items()}

    def _all_finished(self) -> None:
        def balanced() -> bool:
            names = [event["event"] for event in self.events()]
            started = names.count("started")
            # The last receiver of a request is an async one, where there are such.
            return all(names.count(last) >= started for last in LAST)

        until(balanced, f"all requests have finished; there is {self.events()}")

    # -- requests

    def get(self, path: str, **more: Any) -> httpx.Response:
        """GET on the kept-alive connection."""
        return self.client.get(path, **more)

    def facts(self, path: str, **more: Any) -> dict[str, Any]:
        """GET a view that answers with JSON."""
        response = self.get(path, **more)
        assert response.status_code == 200, (path, response.status_code, response.text)
        facts: dict[str, Any] = response.json()
        return facts

    def marked(self, path: str, method: str = "GET", **more: Any) -> tuple[str, httpx.Response]:
        """A request under a mark of its own, and its response."""
        name = new_mark()
        headers = {**more.pop("headers", {}), "X-Mark": name}
        return name, self.client.request(method, path, headers=headers, **more)

    @contextlib.contextmanager
    def sent(
        self, path: str, method: str = "GET", mark: str = "", receive_buffer: int | None = None
    ) -> Iterator[socket.socket]:
        """A connection of its own with one request sent."""
        with socket.socket() as sock:
            sock.settimeout(PATIENCE)
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.connect(("127.0.0.1", self.server.port))
            sock.sendall(
                f"{method} {path} HTTP/1.1\r\nHost: rules\r\nX-Mark: {mark}\r\n\r\n".encode()
            )
            yield sock

    def raw(self, request: bytes) -> tuple[bytes, bytes]:
        """Send bytes that ask for the connection's end; the response's head and body."""
        with self.server.connect() as sock:
            sock.sendall(request)
            received = b""
            while chunk := sock.recv(65536):
                received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        return head, body

    def still_serves(self) -> None:
        """The loop has gone round once more, and requests are answered."""
        assert self.client.get("/sync/").status_code == 200
        assert self.client.get("/async/").status_code == 200


SIGNALS = ("started", "started-async", "finished", "finished-async", "exception", "exception-async")

from_django_5 = pytest.mark.skipif(
    django.VERSION < (5, 0), reason="Django listens for the client's leaving from 5.0 on"
)

# A request that went well; and one that raised. Async receivers are Django's from 5.0 on.
_ASYNC = int(django.VERSION >= (5, 0))
WELL = dict(zip(SIGNALS, (1, _ASYNC, 1, _ASYNC, 0, 0), strict=True))
RAISED = {**WELL, "exception": 1, "exception-async": _ASYNC}
ONE_MORE = WELL
LAST = ("finished", "finished-async") if _ASYNC else ("finished",)


def new_mark() -> str:
    """A name that no other request has."""
    return uuid.uuid4().hex[:12]


def read_until(sock: socket.socket, mark: bytes, seconds: float = PATIENCE) -> bytes:
    """Read up to `mark`, for at most `seconds` between two pieces."""
    sock.settimeout(seconds)
    received = b""
    while mark not in received:
        chunk = sock.recv(65536)
        assert chunk, f"the server closed before {mark!r}: {received!r}"
        received += chunk
    return received


def new_server(kind: Kind, profile: Profile, folder: Path, *on_purpose: str) -> SiteServer:
    """A server of the project, not yet started; `folder` holds its log, events and database."""
    return SiteServer(
        kind,
        project_environment(profile, folder),
        folder / "server.log",
        site=PROJECT,
        app="rules_site.asgi:application",
        options=(*profile.options, *thread_options(kind)),
        on_purpose=(*ON_PURPOSE, *on_purpose),
        tolerated=_lost_connections(kind, profile),
    )


def _lost_connections(kind: Kind, profile: Profile) -> tuple[str, ...]:
    """A thread per request loses the connection that it was told to keep."""
    if bounds_threads(kind) or profile.database.get("CONN_MAX_AGE", 0) == 0:
        return ()
    return ("was deleted while still open", "unclosed database", "Enable tracemalloc")


def bounds_threads(kind: Kind) -> bool:
    """Whether this server can be told how many threads it may use."""
    if kind.name != "rondel":
        return False
    if kind.name not in _bounds:
        text = subprocess.run(
            [sys.executable, "-m", "rondel", "serve", "--help"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        _bounds[kind.name] = "--threads" in text
    return _bounds[kind.name]


_bounds: dict[str, bool] = {}


def thread_options(kind: Kind) -> tuple[str, ...]:
    """The option that bounds the threads, where there is one."""
    return ("--threads", str(THREADS)) if bounds_threads(kind) else ()
