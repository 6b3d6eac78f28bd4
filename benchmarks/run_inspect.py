"""What the inspector costs: the task layer's cases with it off, as it comes, and recording.

CPU time per operation, the modes in turn; and how long a picture of 100 000 tasks takes. There are
no peers: each mode stands beside Rondel with RONDEL_INSPECT=0.

What the counters cost that are compiled in is in no difference of these: `--without-wheel` takes a
second build, which counts nothing (`make build-without`), and puts it beside.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from harness import commands, inspector, publish
from harness.environment import SetupError, beside, here, prepare, progress
from harness.figures import Run

ROUNDS, QUICK_ROUNDS = 5, 2
NAMES = [case.name for case in (*inspector.TIMED, *inspector.MEASURING)]
MODES = [mode for mode in inspector.MODES if mode not in (inspector.OFF, inspector.WITHOUT)]

EXAMPLES = """\
examples:
  run_inspect.py                            everything; the figures to publish (some three minutes)
  run_inspect.py --quick                    a tenth of the operations, two rounds: a first look
  run_inspect.py --only switch --modes recorder,details
  run_inspect.py --here --only create_await with this very interpreter's environment
  run_inspect.py --without-wheel .venv/without/rondel-*.whl    what the counters cost themselves
  run_inspect.py --check                    against limits.toml; exit status 1 if one is missed

A run of everything writes results/inspect-<date>-<version>.{md,json,svg} and, without --python,
results/inspect-latest.*; any smaller one writes .cache/bench/inspect-latest.* instead.
"""


def parse() -> argparse.Namespace:
    parser = commands.Parser(
        "run_inspect.py",
        __doc__,
        EXAMPLES + "\ncases: " + ", ".join(NAMES),
        rounds=(ROUNDS, QUICK_ROUNDS),
        quick="a tenth of the operations",
    )
    parser.add_here()
    add = parser.add_argument
    add("--only", action="append", default=[], choices=NAMES, metavar="CASE",
        help="only this case; may be given several times")  # fmt: skip
    add("--modes", metavar="A,B", help=f"only these: {', '.join(MODES)}")
    add("--without-wheel", type=Path, metavar="PATH",
        help="another wheel, of `make build-without`, to be measured beside")  # fmt: skip
    options = parser.options()
    if options.without_wheel is not None and not options.without_wheel.is_file():
        parser.error(f"no such wheel: {options.without_wheel}")
    wanted = parser.known(options.modes, MODES, "mode")
    options.chosen = [mode for mode in MODES if wanted is None or mode in wanted]
    return options


def main() -> int:
    options = parse()
    narrowed = options.only or options.quick or options.here or options.modes is not None
    return commands.carry_out(
        options, measure, inspector.sections, name="inspect", whole=not narrowed
    )


def measure(options: argparse.Namespace) -> Run:
    if options.here:
        environment = here()
    else:
        environment = prepare(
            options.python,
            rondel=True,
            wheel=options.rondel_wheel,
            peers=(),
            http=False,
            floors=False,
            upgrade=False,
        )
    if not environment.rondel:
        raise SetupError("Rondel is not installed there")
    rounds = options.rounds
    shown = f"{rounds}, a tenth of the operations" if options.quick else str(rounds)
    of_checkout = options.rondel_wheel is None
    run = Run(publish.about(environment, ("rondel",), rounds=shown, of_checkout=of_checkout), {})
    if options.here:
        run.about["rondel"] = "whatever build was there"
    start = time.monotonic()
    run.parts = inspector.run(
        environment,
        options.only or NAMES,
        rounds=rounds,
        quick=options.quick,
        modes=options.chosen,
        without=options.without_wheel and beside(environment, options.without_wheel),
    )
    progress(f"measured in {time.monotonic() - start:.0f} s")
    return run


if __name__ == "__main__":
    sys.exit(main())
