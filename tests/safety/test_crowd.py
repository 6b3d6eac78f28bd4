"""What sleeps costs nothing: a turn beside a crowd of sleeping tasks."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ONLY_ASYNCIO


@pytest.mark.skipif(ONLY_ASYNCIO, reason="RONDEL_TEST_ONLY_ASYNCIO is set")
def test_a_turn_beside_a_hundred_times_the_sleepers_costs_less_than_five_times_as_much() -> None:
    # `benchmarks/crowd.py` alone does it with a million; its exit status is the ratio's verdict.
    ended = subprocess.run(
        [sys.executable, "benchmarks/crowd.py", "--crowds", "1000", "100000"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
