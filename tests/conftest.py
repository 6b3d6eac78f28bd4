"""How tests meet the runtimes (see `support`), and what no test may do.

- `runtime` runs a test once on asyncio and once on each way into Rondel, `aio` is that
  runtime's namespace (`asyncio` or `rondel`), `loop` a fresh loop that is closed afterwards.
- an `async def` test is the main coroutine of a fresh Runner of its runtime.
- every warning is an error, ResourceWarnings and exceptions in finalisers among them;
  every test has a bounded time.

RONDEL_TEST_ONLY_ASYNCIO=1 leaves the oracle alone, for work on the tests without a build.
"""

import asyncio
import gc
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.support import EARLY_311, ONLY_ASYNCIO, RUNTIMES, SLOWNESS, Runtime, run_settled

# Only a test that hangs needs them: on a busy machine a child's start alone can take ten.
SECONDS_PER_TEST = 90


def pytest_configure(config: pytest.Config) -> None:
    # A shell has what it starts in the background ignore Ctrl-C, children of these tests included.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # And `nohup` has them ignore a terminal's end.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.addinivalue_line(
        "markers", "rondel_server: about Rondel's server alone, not for RONDEL_TEST_SERVER"
    )
    config.addinivalue_line("markers", "later_asyncio: about what asyncio fixed by 3.11.7")
    config.addinivalue_line("markers", "no_debug_mode: assumes that asyncio's debug mode is off")
    config.addinivalue_line("filterwarnings", "error")
    # Python 3.14 deprecates policies; the suites use them where asyncio still has them.
    config.addinivalue_line("filterwarnings", "ignore:.*event_loop_policy:DeprecationWarning")
    # Off unless RONDEL_INSPECT=1 is set; tests/inspect turns it on. tests/safety passes with it
    # as well (docs/safety.md).
    os.environ.setdefault("RONDEL_INSPECT", "0")
    if ONLY_ASYNCIO:
        return
    try:
        importlib.import_module("rondel").new_event_loop().close()
    except ImportError as error:
        raise pytest.UsageError(
            f"rondel cannot be imported ({error}): build it with `make build`, or set "
            "RONDEL_TEST_ONLY_ASYNCIO=1 to run the tests on stock asyncio alone"
        ) from error


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Rondel's names on the stock loop are the business of the runtime tests alone.
    items[:] = [
        item
        for item in items
        if "rondel-on-asyncio" not in item.name or item.path.parent.name == "runtime"
    ]
    oracle = os.environ.get("RONDEL_TEST_SERVER", "rondel") != "rondel"
    for item in items:
        if oracle and item.get_closest_marker("rondel_server") is not None:
            item.add_marker(pytest.mark.skip(reason="about Rondel's server alone"))
        if EARLY_311 and item.get_closest_marker("later_asyncio") is not None:
            item.add_marker(pytest.mark.skip(reason="asyncio has a bug there before 3.11.7"))
        if sys.flags.dev_mode and item.get_closest_marker("no_debug_mode") is not None:
            item.add_marker(pytest.mark.skip(reason="-X dev turns asyncio's debug mode on"))
        own = item.get_closest_marker("timeout")
        seconds = own.args[0] if own is not None and own.args else SECONDS_PER_TEST
        # The first marker counts.
        item.add_marker(pytest.mark.timeout(seconds * SLOWNESS), append=False)
    # Each test ends with a full collection: keep what exists by now out of it.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    runtime = pyfuncitem.funcargs.get("runtime")
    if not isinstance(runtime, Runtime):
        pytest.fail("an async test needs the `runtime` or `aio` fixture")
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    run_settled(runtime, pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    gc.collect()  # an earlier test's garbage is not this one's leak
    runtime = Runtime(request.param)
    yield runtime
    runtime.finish()


@pytest.fixture
def aio(runtime: Runtime) -> ModuleType:
    return runtime.aio


@pytest.fixture
def loop(runtime: Runtime) -> asyncio.AbstractEventLoop:
    return runtime.new_event_loop()
