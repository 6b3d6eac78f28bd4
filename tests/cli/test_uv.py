"""uv works as pip does: a project made by `uv init` takes the built wheel and runs on Rondel.

Needs uv and a wheel for this interpreter, which RONDEL_WHEEL names; `make test INSTALL=build`
sets it.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from .support import Outcome, call

WHEEL = os.environ.get("RONDEL_WHEEL", "")
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

MAIN = """\
import asyncio

async def main():
    print('hello', type(asyncio.get_running_loop()).__module__)
    await asyncio.sleep(0)
    print('world')

if __name__ == "__main__":
    asyncio.run(main())
"""

pytestmark = [
    pytest.mark.uv,
    pytest.mark.timeout(120),
    pytest.mark.skipif(UV is None, reason="uv is not installed"),
    pytest.mark.skipif(not WHEEL, reason="RONDEL_WHEEL names no wheel"),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = uv(tmp_path, "init", "--python", sys.executable, "coroutine_quickstart")
    assert made.status == 0, made.errors
    directory = tmp_path / "coroutine_quickstart"
    (directory / "main.py").write_text(MAIN)
    return directory


def uv(directory: Path, *arguments: str) -> Outcome:
    assert UV is not None
    cache = {"UV_CACHE_DIR": str(directory / ".uv-cache"), "VIRTUAL_ENV": ""}
    return call([UV, *arguments], directory, env=cache)


def test_a_project_adds_the_wheel_and_runs_on_it(project: Path) -> None:
    added = uv(project, "add", str(Path(WHEEL).resolve()))
    assert added.status == 0, added.errors
    plain = uv(project, "run", "main.py")
    assert plain.output == "hello asyncio.unix_events\nworld\n", plain.errors
    ours = uv(project, "run", "rondel", "run", "main.py")
    assert ours.output == "hello rondel.loop\nworld\n", ours.errors
    version = uv(project, "run", "rondel", "--version")
    assert re.fullmatch(r"rondel \d+\.\d+\.\d+\n", version.output), version.errors
