"""Rondel side by side with its peers: one command from nothing to a table and a chart.

It makes a private environment under .cache/, installs the peers from PyPI and Rondel from this
checkout there, measures, and writes a Markdown report, a chart and the raw figures to
benchmarks/results/.  Only the standard library is needed to start it.

CPU time is what it measures, not throughput: it hardly depends on what else the machine does, and
says directly how much of a core an operation costs.  Rounds are interleaved over the runtimes.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from cases import CASES
from harness import chart, limits, readme, report, server, tasks
from harness.environment import (
    BENCHMARKS,
    CACHE,
    CHECKOUT,
    Environment,
    SetupError,
    prepare,
    progress,
)
from harness.figures import Run

LIMITS = BENCHMARKS / "limits.toml"
RESULTS = BENCHMARKS / "results"
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
    parser = argparse.ArgumentParser(
        prog="run.py",
        description=__doc__,
        epilog=EXAMPLES + "\ncases: " + ", ".join(names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--python", type=Path, metavar="PATH", help="the interpreter to measure on (default: the "
        "distribution's /usr/bin/python3 if it is 3.11 or newer and has venv, as it is an "
        "optimised build; else the one that runs this)")  # fmt: skip
    add("--part", choices=("tasks", "http"), help="only the task layer, or only the servers")
    add("--only", action="append", default=[], choices=names, metavar="CASE",
        help="only this case; may be given several times")  # fmt: skip
    add("--peers", metavar="A,B", help="compare with these only: "
        + ", ".join(dict.fromkeys((*tasks.RUNTIMES[1:], *server.SERVERS[1:]))))  # fmt: skip
    add("--no-rondel", action="store_true", help="measure the peers alone")
    add("--rondel-wheel", type=Path, metavar="PATH", help="install this wheel, build none")
    add("--upgrade", action="store_true", help="bring the peers to their newest versions")
    add("--rounds", type=int, metavar="N", help=f"default: {ROUNDS}; with --quick {QUICK_ROUNDS}")
    add("--quick", action="store_true", help="a tenth of the operations")
    add("--freeze", action="store_true", help="gc.freeze() before each case's process begins")
    add("--check", action="store_true", help="compare with limits.toml; exit status 1 if missed")
    add("--check-file", type=Path, metavar="JSON", help="compare saved figures; measure nothing")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds takes a number from 1")
    if options.peers is not None:
        options.peers = set(options.peers.split(","))
        unknown = options.peers - {*tasks.RUNTIMES, *server.SERVERS}
        if unknown:
            parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    if options.rondel_wheel is not None and not options.rondel_wheel.is_file():
        parser.error(f"no such wheel: {options.rondel_wheel}")
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
        return judge(Run.load(options.check_file))
    try:
        run = measure(options)
    except SetupError as error:
        progress(f"bench: {error}")
        return 1
    write(run, complete(options), latest=options.python is None)
    return judge(run) if options.check else 0


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
        http="http" in options.parts,
        upgrade=options.upgrade,
    )
    progress(f"set up in {time.monotonic() - start:.0f} s")
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    only = set(options.only)
    # A wheel from elsewhere need not be this checkout's.
    of_checkout = environment.rondel and options.rondel_wheel is None
    commit = checkout_commit() if of_checkout else None
    run = Run(about(environment, rounds, options.quick, commit))
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
        servers = server.available(environment, options.peers)
        progress(f"http: {', '.join(servers)}")
        server.run(environment, servers, only, rounds=rounds, quick=options.quick, results=run.http)
    progress(f"measured in {time.monotonic() - start:.0f} s")
    return run


def about(environment: Environment, rounds: int, quick: bool, commit: str | None) -> dict[str, str]:
    """The head of the report; no path, no host name."""
    version = ".".join(map(str, environment.version))
    shown = ("rondel", "uvloop", "rloop", "zuvloop", "uvicorn", "httptools", "granian")
    versions = [f"{n} {environment.packages[n]}" for n in shown if n in environment.packages]
    return {
        "date": datetime.date.today().isoformat(),
        "interpreter": f"CPython {version} ({environment.build})",
        "versions": ", ".join(versions) + (f"; commit {commit}" if commit else ""),
        "machine": f"{cpu_model()}, {os.cpu_count()} cores, Linux {kernel()}",
        "rounds": f"{rounds}{', a tenth of the operations' if quick else ''}",
    }


def checkout_commit() -> str | None:
    """So that a figure can be traced to its code."""
    git = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def kernel() -> str:
    """Major and minor version only: the rest may name the host's provider."""
    return ".".join(platform.release().split(".")[:2])


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def write(run: Run, published: bool, latest: bool) -> None:
    folder = RESULTS if published else CACHE / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    stems = ["latest"] if latest or not published else []
    if published:
        version = run.about["interpreter"].split()[1]
        stems.insert(0, f"{run.about['date']}-py{version}")
    for stem in stems:
        run.save(folder / f"{stem}.json")
        (folder / f"{stem}.svg").write_text(chart.svg(run))
        text = report.markdown(run, LIMITS, f"{stem}.svg")
        (folder / f"{stem}.md").write_text(text)
    if published and latest:
        for path in sorted(CHECKOUT.glob("README*.md")):
            path.write_text(readme.updated(path.read_text(), run))
    print(text)
    progress(f"written: {(folder / f'{stems[0]}.md').relative_to(CHECKOUT)} (.json, .svg)")


def judge(run: Run) -> int:
    verdicts = limits.check(run, LIMITS)
    for verdict in verdicts:
        print(verdict)
    print(limits.summary(verdicts))
    return 1 if any(verdict.word == "FAIL" for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
