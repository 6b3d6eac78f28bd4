"""Rondel's networking side by side with its peers: CPU time per message on the server.

Echo servers of every kind (protocols, streams, sock_*, Unix, UDP, TLS), connections that come and
go, calls to and from threads, subprocesses; under asyncio, uvloop, rloop and Rondel, and against a
bare epoll server in Rust.  The load is another process, written in C, whose time does not count.

The set-up is `run.py`'s: a private environment under .cache/, peers from PyPI, Rondel from this
checkout.  With `--here` nothing is set up: it measures the interpreter and the environment that run
it, whatever build of Rondel is there; for a look during work.
"""

from __future__ import annotations

import argparse
import sys
import time
from fnmatch import fnmatch

from harness import commands, limits, publish
from harness.environment import here, prepare, progress
from harness.figures import Figures, Run
from harness.report import Section
from net import drive
from net.case import BARE, LOOPS, Case, Group, groups

PEERS = ("uvloop", "rloop")
ROUNDS, QUICK_ROUNDS = 3, 1

EXAMPLES = """\
examples:
  run_net.py                                 everything; the figures to publish
  run_net.py --quick                         a fifth of the messages, one round: a first look
  run_net.py --only 'streams*'               cases or groups by pattern; may be given several times
  run_net.py --only tls --only udp --loops uvloop
  run_net.py --here --only protocol-1k-10    with this very interpreter's environment
  run_net.py --list                          groups and their cases
  run_net.py --check                         against limits.toml; exit status 1 if one is missed

A run of everything writes results/net-<date>-<version>.{md,json,svg} and, without --python,
results/net-latest.*; any smaller one writes .cache/bench/net-latest.* instead.
"""


def parse() -> argparse.Namespace:
    parser = commands.Parser(
        "run_net.py",
        __doc__,
        EXAMPLES,
        rounds=(ROUNDS, QUICK_ROUNDS),
        quick="a fifth of the messages",
    )
    parser.add_here()
    parser.add_upgrade()
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="PATTERN", help="only these cases or groups")
    add("--loops", metavar="A,B", help=f"besides rondel: {', '.join(LOOPS[1:])}, {BARE}")
    add("--list", action="store_true", help="show groups and cases")
    options = parser.options()
    options.wanted = parser.known(options.loops, (*LOOPS, BARE), "loop")
    options.chosen = [
        (group, case)
        for group in groups()
        for case in group.cases
        if not options.only
        or any(fnmatch(name, p) for p in options.only for name in (case.name, group.name))
    ]
    if not options.chosen:
        parser.error("no case is called so; --list shows them")
    return options


def main() -> int:
    options = parse()
    if options.list:
        for group, case in options.chosen:
            print(f"{group.name:12} {case.name:26} {case.title}")
        return 0
    narrowed = options.only or options.quick or options.here or options.wanted is not None
    return commands.carry_out(options, measure, sections, name="net", whole=not narrowed)


def measure(options: argparse.Namespace) -> Run:
    if options.here:
        environment = here()
    else:
        environment = prepare(
            options.python,
            rondel=True,
            wheel=options.rondel_wheel,
            peers=PEERS,
            http=False,
            floors=False,
            upgrade=options.upgrade,
        )
    tools = drive.prepare(environment)
    if options.wanted is not None and BARE not in options.wanted:
        tools = drive.Tools(tools.load, None, tools.certificate)
    loops = [
        loop
        for loop in LOOPS
        if (loop == "asyncio" or loop in environment.packages)
        and (options.wanted is None or loop == "rondel" or loop in options.wanted)
    ]
    rounds = options.rounds
    run = Run(
        publish.about(
            environment,
            ("rondel", *PEERS),
            rounds=f"{rounds} of {drive.TURNS} turns",
            of_checkout=options.rondel_wheel is None,
        ),
        {},
    )
    if options.here:
        run.about["rondel"] = "whatever build was there"
    version = ".".join(map(str, environment.version))
    progress(f"net: {', '.join(loops)}, on CPython {version}")
    start = time.monotonic()
    bench = drive.Bench(environment, tools, loops)
    drive.run(bench, options.chosen, run.parts, rounds, 5 if options.quick else 1)
    progress(f"measured in {time.monotonic() - start:.0f} s")
    return run


def sections(run: Run) -> list[Section]:
    """A table a group, with what could not be measured and why below its title."""
    found = []
    for group in groups():
        figures = run.parts.get(group.part)
        if figures is not None:
            found.append(section(group, figures))
    return found


def section(group: Group, figures: Figures) -> Section:
    measured: list[Case] = [case for case in group.cases if case.name in figures.values]
    names = [*LOOPS, *(f"{loop} protocol" for loop in LOOPS), *limits.FLOORS]
    reasons: dict[tuple[str, str], list[str]] = {}
    for case, errors in figures.errors.items():
        for subject, reason in errors.items():
            reasons.setdefault((subject, reason), []).append(case)
    notes = [group.note]
    for (subject, reason), cases in reasons.items():
        which = "" if len(cases) == len(group.cases) else f" ({', '.join(cases)})"
        notes.append(f"{subject}: {reason}{which}.")
    return Section(
        f"{group.title}: CPU µs",
        "\n".join(notes),
        figures,
        [(case.name, case.title) for case in measured],
        figures.subjects(names),
        "µs",
        2,
    )


if __name__ == "__main__":
    sys.exit(main())
