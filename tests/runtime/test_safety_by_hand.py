"""What the loop does, done by hand: handles run, steps taken, sleeps yielded."""

import contextvars
import sys
import threading
from typing import Any

from tests.runtime.child import Child, in_child, rondel_only
from tests.runtime.reentry import hand_over, wait_on

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


@in_child
def test_a_sleep_yielded_by_hand_is_a_bad_yield(child: Child) -> None:
    loop = child.new_loop()

    async def main() -> None:
        sleep = child.aio.sleep(1)
        try:
            await loop.create_task(hand_over(sleep))
        except RuntimeError as error:
            assert "Task got bad yield: <coroutine object sleep" in str(error), error
        else:
            raise AssertionError("no RuntimeError")
        sleep.close()

    child.run(main(), loop)


@in_child
def test_a_sleep_awaited_by_two(child: Child) -> None:
    loop = child.new_loop()

    async def main() -> None:
        for delay in (0, 0.001):
            sleep = child.aio.sleep(delay, "slept")
            both = await child.aio.gather(wait_on(sleep), wait_on(sleep), return_exceptions=True)
            assert both[0] == "slept", both
            assert str(both[1]) == "coroutine is being awaited already", both

    child.run(main(), loop)


@in_child
def test_handles_run_by_hand_leave_the_contexts_alone(child: Child) -> None:
    loop = child.new_loop()
    seen: list[Any] = []

    def inner() -> None:
        seen.append(("inner", var.get()))
        var.set("inner's")

    def outer() -> None:
        var.set("outer's")
        loop.call_later(1000, inner)._run()
        seen.append(("after", var.get()))
        contextvars.copy_context().run(nested)
        seen.append(("after nested", var.get()))

    def nested() -> None:
        var.set("nested")
        loop.call_later(1000, inner)._run()
        seen.append(("nested", var.get()))

    loop.call_soon(outer)
    child.turns(loop)
    assert seen == [
        ("inner", "outer's"),
        ("after", "outer's"),
        ("inner", "nested"),
        ("nested", "nested"),
        ("after nested", "outer's"),
    ]


# asyncio's timers are not for other threads.
@in_child(ways=rondel_only)
def test_a_handle_run_by_hand_in_another_thread(child: Child) -> None:
    loop = child.new_loop()
    stop = threading.Event()
    runs: list[str] = []

    def runs_handles() -> None:
        while not stop.is_set():
            handle = loop.call_later(1000, lambda: runs.append(var.get()))
            handle._run()
            handle.cancel()

    async def main() -> None:
        sys.setswitchinterval(1e-5)
        var.set("the task's")
        thread = threading.Thread(target=runs_handles)
        thread.start()
        while len(runs) < 200:
            await child.aio.sleep(0)
            assert var.get() == "the task's"
        stop.set()
        await loop.run_in_executor(None, thread.join)

    child.run(main(), loop)
    assert set(runs) == {"unset"}


# asyncio 3.12 on takes the first step in the wrong thread, beside the running loop's.
@in_child(ways=rondel_only)
def test_an_eager_task_made_in_another_thread_starts_on_its_loop(child: Child) -> None:
    loop = child.new_loop()
    stop = threading.Event()
    tasks: list[Any] = []

    async def where() -> Any:
        await child.aio.sleep(0)
        return threading.get_ident()

    def makes_tasks() -> None:
        while not stop.is_set():
            tasks.append(child.aio.Task(where(), loop=loop, eager_start=True))

    async def main() -> None:
        thread = threading.Thread(target=makes_tasks)
        sys.setswitchinterval(1e-5)
        thread.start()
        while len(tasks) < 100:
            await child.aio.sleep(0)
        stop.set()
        await loop.run_in_executor(None, thread.join)
        assert set(await child.aio.gather(*tasks)) == {threading.get_ident()}

    child.run(main(), loop)


@in_child
def test_a_step_taken_by_hand(child: Child) -> None:
    loop = child.new_loop()

    async def calls(wakeup: Any, future: Any) -> str:
        try:
            wakeup(future)
        except RuntimeError as error:
            return str(error)
        return "taken"

    async def main() -> None:
        future = loop.create_future()
        task = loop.create_task(wait_on(future))
        await child.aio.sleep(0)
        wakeup = future._callbacks[0][0]
        future.set_result(3)
        said = await loop.create_task(calls(wakeup, future))
        assert said.startswith("Cannot enter into task"), said
        assert await task == 3

    child.run(main(), loop)
