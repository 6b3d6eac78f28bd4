"""Workers outlive a loop: they are ended before the runtime looks what was left open."""

from collections.abc import Iterator
from multiprocessing import resource_tracker

import pytest

from rondel import _process
from tests.support import Runtime


@pytest.fixture(autouse=True)
def workers(runtime: Runtime) -> Iterator[None]:
    yield
    _process._end_all()


@pytest.fixture(scope="session", autouse=True)
def tracker() -> None:
    # multiprocessing's own helper process, which stays, with a descriptor.
    resource_tracker.ensure_running()
