"""The example project (`examples/django_site`) under ASGI servers: every page and form.

The question is whether any view is slower than under uvicorn.  Rules:

* The project is copied, migrated and seeded by its own commands; DEBUG is off, the rest is as the
  repository has it.  Each server starts each round with a fresh copy of the database, because the
  forms write; they come last in a round.
* Threads are what each server has by default.
* Answers hold times, tokens and names of tasks, so each has to hold a phrase, not to be equal.
* A view that sleeps takes no less than it sleeps: for it the time that a client waits is compared,
  not requests per second.  The streams are asked for without their delay, so that they count as the
  others do; their last piece is the phrase.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

from harness.django import measure, servers
from harness.environment import BENCHMARKS, CHECKOUT, Environment, SetupError, progress
from harness.figures import Figures, Run
from harness.process import Starter, running
from harness.serving.load import PacedCase
from harness.traffic import TURNS, HttpCase, Server, Sink, measure_case, start

SOURCE = CHECKOUT / "examples" / "django_site"
SIGN_IN = BENCHMARKS / "django" / "sign_in.py"
ALLOWED = ("rondel", "uvicorn", "granian-asgi")
"""Streams need ASGI."""

CPU, RATE, WALL = "example-cpu", "example-rate", "example-wall"
P99, P999 = "example-p99", "example-p999"
TOKEN = "t" * 32
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=limit"
ATTACHED = b"\x00\x01 and the other bytes of a file\r\n" * 256


@dataclass(frozen=True)
class ExampleCase:
    """One page or form."""

    name: str
    """The URL's name, for a form with `post-` before it, for a way of concurrency its slug."""
    kind: str
    path: str
    contains: str
    status: int = 200
    requests: int = 600
    """In one round, over its turns."""
    sleeps: bool = False
    signed_in: bool = False
    form: tuple[str, bytes] | None = None
    """The content type and the body of a POST."""

    @property
    def title(self) -> str:
        target = self.path.partition("?")[0]
        verb = "POST " if self.form else ""
        return f"{verb}`/{target}` ({self.kind})"

    def request(self, cookie: str) -> HttpCase:
        """`cookie` is an administrator's."""
        headers: list[tuple[str, str]] = []
        if self.signed_in:
            headers.append(("Cookie", cookie))
        if self.form:
            headers += [("Cookie", f"csrftoken={TOKEN}"), ("Content-Type", self.form[0])]
        return HttpCase(
            self.name,
            self.title,
            "POST" if self.form else "GET",
            f"/{self.path}",
            b"",
            self.requests,
            self.form[1] if self.form else b"",
            tuple(headers),
            self.status,
            self.contains,
        )


def fields(**values: str) -> tuple[str, bytes]:
    return FORM, urlencode({"csrfmiddlewaretoken": TOKEN, **values}).encode()


def attached() -> tuple[str, bytes]:
    part = '--limit\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
    token = part.format("csrfmiddlewaretoken", "") + f"{TOKEN}\r\n"
    file = part.format("file", '; filename="bytes.bin"\r\nContent-Type: application/octet-stream')
    return MULTIPART, token.encode() + file.encode() + ATTACHED + b"\r\n--limit--\r\n"


def way(slug: str, says: str, requests: int = 384) -> ExampleCase:
    return ExampleCase(slug, "async, sleeps", f"ways/{slug}/", says, requests=requests, sleeps=True)


CASES = (
    ExampleCase("index", "async", "", "One loop, many things at once"),
    ExampleCase("where", "async, calls sync", "where/", "The same as JSON"),
    ExampleCase("favicon", "sync", "favicon.ico", "/static/shelf/logo.svg", 301),
    ExampleCase("books", "sync", "books/", "Moby-Dick"),
    ExampleCase("book", "sync", "books/alice/", "Write a note"),
    ExampleCase("upload", "sync", "upload/", "The file is read, measured and forgotten"),
    ExampleCase("books-async", "async", "async/books/", "Moby-Dick"),
    ExampleCase("book-async", "async", "async/books/alice/", "Lewis Carroll"),
    ExampleCase("guestbook", "async", "guestbook/", "Sign <span"),
    ExampleCase("events", "async", "events/", "One response that stays open"),
    ExampleCase("api-books", "async", "api/books/", '"count": 14'),
    ExampleCase("api-where", "async", "api/where/", '"open_streams": 0'),
    ExampleCase("boom", "sync, fails", "errors/sync/", "Something broke", 500),
    ExampleCase("boom-async", "async, fails", "errors/async/", "Something broke", 500),
    ExampleCase("missing", "sync, 404", "no/such/page/", "Not on this shelf", 404),
    ExampleCase("static", "Django's static files", "static/shelf/site.css", "--ink"),
    ExampleCase("admin-login", "sync", "admin/login/", "csrfmiddlewaretoken"),
    ExampleCase(
        "admin-books", "sync", "admin/shelf/book/", "14 books", requests=192, signed_in=True
    ),
    ExampleCase(
        "stream", "async stream", "stream/?lines=10&delay=0", "line 10 of 10", requests=384
    ),
    ExampleCase(
        "events-feed", "async stream", "events/feed/?count=10&delay=0", "event: end", requests=384
    ),
    way("create-task", "first: weather"),
    way("gather", "weather, news, prices"),
    way("task-group", "weather, news"),
    way("task-group-failing", "caught: the service hung up"),
    way("as-completed", "news arrived after"),
    way("wait", "pending: prices"),
    way("timeout", "timed out after"),
    way("to-thread", "blocking call returned", requests=192),
    ExampleCase(
        "post-upload", "sync", "upload/?format=json", f'"size": {len(ATTACHED)}', form=attached()
    ),
    ExampleCase(
        "post-book",
        "sync, writes",
        "books/moby-dick/",
        "/books/moby-dick/",
        302,
        requests=192,
        form=fields(reader="Ishmael", text="Call me."),
    ),
    ExampleCase(
        "post-guestbook",
        "async, writes",
        "guestbook/",
        "/guestbook/",
        302,
        requests=192,
        form=fields(name="Ishmael", text="Called by."),
    ),
)


RSS_CASES = ("upload", "book-async", "admin-books", "static", "stream")
"""Whose memory is measured: a sync view, an async one, a template page that needs a session and its
user (two queries more), a file, a stream."""

LATENCY_CASES = ("book", "books-async", "api-books")
"""Whose latency is measured: a sync view, an async one, one without a template."""
PACE, PACED = 120, 1500
"""Requests per second, a third of what the slowest server bears here; requests of one turn."""


@dataclass(frozen=True)
class Example:
    """The copy, prepared."""

    folder: Path
    variables: dict[str, str]
    """The environment of its processes, with the database that is never served."""
    cookie: str

    @property
    def database(self) -> Path:
        return Path(self.variables["SITE_DATABASE"])

    @contextlib.contextmanager
    def served(self, environment: Environment, server: str) -> Iterator[tuple[int, int]]:
        """See `running`; with a copy of the database that is this server's alone."""
        database = self.folder.parent / f"{server}.sqlite3"
        shutil.copyfile(self.database, database)
        command = partial(servers.command, environment, server, 0, False, site="site_project")
        variables = self.variables | {"SITE_DATABASE": str(database)}
        with running(command, self.folder, variables) as there:
            yield there


def prepare(environment: Environment, folder: Path) -> Example:
    """Copies the project into `folder` and fills its database as its README says."""
    site = folder / "site"
    shutil.copytree(SOURCE, site, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3", ".*"))
    variables = {
        key: value
        for key, value in environment.variables().items()
        if not key.startswith("SITE_") and key != "DJANGO_SETTINGS_MODULE"
    }
    variables |= {
        "PYTHONPATH": "",
        "SITE_DEBUG": "0",
        "SITE_SECRET_KEY": "fixed, so that a session made by one process is valid in all others",
        "SITE_DATABASE": str(folder / "seeded.sqlite3"),
    }

    def python(*words: str) -> str:
        done = subprocess.run(
            [str(environment.python), *words],
            cwd=site,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise SetupError(f"the example project cannot be prepared: {last[0]}")
        return done.stdout.strip()

    python("manage.py", "migrate", "--noinput", "--verbosity", "0")
    python("manage.py", "seed")
    return Example(site, variables, python(str(SIGN_IN)))


def run(
    environment: Environment,
    names: list[str],
    example: Example,
    only: set[str],
    *,
    rounds: int,
    fewer: int,
    results: Run,
) -> None:
    """All cases (or `only` these) on all the servers, `rounds` times."""
    cpu, rate, wall = (
        results.parts.setdefault(part, Figures("median")) for part in (CPU, RATE, WALL)
    )
    cases = [case for case in CASES if not only or case.name in only]
    everything = Sink(cpu, rate, wall)
    for number in range(rounds):
        what = f"round {number + 1} of {rounds}"
        with started(environment, names, example, cases, everything, what) as there:
            for case in cases:
                sink = Sink(cpu, wall=wall) if case.sleeps else Sink(cpu, rate)
                requests = dict.fromkeys(names, case.request(example.cookie))
                measure_case(environment, case.name, requests, there, fewer=fewer, sink=sink)


@contextlib.contextmanager
def started(
    environment: Environment,
    names: list[str],
    example: Example,
    cases: list[ExampleCase],
    sink: Sink,
    what: str,
) -> Iterator[list[Server]]:
    """The servers of one round; one that does not start fails in all cases. Says how long it
    took, `what` being the round.
    """
    starters: dict[str, Starter] = {
        name: partial(example.served, environment, name) for name in names
    }
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        yield start(stack, starters, [case.name for case in cases], sink)
    progress(f"{what}: {time.monotonic() - begin:.0f} s")


def rss(
    environment: Environment,
    names: list[str],
    example: Example,
    only: set[str],
    counts: tuple[int, int],
    *,
    rounds: int,
    results: Run,
) -> None:
    """Each server's memory after the two numbers of requests: `RSS_CASES` in turn, or `only`."""
    figures = results.parts.setdefault(f"django-rss/example/{servers.USUAL}", Figures("median"))
    chosen = [case for case in CASES if case.name in (only or RSS_CASES)]
    requests = [case.request(example.cookie) for case in chosen]
    for number in range(rounds):
        for name in names:
            starter = partial(example.served, environment, name)
            what = f"example, round {number + 1} of {rounds}"
            measure.grown(environment, name, starter, requests, counts, figures, what)


def latency(
    environment: Environment,
    names: list[str],
    example: Example,
    only: set[str],
    *,
    rounds: int,
    fewer: int,
    results: Run,
) -> None:
    """The 99th and the 99.9th percentile of `LATENCY_CASES`, or `only`, in µs, servers in turn."""
    p99, p999 = (results.parts.setdefault(part, Figures("median")) for part in (P99, P999))
    cases = [case for case in CASES if case.name in (only or LATENCY_CASES)]
    for number in range(rounds):
        what = f"round {number + 1} of {rounds}"
        with started(environment, names, example, cases, Sink(p99, p999), what) as there:
            for case in cases:
                request = replace(case.request(example.cookie), requests=PACED * TURNS)
                PacedCase(request, PACE).measure(environment, there, p99, fewer=fewer, slowest=p999)
