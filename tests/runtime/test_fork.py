"""A fork inside a running loop: the child is told, and can run a loop of its own."""

import subprocess
import sys

import pytest

from tests.support import ONLY_ASYNCIO

needs_rondel = pytest.mark.skipif(ONLY_ASYNCIO, reason="RONDEL_TEST_ONLY_ASYNCIO is set")

PATIENCE = 30


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-X", "faulthandler", "-c", code],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@needs_rondel
def test_a_loop_that_goes_on_in_a_forked_child_says_so() -> None:
    ended = python("""
import os, sys, rondel

async def main():
    never = rondel.get_running_loop().create_future()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        print("parent sees", os.waitstatus_to_exitcode(status))
        return
    await never
    print("not reached")

try:
    rondel.run(main())
except RuntimeError as error:
    print("child:", str(error)[:59], flush=True)
    os._exit(7)
""")
    assert ended.returncode == 0, ended.stderr
    assert "child: this event loop was running when the process forked" in ended.stdout
    assert "parent sees 7" in ended.stdout
    assert "not reached" not in ended.stdout


@needs_rondel
def test_a_forked_child_runs_a_loop_of_its_own() -> None:
    ended = python("""
import asyncio, os, rondel

async def inner():
    await rondel.sleep(0.01)
    return len(asyncio.all_tasks())

async def main():
    child = os.fork()
    if not child:
        assert rondel._rondel._running_loop() is None
        os._exit(10 + asyncio.Runner(loop_factory=rondel.new_event_loop).run(inner()))
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status))

rondel.run(main())
""")
    assert ended.stdout.strip() == "11", ended.stderr
