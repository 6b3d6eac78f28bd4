"""Trees of known shape come out exactly: who created whom, and what each task waits for."""

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async

import rondel
import rondel.inspect
from rondel import bridge
from rondel.inspect import Task

Main = Callable[[], Coroutine[Any, Any, None]]


def found() -> dict[str, Task]:
    return {task.name: task for task in rondel.inspect.tasks()}


def functions(task: Task) -> list[str]:
    return [frame.function.rpartition(".")[2] for frame in task.stack]


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await rondel.sleep(0)


async def leaf() -> None:
    await rondel.sleep(100)


async def middle() -> None:
    await leaf()


async def cancelled(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await rondel.gather(*tasks, return_exceptions=True)


def test_a_chain_of_coroutines_names_each_and_the_sleep_below() -> None:
    async def main() -> None:
        task = rondel.create_task(middle(), name="chain")
        await settle()
        seen = found()["chain"]
        assert functions(seen) == ["middle", "leaf"]
        assert [frame.file for frame in seen.stack] == [__file__, __file__]
        assert seen.stack[1].line == leaf.__code__.co_firstlineno + 1
        assert (seen.state, seen.coro) == ("sleeping", "middle")
        assert seen.waits_for is not None and seen.waits_for.left is not None
        assert seen.waits_for.kind == "sleep" and 0 < seen.waits_for.left <= 100
        assert seen.parent == found()["main"].id
        await cancelled(task)

    run(main)


def run(main: Main) -> None:
    async def named() -> None:
        current = rondel.current_task()
        assert current is not None
        current.set_name("main")
        await main()

    rondel.run(named())


def test_a_group_s_tasks_are_its_task_s_children() -> None:
    async def group() -> None:
        async with rondel.TaskGroup() as tasks:
            tasks.create_task(leaf(), name="one")
            tasks.create_task(middle(), name="two")

    async def main() -> None:
        task = rondel.create_task(group(), name="group")
        await settle()
        seen, tree = found(), rondel.inspect.tree()
        assert seen["group"].waits_for is not None
        assert seen["group"].waits_for.call == "TaskGroup.__aexit__"
        assert [child.name for child in tree.children(seen["group"])] == ["one", "two"]
        assert [root.name for root in tree.roots] == ["main"]
        await cancelled(task)

    run(main)


def test_a_gather_counts_and_names_what_it_waits_for() -> None:
    async def both() -> None:
        await rondel.gather(leaf(), rondel.sleep(0), middle())

    async def main() -> None:
        task = rondel.create_task(both(), name="both")
        await settle()
        seen = found()
        wait = seen["both"].waits_for
        assert wait is not None
        assert (wait.kind, wait.done, wait.total) == ("gather", 1, 3)
        children = rondel.inspect.tree().children(seen["both"])
        assert tuple(child.id for child in children) == wait.tasks
        assert [child.coro for child in children] == ["leaf", "middle"]
        await cancelled(task)

    run(main)


async def _taken(make: Callable[[], Any]) -> Any:
    lock = make()
    await lock.acquire()
    return lock


async def _full() -> "rondel.Queue[int]":
    queue: rondel.Queue[int] = rondel.Queue(1)
    await queue.put(1)
    return queue


async def _as(make: Callable[[], Any]) -> Any:
    return make()


async def _enter(lock: Any) -> None:
    async with lock:
        pass


async def _notified(condition: rondel.Condition) -> None:
    async with condition:
        await condition.wait()


@pytest.mark.parametrize(
    ("make", "wait", "call", "what"),
    [
        (lambda: _taken(rondel.Lock), _enter, "Lock.__aenter__", "Lock"),
        (lambda: _taken(rondel.Lock), lambda lock: lock.acquire(), "Lock.acquire", "Lock"),
        (
            lambda: _as(lambda: rondel.Semaphore(0)),
            lambda semaphore: semaphore.acquire(),
            "Semaphore.acquire",
            "Semaphore",
        ),
        (lambda: _as(rondel.Event), lambda event: event.wait(), "Event.wait", "Event"),
        (lambda: _as(rondel.Condition), _notified, "Condition.wait", "Condition"),
        (
            lambda: _as(lambda: rondel.Barrier(2)),
            lambda barrier: barrier.wait(),
            "Barrier.wait",
            "Barrier",
        ),
        (lambda: _as(rondel.Queue), lambda queue: queue.get(), "Queue.get", "Queue"),
        (_full, lambda queue: queue.put(2), "Queue.put", "Queue"),
        (_full, lambda queue: queue.join(), "Queue.join", "Queue"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_lock_or_queue_is_named(
    make: Callable[[], Awaitable[Any]], wait: Callable[[Any], Any], call: str, what: str
) -> None:
    async def main() -> None:
        owner = await make()

        async def waits() -> None:
            await wait(owner)

        task = rondel.create_task(waits(), name="waits")
        await settle()
        seen = found()["waits"].waits_for
        assert seen is not None
        assert (seen.kind, seen.call) == ("call", call)
        assert seen.what == f"<{what} at {id(owner):#x}>"
        await cancelled(task)

    run(main)


def test_waiting_for_a_task_names_it() -> None:
    async def main() -> None:
        target = rondel.create_task(leaf(), name="target")

        async def waits() -> None:
            await target

        task = rondel.create_task(waits(), name="waits")
        await settle()
        seen = found()
        wait = seen["waits"].waits_for
        assert wait is not None
        assert (wait.kind, wait.what, wait.tasks) == ("task", "target", (seen["target"].id,))
        await cancelled(task, target)

    run(main)


def blocks(release: threading.Event) -> None:
    release.wait()


class Gate:
    """A bound method, and an object that can be called."""

    def __init__(self, release: threading.Event) -> None:
        self.release = release

    def waits(self) -> None:
        blocks(self.release)

    def __call__(self) -> None:
        blocks(self.release)


WAYS: dict[str, Callable[[threading.Event], Awaitable[Any]]] = {
    "to_thread": lambda release: rondel.to_thread(blocks, release),
    "run_in_executor": lambda release: rondel.get_running_loop().run_in_executor(
        None, blocks, release
    ),
    "another executor": lambda release: rondel.get_running_loop().run_in_executor(
        ANOTHER, blocks, release
    ),
    "sync_to_async": lambda release: sync_to_async(blocks)(release),
    "any thread": lambda release: sync_to_async(blocks, thread_sensitive=False)(release),
    "a partial": lambda release: rondel.to_thread(partial(partial(blocks), release)),
    "its context": lambda release: rondel.get_running_loop().run_in_executor(
        None, partial(contextvars.copy_context().run, blocks, release)
    ),
    "a method": lambda release: sync_to_async(Gate(release).waits)(),
    "built in": lambda release: rondel.to_thread(release.wait),
    "an object": lambda release: rondel.to_thread(Gate(release)),
}
NAMES = {
    "a method": f"{__name__}.Gate.waits",
    "built in": "threading.Event.wait",
    "an object": "Gate",
}
CALLS = {
    "sync_to_async": "SyncToAsync.__call__",
    "any thread": "SyncToAsync.__call__",
    "a method": "SyncToAsync.__call__",
    "run_in_executor": "run_in_executor",
    "another executor": "run_in_executor",
    "its context": "run_in_executor",
}
ANOTHER = ThreadPoolExecutor(1)


@pytest.mark.parametrize("way", WAYS)
def test_a_thread_s_function_is_named(way: str) -> None:
    bridge.install()

    async def main() -> None:
        release = threading.Event()

        async def waits() -> None:
            await WAYS[way](release)

        task = rondel.create_task(waits(), name="waits")
        await settle()
        wait = found()["waits"].waits_for
        release.set()
        assert wait is not None
        assert (wait.kind, wait.call) == ("thread", CALLS.get(way, "to_thread"))
        assert wait.what == NAMES.get(way, f"{__name__}.blocks")
        await task

    run(main)


def test_generators_and_awaitables_of_the_program_are_links() -> None:
    class Awaitable:
        def __await__(self) -> Any:
            yield from leaf().__await__()

    async def generates() -> Any:
        await Awaitable()
        yield 1

    async def main() -> None:
        async def waits() -> None:
            async for _ in generates():
                pass

        task = rondel.create_task(waits(), name="waits")
        await settle()
        assert functions(found()["waits"]) == ["waits", "generates", "__await__", "leaf"]
        await cancelled(task)

    run(main)


def test_states_of_tasks_that_do_not_wait() -> None:
    async def main() -> None:
        task = rondel.create_task(leaf(), name="new")
        seen = found()
        assert (seen["new"].state, seen["main"].state) == ("created", "running")
        assert seen["main"].waits_for is None
        await settle()
        task.cancel()
        assert (found()["new"].state, found()["new"].cancels) == ("ready", 1)
        await cancelled(task)

    run(main)


def test_asyncio_s_own_functions_on_this_loop_are_named_as_well() -> None:
    async def main() -> None:
        lock = asyncio.Lock()
        await lock.acquire()

        async def waits() -> None:
            async with lock:
                pass

        task = asyncio.create_task(waits(), name="waits")
        await settle()
        wait = found()["waits"].waits_for
        assert wait is not None and (wait.kind, wait.call) == ("call", "Lock.acquire")
        await cancelled(task)

    with asyncio.Runner(loop_factory=rondel.new_event_loop) as runner:
        runner.run(main())


def test_two_loops_in_two_threads_are_both_seen_from_either() -> None:
    started, release = threading.Event(), threading.Event()

    def other() -> None:
        async def main() -> None:
            task = rondel.create_task(leaf(), name="other's")
            await settle()
            started.set()
            while not release.is_set():
                await rondel.sleep(0.001)
            await cancelled(task)

        run(main)

    async def main() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        assert started.wait(60)
        try:
            seen = found()
            assert functions(seen["other's"]) == ["leaf"]
            loops = {one.id: one.thread for one in rondel.inspect.stats()}
            assert loops[seen["other's"].loop] == thread.ident
            assert threading.get_ident() in loops.values()
        finally:
            release.set()
            thread.join()

    run(main)


def test_nothing_of_the_program_is_run() -> None:
    class Loud(rondel.Lock):
        def __repr__(self) -> str:
            raise AssertionError("a repr was asked for")

    async def main() -> None:
        lock = Loud()
        await lock.acquire()
        task = rondel.create_task(lock.acquire(), name="waits")
        await settle()
        assert "Loud at" in str(rondel.inspect.tree())
        await cancelled(task)

    run(main)


def test_a_hundred_thousand_tasks_are_one_line() -> None:
    async def main() -> None:
        count = 100_000
        gate = rondel.Event()

        async def waits() -> None:
            await gate.wait()

        async with rondel.TaskGroup() as group:
            for _ in range(count):
                group.create_task(waits())
            await settle()
            lines = str(rondel.inspect.tree()).splitlines()
            gate.set()
        assert [line for line in lines if f"{count} × " in line]
        assert len(lines) < 10

    run(main)


def test_counters_count() -> None:
    async def main() -> None:
        before = rondel.inspect.stats()[0]
        for _ in range(1000):
            await rondel.sleep(0)
        await rondel.sleep(0.01)
        after = rondel.inspect.stats()[0]
        assert after.id == before.id and after.phase == "awake"
        assert after.steps - before.steps >= 1001
        assert after.turns - before.turns >= 1000
        assert sum(after.lag) > sum(before.lag)
        assert 0 <= after.busy <= 1

    run(main)
