"""Rondel's server side by side with the servers that people run: CPU, latency, memory.

It makes a private environment under .cache/, installs the peers from PyPI and Rondel from this
checkout there, measures in interleaved rounds, and writes a Markdown report, a chart and the raw
figures to benchmarks/results/.

What is told is CPU time of a server's whole process tree per request, the median over turns; every
answer is checked.  Latency is the 99th percentile under a load that all can bear; memory is PSS per
worker.  TLS and HTTP/2 need h2load and curl (scripts/clients.sh install); without them the report
says that these were left out.  With `--here` nothing is set up: it measures the interpreter and the
environment that run it, whatever build of Rondel is there; for a look during work.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from fnmatch import fnmatch

from harness import commands, programs, publish
from harness.environment import SERVER_PEERS, here, prepare, progress
from harness.figures import Run
from harness.serving import measure, report
from harness.serving.cases import GROUPS

ROUNDS, QUICK_ROUNDS = 5, 1
QUICK_FEWER = 8
PEERS = tuple(dict.fromkeys(name for group in GROUPS for name in group.servers if name != "rondel"))

EXAMPLES = """\
examples:
  run_server.py                              everything; the figures to publish (half an hour)
  run_server.py --quick                      an eighth of the requests, one round: a first look
  run_server.py --only ws --only 'h2*'       groups or cases by pattern; may be given several times
  run_server.py --only sleep --peers uvicorn,granian
  run_server.py --here --quick --only ws-64k with this very interpreter's environment
  run_server.py --rondel-wheel dist/rondel-....whl --check
  run_server.py --list                       groups and their cases
  run_server.py --check-file benchmarks/results/server-latest.json

what is compared with what:
  rondel     rondel serve
  uvicorn    with uvloop and httptools; for WebSocket with websockets (sans-I/O) and with wsproto.
             It is also what gunicorn runs with uvicorn's worker class
  granian    with uvloop; for WSGI and files its --interface wsgi
  hypercorn  with uvloop
  gunicorn   gthread, for WSGI
  bare       Rondel's HTTP code in Rust without Python: what Python costs is the difference

A run of everything writes results/server-<date>-<version>.{md,json,svg} and, without --python,
results/server-latest.*; any smaller one writes .cache/bench/server-latest.* instead.
"""


def parse() -> argparse.Namespace:
    parser = commands.Parser(
        "run_server.py",
        __doc__,
        EXAMPLES,
        rounds=(ROUNDS, QUICK_ROUNDS),
        quick="an eighth of the requests",
    )
    parser.add_here()
    parser.add_upgrade()
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="PATTERN", help="only these groups or cases")
    add("--peers", metavar="A,B", help=f"compare with these only: {', '.join(PEERS)}")
    add("--list", action="store_true", help="show groups and cases")
    options = parser.options()
    options.wanted = parser.known(options.peers, PEERS, "peer")
    options.chosen = chosen(options.only)
    if not options.chosen:
        parser.error("no case is called so; --list shows them")
    return options


def chosen(patterns: list[str]) -> measure.Chosen:
    """Of each group that one of the patterns names, all cases; of others those that one names."""
    found = []
    for group in GROUPS:
        whole = not patterns or any(fnmatch(group.name, pattern) for pattern in patterns)
        names = [
            case.name
            for case in group.cases
            if whole or any(fnmatch(case.name, pattern) for pattern in patterns)
        ]
        if names:
            found.append((group, names))
    return found


def main() -> int:
    # Servers are ended by `with` blocks, so a SIGTERM has to leave them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = parse()
    if options.list:
        for group, names in options.chosen:
            print(f"{group.name:10} {', '.join(names)}")
        return 0
    narrowed = options.only or options.quick or options.here or options.wanted is not None
    return commands.carry_out(
        options, measure_all, report.sections, name="server", whole=not narrowed
    )


def measure_all(options: argparse.Namespace) -> Run:
    begin = time.monotonic()
    bare = (options.wanted is None or programs.BARE in options.wanted) and any(
        programs.BARE in group.servers for group, _ in options.chosen
    )
    if options.here:
        environment = here(bare=bare)
    else:
        environment = prepare(
            options.python,
            rondel=True,
            wheel=options.rondel_wheel,
            peers=SERVER_PEERS,
            http=True,
            floors=bare,
            upgrade=options.upgrade,
        )
    progress(f"set up in {time.monotonic() - begin:.0f} s")
    rounds = options.rounds
    fewer = QUICK_FEWER if options.quick else 1
    run = Run(
        publish.about(
            environment,
            ("rondel", *SERVER_PEERS),
            rounds=f"{rounds}, an eighth of the requests" if options.quick else str(rounds),
            of_checkout=not options.here and options.rondel_wheel is None,
        ),
        {},
    )
    if options.here:
        run.about["rondel"] = "whatever build was there"
    begin = time.monotonic()
    measure.run(
        environment, options.chosen, options.wanted, rounds=rounds, fewer=fewer, results=run
    )
    progress(f"measured in {time.monotonic() - begin:.0f} s")
    return run


if __name__ == "__main__":
    sys.exit(main())
