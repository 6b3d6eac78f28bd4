"""Random trees of tasks give the same trace on asyncio and on Rondel, under a virtual clock.

`RONDEL_TREES` sets how many; `python -m tests.property` runs more of them, from a seed.
"""

import gc
import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.property import compare
from tests.property.programs import from_seed

TREES = int(os.environ.get("RONDEL_TREES", "10000"))


# A seed, not a tree, is drawn: what differs is made smaller by `reduce`, in terms of statements.
@pytest.mark.timeout(600)
@settings(
    max_examples=TREES,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_a_random_tree_of_tasks_takes_the_same_steps(seed: int) -> None:
    program = from_seed(seed)
    if compare.differ(program):
        pytest.fail(f"seed {seed}:\n" + compare.report(compare.reduce(program)), pytrace=False)


@pytest.mark.timeout(120)  # 900 trees, twice
def test_trees_leave_nothing_behind() -> None:
    # Some end by what is left in tracebacks and cycles, where a reference unknown to the collector
    # is a leak. (Coroutines that never suspended were: one tree in twelve left a task.)
    counts = []
    for _ in range(3):
        for seed in range(300):
            compare.traces(from_seed(seed))
        gc.collect()
        counts.append(len(gc.get_objects()))
    assert counts[2] - counts[1] < 10, counts


def test_a_tree_that_differs_is_found_and_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    def differ(program: compare.Program) -> bool:
        return any(statement[0] == "raise" for block in program for statement in block)

    monkeypatch.setattr(compare, "differ", differ)
    program = next(p for p in map(from_seed, range(1000)) if differ(p))
    reduced = compare.reduce(program)
    assert [statement[0] for block in reduced for statement in block] == ["raise"]
