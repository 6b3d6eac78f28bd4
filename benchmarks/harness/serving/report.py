"""The tables of a run: one a group that was measured."""

from __future__ import annotations

from harness.figures import Run
from harness.report import Section, measured
from harness.serving.cases import GROUPS


def sections(run: Run) -> list[Section]:
    found = []
    for group in GROUPS:
        figures = run.parts.get(group.part)
        if figures is None:
            continue
        lines = [(case.name, case.title) for case in group.cases]
        note = group.note
        if not any(figures.values.values()):
            note += " Not measured: the head of the report says why."
        for case, errors in figures.errors.items():
            for subject, reason in errors.items():
                note += f"\n{subject}, {case}: {reason}."
        found.append(
            Section(
                group.title,
                note,
                figures,
                measured(figures, lines),
                figures.subjects(group.servers),
                group.unit,
                1,
            )
        )
    return found
