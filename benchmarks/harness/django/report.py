"""The tables of a run of the Django benchmark, made from its figures alone."""

from __future__ import annotations

from harness.django import example
from harness.django.cases import CASES, SITES
from harness.django.servers import SERVERS
from harness.figures import Figures, Run
from harness.report import Section, measured

NOTE = """\
The same project (`benchmarks/django`) under each server: one worker, keep-alive, 64 connections,
DEBUG off, no access log; middleware and settings are those of `django-admin startproject`, every
answer is checked. CPU time is that of the server's whole process tree (the database server's is not
in it); figures are medians over interleaved turns, and a ratio is the median of the turns' own
ratios. Rondel, uvicorn and granian ASGI serve the project's `asgi.py`, granian WSGI and gunicorn
(gthread) its `wsgi.py`; *they answer an async row with the sync view of the same work*. *Threads*
are those for sync code: `--threads` (Rondel, gunicorn), `--blocking-threads` (granian WSGI). Under
uvicorn and granian ASGI asgiref makes one thread per request, so they have figures in the first
table of each site only.\
"""

RSS_NOTE = """\
Resident size of the server's process tree, in MiB, after so many requests in all, 64 connections,
all cases of the site in turn; and the second in % of the first.\
"""


EXAMPLE_NOTE = """\
The example project (`examples/django_site`) under each server: one worker, keep-alive, 64
connections, DEBUG off, no access log, a database of its own, and *as many threads as the server has
by default*: Rondel 16, uvicorn one per request for Django's sync code. Each answer has to have its
status and hold its phrase. *The ways of concurrency sleep, mostly 0.2 to 0.6 s, so the time that a
client waits is compared for them*, in place of requests per second; `to-thread` blocks a thread of
asyncio's own pool (cores + 4), where 64 clients wait for each other. Streams are asked for without
their delay. Figures are medians over interleaved turns, and a ratio is the median of the turns' own
ratios.\
"""

EXAMPLE_TABLES = (
    (example.CPU, "CPU µs per request", "µs", 0, "Below 1 Rondel takes less."),
    (example.RATE, "requests/s", "1/s", 0, "Above 1 Rondel serves more."),
    (
        example.WALL,
        "ms that a client waits, views that sleep",
        "ms",
        0,
        "Below 1 Rondel answers sooner.",
    ),
    *(
        (
            part,
            f"µs until the answer, {which} percentile, {example.PACE} requests per second",
            "µs",
            0,
            "From when a request was due. Below 1 Rondel answers sooner.",
        )
        for part, which in ((example.P99, "99th"), (example.P999, "99.9th"))
    ),
)


def split(part: str) -> tuple[str, str]:
    """The site's title and the number of threads."""
    _, site, threads = part.split("/")
    return SITES[site], f"{threads} thread{'' if threads == '1' else 's'}"


def section(part: str, figures: Figures, what: str, unit: str, digits: int, note: str) -> Section:
    site, threads = split(part)
    lines = measured(figures, [(case.name, case.title) for case in CASES])
    title = f"{site[0].upper()}{site[1:]}, {threads}: {what}"
    return Section(title, note, figures, lines, figures.subjects(SERVERS), unit, digits)


def cpu_sections(run: Run) -> list[Section]:
    note = "Below 1 Rondel takes less."
    return [
        section(part, figures, "CPU µs per request", "µs", 0, note)
        for part, figures in sorted(run.family("django-cpu").items(), key=order)
    ]


def order(item: tuple[str, Figures]) -> tuple[int, int]:
    """Sites as they are listed, more threads first."""
    _, site, threads = item[0].split("/")
    return list(SITES).index(site), -int(threads)


def rate_sections(run: Run) -> list[Section]:
    note = "Above 1 Rondel serves more. The load and the database share the machine's cores."
    return [
        section(part, figures, "requests/s", "1/s", 0, note)
        for part, figures in sorted(run.family("django-rate").items(), key=order)
    ]


def rss_sections(run: Run) -> list[Section]:
    out = []
    for part, figures in sorted(run.family("django-rss").items(), key=order):
        site, threads = split(part)
        lines = [
            (case, f"{case}, in %" if case.startswith("growth") else case)
            for case in figures.values
        ]
        title = f"{site[0].upper()}{site[1:]}, {threads}: resident MiB"
        subjects = figures.subjects(SERVERS)
        out.append(Section(title, RSS_NOTE, figures, lines, subjects, "MiB", 2))
    return out


def example_sections(run: Run) -> list[Section]:
    titles = [(case.name, case.title) for case in example.CASES]
    out = []
    for part, what, unit, digits, note in EXAMPLE_TABLES:
        if figures := run.parts.get(part):
            lines = measured(figures, titles)
            subjects = figures.subjects(SERVERS)
            title = f"Example project: {what}"
            out.append(Section(title, note, figures, lines, subjects, unit, digits))
    return [section for section in out if section.lines]


def sections(run: Run) -> list[Section]:
    """The report's, with a line for each database that was left out."""
    nothing = Figures("median")
    out = rss_sections(run)
    if run.family("django-cpu"):
        how = Section("How", NOTE, nothing, [], [], "", 0)
        out += [how, *cpu_sections(run), *rate_sections(run)]
    if tables := example_sections(run):
        out += [Section("How", EXAMPLE_NOTE, nothing, [], [], "", 0), *tables]
    if reason := run.about.get("PostgreSQL left out"):
        title = "Default middleware, PostgreSQL: not measured"
        out.append(Section(title, f"{reason[0].upper()}{reason[1:]}.", nothing, [], [], "", 0))
    return out
