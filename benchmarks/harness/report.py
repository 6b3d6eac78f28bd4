"""A run as Markdown: what was measured on what, figures, ratios, limits.

Invariant: nothing in it names a path or the host, so that it can be published as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cases import CASES

from harness import limits, server, tasks
from harness.figures import Figures, Run

NAMES = {
    "rondel": "Rondel",
    "bare": "bare limit",
    "bare keeping": "bare keeping",
    "send": "`send`",
    "granian-asgi": "granian ASGI",
    "granian-wsgi": "granian WSGI",
    "uvicorn-sansio": "uvicorn (sans-I/O)",
    "uvicorn-wsproto": "uvicorn (wsproto)",
    limits.ITSELF: "itself",
}

TASKS_NOTE = """\
CPU time of the whole process, the minimum over rounds; one process per runtime and round, rounds
interleaved; the same plain asyncio code for all (`benchmarks/cases.py`), for Rondel after
`rondel.install()`, as under `rondel run`. *Bare limit*: the same shapes of code with coroutines
driven from C by `PyIter_Send`, without loop, tasks or contexts. *`send`*: `coro.send(None)` from
Python. A ratio below 1 means that Rondel takes less.\
"""

MEMORY_NOTE = """\
Growth of the resident size per suspended task: coroutine, task and what it waits for.\
"""

HTTP_NOTE = """\
CPU time of the server's whole process tree over the requests, the median over rounds; one worker
each, no access log; uvicorn with uvloop and httptools, granian with uvloop; 64 kept-alive
connections; every answer checked. *Bare limit*: the same HTTP code in Rust without Python. A ratio
is the median of the turns' own ratios, so it is not quite the quotient of two medians.\
"""


@dataclass(frozen=True)
class Section:
    """One table of the report and one group of bars of the chart."""

    title: str
    note: str
    figures: Figures
    lines: list[tuple[str, str]]
    """Cases that were measured, and their titles; none if the note is all there is to say."""
    subjects: list[str]
    unit: str
    digits: int

    @property
    def table(self) -> list[str]:
        """Empty if nothing was measured."""
        if not self.lines:
            return []
        return table(self.figures, self.lines, self.subjects, self.unit, self.digits)


def name(subject: str) -> str:
    return NAMES.get(subject, subject)


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def table(
    figures: Figures,
    lines: list[tuple[str, str]],
    subjects: list[str],
    unit: str,
    digits: int,
) -> list[str]:
    """Figures of all subjects, then Rondel's ratio to each of the others."""
    others = [subject for subject in subjects if subject != "rondel"]
    ratios = others if "rondel" in subjects else []
    head = [unit, *map(name, subjects), *(f"÷ {name(other)}" for other in ratios)]
    rule = ["---"] + ["--:"] * (len(head) - 1)
    out = [row(head), row(rule)]
    for case, title in lines:
        cells = [title]
        for subject in subjects:
            figure = figures.figure(case, subject)
            if figures.failed(case, subject):
                cells.append("failed")
            else:
                cells.append("–" if figure is None else f"{figure:.{digits}f}")
        for other in ratios:
            ratio = figures.ratio(case, "rondel", other)
            cells.append("–" if ratio is None else f"{ratio:.2f}")
        out.append(row(cells))
    return out


def measured(figures: Figures, lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(case, title) for case, title in lines if case in figures.values]


def sections(run: Run) -> list[Section]:
    """The tables of the task layer and of the servers that have figures, in the report's order."""
    timed = measured(run.tasks, [(case.name, case.title) for case in CASES if not case.memory])
    memory = measured(run.tasks, [(case.name, case.title) for case in CASES if case.memory])
    served = measured(run.http, [(case.name, case.title) for case in server.HTTP_CASES])
    runtimes = run.tasks.subjects(tasks.RUNTIMES)
    loops = [subject for subject in runtimes if subject not in ("bare", "send")]
    servers = run.http.subjects(server.SERVERS)
    every = (
        Section("Tasks: CPU ns per operation", TASKS_NOTE, run.tasks, timed, runtimes, "ns", 0),
        Section(
            "Memory: bytes per pending task", MEMORY_NOTE, run.tasks, memory, loops, "bytes", 0
        ),
        Section(
            "HTTP: CPU µs per request, one process", HTTP_NOTE, run.http, served, servers, "µs", 1
        ),
    )
    return [section for section in every if section.lines]


def tables(run: Run) -> list[list[str]]:
    """All tables of figures that the run has, in the report's order."""
    return [section.table for section in sections(run)]


def markdown(
    run: Run, parts: Sequence[Section], limits_file: Path, chart: str | None = None
) -> str:
    """The whole report."""
    out = [f"# Benchmark of {run.about['date']}, {run.about['interpreter']}", ""]
    out += [f"- {key}: {value}" for key, value in run.about.items() if key != "date"]
    if chart:
        out += ["", f"![Bars of the figures below]({chart})"]
    for section in parts:
        out += ["", f"## {section.title}", "", section.note]
        if section.lines:
            out += ["", *section.table]
    verdicts = [v for v in limits.check(run, limits_file) if v.word != "absent"]
    if verdicts:
        out += ["", "## Limits", "", "The figures to reach, from `benchmarks/limits.toml`.", ""]
        out += [
            row(["case", "against", "ratio", "limit", ""]),
            row(["---", "---", "--:", "---", "---"]),
        ]
        for verdict in verdicts:
            limit = verdict.limit
            ratio = "–" if verdict.ratio is None else f"{verdict.ratio:.2f}"
            cells = [f"{limit.part} {limit.case}", name(limit.against), ratio]
            out.append(row([*cells, verdict.bound, verdict.word]))
    return "\n".join(out) + "\n"
