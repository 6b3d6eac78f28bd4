"""The package's names: all of asyncio's and the few of its own, and clear refusals."""

import asyncio
import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rondel
from tests.support import OWN, python


def test_it_offers_every_public_name_of_asyncio() -> None:
    assert set(rondel.__all__) == {*asyncio.__all__, *OWN}
    for name in asyncio.__all__:
        assert hasattr(rondel, name), name


def test_what_is_not_native_is_asyncios_own() -> None:
    def differs(name: str) -> bool:
        return getattr(rondel, name) is not getattr(asyncio, name)

    # By name, not by asyncio.__all__, which forgets some in 3.11.
    native = (
        "sleep",
        "gather",
        "create_task",
        "Task",
        "Future",
        "TaskGroup",
        "timeout",
        "run",
        "Lock",
        "Queue",
    )
    assert [name for name in native if not differs(name)] == []
    stock = ("CancelledError", "TimeoutError", "AbstractEventLoop", "Protocol")
    assert [name for name in stock if differs(name)] == []


def test_asyncios_submodules_are_reachable() -> None:
    for name in ("base_subprocess", "protocols", "constants", "exceptions", "log"):
        assert getattr(rondel, name) is getattr(asyncio, name)
    from rondel import protocols as reached

    assert reached is asyncio.protocols


def test_unknown_names_are_refused_in_its_own_name() -> None:
    with pytest.raises(AttributeError, match="module 'rondel' has no attribute 'nothing'"):
        _ = rondel.nothing


def test_version_is_the_distributions() -> None:
    assert rondel.__version__ == importlib.metadata.version("rondel")


def test_it_is_typed() -> None:
    assert (Path(rondel.__file__).parent / "py.typed").exists()


def test_runner_makes_its_loop_current_and_unsets_it() -> None:
    with rondel.Runner() as runner:
        assert isinstance(runner, asyncio.Runner)
        assert asyncio.get_event_loop_policy().get_event_loop() is runner.get_loop()
    policy: Any = asyncio.get_event_loop_policy()
    assert policy._local._loop is None


def test_run_refuses_to_nest_in_asyncios_words() -> None:
    async def main() -> None:
        coroutine = asyncio.sleep(0)
        try:
            with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
                rondel.run(coroutine)
        finally:
            coroutine.close()

    rondel.run(main())


def test_debug_reaches_the_loop() -> None:
    async def debug() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert rondel.run(debug(), debug=True) is True
    assert rondel.run(debug(), debug=False) is False


def fails_to_import(directory: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", "import rondel"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    return ended.stderr.strip().splitlines()[-1]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package without its native module, found before the installed one."""
    source = Path(rondel.__file__).parent
    ignored = shutil.ignore_patterns("_rondel*.so", "__pycache__")
    shutil.copytree(source, tmp_path / "rondel", ignore=ignored)
    return tmp_path


def test_a_missing_native_module_is_told_with_the_remedy(copy: Path) -> None:
    line = fails_to_import(copy)
    assert line.startswith("ImportError: rondel's native module is missing for CPython 3.")
    assert "pip install" in line


def test_a_build_for_another_python_is_told(copy: Path) -> None:
    (copy / "rondel" / "_rondel.cpython-39-x86_64-linux-gnu.so").write_bytes(b"")
    line = fails_to_import(copy)
    assert "built for another Python" in line
    assert "_rondel.cpython-39-x86_64-linux-gnu.so" in line


def test_a_native_module_that_does_not_load_is_told(copy: Path) -> None:
    (copy / "rondel" / "_rondel.abi3.so").write_bytes(b"not a library")
    line = fails_to_import(copy)
    assert "does not load" in line


SUBINTERPRETERS = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
exec(sys.argv[1])  # "import rondel", or nothing: the main interpreter has it already, or not
for config in [("isolated",), ("legacy",)] if sys.version_info >= (3, 13) else [()]:
    sub = interpreters.create(*config)
    failed = interpreters.run_string(sub, "try: import rondel\\nexcept ImportError as e: print(e)")
    assert failed is None, failed
    interpreters.destroy(sub)
import rondel
assert rondel.run(rondel.sleep(0, "main")) == "main"
"""


@pytest.mark.parametrize("before", ["import rondel", ""])
def test_subinterpreters_are_refused(before: str) -> None:
    # Types are statics of the process: another interpreter's would replace those of the main one.
    ended = python(SUBINTERPRETERS, before)
    control = SUBINTERPRETERS.replace("import rondel", "import asyncio").split("assert rondel")[0]
    if ended.returncode and python(control, before.replace("rondel", "asyncio")).returncode:
        pytest.skip("this CPython's own subinterpreters fail it, without Rondel (3.12.1)")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) == (2 if sys.version_info >= (3, 13) else 1)
    for line in lines:
        assert line.startswith("rondel works in the main interpreter only"), line


def test_a_second_import_gives_the_same_types() -> None:
    ended = python(
        "import sys, asyncio, rondel as first\n"
        "loop = first.new_event_loop()\n"
        "future = loop.create_future()\n"
        "for name in [name for name in sys.modules if name.startswith('rondel')]:\n"
        "    del sys.modules[name]\n"
        "import rondel as second\n"
        "assert second is not first and second.Task is first.Task\n"
        "assert type(second.new_event_loop().create_future()) is type(future)\n"
        "async def main(): return await second.gather(first.sleep(0, 1), asyncio.sleep(0, 2))\n"
        "print(loop.run_until_complete(main()), second.run(main()), second.__version__)\n"
    )
    assert ended.stdout == f"[1, 2] [1, 2] {rondel.__version__}\n", ended.stderr


def test_free_threaded_builds_are_refused(copy: Path) -> None:
    init = copy / "rondel" / "__init__.py"
    init.write_text("import sys\nsys.abiflags = 't'\n" + init.read_text())
    assert "free-threaded" in fails_to_import(copy)
