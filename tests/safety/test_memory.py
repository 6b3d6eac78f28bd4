"""No workload leaves anything behind, and the watch over it sees what does."""

import importlib
from types import ModuleType
from typing import Any

import pytest

from tests.safety.catalogue import WORKLOADS
from tests.safety.references import growth
from tests.safety.workloads import Workload, give
from tests.support import ONLY_ASYNCIO, python

pytestmark = pytest.mark.skipif(ONLY_ASYNCIO, reason="RONDEL_TEST_ONLY_ASYNCIO is set")

SOAKED = ("create_and_await", "cancelled_sleeps", "gather", "timeout", "queue")
"""The soak by hand runs all of them; these take different kinds of memory."""


@pytest.fixture
def rondel() -> ModuleType:
    return importlib.import_module("rondel")


@pytest.mark.parametrize("name", WORKLOADS)
def test_rounds_of_a_workload_leave_nothing_behind(name: str, rondel: ModuleType) -> None:
    grown = growth(rondel, WORKLOADS[name])
    assert not grown.leaks(), f"each round leaves {grown}"


def soaked_in_a_child(code: str) -> str:
    """Runs a soak in a fresh process, whose heap has no room left by others; what it says."""
    ended = python(code, env={"PYTHONMALLOC": "default", "PYTHONDEVMODE": ""})
    assert not ended.stderr, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("name", SOAKED)
def test_a_hundred_thousand_operations_take_no_more_memory(name: str) -> None:
    assert "leaks: False" in soaked_in_a_child(
        "import rondel; from tests.safety import catalogue, soak\n"
        f"soaked = soak.soak(rondel, catalogue.WORKLOADS[{name!r}], 100_000)\n"
        "print(f'leaks: {soaked.leaks()}', soaked)"
    )


def test_memory_that_is_kept_is_seen() -> None:
    assert "leaks: True" in soaked_in_a_child(
        "import rondel; from tests.safety import soak, test_memory\n"
        "workload, kept = test_memory.leaking(100)\n"
        "print(f'leaks: {soak.soak(rondel, workload, 100_000).leaks()}', len(kept))"
    )


def leaking(size: int) -> tuple[Workload, list[Any]]:
    kept: list[Any] = []

    async def body(aio: ModuleType, count: int) -> None:
        for number in range(count):
            await aio.create_task(give(number))
            kept.append(bytearray(size) if size else aio.get_running_loop().create_future())

    return Workload(body, 1), kept


def test_a_future_that_is_kept_is_seen(rondel: ModuleType) -> None:
    workload, kept = leaking(0)
    assert growth(rondel, workload).blocks >= 100
    assert kept
