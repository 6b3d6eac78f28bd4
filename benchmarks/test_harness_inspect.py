"""The inspector's benchmark: each mode is measured as it says, and beside the right figure."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import inspect_cases
import pytest
from harness import inspector, limits, report, tasks
from harness.environment import Environment
from harness.figures import Figures, Run
from test_harness import LocalEnvironment

RONDEL = """
import asyncio, json, os

LOG = os.environ["BENCH_LOG"]
new_event_loop = asyncio.new_event_loop

def tell(**what):
    with open(LOG, "a") as log:
        log.write(json.dumps(what) + "\\n")

def install():
    tell(inspect=os.environ.get("RONDEL_INSPECT"))
"""

RECORDING = """
import os, rondel

class Recorder:
    lost = int(os.environ.get("BENCH_LOST", "0"))

    def stop(self):
        rondel.tell(stop=True)
        return self

def record(*, limit, details):
    rondel.tell(details=details)
    return Recorder()
"""


class Told(LocalEnvironment):
    """An environment with a runtime called rondel that writes down what it is told."""

    more: dict[str, str]

    def variables(self) -> dict[str, str]:
        return super().variables() | self.more

    def log(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in Path(self.more["BENCH_LOG"]).read_text().splitlines()]


@pytest.fixture
def told(tmp_path: Path) -> Told:
    package = tmp_path / "runtimes" / "rondel"
    (package / "inspect").mkdir(parents=True)
    (package / "__init__.py").write_text(RONDEL)
    (package / "inspect" / "__init__.py").write_text("")
    (package / "inspect" / "recording.py").write_text(RECORDING)
    environment = Told(Path(sys.executable), sys.version_info[:3], "")
    environment.runtimes = tmp_path / "runtimes"
    environment.more = {"BENCH_LOG": str(tmp_path / "log")}
    return environment


def measure(environment: Environment, mode: str) -> Figures:
    figures = Figures("min")
    flags, variables = inspector.MODES[mode]
    tasks.run_process(environment, "rondel", ["switch"], [*flags, "--quick"], figures, variables)
    return figures


def test_the_case_with_work_runs_on_stock_asyncio() -> None:
    with asyncio.Runner() as runner:
        runner.run(inspect_cases.work(2 * inspect_cases.STEPS))


@pytest.mark.parametrize(("mode", "switch"), [("off", "0"), ("counters", "1")])
def test_without_a_recording_the_environment_alone_differs(
    told: Told, mode: str, switch: str
) -> None:
    assert measure(told, mode).figure("switch", "rondel")
    assert told.log() == [{"inspect": switch}]


@pytest.mark.parametrize(("mode", "details"), [("recorder", False), ("details", True)])
def test_each_measurement_is_recorded_from_its_beginning_to_its_end(
    told: Told, mode: str, details: bool
) -> None:
    figures = measure(told, mode)
    repeats = len(figures.values["switch"]["rondel"])
    assert repeats == 3
    assert told.log() == [{"inspect": "1"}, *[{"details": details}, {"stop": True}] * repeats]


def test_a_recording_that_has_lost_events_is_no_figure(told: Told) -> None:
    told.more["BENCH_LOST"] = "1"
    figures = measure(told, "recorder")
    assert figures.figure("switch", "rondel") is None
    assert "no room" in figures.errors["switch"]["rondel"]


def of(**values: float) -> Figures:
    figures = Figures("min")
    for case, value in values.items():
        figures.add(case, "rondel", [value, value + 1])
    return figures


def test_a_mode_stands_beside_off_and_is_held_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(
        '[[limit]]\npart = "inspect-recorder"\ncase = "every"\nat_most = { off = 1.1 }\n'
    )
    off = {"off": of(switch=100, lock=200)}
    recorder = inspector.beside(of(switch=105, lock=300), off)
    run = Run({"date": "today", "interpreter": "CPython 3"}, {"inspect-recorder": recorder})
    words = {verdict.limit.case: verdict.word for verdict in limits.check(run, file)}
    assert words == {"switch": "pass", "lock": "FAIL"}
    table, section = inspector.sections(run)
    assert "| `Lock` hand-off | 300 | 200 | 1.50 |" in report.markdown(run, [section], file)
    assert "| `Lock` hand-off | 200 | 300 |" in report.markdown(run, [table], file)


def test_packages_of_another_folder_come_before_those_installed() -> None:
    environment = Environment(Path(sys.executable), sys.version_info[:3], "")
    first = replace(environment, first=Path("other")).variables()["PYTHONPATH"]
    assert first == f"other{os.pathsep}{environment.variables()['PYTHONPATH']}"


def test_a_build_that_counts_nothing_is_measured_as_such_and_stands_beside_all(
    told: Told, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(told.runtimes / "rondel", other / "rondel")
    program = (other / "rondel" / "__init__.py").read_text()
    (other / "rondel" / "__init__.py").write_text(program + "\ntell(build='other')\n")
    without = copy.copy(told)
    without.runtimes = other
    parts = inspector.run(
        told, ["switch"], rounds=1, quick=True, modes=["counters"], without=without
    )
    assert told.log() == [
        {"inspect": "0"},
        {"build": "other"},
        {"inspect": "0"},
        {"inspect": "1"},
    ]
    assert parts["inspect-off"].subjects(("rondel", "off", "without")) == ["rondel", "without"]
    beside = parts["inspect-counters"]
    assert beside.subjects(("rondel", "off", "without")) == ["rondel", "off", "without"]
    assert beside.ratio("switch", "rondel", "without")
    run = Run({"date": "today", "interpreter": "CPython 3"}, parts)
    assert inspector.sections(run)[0].subjects == ["without", "off", "counters"]


def test_a_mode_that_failed_or_was_not_measured_beside_off_has_no_ratio() -> None:
    failed = of(lock=3)
    failed.fail("switch", "rondel", "killed by SIGSEGV")
    both = inspector.beside(failed, {"off": of(switch=1)})
    assert both.failed("switch", "rondel")
    assert both.ratio("switch", "rondel", "off") is None
    assert both.ratio("lock", "rondel", "off") is None
