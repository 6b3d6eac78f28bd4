"""The published figures in the READMEs: the tables, and the line that says what was measured.

Invariant: only what lies between the two markers changes, and of it only the tables and that line;
the words around them belong to each language's README.
"""

from __future__ import annotations

import re
from itertools import groupby

from harness.figures import Run
from harness.report import tables

BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"


def updated(text: str, run: Run) -> str:
    """A README with a run's figures. ValueError if it has no place for them."""
    head, begin, rest = text.partition(BEGIN)
    block, end, tail = rest.partition(END)
    found = [list(lines) for _, lines in groupby(block.splitlines(), lambda x: x.startswith("|"))]
    new = iter(tables(run))
    out: list[str] = []
    for lines in found:
        out += next(new, lines) if lines[0].startswith("|") else [about(run, x) for x in lines]
    if not (begin and end) or next(new, None) is not None:
        raise ValueError("the README has no room for the figures between its markers")
    return head + begin + "\n".join(out) + "\n" + end + tail


def about(run: Run, line: str) -> str:
    """The line with date, interpreter, machine and versions of this run, in the line's language."""
    line = re.sub(r"\d{4}-\d\d-\d\d", run.about["date"], line)
    line = re.sub(r"CPython [\d.]+\d", " ".join(run.about["interpreter"].split()[:2]), line)
    line = re.sub(
        r"(?<=[,，])( ?)[^,，]*, \d+ cores, Linux [\d.]+\d", rf"\1{run.about['machine']}", line
    )
    return re.sub(r"rondel [\d.]+, .*; commit [\w-]+", run.about["versions"], line)
