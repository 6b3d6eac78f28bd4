"""`rondel.to_process`: values, errors, deaths, cancellation, and that nothing is left behind."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rondel
from rondel import _process
from tests.process import functions
from tests.support import PATIENCE, Runtime


class Files:
    """How the test and a call of `tell_and_wait` speak to each other."""

    def __init__(self, place: Path) -> None:
        self.begun, self.go, self.ended = place / "begun", place / "go", place / "ended"

    @property
    def arguments(self) -> tuple[str, str, str]:
        return str(self.begun), str(self.go), str(self.ended)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def until(aio: ModuleType, condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await aio.sleep(0.002)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_the_value_comes_from_another_process(aio: ModuleType) -> None:
    pid = await rondel.to_process(functions.pid)
    assert pid != os.getpid()
    # The same one serves again.
    assert await rondel.to_process(functions.pid) == pid


async def test_arguments_and_results_may_be_larger_than_a_socket_holds(aio: ModuleType) -> None:
    assert (
        await rondel.to_process(functions.double, b"12" * 2_000_000, times=3) == b"12" * 6_000_000
    )


async def test_an_error_has_the_traceback_of_over_there_as_its_cause(aio: ModuleType) -> None:
    with pytest.raises(LookupError, match="what was asked for") as caught:
        await rondel.to_process(functions.fail, "what was asked for")
    assert "in fail" in str(caught.value.__cause__)
    # The worker lives on.
    assert await rondel.to_process(functions.double, b"a") == b"aa"


async def test_an_error_that_cannot_be_brought_over_is_told_as_text(aio: ModuleType) -> None:
    with pytest.raises(rondel.RemoteError, match=r"Inconvenient: one") as caught:
        await rondel.to_process(functions.fail_inconveniently)
    assert "in fail_inconveniently" in str(caught.value.__cause__)


async def test_system_exit_is_an_error_as_any_other(aio: ModuleType) -> None:
    with pytest.raises(SystemExit) as caught:
        await rondel.to_process(functions.system_exit)
    assert caught.value.code == 4


async def test_what_cannot_be_pickled_is_refused_clearly(aio: ModuleType) -> None:
    with pytest.raises(TypeError, match=r"can't send .*<lambda> or its arguments"):
        await rondel.to_process(lambda: None)
    with pytest.raises(TypeError, match=r"can't send .*functions.double or its arguments"):
        await rondel.to_process(functions.double, sys._getframe())
    with pytest.raises(TypeError, match="the result of unpicklable_result can't be sent"):
        await rondel.to_process(functions.unpicklable_result)


async def test_the_death_of_a_worker_names_its_signal_or_exit_code(aio: ModuleType) -> None:
    with pytest.raises(rondel.WorkerDied, match=r"killed by SIGKILL while it ran .*itself") as by:
        await rondel.to_process(functions.signal_itself, signal.SIGKILL)
    assert by.value.exitcode == -signal.SIGKILL
    with pytest.raises(rondel.WorkerDied, match="killed by SIGSEGV"):
        await rondel.to_process(functions.signal_itself, signal.SIGSEGV)
    with pytest.raises(rondel.WorkerDied, match="exited with code 3") as by:
        await rondel.to_process(functions.leave, 3)
    assert by.value.exitcode == 3 and by.value.pid
    # Another one takes its place.
    assert await rondel.to_process(functions.double, b"a") == b"aa"


async def test_a_cancelled_call_is_killed(aio: ModuleType, files: Files) -> None:
    task = aio.create_task(rondel.to_process(functions.tell_and_wait, *files.arguments))
    await until(aio, files.begun.exists)
    pid = int(files.begun.read_text())
    task.cancel()
    with pytest.raises(aio.CancelledError):
        await task
    await until(aio, lambda: not Path(f"/proc/{pid}").exists())  # no zombie either
    assert not files.ended.exists()
    assert await rondel.to_process(functions.pid) != pid


async def test_an_abandoned_call_goes_on_and_its_worker_comes_back(
    aio: ModuleType, files: Files
) -> None:
    call = rondel.to_process(functions.tell_and_wait, *files.arguments, cancel="abandon")
    task = aio.create_task(call)
    await until(aio, files.begun.exists)
    pid = int(files.begun.read_text())
    task.cancel()
    with pytest.raises(aio.CancelledError):
        await task
    assert alive(pid)
    files.go.touch()
    await until(aio, lambda: _process._idle)
    assert files.ended.exists()
    assert await rondel.to_process(functions.pid) == pid


async def test_cancel_is_one_of_two(aio: ModuleType) -> None:
    with pytest.raises(ValueError, match="'kill' or 'abandon', not 'wait'"):
        await rondel.to_process(functions.pid, cancel="wait")  # type: ignore[arg-type]


async def test_more_calls_than_processors_wait_their_turn(aio: ModuleType) -> None:
    pids = await aio.gather(*[rondel.to_process(functions.pid) for _ in range(20)])
    assert len(set(pids)) <= _process._limit()


async def test_a_call_that_waits_is_cancelled_without_a_worker(
    aio: ModuleType, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_process, "_limit", lambda: 1)
    first = aio.create_task(rondel.to_process(functions.tell_and_wait, *files.arguments))
    await until(aio, files.begun.exists)
    waiting = [aio.create_task(rondel.to_process(functions.pid)) for _ in range(3)]
    await until(aio, lambda: len(_process._queue) == 3)
    waiting[0].cancel()
    with pytest.raises(aio.CancelledError):
        await waiting[0]
    files.go.touch()
    assert await first == await waiting[1] == await waiting[2]


async def test_context_variables_are_not_carried_over(aio: ModuleType) -> None:
    functions.VARIABLE.set("mine")
    assert await rondel.to_process(functions.variable) == "default"


async def test_workers_leave_ctrl_c_to_their_parent(aio: ModuleType) -> None:
    assert not await rondel.to_process(functions.handles_sigint)


async def test_a_worker_may_have_workers(aio: ModuleType) -> None:
    assert await rondel.to_process(functions.nested) not in (
        os.getpid(),
        await rondel.to_process(functions.pid),
    )


async def test_a_keyword_named_cancel_takes_a_partial(aio: ModuleType) -> None:
    assert await rondel.to_process(functools.partial(dict, cancel=1)) == {"cancel": 1}


async def test_workers_that_were_idle_for_long_end(
    aio: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await rondel.to_process(functions.pid)
    monkeypatch.setattr(_process, "IDLE_SECONDS", -1.0)
    assert await rondel.to_process(functions.pid) != before
    await until(aio, lambda: not Path(f"/proc/{before}").exists())


def test_a_worker_serves_one_loop_after_the_other(runtime: Runtime) -> None:
    first = runtime.run(rondel.to_process(functions.pid))
    assert runtime.run(rondel.to_process(functions.pid)) == first


def test_a_call_whose_loop_is_closed_frees_its_place(runtime: Runtime, files: Files) -> None:
    if runtime.name != "rondel":
        pytest.skip("once is enough")

    async def begin() -> int:
        task = runtime.aio.create_task(
            rondel.to_process(functions.tell_and_wait, *files.arguments, cancel="abandon")
        )
        await until(runtime.aio, files.begun.exists)
        task.cancel()
        with contextlib.suppress(runtime.aio.CancelledError):
            await task
        return int(files.begun.read_text())

    pid = runtime.run(begin())
    assert runtime.run(rondel.to_process(functions.pid)) != pid
    assert not alive(pid)


# ------------------------------------------------------------------------------ the process's end

PROGRAM = """
import asyncio, os, sys
import rondel
from tests.process import functions

async def main():
    task = asyncio.ensure_future(
        rondel.to_process(functions.tell_and_wait, *sys.argv[1:4], cancel="abandon"))
    idle = await rondel.to_process(functions.pid)
    while not os.path.exists(sys.argv[1]):
        await asyncio.sleep(0.002)
    print(idle, open(sys.argv[1]).read(), flush=True)
    END

if __name__ == "__main__":
    rondel.run(main())
"""


def start(files: Files, end: str, place: Path) -> tuple["subprocess.Popen[str]", list[int]]:
    program = place / "program.py"
    program.write_text(PROGRAM.replace("END", end))
    child = subprocess.Popen(
        [sys.executable, str(program), *files.arguments],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    return child, [int(pid) for pid in child.stdout.readline().split()]


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@pytest.mark.parametrize("end", ["return", "os.kill(os.getpid(), 9)", "os._exit(0)"])
def test_no_worker_outlives_its_parent(
    runtime: Runtime, files: Files, tmp_path: Path, end: str
) -> None:
    if runtime.name != "rondel":
        pytest.skip("once is enough")
    if _process._limit() < 2:
        pytest.skip("one worker at work, and one idle")
    child, pids = start(files, end, tmp_path)
    with child:
        assert len(pids) == 2
        assert gone(pids)
        child.wait(PATIENCE)
    assert not files.ended.exists()


def test_a_program_without_the_guard_is_told_so(runtime: Runtime, tmp_path: Path) -> None:
    if runtime.name != "rondel":
        pytest.skip("once is enough")
    program = tmp_path / "program.py"
    program.write_text("import os, rondel\nrondel.run(rondel.to_process(os.getpid))\n")
    ended = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert "before it could begin" in ended.stderr and "__main__" in ended.stderr
