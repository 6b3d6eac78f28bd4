"""The programs of examples/concurrency print under `rondel run` what they print under python.

Times and the bars drawn from them differ from run to run, so the comparison is of what happened
and in which order; a program's own total against its sum shows that things overlapped.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .site_server import Kind

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "concurrency"
PROGRAMS = sorted(path.name for path in FOLDER.glob("*.py") if path.name != "stopwatch.py")
IN_A_ROW = {"first_steps.py", "timeout.py", "wait_for.py", "task_object.py"}


def output(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8"},
        cwd=FOLDER.parent,  # the programs must not depend on the working directory
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def events(printed: str) -> list[str]:
    """What happened, in order, without the times and without the lengths of the bars."""
    lines = [re.sub(r"^ *\d+\.\d s  ", "", line) for line in printed.splitlines()]
    return [re.sub(r"\| *#+", "|", line) for line in lines if not line.startswith("  took ")]


def test_there_is_a_program_for_each_way() -> None:
    assert len(PROGRAMS) == 11
    listed = re.findall(r"^\| `(\w+\.py)`", (FOLDER / "README.md").read_text("utf-8"), re.M)
    assert sorted(listed) == PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_prints_what_it_prints_under_python(program: str, kind: Kind) -> None:
    path = str(FOLDER / program)
    runner = ["-m", "rondel", "run"] if kind.name != "uvicorn" else []
    printed = output(*runner, path)
    assert events(printed) == events(output(path))
    found = re.search(r"took (\d+\.\d) s; one after another (\d+\.\d) s", printed)
    assert found
    took, in_a_row = float(found[1]), float(found[2])
    assert took > 0
    if program not in IN_A_ROW:
        assert took < in_a_row
