"""Django under Rondel and under the servers that people use: CPU per request, and throughput.

One command from nothing to a table and a chart: it makes a private environment under .cache/,
installs Django, the peers and Rondel there, prepares the project of benchmarks/django on SQLite and
on a PostgreSQL of its own (in a temporary folder; left out with a word if there is none), checks
what each server answers, and measures in interleaved rounds.  The project is the same for all and
knows nothing of Rondel: no app, no middleware, no setting.

It takes CPU time per request and requests per second from the same load, 64 kept-alive connections
to one worker.  With --rss it measures memory instead, with --example the pages of
examples/django_site under Rondel and uvicorn, with both the memory of Rondel serving these.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

from harness import publish
from harness.django import example, measure, report, servers
from harness.django.cases import CASES, DATABASES
from harness.django.postgres import Cluster, PostgresError, cluster
from harness.django.project import Site
from harness.django.project import prepare as prepare_site
from harness.environment import DJANGO_PEERS, Environment, SetupError, prepare, progress
from harness.figures import Run

ROUNDS, QUICK_ROUNDS = 3, 1
QUICK_FEWER = 3
THREADS = [4, 1]
COUNTS, QUICK_COUNTS = (10_000, 100_000), (1_000, 10_000)
SHOWN = ("rondel", "django", "asgiref", "uvicorn", "uvloop", "httptools", "granian", "gunicorn")

EXAMPLES = """\
examples:
  run_django.py                       everything; the figures to publish (about 25 minutes)
  run_django.py --quick               a first look: a third of the requests, one round, 4 threads
  run_django.py --db sqlite --only query_sync --only query_async --peers granian-wsgi
  run_django.py --threads 1 --only minimal_sync --peers uvicorn,granian-wsgi --rounds 5
  run_django.py --rss                 Rondel's memory after 10 000 and 100 000 requests
  run_django.py --rss --peers uvicorn the same, and uvicorn's
  run_django.py --rss --example       the same of the example project
  run_django.py --example             each page of the example project, beside uvicorn (10 minutes)
  run_django.py --example --only books --only where --rounds 1
  run_django.py --example --latency   the slowest answers of three pages, beside uvicorn (5 minutes)
  run_django.py --rondel-wheel dist/rondel-....whl --check
  run_django.py --check-file benchmarks/results/django-latest.json

what is compared with what:
  rondel        rondel serve bench_site.asgi:application [--threads N, when it has the option]
  uvicorn       with uvloop and httptools, ASGI; one asgiref thread per request
  granian-asgi  with uvloop; one asgiref thread per request
  granian-wsgi  --interface wsgi --blocking-threads N
  gunicorn      --worker-class gthread --threads N

A WSGI server has no async view: it answers an async case with the sync view of the same work.
With several numbers of threads, uvicorn and granian-asgi are measured with the first only.

A run of everything writes results/django-<date>-<version>.{md,json,svg} and, without --python,
results/django-latest.*; any smaller one writes .cache/bench/django-latest.* instead. Memory goes to
django-rss-*, the example project to django-example-*.
"""


def numbers(text: str) -> list[int]:
    """`4,1`: at least one number from 1, none twice."""
    found = [int(word) for word in text.split(",")]
    if min(found) < 1 or len(set(found)) < len(found):
        raise ValueError
    return found


numbers.__name__ = "list of numbers"  # argparse shows it when the value is wrong


def parse() -> argparse.Namespace:
    names = [case.name for case in CASES]
    pages = [case.name for case in example.CASES]
    parser = argparse.ArgumentParser(
        prog="run_django.py",
        description=__doc__,
        epilog=EXAMPLES
        + "\ncases:\n"
        + "\n".join(f"  {case.name:14}{case.title.replace('`', '')}" for case in CASES)
        + "\n\ncases of --example:\n"
        + textwrap.fill(", ".join(pages), 96, initial_indent="  ", subsequent_indent="  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--python", type=Path, metavar="PATH", help="the interpreter to measure on (default: the "
        "distribution's /usr/bin/python3 if it is 3.11 or newer and has venv, as it is an "
        "optimised build; else the one that runs this)")  # fmt: skip
    add("--db", choices=(*DATABASES, "all"), help="default: all; with --rss sqlite")
    add("--only", action="append", default=[], choices=names + pages, metavar="CASE",
        help="only this case; may be given several times")  # fmt: skip
    add("--peers", metavar="A,B", help="compare with these only: " + ", ".join(servers.SERVERS[1:])
        + " (default: all; with --rss none, with --example uvicorn)")  # fmt: skip
    add("--threads", type=numbers, metavar="N,M", help="for sync code, where a server has them "
        f"(default: {','.join(map(str, THREADS))}; --quick, --rss: {THREADS[0]})")  # fmt: skip
    add("--conn-max-age", type=int, default=0, metavar="S", help="Django's CONN_MAX_AGE "
        "(default: 0, as Django has it: a connection per request)")  # fmt: skip
    add("--pool", type=int, default=0, metavar="N", help="take PostgreSQL's connections from "
        "psycopg's pool of N (Django from 5.1 on), instead of one per request")  # fmt: skip
    add("--no-rondel", action="store_true", help="measure the peers alone")
    add("--rondel-wheel", type=Path, metavar="PATH", help="install this wheel, build none")
    add("--upgrade", action="store_true", help="bring Django and peers to their newest versions")
    add("--rounds", type=int, metavar="N",
        help=f"default: {ROUNDS}; with --quick, --rss or --latency {QUICK_ROUNDS}")  # fmt: skip
    add("--quick", action="store_true", help="a third of the requests (with --rss a tenth)")
    add("--rss", action="store_true", help="memory after 10^4 and after 10^5 requests instead")
    add("--example", action="store_true", help="the example project's pages instead, on SQLite, "
        "with the threads that servers have by default")  # fmt: skip
    add("--latency", action="store_true", help="with --example: the 99th and the 99.9th percentile "
        "of answers' times, at a pace that all can bear")  # fmt: skip
    add("--check", action="store_true", help="compare with limits.toml; exit status 1 if missed")
    add("--check-file", type=Path, metavar="JSON", help="compare saved figures; measure nothing")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds takes a number from 1")
    if options.peers is not None:
        options.peers = set(options.peers.split(","))
        if unknown := options.peers - {*servers.SERVERS}:
            parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    if options.pool < 0:
        parser.error("--pool takes the number of connections")
    if options.pool and (options.conn_max_age or options.db != "postgres"):
        parser.error("--pool is for --db postgres, and without --conn-max-age: Django refuses both")
    if options.rss and options.threads and len(options.threads) > 1:
        parser.error("--rss takes one number of --threads")
    if options.latency and (options.rss or not options.example):
        parser.error("--latency is about the pages of --example, and not with --rss")
    if options.example:
        if options.threads or options.conn_max_age or options.db == "postgres":
            parser.error("--example takes no --threads, --conn-max-age and no PostgreSQL")
        if options.peers and (wsgi := options.peers - {*example.ALLOWED}):
            parser.error(f"--example needs ASGI: {', '.join(sorted(wsgi))}")
    if wrong := {*options.only} - {*(pages if options.example else names)}:
        parser.error(f"{'no' if options.example else 'only a'} case of --example: {wrong.pop()}")
    if options.rondel_wheel is not None and not options.rondel_wheel.is_file():
        parser.error(f"no such wheel: {options.rondel_wheel}")
    return options


def main() -> int:
    # Servers and the cluster are ended by the `with` blocks, so a SIGTERM has to leave them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = parse()
    if options.check_file is not None:
        return publish.judge(Run.load(options.check_file))
    published = complete(options)
    # Whom memory is not compared with unless asked for.
    alone = {*servers.SERVERS} if options.rss and not options.no_rondel else set()
    if options.rss:
        options.db = options.db or "sqlite"
        options.peers = options.peers or (set(servers.SERVERS) if options.no_rondel else set())
    if options.example:
        options.db, options.peers = "sqlite", options.peers or ({"uvicorn"} - alone)
    one = options.quick or options.rss
    options.threads = options.threads or (THREADS[:1] if one else THREADS)
    options.rounds = options.rounds or (QUICK_ROUNDS if one or options.latency else ROUNDS)
    options.db = options.db or "all"
    try:
        run = run_example(options) if options.example else run_all(options)
    except (SetupError, PostgresError) as error:
        progress(f"bench-django: {error}")
        return 1
    sections = report.sections(run)
    publish.write(
        run,
        sections,
        report.rss_sections(run) + report.cpu_sections(run) + report.example_sections(run)[:1],
        published=published,
        latest=options.python is None,
        prefix=prefix(options),
    )
    return publish.judge(run) if options.check else 0


def prefix(options: argparse.Namespace) -> str:
    """What the names of the written files begin with."""
    parts = ["example"] * options.example + ["rss"] * options.rss + ["latency"] * options.latency
    return "-".join(["django", *parts, ""])


def complete(options: argparse.Namespace) -> bool:
    """Whether the run may replace published figures."""
    narrowed = options.only or options.quick or options.threads or options.conn_max_age
    narrowed = narrowed or options.db not in (None, "all") or options.no_rondel
    return not narrowed and (options.rss or options.peers is None)


def set_up(options: argparse.Namespace) -> tuple[Environment, list[str]]:
    """The environment, and the servers to measure."""
    environment = prepare(
        options.python,
        rondel=not options.no_rondel,
        wheel=options.rondel_wheel,
        peers=DJANGO_PEERS,
        http=True,
        floors=False,
        upgrade=options.upgrade,
    )
    if "django" not in environment.packages:
        raise SetupError("Django could not be installed; the line above says why")
    return environment, servers.available(environment, options.peers)


def run_example(options: argparse.Namespace) -> Run:
    environment, names = set_up(options)
    with tempfile.TemporaryDirectory(prefix="bench-django-") as folder:
        site = example.prepare(environment, Path(folder))
        run = Run(about(environment, options, None), {})
        only = set(options.only)
        if options.rss:
            counts = QUICK_COUNTS if options.quick else COUNTS
            rounds = options.rounds
            example.rss(environment, names, site, only, counts, rounds=rounds, results=run)
            return run
        fewer = QUICK_FEWER if options.quick else 1
        measure_pages = example.latency if options.latency else example.run
        measure_pages(
            environment, names, site, only, rounds=options.rounds, fewer=fewer, results=run
        )
    return run


def run_all(options: argparse.Namespace) -> Run:
    begin = time.monotonic()
    environment, names = set_up(options)
    with tempfile.TemporaryDirectory(prefix="bench-django-") as folder, database(options) as found:
        run = Run(about(environment, options, found), {})
        if isinstance(found, PostgresError):
            progress(f"PostgreSQL is left out: {found}")
            run.about["PostgreSQL left out"] = str(found)
        sites = prepared(environment, options, Path(folder), found)
        progress(f"set up in {time.monotonic() - begin:.0f} s; servers: {', '.join(names)}")
        begin = time.monotonic()
        if options.rss:
            counts = QUICK_COUNTS if options.quick else COUNTS
            measure.rss(
                environment,
                names,
                sites,
                options.threads[0],
                counts,
                rounds=options.rounds,
                results=run,
            )
        else:
            measure.run(
                environment,
                names,
                sites,
                options.threads,
                rounds=options.rounds,
                fewer=QUICK_FEWER if options.quick else 1,
                results=run,
            )
        progress(f"measured in {time.monotonic() - begin:.0f} s")
    return run


@contextlib.contextmanager
def database(options: argparse.Namespace) -> Iterator[Cluster | PostgresError | None]:
    """PostgreSQL if it is wanted; why not, if it is missing and was not asked for by name."""
    wanted = any(case.queries and (not options.only or case.name in options.only) for case in CASES)
    if options.db == "sqlite" or not wanted:
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            found: Cluster | PostgresError = stack.enter_context(cluster())
        except PostgresError as error:
            if options.db == "postgres":
                raise
            found = error
        yield found


def prepared(
    environment: Environment,
    options: argparse.Namespace,
    folder: Path,
    found: Cluster | PostgresError | None,
) -> list[Site]:
    """The sites that have a case to measure; the minimal one only beside a database's."""
    names = ["minimal"] if not options.rss else []
    if options.db in ("sqlite", "all"):
        names.append("sqlite")
    if isinstance(found, Cluster):
        names.append("postgres")
    only = set(options.only)
    sites = [
        prepare_site(
            environment,
            name,
            only,
            folder=folder,
            cluster=found if name == "postgres" and isinstance(found, Cluster) else None,
            conn_max_age=options.conn_max_age,
            pool=options.pool,
        )
        for name in names
    ]
    sites = [site for site in sites if site.requests]
    if not sites:
        raise SetupError("none of the cases asked for can be measured")
    return sites


def about(
    environment: Environment,
    options: argparse.Namespace,
    found: Cluster | PostgresError | None,
) -> dict[str, str]:
    """The head of the report: what is published with every run, and what is Django's."""
    fewer = f", a {'tenth' if options.rss else 'third'} of the requests" if options.quick else ""
    head = publish.about(
        environment,
        SHOWN,
        rounds=f"{options.rounds}{fewer}",
        of_checkout=environment.rondel and options.rondel_wheel is None,
    )
    if isinstance(found, Cluster):
        head["PostgreSQL"] = f"{found.version}, psycopg {environment.packages['psycopg']}, a socket"
    head["CONN_MAX_AGE"] = str(options.conn_max_age)
    if options.pool:
        head["pool"] = f"psycopg's, {options.pool} connections"
    if environment.rondel and not servers.rondel_takes_threads(environment):
        head["Rondel's threads"] = "asgiref's, one per request: this build has no --threads"
    return head


if __name__ == "__main__":
    sys.exit(main())
