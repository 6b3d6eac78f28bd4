"""The inspector's cost: the task layer's cases with it off, counting, recording; and without it.

A process measures one mode; the modes take turns, so that a busy spell of the machine is in all of
them.  The minimum over rounds is compared, as in the task layer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import inspect_cases
from cases import CASES

from harness import tasks
from harness.environment import Environment, progress
from harness.figures import Figures, Run
from harness.report import Section, measured

OFF, WITHOUT = "off", "without"

MODES: dict[str, tuple[list[str], dict[str, str]]] = {
    WITHOUT: ([], {"RONDEL_INSPECT": "0"}),
    OFF: ([], {"RONDEL_INSPECT": "0"}),
    "counters": ([], {"RONDEL_INSPECT": "1"}),
    "recorder": (["--record"], {"RONDEL_INSPECT": "1"}),
    "details": (["--details"], {"RONDEL_INSPECT": "1"}),
}
"""What the worker is told, and its environment; for WITHOUT there is a build of its own."""

SNAPSHOT = "snapshot"

TIMED = tuple(case for case in (*CASES, *inspect_cases.CASES) if not (case.memory or case.measures))
MEASURING = tuple(case for case in inspect_cases.CASES if case.measures)

TITLES = {
    OFF: "What is always there: `RONDEL_INSPECT=0`, beside a build that counts nothing",
    "counters": "As it comes: counters, the service's thread, the watchdog",
    "recorder": "Recording: steps, waits, calls of threads",
    "details": "Recording with details, as `rondel trace` does: places in the code, too",
    SNAPSHOT: "A picture of all tasks, as `rondel tree` asks for it",
}

EVERY = "All of it"

EVERY_NOTE = "*Without*: built with `--cfg rondel_no_counters`, which counts nothing at all."

SNAPSHOT_NOTE = "CPU time of the whole process per task, the minimum over rounds, as JSON."

NOTE = """\
CPU time of the whole process per operation, the minimum over rounds, the modes in turn. *off*: the
same with `RONDEL_INSPECT=0`; *without*: the same in a build that counts nothing.\
"""


def part(mode: str) -> str:
    return f"inspect-{mode}"


def run(
    environment: Environment,
    names: Iterable[str],
    *,
    rounds: int,
    quick: bool,
    modes: Iterable[str],
    without: Environment | None = None,
) -> dict[str, Figures]:
    """The parts that were measured: each mode beside *off* and *without*, and the snapshots.

    ``without``: where a build is that counts nothing.
    """
    wanted = set(names)
    timed = [case.name for case in TIMED if case.name in wanted]
    measuring = [case.name for case in MEASURING if case.name in wanted]
    flags = ["--quick"] * quick
    base = [OFF] if without is None else [OFF, WITHOUT]
    modes = [*base, *modes]
    raw = {mode: Figures("min") for mode in (*modes, SNAPSHOT)}
    for number in range(rounds):
        start = time.monotonic()
        shift = number % len(modes)
        for mode in modes[shift:] + modes[:shift] if timed else []:
            told, variables = MODES[mode]
            where = without if mode == WITHOUT and without is not None else environment
            tasks.run_process(where, "rondel", timed, told + flags, raw[mode], variables)
        if measuring:
            tasks.run_process(environment, "rondel", measuring, flags, raw[SNAPSHOT])
        progress(f"inspect: round {number + 1} of {rounds}, {time.monotonic() - start:.0f} s")
    parts = {
        part(mode): beside(raw[mode], {one: raw[one] for one in base if one != mode})
        for mode in (modes if timed else [])
        if mode != WITHOUT and base != [mode]
    }
    if measuring:
        parts[part(SNAPSHOT)] = raw[SNAPSHOT]
    return parts


def beside(mode: Figures, others: Mapping[str, Figures]) -> Figures:
    """A mode's figures as Rondel's, with those of others beside them."""
    both = Figures(mode.statistic)
    for subject, figures in {"rondel": mode, **others}.items():
        for case, row in figures.values.items():
            both.add(case, subject, row["rondel"])
        for case, errors in figures.errors.items():
            both.fail(case, subject, errors["rondel"])
    return both


def every(run: Run) -> Figures:
    """All modes beside each other."""
    table = Figures("min")
    for mode in MODES:
        figures = run.parts.get(part(mode), Figures("min"))
        for mine, theirs in ((mode, "rondel"), (OFF, OFF), (WITHOUT, WITHOUT)):
            for case, row in figures.values.items():
                if theirs in row and mine not in table.values.get(case, {}):
                    table.add(case, mine, row[theirs])
            for case, errors in figures.errors.items():
                if theirs in errors:
                    table.fail(case, mine, errors[theirs])
    return table


def sections(run: Run) -> list[Section]:
    """All modes in one table, then a table a part."""
    lines = [(case.name, case.title) for case in (*TIMED, *MEASURING)]
    table = every(run)
    one = Section(
        f"{EVERY}: CPU ns",
        EVERY_NOTE,
        table,
        measured(table, lines),
        table.subjects(MODES),
        "ns",
        0,
    )
    return [one] * bool(one.lines) + [
        Section(
            f"{title}: CPU ns",
            SNAPSHOT_NOTE if mode == SNAPSHOT else NOTE,
            figures,
            measured(figures, lines),
            figures.subjects(("rondel", OFF, WITHOUT)),
            "ns",
            0,
        )
        for mode, title in TITLES.items()
        if (figures := run.parts.get(part(mode))) is not None
    ]
