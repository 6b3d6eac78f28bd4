"""One server per file of tests; it must still be alive, and stop cleanly, at the end."""

import itertools
import signal
from collections.abc import Iterator

import pytest

from tests.server.wire import CLEAN, Served, Wire, serving

numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving() as served:
        yield served
        assert served.get("/hello").body == b"hello"
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
        assert outcome.status in CLEAN, outcome.errors


@pytest.fixture
def wire(server: Served) -> Iterator[Wire]:
    with server.connect() as wire:
        yield wire


@pytest.fixture
def key() -> str:
    """A name for this test's notes and gates in the server."""
    return f"key{next(numbers)}"
