"""Compares a run with `limits.toml`: one line a limit, and whether all were met."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from harness.figures import Figures, Run

ITSELF = "itself"
"""Stands for a peer where the bound is on Rondel's own figure."""

BEST = "best"
"""Stands for the peer with the lowest figure in the case."""

FLOORS = ("bare keeping", "bare")
"""What takes no Python at all: the first of them that a case has is its floor."""

NO_PEERS = ("rondel", "send", *FLOORS)
EVERY = "every"
"""Stands for each case that a part has."""


@dataclass(frozen=True)
class Limit:
    """Rondel's figure divided by `against`'s may be at most, or must be at least, `bound`."""

    part: str
    """A family of parts in the file, one of them in a verdict."""
    case: str
    against: str
    bound: float
    at_least: bool = False

    def holds(self, ratio: float) -> bool:
        return ratio >= self.bound if self.at_least else ratio <= self.bound

    @property
    def words(self) -> str:
        return f"at {'least' if self.at_least else 'most'} {self.bound:g}"


@dataclass(frozen=True)
class Verdict:
    """`ratio` is none where one of the two figures is missing."""

    limit: Limit
    ratio: float | None
    broken: bool
    """Rondel was measured and did not get through the case."""
    floor: float | None = None
    """The same ratio of what takes no Python at all, where that was measured."""

    @property
    def word(self) -> str:
        if self.broken:
            return "FAIL"
        if self.ratio is None:
            return "absent"
        return "pass" if self.limit.holds(self.ratio) else "FAIL"

    def __str__(self) -> str:
        limit = self.limit
        ratio = "-" if self.ratio is None else f"{self.ratio:.3f}"
        name = f"{limit.part} {limit.case}"
        return f"{self.word:6}  {name:24} {ratio:>6} x {limit.against:8} ({self.bound})"

    @property
    def bound(self) -> str:
        """What is asked for, and what of it takes no Python."""
        floor = "" if self.floor is None else f"; bare {self.floor:.2f}"
        return self.limit.words + floor


def read(path: Path, frozen: bool = False) -> Iterator[Limit]:
    """The limits; `frozen_at_most` replaces `at_most` for a run with the collector frozen."""
    with path.open("rb") as file:
        document = tomllib.load(file)
    for row in document["limit"]:
        most = row.get("at_most", {}) | (row.get("frozen_at_most", {}) if frozen else {})
        for bounds, least in ((most, False), (row.get("at_least", {}), True)):
            for against, bound in bounds.items():
                yield Limit(row["part"], row["case"], against, float(bound), least)


def check(run: Run, path: Path) -> list[Verdict]:
    """One verdict a limit and part that has its case; what the run left out is absent, not passed.

    A family of which the run has no part belongs to another benchmark.
    """
    verdicts = []
    for limit in read(path, frozen=run.about.get("collector") == "frozen"):
        parts = run.family(limit.part)
        having = [
            (part, case, figures)
            for part, figures in parts.items()
            for case in figures.values | figures.errors
            if limit.case in (case, EVERY)
        ]
        if parts and not having:
            verdicts.append(Verdict(limit, None, broken=False))
        for part, case, figures in having:
            against = limit.against
            if against == BEST:
                against = best_peer(figures, case) or BEST
            if against == ITSELF:
                ratio = figures.figure(case, "rondel")
            else:
                ratio = figures.ratio(case, "rondel", against)
            broken = figures.failed(case, "rondel")
            found = replace(limit, part=part, case=case, against=against)
            verdicts.append(Verdict(found, ratio, broken, floor(figures, case, against)))
    return verdicts


def floor(figures: Figures, case: str, against: str) -> float | None:
    """The ratio that a server or client without Python has in the case."""
    measured = figures.values.get(case, {})
    bare = next((who for who in FLOORS if who in measured), None)
    if bare is None or against in (bare, ITSELF):
        return None
    return figures.ratio(case, bare, against)


def best_peer(figures: Figures, case: str) -> str | None:
    """Whose figure is lowest, of those that were measured."""
    found = {who: figures.figure(case, who) for who in figures.values.get(case, {})}
    known = {who: value for who, value in found.items() if value is not None}
    return min((who for who in known if who not in NO_PEERS), key=known.__getitem__, default=None)


def summary(verdicts: list[Verdict]) -> str:
    words = [verdict.word for verdict in verdicts]
    counts = (("pass", "met"), ("FAIL", "missed"), ("absent", "not measured"))
    return "limits: " + ", ".join(f"{words.count(word)} {name}" for word, name in counts)
