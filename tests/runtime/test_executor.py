"""The default executor: `to_thread`, `run_in_executor(None, ...)` and the executor itself."""

import asyncio
import concurrent.futures
import contextvars
import os
import re
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import PATIENCE, Runtime, python

VARIABLE = contextvars.ContextVar("VARIABLE", default="default")


class Gate:
    """A call that says that it has begun and ends when it is told to."""

    def __init__(self) -> None:
        self.began, self.go, self.ended = (threading.Event() for _ in range(3))

    def __call__(self) -> str:
        self.began.set()
        assert self.go.wait(PATIENCE)
        self.ended.set()
        return "passed"


async def fill(aio: ModuleType, loop: Any) -> list[tuple[Gate, Any]]:
    """Have every thread of the default executor at work."""
    await aio.to_thread(int)
    gates = [Gate() for _ in range(loop._default_executor._max_workers)]
    calls = [(gate, loop.run_in_executor(None, gate)) for gate in gates]
    while not all(gate.began.is_set() for gate in gates):
        await aio.sleep(0.001)
    return calls


async def let_go(calls: list[tuple[Gate, Any]]) -> None:
    for gate, call in calls:
        gate.go.set()
        if not call.cancelled():
            await call


# ----------------------------------------------------------------------------------- calls


async def test_blocking_calls_overlap_at_once(aio: ModuleType) -> None:
    # Each waits for the other: one after the other they would never end.
    meeting = threading.Barrier(2, timeout=PATIENCE)
    await aio.gather(aio.to_thread(meeting.wait), aio.to_thread(meeting.wait))


async def test_threads_are_named_and_bounded(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    calls = await fill(aio, loop)
    try:
        limit = ThreadPoolExecutor()._max_workers
        assert loop._default_executor._max_workers == limit == len(calls)
        names = {thread.name for thread in threading.enumerate()}
        assert {f"asyncio_{i}" for i in range(limit)} <= names
        assert f"asyncio_{limit}" not in names
        waiting = loop.run_in_executor(None, int)
        await aio.sleep(0)
        assert loop._default_executor._work_queue.qsize() == 1
        assert not waiting.done()
    finally:
        await let_go(calls)
    assert await waiting == 0


async def test_to_thread_runs_in_a_copy_of_the_context(aio: ModuleType) -> None:
    VARIABLE.set("mine")

    def work() -> str:
        before = VARIABLE.get()
        VARIABLE.set("theirs")
        return before

    assert await aio.to_thread(work) == "mine"
    assert await aio.to_thread(work) == "mine"
    assert VARIABLE.get() == "mine"


async def test_run_in_executor_runs_in_the_threads_own_context(aio: ModuleType) -> None:
    VARIABLE.set("mine")
    loop = aio.get_running_loop()
    assert await loop.run_in_executor(None, VARIABLE.get) == "default"


async def test_an_outcome_arrives_in_a_turn_of_its_own(aio: ModuleType) -> None:
    # Code on the loop never sees a future change between two of its lines.
    gate = Gate()
    future = aio.get_running_loop().run_in_executor(None, gate)
    gate.go.set()
    assert gate.ended.wait(PATIENCE)
    time.sleep(0.02)  # the thread may do what it likes with its outcome
    assert not future.done()
    assert await future == "passed"


@pytest.mark.parametrize("error", [ValueError("a"), KeyError("b"), GeneratorExit(), Exception()])
async def test_errors_arrive(aio: ModuleType, error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await aio.to_thread(work)
    assert caught.value is error
    with pytest.raises(type(error)):
        await aio.get_running_loop().run_in_executor(None, work)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
async def test_what_ends_programs_is_an_outcome_as_well(
    aio: ModuleType, kind: type[BaseException]
) -> None:
    def work() -> None:
        raise kind

    future = aio.get_running_loop().run_in_executor(None, work)
    await aio.wait([future])
    assert isinstance(future.exception(), kind)


async def test_errors_of_concurrent_futures_become_asyncios(aio: ModuleType) -> None:
    def work(error: BaseException) -> None:
        raise error

    with pytest.raises(aio.CancelledError, match="a"):
        await aio.to_thread(work, concurrent.futures.CancelledError("a"))
    with pytest.raises(aio.InvalidStateError, match="b"):
        await aio.to_thread(work, concurrent.futures.InvalidStateError("b"))


async def test_stop_iteration_cannot_be_an_outcome(runtime: Runtime, aio: ModuleType) -> None:
    # Later releases of asyncio make it a RuntimeError. Where a future refuses it, asyncio reports
    # the TypeError and leaves the call pending.
    kind: type[Exception] = RuntimeError
    probe = aio.get_running_loop().create_future()
    try:
        probe.set_exception(StopIteration())
        assert type(probe.exception()) is kind
    except TypeError:
        kind = TypeError
    call = aio.ensure_future(aio.to_thread(next, iter(())))
    if kind is TypeError and not runtime.native:
        while not runtime.errors:
            await aio.sleep(0.001)
        assert runtime.take_errors()
        call.cancel()
        return
    await aio.wait([call])
    assert type(call.exception()) is kind
    assert "StopIteration interacts badly" in str(call.exception())


async def test_a_call_keeps_nothing_alive(aio: ModuleType) -> None:
    class Thing:
        pass

    def fail(thing: Thing) -> None:
        raise ValueError

    thing = Thing()
    gone = weakref.ref(thing)
    await aio.to_thread(id, thing)
    loop = aio.get_running_loop()
    assert await loop.run_in_executor(None, lambda x: x, thing) is thing
    del thing
    # The thread lets go of the last call on its way to the next.
    for _ in range(3):
        await aio.to_thread(int)
    assert gone() is None


# ----------------------------------------------------------------------------------- cancelling


async def test_a_queued_call_that_is_cancelled_is_not_made(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    calls = await fill(aio, loop)
    made: list[int] = []
    first = loop.run_in_executor(None, made.append, 1)
    second = loop.run_in_executor(None, made.append, 2)
    first.cancel()
    await aio.sleep(0)
    await aio.sleep(0)
    await let_go(calls)
    await second
    assert made == [2]
    assert first.cancelled()


async def test_a_call_that_has_begun_goes_on(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    gate = Gate()
    future = loop.run_in_executor(None, gate)
    while not gate.began.is_set():
        await aio.sleep(0.001)
    assert future.cancel()
    with pytest.raises(aio.CancelledError):
        await future
    gate.go.set()
    assert await aio.to_thread(gate.ended.wait, PATIENCE)


# ----------------------------------------------------------------------------------- blocking


async def test_a_loop_that_blocks_for_its_own_call_is_served(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    for _ in range(20):
        done = threading.Event()
        future = loop.run_in_executor(None, done.set)
        assert done.wait(PATIENCE)
        await future


async def test_a_step_that_blocks_for_another_tasks_call_is_served(aio: ModuleType) -> None:
    for _ in range(20):
        done = threading.Event()
        task = aio.create_task(aio.to_thread(done.set))
        await aio.sleep(0)
        assert done.wait(PATIENCE)
        await task


def test_a_call_may_be_handed_out_from_outside_of_the_run(runtime: Runtime) -> None:
    loop = runtime.new_event_loop()
    future = loop.run_in_executor(None, int, "7")
    assert loop.run_until_complete(future) == 7
    loop.run_until_complete(loop.shutdown_default_executor())


# ------------------------------------------------------------------------- the executor itself


async def test_it_is_a_thread_pool_executor(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    assert loop._default_executor is None
    await aio.to_thread(int)
    executor = loop._default_executor
    assert isinstance(executor, ThreadPoolExecutor)
    assert list(executor.map(str, [1, 2])) == ["1", "2"]
    future = executor.submit(divmod, 7, 2)
    assert future.result(PATIENCE) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        executor.submit(divmod, 7, 0).result(PATIENCE)
    assert await loop.run_in_executor(executor, int, "8") == 8
    assert {thread.name.partition("_")[0] for thread in executor._threads} == {"asyncio"}


async def test_the_system_lists_threads_by_their_names(runtime: Runtime) -> None:
    if not runtime.native and sys.version_info < (3, 14):
        pytest.skip("as the process")
    listed = Path("/proc/thread-self/comm")
    assert await runtime.aio.to_thread(listed.read_text) == "asyncio_0\n"
    assert listed.read_text() != "asyncio_0\n"


async def test_the_programs_own_executor_serves(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as executor:
        loop.set_default_executor(executor)
        assert loop._default_executor is executor
        assert await aio.to_thread(lambda: threading.current_thread().name) == "mine_0"
        assert await loop.run_in_executor(None, lambda: threading.current_thread().name) == "mine_0"
    with pytest.raises(TypeError):
        loop.set_default_executor(object())


async def test_an_overridden_run_in_executor_is_asked(
    aio: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = aio.get_running_loop()
    future = loop.create_future()
    future.set_result("theirs")
    monkeypatch.setattr(loop, "run_in_executor", lambda executor, func, *args: future)
    assert await aio.to_thread(int) == "theirs"


async def test_executor_and_function_may_be_keywords(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    assert await loop.run_in_executor(executor=None, func=int) == 0
    with pytest.raises(TypeError):
        loop.run_in_executor(None)


async def test_no_calls_after_its_shutdown(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    await aio.to_thread(int)
    executor, threads = loop._default_executor, list(loop._default_executor._threads)
    await loop.shutdown_default_executor()
    assert not any(thread.is_alive() for thread in threads)
    with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
        await aio.to_thread(int)
    with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
        loop.run_in_executor(None, int)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(int)


async def test_shutdown_waits_for_what_was_handed_out(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    calls = await fill(aio, loop)
    queued = loop.run_in_executor(None, str, "queued")
    ending = aio.ensure_future(loop.shutdown_default_executor())
    await aio.sleep(0.01)
    assert not ending.done()
    await let_go(calls)
    await ending
    assert await queued == "queued"


async def test_shutdown_may_cancel_what_is_queued(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    calls = await fill(aio, loop)
    executor = loop._default_executor
    queued, submitted = loop.run_in_executor(None, int), executor.submit(int)
    executor.shutdown(wait=False, cancel_futures=True)
    assert submitted.cancelled()
    with pytest.raises(aio.CancelledError):
        await queued
    await let_go(calls)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="3.12 waits for the calls all the same")
async def test_shutdown_warns_of_threads_that_do_not_end(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    gate = Gate()
    future = loop.run_in_executor(None, gate)
    with pytest.warns(RuntimeWarning, match=r"did not finishing joining its threads within 0\.01"):
        await loop.shutdown_default_executor(0.01)
    gate.go.set()
    await future


def test_a_closed_loop_refuses_calls(runtime: Runtime) -> None:
    loop = runtime.new_event_loop()
    loop.run_until_complete(loop.run_in_executor(None, int))
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_in_executor(None, int)


async def test_debug_mode_refuses_coroutines(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    loop.set_debug(True)

    async def coroutine() -> None:
        pass

    with pytest.raises(TypeError, match="coroutines cannot be used with run_in_executor"):
        loop.run_in_executor(None, coroutine)
    loop.set_debug(False)


# ------------------------------------------------------------------------- the process's end

ON_RONDEL = "import asyncio, os, sys, threading, time, rondel\n"


def ends(code: str, runtime: Runtime, timeout: float = 30) -> Any:
    if runtime.name != "rondel":
        pytest.skip("the program names its runtime itself")
    return python(ON_RONDEL + code, timeout=timeout)


def test_exit_waits_for_calls_of_a_loop_that_was_only_closed(runtime: Runtime) -> None:
    ended = ends(
        """
loop = rondel.new_event_loop()
def work():
    time.sleep(0.2)
    print("ended", threading.current_thread().daemon, flush=True)
async def main():
    loop.run_in_executor(None, work)
loop.run_until_complete(main())
loop.close()
""",
        runtime,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("ended False\n", "", 0)


def test_exit_reports_calls_that_do_not_end(runtime: Runtime) -> None:
    ended = ends(
        """
from rondel import _executor
_executor.EXIT_SECONDS = 0.1
loop = rondel.new_event_loop()
def endless():
    while True:
        time.sleep(0.001)
async def main():
    began = threading.Event()
    loop.run_in_executor(None, lambda: (began.set(), endless()))
    await loop.run_in_executor(None, began.wait)
loop.run_until_complete(main())
loop.close()
""",
        runtime,
    )
    assert ended.returncode == 0, ended.stderr
    assert "1 call(s) of to_thread() or run_in_executor() have not ended" in ended.stderr
    assert re.search(r"asyncio_\d in endless", ended.stderr)


def test_a_thread_that_a_call_starts_is_no_daemon(runtime: Runtime) -> None:
    ended = ends(
        """
def late():
    time.sleep(0.1)
    print("late", flush=True)
rondel.run(rondel.to_thread(lambda: threading.Thread(target=late).start()))
""",
        runtime,
    )
    assert (ended.stdout, ended.stderr) == ("late\n", "")


def test_a_forked_child_has_an_executor_again(runtime: Runtime) -> None:
    ended = ends(
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
loop = rondel.new_event_loop()
loop.run_until_complete(rondel.wait_for(loop.run_in_executor(None, int), 5))
pid = os.fork()
if not pid:
    other = rondel.new_event_loop()
    for each in (loop, other):
        future = each._default_executor.submit(str, "again") if each is loop else None
        text = future.result(5) if future else each.run_until_complete(
            each.run_in_executor(None, str, "again"))
        print(text, flush=True)
    os._exit(0)
print(os.waitpid(pid, 0)[1])
print(loop.run_until_complete(loop.run_in_executor(None, str, "parent")))
loop.run_until_complete(loop.shutdown_default_executor())
""",
        runtime,
    )
    assert ended.stdout.split() == ["again", "again", "0", "parent"], ended.stderr


def test_calls_at_the_interpreters_end_are_refused(runtime: Runtime) -> None:
    ended = ends(
        """
import atexit
loop = rondel.new_event_loop()
loop.run_until_complete(loop.run_in_executor(None, int))
def late():
    try:
        loop.run_in_executor(None, int)
    except RuntimeError as error:
        print(error)
atexit.register(late)
""",
        runtime,
    )
    assert "cannot schedule new futures after shutdown" in ended.stdout


def test_ctrl_c_ends_a_program_whose_call_goes_on(runtime: Runtime) -> None:
    ended = ends(
        """
import signal
from rondel import _executor
_executor.EXIT_SECONDS = 0.1
def work():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)
async def main():
    await rondel.to_thread(work)
try:
    rondel.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
""",
        runtime,
    )
    assert ended.stdout == "interrupted\n", ended.stderr


def test_a_signal_wakes_a_loop_that_waits_for_a_call(runtime: Runtime) -> None:
    loop = runtime.new_event_loop()
    gate, heard = Gate(), []

    def handler() -> None:
        heard.append(gate.ended.is_set())
        gate.go.set()

    loop.add_signal_handler(signal.SIGUSR1, handler)

    async def main() -> None:
        call = loop.run_in_executor(None, gate)
        await loop.run_in_executor(None, gate.began.wait)
        loop.run_in_executor(None, os.kill, os.getpid(), signal.SIGUSR1)
        await call

    loop.run_until_complete(main())
    loop.remove_signal_handler(signal.SIGUSR1)
    loop.run_until_complete(loop.shutdown_default_executor())
    assert heard == [False]


def test_loops_in_threads_have_executors_of_their_own(runtime: Runtime) -> None:
    names = runtime.aio
    seen: list[Any] = []

    async def main() -> None:
        await names.to_thread(int)
        seen.append(asyncio.get_running_loop()._default_executor)  # type: ignore[attr-defined]

    loops = [runtime.new_event_loop() for _ in range(3)]

    def run(loop: Any) -> None:
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())

    threads = [threading.Thread(target=run, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(set(seen)) == 3


def test_exit_waits_for_calls_of_a_loop_that_was_dropped(runtime: Runtime) -> None:
    ended = ends(
        """
import gc, warnings
warnings.simplefilter("ignore", ResourceWarning)
began = threading.Event()
def work():
    began.set()
    time.sleep(0.2)
    print("ended", flush=True)
def main():
    loop = rondel.new_event_loop()
    loop.run_in_executor(None, work)
main()
assert began.wait(10)
gc.collect()
""",
        runtime,
    )
    assert ended.stdout == "ended\n", ended.stderr
