"""pytest-asyncio: whole runs of pytest whose tests run on Rondel's loop."""

import subprocess
from pathlib import Path

import pytest

from .conftest import MODE, PATIENCE, child_command

TESTS = """
import asyncio
import pytest

@pytest.fixture
async def server():
    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()
        await writer.wait_closed()
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()

@pytest.mark.parametrize("word", [b"one\\n", b"two\\n"])
async def test_echo(server, word):
    assert type(asyncio.get_running_loop()).__module__.partition(".")[0] == "WANTED"
    reader, writer = await asyncio.open_connection(*server)
    writer.write(word)
    assert await reader.read() == word
    writer.close()
    await writer.wait_closed()

@pytest.mark.asyncio(loop_scope="module")
class TestShared:
    loop = None
    async def test_first(self):
        TestShared.loop = asyncio.get_running_loop()
    async def test_second(self):
        assert asyncio.get_running_loop() is TestShared.loop

async def test_it_can_fail():
    async with asyncio.timeout(0.01):
        await asyncio.sleep(10)

async def test_subprocess():
    child = await asyncio.create_subprocess_exec("true")
    assert await child.wait() == 0
"""
BY_POLICY = """
import pytest, rondel

@pytest.fixture(scope="session")
def event_loop_policy():
    return rondel.EventLoopPolicy()
"""
BY_FACTORY = """
import rondel

def pytest_asyncio_loop_factories(config, item):
    return {"rondel": rondel.new_event_loop}
"""


def outcome(project: Path, conftest: str) -> str:
    wanted = "asyncio" if MODE == "stdlib" else "rondel"
    (project / "test_it.py").write_text(TESTS.replace("WANTED", wanted))
    (project / "conftest.py").write_text(conftest)
    (project / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    ended = subprocess.run(
        child_command("-m", "pytest", "-q", "-p", "no:anyio", "-p", "no:cacheprovider"),
        cwd=project,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "FAILED test_it.py::test_it_can_fail" in ended.stdout, ended.stdout + ended.stderr
    # Newer releases warn about the policy's fixture: it has the factories' hook instead.
    return ended.stdout.splitlines()[-1].partition(" in ")[0].removesuffix(", 1 warning")


def check_tests_by_policy(project: Path) -> None:
    conftest = BY_POLICY if MODE == "loop" else ""
    assert outcome(project, conftest) == "1 failed, 5 passed"


def check_tests_by_factory(project: Path) -> None:
    import pytest_asyncio.plugin

    if not hasattr(pytest_asyncio.plugin.PytestAsyncioSpecs, "pytest_asyncio_loop_factories"):
        pytest.skip("this pytest-asyncio has no hook for factories")
    conftest = BY_FACTORY if MODE == "loop" else ""
    assert outcome(project, conftest) == "1 failed, 5 passed"
