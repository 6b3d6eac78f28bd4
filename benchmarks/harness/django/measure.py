"""The rounds: every site, every number of threads, all servers in turn.

What is measured is CPU µs per request and requests per second, of the same load: 64 kept-alive
connections.  Parts of the run: `django-cpu/SITE/THREADS` and `django-rate/SITE/THREADS`.

Memory (`rss`) is a run of its own: one process per server, all of a site's cases in turn, so that
what one of them leaves behind is seen, whichever it is.  Its part: `django-rss/SITE/THREADS`.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial

from harness.django import servers
from harness.django.project import PROJECT, Site
from harness.environment import Environment, progress
from harness.figures import Figures, Run
from harness.process import ServerError, Starter, running, tree_memory
from harness.traffic import CONNECTIONS, HttpCase, Sink, load, measure_case, start, verify

CHUNK = 500
"""Requests of one case before the next has its turn, when memory is measured."""


def growth(counts: tuple[int, int]) -> str:
    """The case's name: a limit for one pair of numbers says nothing about another."""
    return f"growth {counts[0]} to {counts[1]}"


def starters(
    environment: Environment, names: list[str], site: Site, threads: int
) -> dict[str, Starter]:
    takes = "rondel" in names and servers.rondel_takes_threads(environment)
    return {
        name: partial(
            running,
            partial(servers.command, environment, name, threads, takes),
            PROJECT,
            site.variables,
        )
        for name in names
    }


def run(
    environment: Environment,
    names: list[str],
    sites: list[Site],
    thread_counts: list[int],
    *,
    rounds: int,
    fewer: int,
    results: Run,
) -> None:
    """All sites on all the servers, `rounds` times.

    `fewer` divides the requests.  Servers whose figures do not depend on threads are measured with
    the first number only.
    """
    for number in range(rounds):
        for site in sites:
            for threads in thread_counts:
                begin = time.monotonic()
                there = [
                    name
                    for name in names
                    if threads == thread_counts[0] or name in servers.THREADED
                ]
                measure_site(environment, there, site, threads, fewer=fewer, results=results)
                progress(
                    f"round {number + 1} of {rounds}: {site.name}, threads: {threads}, "
                    f"{time.monotonic() - begin:.0f} s"
                )


def measure_site(
    environment: Environment,
    names: list[str],
    site: Site,
    threads: int,
    *,
    fewer: int,
    results: Run,
) -> None:
    sink = Sink(
        results.parts.setdefault(f"django-cpu/{site.name}/{threads}", Figures("median")),
        results.parts.setdefault(f"django-rate/{site.name}/{threads}", Figures("median")),
    )
    cases = list(site.requests)
    with contextlib.ExitStack() as stack:
        there = start(stack, starters(environment, names, site, threads), cases, sink)
        for case in cases:
            requests = site.requests_for(case, names)
            measure_case(environment, case, requests, there, fewer=fewer, sink=sink)


def rss(
    environment: Environment,
    names: list[str],
    sites: list[Site],
    threads: int,
    counts: tuple[int, int],
    *,
    rounds: int,
    results: Run,
) -> None:
    """MiB after each of the two numbers of requests, and the second in % of the first."""
    for number in range(rounds):
        for site in sites:
            part = f"django-rss/{site.name}/{threads}"
            figures = results.parts.setdefault(part, Figures("median"))
            for name, starter in starters(environment, names, site, threads).items():
                requests = [site.requests_for(case, [name])[name] for case in site.requests]
                what = f"{site.name}, round {number + 1} of {rounds}"
                grown(environment, name, starter, requests, counts, figures, what)


def grown(
    environment: Environment,
    name: str,
    starter: Starter,
    requests: list[HttpCase],
    counts: tuple[int, int],
    figures: Figures,
    what: str,
) -> None:
    """One server's memory, into `figures`; `what` is for who watches."""
    begin = time.monotonic()
    early, late = (f"after {count} requests" for count in counts)
    try:
        first, second = grow(environment, starter, requests, counts)
    except ServerError as error:
        for case in (early, late, growth(counts)):
            figures.fail(case, name, str(error))
        progress(f"  {name} {what}: {error}")
        return
    figures.add(early, name, [first / 2**20])
    figures.add(late, name, [second / 2**20])
    figures.add(growth(counts), name, [100 * second / first])
    progress(f"{name}, {what}: {time.monotonic() - begin:.0f} s")


def grow(
    environment: Environment, starter: Starter, requests: list[HttpCase], counts: tuple[int, int]
) -> tuple[int, int]:
    """Bytes of the whole tree after each of the two numbers of requests."""
    found: list[int] = []
    done = 0
    with starter() as (pid, port):
        for request in requests:
            verify(request, port)
        for count in counts:
            while done < count:
                chunk = max(CONNECTIONS, min(CHUNK, count - done))
                load(environment, requests[done // CHUNK % len(requests)], port, chunk)
                done += chunk
            found.append(tree_memory(pid))
    return found[0], found[1]
