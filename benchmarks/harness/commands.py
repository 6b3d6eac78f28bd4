"""What the benchmarks' commands have in common: options, their checks, what becomes of a run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import publish
from .environment import SetupError, progress
from .figures import Run

if TYPE_CHECKING:
    from .report import Section

INTERPRETER = """\
the interpreter to measure on (default: the distribution's /usr/bin/python3 if it is 3.11 or newer
and has venv, as it is an optimised build; else the one that runs this)"""


class Parser(argparse.ArgumentParser):
    """A command's parser, with the options that each of them has.

    ``rounds``: how many, and how many with ``--quick``; ``quick``: what that is.
    """

    def __init__(
        self, prog: str, description: str | None, epilog: str, rounds: tuple[int, int], quick: str
    ) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add = self.add_argument
        whole, few = rounds
        add("--python", type=Path, metavar="PATH", help=INTERPRETER)
        add("--rondel-wheel", type=Path, metavar="PATH", help="install this wheel, build none")
        add("--rounds", type=int, metavar="N", help=f"default: {whole}; with --quick {few}")
        add("--quick", action="store_true", help=quick)
        add(
            "--check", action="store_true", help="compare with limits.toml; exit status 1 if missed"
        )
        add(
            "--check-file",
            type=Path,
            metavar="JSON",
            help="compare saved figures; measure nothing",
        )
        self._rounds = rounds

    def add_here(self) -> None:
        self.add_argument(
            "--here",
            action="store_true",
            help="this interpreter and its environment, as they are",
        )

    def add_upgrade(self) -> None:
        self.add_argument(
            "--upgrade", action="store_true", help="bring the peers to their newest versions"
        )

    def options(self) -> argparse.Namespace:
        """What was given; ``rounds`` is the number that holds."""
        options = self.parse_args()
        if options.rounds is not None and options.rounds < 1:
            self.error("--rounds takes a number from 1")
        if options.rounds is None:
            options.rounds = self._rounds[options.quick]
        if options.rondel_wheel is not None and not options.rondel_wheel.is_file():
            self.error(f"no such wheel: {options.rondel_wheel}")
        return options

    def known(self, given: str | None, names: Iterable[str], what: str) -> set[str] | None:
        """The names of a list with commas; None if none was given."""
        if given is None:
            return None
        found = set(given.split(","))
        if unknown := found - set(names):
            self.error(f"no such {what}: {', '.join(sorted(unknown))}")
        return found


def carry_out(
    options: argparse.Namespace,
    measure: Callable[[argparse.Namespace], Run],
    sections: Callable[[Run], Sequence[Section]],
    *,
    name: str,
    whole: bool,
) -> int:
    """Measures, writes the report, judges it if that was asked for; the exit status.

    ``name``: what the report's files begin with. ``whole``: they may replace published figures.
    """
    if options.check_file is not None:
        return publish.judge(Run.load(options.check_file))
    try:
        run = measure(options)
    except SetupError as error:
        progress(f"bench-{name}: {error}")
        return 1
    found = sections(run)
    publish.write(
        run,
        found,
        found,
        published=whole,
        latest=options.python is None,
        prefix=f"{name}-",
    )
    return publish.judge(run) if options.check else 0
