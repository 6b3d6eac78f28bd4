"""Rondel side by side with its peers: one command from nothing to a table and a chart.

It makes a private environment under .cache/, installs the peers from PyPI and Rondel from this
checkout there, measures, and writes a Markdown report, a chart and the raw figures to
benchmarks/results/.  Only the standard library is needed to start it.

CPU time is what it measures, not throughput: it hardly depends on what else the machine does, and
says directly how much of a core an operation costs.  Rounds are interleaved over the runtimes.
"""

from __future__ import annotations

import argparse
import sys
import time

from cases import CASES
from harness import commands, programs, publish, readme, report, server, tasks
from harness.environment import CHECKOUT, PEERS, SetupError, prepare, progress
from harness.figures import Run

SHOWN = ("rondel", "uvloop", "rloop", "zuvloop", "uvicorn", "httptools", "granian")
ROUNDS, QUICK_ROUNDS = 5, 2

EXAMPLES = """\
examples:
  run.py                            everything; the figures to publish (about five minutes,
                                    and the build of Rondel's wheel the first time)
  run.py --quick                    everything, smaller and in two rounds: a first look
  run.py --part tasks --only create_await --only gather
  run.py --part http --peers uvicorn
  run.py --python ~/.pyenv/versions/3.13.0/bin/python --check
  run.py --check-file benchmarks/results/latest.json

A run of everything writes results/<date>-<version>.{md,json,svg} and, without --python,
results/latest.* and the figures in the READMEs; any smaller one writes .cache/bench/latest.*
instead, so that no published figure is lost to it.
"""


def parse() -> argparse.Namespace:
    names = [*(case.name for case in CASES), *(case.name for case in server.HTTP_CASES)]
    parser = commands.Parser(
        "run.py",
        __doc__,
        EXAMPLES + "\ncases: " + ", ".join(names),
        rounds=(ROUNDS, QUICK_ROUNDS),
        quick="a tenth of the operations",
    )
    parser.add_upgrade()
    add = parser.add_argument
    add("--part", choices=("tasks", "http"), help="only the task layer, or only the servers")
    add("--only", action="append", default=[], choices=names, metavar="CASE",
        help="only this case; may be given several times")  # fmt: skip
    add("--peers", metavar="A,B", help="compare with these only: "
        + ", ".join(dict.fromkeys((*tasks.RUNTIMES[1:], *server.SERVERS[1:]))))  # fmt: skip
    add("--no-rondel", action="store_true", help="measure the peers alone")
    add("--freeze", action="store_true", help="gc.freeze() before each case's process begins")
    options = parser.options()
    peers = (*tasks.RUNTIMES, *server.SERVERS)
    options.peers = parser.known(options.peers, peers, "peer")
    task_names = {case.name for case in CASES}
    options.parts = {
        part
        for part, mine in (("tasks", task_names), ("http", set(names) - task_names))
        if options.part in (None, part) and (not options.only or mine & set(options.only))
    }
    if not options.parts:
        parser.error(f"--part {options.part} has none of the cases of --only")
    return options


def main() -> int:
    options = parse()
    if options.check_file is not None:
        return publish.judge(Run.load(options.check_file))
    try:
        run = measure(options)
    except SetupError as error:
        progress(f"bench: {error}")
        return 1
    write(run, complete(options), latest=options.python is None)
    return publish.judge(run) if options.check else 0


def complete(options: argparse.Namespace) -> bool:
    """Whether the run may replace published figures."""
    narrowed = options.part or options.only or options.quick or options.freeze
    return not (narrowed or options.peers is not None or options.no_rondel)


def measure(options: argparse.Namespace) -> Run:
    start = time.monotonic()
    environment = prepare(
        options.python,
        rondel=not options.no_rondel,
        wheel=options.rondel_wheel,
        peers=PEERS,
        http="http" in options.parts,
        upgrade=options.upgrade,
    )
    progress(f"set up in {time.monotonic() - start:.0f} s")
    rounds = options.rounds
    only = set(options.only)
    # A wheel from elsewhere need not be this checkout's.
    of_checkout = environment.rondel and options.rondel_wheel is None
    shown_rounds = f"{rounds}, a tenth of the operations" if options.quick else str(rounds)
    run = Run(publish.about(environment, SHOWN, rounds=shown_rounds, of_checkout=of_checkout))
    if options.freeze:
        run.about["collector"] = "frozen"
    start = time.monotonic()
    if "tasks" in options.parts:
        runtimes = tasks.available(environment, options.peers)
        progress(f"tasks: {', '.join(runtimes)}")
        tasks.run(
            environment,
            runtimes,
            only,
            rounds=rounds,
            quick=options.quick,
            freeze=options.freeze,
            results=run.tasks,
        )
    if "http" in options.parts:
        servers = programs.available(environment, server.SERVERS, options.peers)
        progress(f"http: {', '.join(servers)}")
        server.run(environment, servers, only, rounds=rounds, quick=options.quick, results=run.http)
    progress(f"measured in {time.monotonic() - start:.0f} s")
    return run


def write(run: Run, published: bool, latest: bool) -> None:
    sections = report.sections(run)
    charted = sorted(sections, key=lambda section: not section.title.startswith("HTTP"))
    publish.write(run, sections, charted, published=published, latest=latest)
    if published and latest:
        for path in sorted(CHECKOUT.glob("README*.md")):
            path.write_text(readme.updated(path.read_text(), run))


if __name__ == "__main__":
    sys.exit(main())
