"""Compares a run with `limits.toml`: one line a limit, and whether all were met."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.figures import Run


@dataclass(frozen=True)
class Limit:
    """Rondel's figure divided by `against`'s may be at most `at_most`."""

    part: str
    case: str
    against: str
    at_most: float


@dataclass(frozen=True)
class Verdict:
    """`ratio` is none where one of the two figures is missing."""

    limit: Limit
    ratio: float | None
    broken: bool
    """Rondel was measured and did not get through the case."""

    @property
    def word(self) -> str:
        if self.broken:
            return "FAIL"
        if self.ratio is None:
            return "absent"
        return "pass" if self.ratio <= self.limit.at_most else "FAIL"

    def __str__(self) -> str:
        limit = self.limit
        ratio = "-" if self.ratio is None else f"{self.ratio:.3f}"
        name = f"{limit.part} {limit.case}"
        return f"{self.word:6}  {name:24} {ratio:>6} x {limit.against:8} (limit {limit.at_most:g})"


def read(path: Path, frozen: bool = False) -> Iterator[Limit]:
    """The limits; `frozen_at_most` replaces `at_most` for a run with the collector frozen."""
    with path.open("rb") as file:
        document = tomllib.load(file)
    for row in document["limit"]:
        ratios = row["at_most"] | (row.get("frozen_at_most", {}) if frozen else {})
        for against, at_most in ratios.items():
            yield Limit(row["part"], row["case"], against, float(at_most))


def check(run: Run, path: Path) -> list[Verdict]:
    """One verdict a limit; a part or a case that the run left out is absent, not passed."""
    verdicts = []
    for limit in read(path, frozen=run.about.get("collector") == "frozen"):
        figures = run.part(limit.part)
        ratio = figures.ratio(limit.case, "rondel", limit.against)
        verdicts.append(Verdict(limit, ratio, figures.failed(limit.case, "rondel")))
    return verdicts


def summary(verdicts: list[Verdict]) -> str:
    words = [verdict.word for verdict in verdicts]
    counts = (("pass", "met"), ("FAIL", "missed"), ("absent", "not measured"))
    return "limits: " + ", ".join(f"{words.count(word)} {name}" for word, name in counts)
