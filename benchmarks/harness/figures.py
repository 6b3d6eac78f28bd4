"""Raw figures, their statistic, and the JSON file that keeps them.

Invariant: tables, chart and limits are made from a `Run` alone, never from the machine, so that a
saved file gives the same answers as the run that wrote it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.environment import CHECKOUT


@dataclass
class Figures:
    """One part's raw values by case and subject (a runtime or a server)."""

    statistic: str
    """`min` for CPU time of one process's own work; `median` where load comes from outside."""
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    errors: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, case: str, subject: str, values: Iterable[float]) -> None:
        self.values.setdefault(case, {}).setdefault(subject, []).extend(values)

    def fail(self, case: str, subject: str, error: str) -> None:
        self.errors.setdefault(case, {})[subject] = error

    def failed(self, case: str, subject: str) -> bool:
        return subject in self.errors.get(case, {})

    def figure(self, case: str, subject: str) -> float | None:
        """The statistic over all rounds; none if the subject failed the case even once."""
        values = self.values.get(case, {}).get(subject)
        if not values or self.failed(case, subject):
            return None
        return min(values) if self.statistic == "min" else statistics.median(values)

    def ratio(self, case: str, subject: str, other: str) -> float | None:
        """The first's figure over the second's.

        Where load comes from outside it is the median of each turn's own ratio: the two were
        measured seconds apart, so a busy spell of the machine is in both and cancels out.
        """
        mine, theirs = self.figure(case, subject), self.figure(case, other)
        if mine is None or not theirs:
            return None
        if self.statistic == "min":
            return mine / theirs
        pairs = zip(self.values[case][subject], self.values[case][other], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def subjects(self, order: Iterable[str]) -> list[str]:
        """Those that were measured or failed, in the given order."""
        rows: list[Iterable[str]] = [*self.values.values(), *self.errors.values()]
        seen = {name for row in rows for name in row}
        return [name for name in order if name in seen]


@dataclass
class Run:
    """Everything one run found out."""

    about: dict[str, str]
    """What was measured on what, as shown at the head of the report."""
    parts: dict[str, Figures] = field(
        default_factory=lambda: {"tasks": Figures("min"), "http": Figures("median")}
    )
    """Each table's figures.  A name is a family, and after slashes what tells its parts apart:
    `django-cpu/sqlite/4`."""

    @property
    def tasks(self) -> Figures:
        return self.parts["tasks"]

    @property
    def http(self) -> Figures:
        return self.parts["http"]

    def family(self, name: str) -> dict[str, Figures]:
        """The parts of a family, by their whole names."""
        return {
            part: figures for part, figures in self.parts.items() if part.partition("/")[0] == name
        }

    def save(self, path: Path) -> None:
        document: dict[str, Any] = {"about": self.about}
        for name, part in self.parts.items():
            document[name] = {
                "statistic": part.statistic,
                "values": {
                    case: {who: [round(v, 2) for v in values] for who, values in row.items()}
                    for case, row in part.values.items()
                },
                "errors": part.errors,
            }
        text = json.dumps(document, indent=1)
        # An error may quote a path; what is published names none of this machine's.
        for private, shown in ((str(CHECKOUT), "."), (str(Path.home()), "~")):
            text = text.replace(json.dumps(private)[1:-1], shown)
        path.write_text(text + "\n")

    @classmethod
    def load(cls, path: Path) -> Run:
        document = json.loads(path.read_text())
        about = document.pop("about")
        return cls(about, {name: Figures(**part) for name, part in document.items()})
