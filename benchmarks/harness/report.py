"""A run as Markdown: what was measured on what, figures, ratios, limits.

Invariant: nothing in it names a path or the host, so that it can be published as it is.
"""

from __future__ import annotations

from pathlib import Path

from cases import CASES

from harness import limits, server, tasks
from harness.figures import Figures, Run

NAMES = {
    "rondel": "Rondel",
    "bare": "bare limit",
    "send": "`send`",
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


def time_table(run: Run) -> list[str]:
    timed = measured(run.tasks, [(case.name, case.title) for case in CASES if not case.memory])
    subjects = run.tasks.subjects(tasks.RUNTIMES)
    return table(run.tasks, timed, subjects, "ns", 0) if timed else []


def memory_table(run: Run) -> list[str]:
    memory = measured(run.tasks, [(case.name, case.title) for case in CASES if case.memory])
    floors = ("bare", "send")
    subjects = [s for s in run.tasks.subjects(tasks.RUNTIMES) if s not in floors]
    return table(run.tasks, memory, subjects, "bytes", 0) if memory else []


def http_table(run: Run) -> list[str]:
    served = measured(run.http, [(case.name, case.title) for case in server.HTTP_CASES])
    return table(run.http, served, run.http.subjects(server.SERVERS), "µs", 1) if served else []


def tables(run: Run) -> list[list[str]]:
    """All tables of figures that the run has, in the report's order."""
    return [lines for lines in (time_table(run), memory_table(run), http_table(run)) if lines]


def markdown(run: Run, limits_file: Path, chart: str | None) -> str:
    """The whole report; sections without figures are left out."""
    out = [f"# Benchmark of {run.about['date']}, {run.about['interpreter']}", ""]
    out += [f"- {key}: {value}" for key, value in run.about.items() if key != "date"]
    if chart:
        out += ["", f"![Bars of the figures below]({chart})"]
    sections = (
        ("Tasks: CPU ns per operation", TASKS_NOTE, time_table(run)),
        ("Memory: bytes per pending task", MEMORY_NOTE, memory_table(run)),
        ("HTTP: CPU µs per request, one process", HTTP_NOTE, http_table(run)),
    )
    for title, note, lines in sections:
        if lines:
            out += ["", f"## {title}", "", note, "", *lines]
    verdicts = [v for v in limits.check(run, limits_file) if v.word != "absent"]
    if verdicts:
        out += ["", "## Limits", "", "The figures to reach, from `benchmarks/limits.toml`.", ""]
        out += [
            row(["case", "against", "ratio", "at most", ""]),
            row(["---", "---", "--:", "--:", "---"]),
        ]
        for verdict in verdicts:
            limit = verdict.limit
            ratio = "–" if verdict.ratio is None else f"{verdict.ratio:.2f}"
            cells = [f"{limit.part} {limit.case}", name(limit.against), ratio]
            out.append(row([*cells, f"{limit.at_most:g}", verdict.word]))
    return "\n".join(out) + "\n"
