"""The closing line of CI counts every runner's tests and never hides a failure."""

import subprocess
import sys
from pathlib import Path

import pytest

TALLY = Path(__file__).parents[2] / "scripts" / "tally.py"

PYTEST = "== 2 failed, 10 passed, 3 skipped, 1 error in 3.21s (0:00:03) =="
NEXTEST = "     Summary [   0.201s] 12 tests run: 11 passed, 1 failed, 2 skipped"
CONFORMANCE = "conformance: 974 passed, 2 failed (CPython 3.11.7; 2 suites, 40 s)"
CARGO = "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out"


@pytest.mark.parametrize(
    ("logs", "line", "status"),
    [
        ([("x\n" + PYTEST, 1)], "10 passed, 3 failed", 1),
        ([(NEXTEST, 1), (CARGO, 0)], "15 passed, 1 failed", 1),
        ([(CARGO, 0), ("==== 7 passed in 0.1s ====", 0)], "11 passed, 0 failed", 0),
        ([("\x1b[32m== \x1b[1m7 passed\x1b[0m in 0.1s ==\x1b[0m", 0)], "7 passed, 0 failed", 0),
        ([(CARGO, 0), ("error: no such crate", 2)], "4 passed, 1 failed", 1),
        ([(CONFORMANCE, 1), (CARGO, 0)], "978 passed, 2 failed", 1),
        ([("", 0)], "0 passed, 0 failed", 1),
        ([(CARGO, 0), ("killed half-way, nothing written", None)], "4 passed, 1 failed", 1),
    ],
)
def test_sum(tmp_path: Path, logs: list[tuple[str, int | None]], line: str, status: int) -> None:
    names = []
    for index, (text, exit_status) in enumerate(logs):
        log = tmp_path / f"step{index}.log"
        log.write_text(text + "\n")
        if exit_status is not None:
            (tmp_path / f"step{index}.log.status").write_text(f"{exit_status}\n")
        names.append(str(log))
    ended = subprocess.run(
        [sys.executable, str(TALLY), *names], capture_output=True, text=True, check=False
    )
    assert ended.stdout.splitlines()[-1] == line, ended.stderr
    assert ended.returncode == status
