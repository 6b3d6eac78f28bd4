"""pytest plugin: stream results, and narrow anyio's parametrisation to the loop under test."""

import os
import sys
from typing import Any

import events
import inject
import pytest

MODE = os.environ.get("CONF_MODE")
# anyio's eager-task-factory variants are a run of their own: one failure there closes the
# runner of all the rest.
EAGER = os.environ.get("CONF_EAGER") == "1"
OTHER_BACKENDS = ("+uvloop", "[trio", "-trio", "trio-", "+winloop")

if MODE == "anyio":  # before its conftest asks which backends there are
    import anyio

    anyio.get_all_backends = anyio.get_available_backends = lambda: ("asyncio",)  # type: ignore[attr-defined]

_outcomes: dict[str, tuple[str, str]] = {}


def _wanted(name: str) -> bool:
    if any(other in name for other in OTHER_BACKENDS):
        return False
    return MODE != "anyio" or ("+eager" in name) == EAGER


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = events.filtered(item.nodeid for item in items if _wanted(item.nodeid))
    dropped = [item for item in items if item.nodeid not in kept]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item.nodeid in kept]
    if MODE == "anyio":  # anyio.run takes its factory explicitly
        conftest: Any = sys.modules.get("tests.conftest") or sys.modules.get("conftest")
        for parameters in getattr(conftest, "asyncio_params", ()):
            if parameters.id == "asyncio":
                parameters.values[0][1]["loop_factory"] = inject.factory


def pytest_runtest_logstart(nodeid: str) -> None:
    _outcomes[nodeid] = ("passed", "")
    events.start(nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    before = _outcomes.get(report.nodeid, ("passed", ""))[0]
    if report.failed and before in ("passed", "skipped"):
        unexpected = getattr(report, "wasxfail", None) is not None
        kind = "failed" if report.when == "call" or unexpected else "error"
        _outcomes[report.nodeid] = (kind, report.longreprtext)
    elif report.skipped and before == "passed":
        _outcomes[report.nodeid] = ("skipped", str(report.longrepr)[-300:])


def pytest_runtest_logfinish(nodeid: str) -> None:
    events.result(nodeid, *_outcomes.pop(nodeid, ("passed", "")))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        name = report.nodeid + "::collection"
        events.start(name)
        events.result(name, "error", report.longreprtext, outside=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    events.end()
