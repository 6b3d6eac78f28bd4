"""What a benchmark's command does with its run: says what was measured on what, writes, judges.

Invariant: only a run of everything reaches benchmarks/results/, so that no published figure is lost
to a look at one case.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness import chart, limits, report
from harness.environment import BENCHMARKS, CACHE, CHECKOUT, Environment, progress
from harness.figures import Run

LIMITS = BENCHMARKS / "limits.toml"
RESULTS = BENCHMARKS / "results"


def about(
    environment: Environment, shown: Iterable[str], *, rounds: str, of_checkout: bool
) -> dict[str, str]:
    """The head of the report; no path, no host name.

    `shown` are the packages to name; `of_checkout` says that Rondel was built from this checkout.
    """
    commit = checkout_commit() if of_checkout else None
    version = ".".join(map(str, environment.version))
    versions = [f"{n} {environment.packages[n]}" for n in shown if n in environment.packages]
    return {
        "date": datetime.date.today().isoformat(),
        "interpreter": f"CPython {version} ({environment.build})",
        "versions": ", ".join(versions) + (f"; commit {commit}" if commit else ""),
        "machine": f"{cpu_model()}, {os.cpu_count()} cores, Linux {kernel()}",
        "rounds": rounds,
    }


def checkout_commit() -> str | None:
    """So that a figure can be traced to its code."""
    git = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def kernel() -> str:
    """Major and minor version only: the rest may name the host's provider."""
    return ".".join(platform.release().split(".")[:2])


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def write(
    run: Run,
    sections: Sequence[report.Section],
    charted: Sequence[report.Section],
    *,
    published: bool,
    latest: bool,
    prefix: str = "",
) -> None:
    """The report (on standard output, too), the chart and the raw figures.

    `latest` is for the interpreter that is published as the latest one.
    """
    folder = RESULTS if published else CACHE / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    stems = ["latest"] if latest or not published else []
    if published:
        version = run.about["interpreter"].split()[1]
        stems.insert(0, f"{run.about['date']}-py{version}")
    for stem in (prefix + stem for stem in stems):
        run.save(folder / f"{stem}.json")
        (folder / f"{stem}.svg").write_text(chart.svg(run, charted))
        text = report.markdown(run, sections, LIMITS, f"{stem}.svg")
        (folder / f"{stem}.md").write_text(text)
    print(text)
    progress(f"written: {(folder / f'{prefix}{stems[0]}.md').relative_to(CHECKOUT)} (.json, .svg)")


def judge(run: Run) -> int:
    verdicts = limits.check(run, LIMITS)
    for verdict in verdicts:
        print(verdict)
    print(limits.summary(verdicts))
    return 1 if any(verdict.word == "FAIL" for verdict in verdicts) else 0
