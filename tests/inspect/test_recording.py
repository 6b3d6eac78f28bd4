"""A recording says which task did what, in which order, and what it waited for."""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from itertools import pairwise
from typing import Any

import pytest

import rondel as aio
import rondel.inspect
from rondel.inspect.recording import Outcome, Recorder, Recording, Task, record

Main = Callable[[], Coroutine[Any, Any, Any]]


@contextlib.contextmanager
def recording(**options: Any) -> Iterator[list[Recording]]:
    """What was recorded within the block is in the list afterwards."""
    got: list[Recording] = []
    recorder = record(**options)
    try:
        yield got
    finally:
        got.append(recorder.stop())


def recorded(main: Main, **options: Any) -> Recording:
    with recording(**options) as got:
        aio.run(main())
    return got[0]


def named(got: Recording, name: str) -> Task:
    (found,) = (task for task in got.tasks if task.name == name)
    return found


def kinds(task: Task) -> list[tuple[str, str]]:
    return [(wait.kind, wait.what) for wait in task.waits]


async def nap(seconds: float = 0.001) -> str:
    await aio.sleep(seconds)
    return "rested"


def test_a_task_has_its_name_its_code_its_maker_and_its_end() -> None:
    async def fail() -> None:
        raise ValueError

    async def main() -> None:
        tasks = [
            aio.create_task(nap(), name="good"),
            aio.create_task(fail(), name="bad"),
            aio.create_task(nap(60), name="unwanted"),
        ]
        await aio.sleep(0)
        await aio.sleep(0)
        tasks[2].cancel()
        await aio.wait(tasks)
        with contextlib.suppress(ValueError):
            await tasks[1]

    got = recorded(main)
    root = got.tasks[0]
    assert root.runs.endswith("main")
    assert root.outcome is Outcome.RESULT
    line = main.__code__.co_firstlineno
    for offset, (name, runs, outcome) in enumerate(
        [
            ("good", "nap", Outcome.RESULT),
            ("bad", "fail", Outcome.EXCEPTION),
            ("unwanted", "nap", Outcome.CANCELLED),
        ]
    ):
        task = named(got, name)
        assert task.runs.endswith(runs)
        assert task.outcome is outcome
        assert task.parent is root
        assert task.place is not None
        assert (task.place.file, task.place.line) == (__file__, line + 2 + offset)
    assert [by for _, by in named(got, "unwanted").cancels] == [root]


def test_tasks_without_a_name_have_asyncios() -> None:
    names: list[str] = []

    async def main() -> None:
        task = aio.create_task(nap())
        await task
        names.append(task.get_name())

    got = recorded(main)
    assert [task.name for task in got.tasks if task.runs == "nap"] == names


def test_what_is_waited_for() -> None:
    async def main() -> None:
        lock, queue, event = aio.Lock(), aio.Queue[int](), aio.Event()

        async def locking() -> None:
            async with lock:
                pass

        async def getting() -> int:
            return await queue.get()

        async def waiting() -> None:
            await event.wait()

        await lock.acquire()
        tasks = [
            aio.create_task(locking(), name="lock"),
            aio.create_task(getting(), name="queue"),
            aio.create_task(waiting(), name="event"),
        ]
        await aio.sleep(0.001)
        lock.release()
        queue.put_nowait(1)
        event.set()
        await aio.gather(*tasks)
        await aio.create_task(nap(), name="child")
        await aio.to_thread(time.sleep, 0)
        async with aio.TaskGroup() as group:
            group.create_task(nap())

    got = recorded(main)
    root = got.tasks[0]
    assert kinds(root) == [
        ("sleep", "sleep"),
        ("gather", "gather"),
        ("task", "Task"),
        ("thread", "to_thread"),
        ("future", "TaskGroup.__aexit__"),
    ]
    assert [wait.outside for wait in root.waits] == [True, False, False, True, False]
    assert root.waits[2].task is named(got, "child")
    call = root.waits[3].call
    assert call is not None
    assert call.begun is not None
    assert call.ended is not None
    assert call.made <= call.begun <= call.ended
    assert got.calls == [call]
    assert kinds(named(got, "lock")) == [("future", "Lock.acquire")]
    assert kinds(named(got, "queue")) == [("future", "Queue.get")]
    assert kinds(named(got, "event")) == [("future", "Event.wait")]
    for wait in root.waits:
        assert wait.place is not None
        assert wait.place.file == __file__
        assert wait.place.function.endswith("main")


def test_steps_and_waits_take_turns() -> None:
    async def main() -> None:
        for _ in range(3):
            await aio.sleep(0)
            await nap()

    task = recorded(main).tasks[0]
    assert [wait.kind for wait in task.waits] == ["ready", "sleep"] * 3
    assert len(task.steps) == 7
    assert task.ended is not None
    times = [task.created]
    for step, wait in zip(task.steps, task.waits, strict=False):
        times += [step.begin, step.end]
        assert (wait.begin, wait.end) == (step.end, task.steps[task.steps.index(step) + 1].begin)
    assert times == sorted(times)
    assert task.steps[-1].end == task.ended


def test_tasks_of_one_loop_never_step_at_once() -> None:
    async def main() -> None:
        await aio.gather(*(nap(0.0001 * number) for number in range(20)))

    got = recorded(main)
    steps = sorted((step.begin, step.end) for task in got.tasks for step in task.steps)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(steps))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_an_eager_tasks_first_step_lies_in_its_makers() -> None:
    async def quick() -> int:
        return 1

    async def main() -> None:
        aio.get_running_loop().set_task_factory(aio.eager_task_factory)  # type: ignore[attr-defined]
        await aio.create_task(quick(), name="quick")
        await aio.create_task(nap(), name="slow")

    got = recorded(main)
    root, quick_one, slow = got.tasks[0], named(got, "quick"), named(got, "slow")
    assert len(quick_one.steps) == 1
    assert quick_one.outcome is Outcome.RESULT
    assert len(slow.steps) == 2
    first = root.steps[0]
    for task in (quick_one, slow):
        assert first.begin <= task.steps[0].begin <= task.steps[0].end <= first.end


def test_two_loops_in_two_threads_share_a_recording() -> None:
    def run(name: str) -> None:
        async def main() -> None:
            await aio.create_task(nap(), name=name)

        aio.run(main())

    with recording() as got:
        threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name in ("one", "two"):
        task = named(got[0], name)
        assert kinds(task) == [("sleep", "sleep")]
        assert task.outcome is Outcome.RESULT


def test_a_recording_begins_and_ends_while_a_loop_runs() -> None:
    async def main() -> Recording:
        before = aio.create_task(nap(0.002), name="before")
        await aio.sleep(0)
        recorder: Recorder = record()
        await aio.create_task(nap(), name="within")
        await before
        got = recorder.stop()
        await aio.create_task(nap(), name="after")
        return got

    got = aio.run(main())
    assert "after" not in [task.name for task in got.tasks]
    assert kinds(named(got, "within")) == [("sleep", "sleep")]
    # Those that were there are known, and what they wait for; not who made them.
    before = named(got, "before")
    assert (before.runs, before.parent, before.place) == ("nap", None, None)
    assert kinds(before) == [("sleep", "sleep")]
    assert before.outcome is Outcome.RESULT
    (running,) = (task for task in got.tasks if task.runs.endswith("main"))
    assert running.outcome is None
    assert ("task", "Task") in kinds(running) or running.waits == []


def test_a_task_has_the_number_that_snapshots_give_it() -> None:
    async def main() -> dict[str, int]:
        child = aio.create_task(nap(60), name="child")
        await aio.sleep(0)
        shown = {task.name: task.id for task in rondel.inspect.tasks()}
        child.cancel()
        await aio.wait([child])
        return shown

    shown: dict[str, int] = {}
    with recording() as got:
        shown = aio.run(main())
    known = {task.name: task.id for task in got[0].tasks}
    assert {name: known[name] for name in shown} == shown
    assert len(got[0].by_id()) == len(known)
    child = got[0].by_id()[shown["child"]]
    assert child.name == "child"
    assert child.parent is got[0].tasks[0]


def test_what_a_task_has_used() -> None:
    async def busy() -> None:
        for _ in range(3):
            end = time.perf_counter() + 0.02
            while time.perf_counter() < end:
                pass
            await aio.sleep(0.03)

    async def main() -> None:
        await aio.create_task(busy(), name="busy")

    got = recorded(main)
    task = named(got, "busy")
    used = got.usage()[task.id]
    assert (used.steps, used.ready) == (4, 0)
    assert used.running == task.running >= 3 * 0.02
    assert used.suspended == task.suspended >= 3 * 0.03
    assert task.ended is not None
    # Its steps and waits are its life from its first step on, without a gap.
    life = task.ended - task.steps[0].begin
    assert used.running + used.suspended == pytest.approx(life)
    assert got.usage()[got.tasks[0].id].suspended >= used.running


def test_times_are_those_of_the_loops_clock() -> None:
    async def main() -> tuple[float, float]:
        loop = aio.get_running_loop()
        await aio.sleep(0)
        before = loop.time()
        await aio.sleep(0.05)
        return before, loop.time()

    times: list[tuple[float, float]] = []
    with recording() as got:
        times.append(aio.run(main()))
    ((before, after),) = times
    wait = next(wait for wait in got[0].tasks[0].waits if wait.kind == "sleep")
    # It lies within the two readings: the processor's ticks are turned into seconds rightly.
    assert 0.045 <= wait.seconds <= after - before


def test_a_step_woken_by_another_runtimes_future_is_a_step() -> None:
    async def main() -> None:
        loop = aio.get_running_loop()
        foreign = asyncio.futures._PyFuture(loop=loop)  # type: ignore[attr-defined]
        loop.call_soon(foreign.set_result, None)
        await foreign

    task = recorded(main).tasks[0]
    assert [wait.kind for wait in task.waits] == ["future"]
    assert len(task.steps) == 2
    assert task.steps[1].begin == task.waits[0].end
    assert task.outcome is Outcome.RESULT


def test_a_hop_of_the_bridge_is_a_call_in_a_thread() -> None:
    from asgiref.sync import async_to_sync, sync_to_async

    from rondel import bridge

    async def inner() -> int:
        await nap()
        return threading.get_ident()

    def blocking() -> tuple[int, int]:
        return threading.get_ident(), async_to_sync(inner)()

    async def main() -> tuple[int, int]:
        return await sync_to_async(blocking)()

    bridge.install()
    try:
        got = recorded(main)
    finally:
        bridge.uninstall()
    (call,) = got.calls
    assert call.runs.endswith("blocking")
    assert call.begun is not None
    assert call.ended is not None
    assert call.made <= call.begun <= call.ended
    (wait,) = (wait for wait in got.tasks[0].waits if wait.call is call)
    assert wait.kind == "thread"
    assert wait.end >= call.ended


def test_the_first_step_after_a_pause_begins_when_it_does() -> None:
    async def main() -> None:
        loop = aio.get_running_loop()
        loop.call_later(0.05, lambda: None)
        await aio.sleep(0)
        await aio.sleep(0.02)
        await aio.sleep(0)

    got = recorded(main)
    task = got.tasks[0]
    # No step reaches over the time in which the loop slept.
    for poll in got.polls:
        assert all(step.end <= poll.begin or step.begin >= poll.end for step in task.steps)


def test_what_is_over_the_limit_is_counted() -> None:
    async def main() -> None:
        for _ in range(100):
            await aio.sleep(0)

    got = recorded(main, limit=50)
    assert got.lost > 50
    assert len(got.tasks[0].steps) < 50


def test_without_details_there_are_no_places() -> None:
    async def main() -> None:
        await aio.create_task(nap(), name="child")

    got = recorded(main, details=False)
    assert named(got, "child").place is None
    assert [wait.kind for wait in got.tasks[0].waits] == ["task"]
    assert all(wait.place is None for task in got.tasks for wait in task.waits)


# A hook can't be taken away, so it lives in a process of its own.
WATCHED = """
import sys
import rondel as aio
from rondel.inspect.recording import record

async def rest():
    await aio.sleep(0)

seen = []
watching = False

def hook(event, args):
    if watching and event == "object.__getattr__":
        seen.append(args[-1])

async def main():
    global watching
    watching = True
    await aio.create_task(rest(), name="child")
    watching = False

sys.addaudithook(hook)
recorder = record(details=False)
aio.run(main())
tasks = recorder.stop().tasks
assert [task.runs for task in tasks[:2]] == ["main", "rest"], tasks
print(seen)
"""


def test_what_a_task_runs_is_looked_up_past_auditors() -> None:
    """Reading `cr_code` by name is an audited event before 3.12, and costs as much as the task."""
    child = subprocess.run(
        [sys.executable, "-c", WATCHED], check=True, capture_output=True, text=True, timeout=60
    )
    assert child.stdout == "[]\n"


def test_one_recording_at_a_time() -> None:
    recorder = record()
    try:
        with pytest.raises(RuntimeError, match="going on already"):
            record()
    finally:
        recorder.stop()
    with pytest.raises(RuntimeError, match="nothing is being recorded"):
        recorder.stop()


def test_an_exception_that_ends_the_loop_goes_on() -> None:
    async def main() -> None:
        raise SystemExit(3)

    with recording() as got, pytest.raises(SystemExit) as ended:
        aio.run(main())
    assert ended.value.code == 3
    assert got[0].tasks[0].outcome is Outcome.EXCEPTION
