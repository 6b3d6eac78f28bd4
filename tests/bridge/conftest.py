"""Where the loop is Rondel's, asgiref's calls are the native ones; on asyncio they are its own."""

from collections.abc import Iterator

import pytest

from tests.support import Runtime


@pytest.fixture(autouse=True)
def bridged(request: pytest.FixtureRequest) -> Iterator[None]:
    if "runtime" not in request.fixturenames:
        yield
        return
    runtime: Runtime = request.getfixturevalue("runtime")
    if not runtime.native:
        yield
        return
    from rondel import bridge

    bridge.install()
    try:
        yield
    finally:
        bridge.uninstall()
