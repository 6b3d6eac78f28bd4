"""Rondel with threads and with one, and the standard library's server; one process each a file."""

import signal
from collections.abc import Iterator

import pytest

from tests.server.wire import Served, serving
from tests.server.wsgi.asking import APPS, reference


def lasting(*options: str) -> Iterator[Served]:
    """Alive to the end, whatever the tests did to it, and it stops cleanly."""
    with serving(f"{APPS}:app", *options) as served:
        yield served
        assert served.get("/hello").body == b"hello"
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
        assert outcome.status == 0, outcome.errors


@pytest.fixture(scope="module")
def rondel() -> Iterator[Served]:
    yield from lasting()


@pytest.fixture(scope="module")
def alone() -> Iterator[Served]:
    """The loop's own thread runs the application."""
    yield from lasting("--threads", "1")


@pytest.fixture(scope="module")
def wsgiref() -> Iterator[Served]:
    with reference() as served:
        yield served


@pytest.fixture(params=["rondel", "alone", "wsgiref"])
def server(request: pytest.FixtureRequest) -> Served:
    served: Served = request.getfixturevalue(request.param)
    return served
