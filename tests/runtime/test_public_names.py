"""`import rondel as asyncio`: every public name of the running Python's asyncio, native or not.

The lists are asyncio's own, so that a Python with more names asks for more here.
"""

import asyncio
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import ONLY_ASYNCIO, OWN, python

if ONLY_ASYNCIO:
    pytest.skip("Rondel's own names", allow_module_level=True)

import rondel
from rondel.tasks import NATIVE

# asyncio's names that mean another object here.
OTHERS = {*NATIVE, "EventLoop", "Runner", "new_event_loop", "run"}

PUBLIC = sorted(name for name in dir(asyncio) if not name.startswith("_"))
SUBMODULES = sorted(
    name.removeprefix("asyncio.")
    for name, module in sys.modules.items()
    if name.startswith("asyncio.") and isinstance(module, ModuleType)
)
# Files of the package, which have names of their own besides.
FILES = {"tasks", "transports"}


def star(package: str) -> set[str]:
    namespace: dict[str, Any] = {}
    exec(f"from {package} import *", namespace)
    return set(namespace) - {"__builtins__"}


def test_the_lists_are_worth_something() -> None:
    assert {"gather", "Queue", "subprocess", "timeouts", "TaskGroup", "sys"} <= set(PUBLIC)
    assert {"tasks", "transports", "timeouts", "locks", "streams"} <= set(SUBMODULES)
    assert ("EventLoop" in PUBLIC) is (sys.version_info >= (3, 13))
    assert ("eager_task_factory" in PUBLIC) is (sys.version_info >= (3, 12))


def test_a_star_import_gives_asyncios_names_and_ours() -> None:
    assert star("rondel") == star("asyncio") | OWN
    assert set(rondel.__all__) == set(asyncio.__all__) | OWN
    assert len(rondel.__all__) == len(set(rondel.__all__))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_attribute_is_the_native_one_or_asyncios(name: str) -> None:
    ours, theirs = getattr(rondel, name), getattr(asyncio, name)
    if isinstance(theirs, ModuleType):
        assert isinstance(ours, ModuleType)
    elif name in OTHERS:
        assert ours is not theirs
        if name in NATIVE:
            assert ours is NATIVE[name]
    else:
        assert ours is theirs
    assert name in dir(rondel)


def test_private_names_that_libraries_use_are_there() -> None:
    for name in ("_get_running_loop", "_set_running_loop", "_enter_task", "_leave_task"):
        assert getattr(rondel, name) is getattr(asyncio, name)


@pytest.mark.parametrize("name", SUBMODULES)
def test_a_submodule_offers_all_that_asyncios_does(name: str) -> None:
    ours, theirs = getattr(rondel, name), getattr(asyncio, name)
    assert importlib.import_module(f"rondel.{name}") is ours
    for attribute in dir(theirs):
        if attribute.startswith("__"):
            continue
        got, stock = getattr(ours, attribute), getattr(theirs, attribute)
        if attribute in OTHERS and attribute in getattr(theirs, "__all__", ()):
            assert got is getattr(rondel, attribute)
            assert got is not stock
        elif name not in FILES:
            assert got is stock, attribute
    if name not in FILES:
        assert dir(ours) == dir(theirs)
        assert getattr(ours, "__all__", None) == getattr(theirs, "__all__", None)


def test_imports_from_submodules() -> None:
    namespace: dict[str, Any] = {}
    exec(
        "import rondel as asyncio\n"
        "import rondel.subprocess, rondel.timeouts\n"
        "from rondel.subprocess import PIPE\n"
        "from rondel.timeouts import timeout\n"
        "from rondel.tasks import wait_for, gather, _current_tasks\n"
        "from rondel.transports import Transport\n"
        "from rondel.runners import run\n"
        "from rondel.events import get_running_loop\n",
        namespace,
    )
    assert namespace["PIPE"] == -1
    assert namespace["timeout"] is rondel.timeout
    assert namespace["gather"] is rondel.gather
    assert namespace["wait_for"] is rondel.wait_for
    assert namespace["Transport"] is asyncio.Transport
    assert namespace["run"] is rondel.run
    assert namespace["get_running_loop"] is asyncio.get_running_loop


def test_what_a_submodule_has_not_is_refused_in_its_own_name() -> None:
    for name in ("timeouts", "tasks", "transports"):
        with pytest.raises(AttributeError, match=f"module 'rondel.{name}' has no attribute 'no'"):
            getattr(rondel, name).no  # noqa: B018
    with pytest.raises(ImportError):
        importlib.import_module("rondel.nothing")
    with pytest.raises(ImportError):
        exec("from rondel.timeouts import nothing")


def test_writing_to_a_submodule_reaches_asyncios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rondel.timeouts, "_for_the_test", 1, raising=False)
    assert asyncio.timeouts._for_the_test == 1  # type: ignore[attr-defined]
    monkeypatch.undo()
    assert not hasattr(asyncio.timeouts, "_for_the_test")
    replacement = object()
    monkeypatch.setattr(rondel.timeouts, "timeout", replacement)
    assert rondel.timeouts.timeout is replacement  # type: ignore[comparison-overlap]
    assert asyncio.timeouts.timeout is not replacement  # type: ignore[comparison-overlap]
    monkeypatch.undo()
    assert rondel.timeouts.timeout is rondel.timeout


def test_install_and_uninstall_leave_the_submodules_right() -> None:
    code = """
import rondel, asyncio
stock = asyncio.timeouts.timeout
rondel.install()
assert rondel.timeouts.timeout is rondel.timeout is asyncio.timeouts.timeout
assert rondel.tasks.gather is rondel.gather is asyncio.tasks.gather
rondel.uninstall()
assert asyncio.timeouts.timeout is stock
assert rondel.timeouts.timeout is rondel.timeout is not stock
import pickle
assert pickle.loads(pickle.dumps(asyncio.QueueEmpty())).__class__ is asyncio.QueueEmpty
assert pickle.loads(pickle.dumps(rondel.run)) is rondel.run
print("right")
"""
    got = python(code)
    assert (got.stdout, got.stderr) == ("right\n", "")


def test_public_functions_and_classes_of_ours_have_docs_and_annotations() -> None:
    for name in sorted(OWN):
        thing = getattr(rondel, name)
        doc = inspect.getdoc(thing)
        assert doc, name
        functions = (
            [thing]
            if inspect.isfunction(thing)
            else [member for _, member in inspect.getmembers(thing, inspect.isfunction)]
        )
        for function in functions:
            if not function.__module__.startswith("rondel") or function.__name__.startswith("_"):
                continue
            assert function.__doc__ or name == "EventLoop", function
            missing = set(inspect.signature(function).parameters) - {"self"}
            missing -= set(function.__annotations__)
            assert not missing, (function, missing)
            assert "return" in function.__annotations__, function


@pytest.mark.timeout(300)
def test_type_checkers_see_every_name(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    lines = ["import rondel", "import asyncio", "from typing_extensions import assert_type"]
    lines += [f"rondel.{name}" for name in PUBLIC if name != "sys"]
    lines += [f"rondel.{name}" for name in sorted(OWN)]
    lines += [
        "rondel.subprocess.PIPE",
        "rondel.timeouts.timeout(1)",
        "@rondel.timed",
        "async def one(a: int, b: str = '') -> bytes: return b''",
        "@rondel.timed('name', arguments=False, to=print)",
        "def two(a: int) -> str: return ''",
        "async def main() -> None:",
        "    assert_type(await one(1, b='x'), bytes)",
        "    assert_type(two(1), str)",
        "    assert_type(await rondel.background(one(1), name='x'), bytes)",
        "    async with rondel.timed('block') as timing:",
        "        pass",
        "    assert_type(timing, rondel.Timing)",
        "    assert_type(timing.cpu, float | None)",
        "    assert_type(rondel.watch_tasks(), bool)",
        "rondel.run(main())",
    ]
    program = tmp_path / "names.py"
    program.write_text("\n".join(lines) + "\n")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import rondel\n"
        "@rondel.timed\n"
        "def two(a: int) -> str: return ''\n"
        "two('x')\n"
        "rondel.timed(to=3)\n"
        "rondel.background(3)\n"
        "rondel.nothing.at_all\n"
    )

    # mypy finds an installed package by itself, and refuses to be told where.
    parent = str(Path(rondel.__file__).parents[1])
    env = {} if parent in sys.path and "site-packages" in parent else {"MYPYPATH": parent}

    def check(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "mypy", "--strict", "--config-file", ""),
                *("--cache-dir", str(tmp_path / "cache"), str(path)),
            ],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    got = check(program)
    assert got.returncode == 0, got.stdout + got.stderr
    got = check(wrong)
    assert {line.split(":")[1] for line in got.stdout.splitlines() if ": error:" in line} == {
        "4",
        "5",
        "6",
        "7",
    }, got.stdout
