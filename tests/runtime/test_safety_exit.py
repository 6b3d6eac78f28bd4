"""The end of the interpreter, and forks, with loops in every state.

The child must end by itself with status 0: no crash in a finalizer, no hang in a thread.
"""

import asyncio
import atexit
import gc
import os
import sys
import threading
import time
from typing import Any

from tests.runtime.child import Child, in_child

KEPT: list[Any] = []  # alive until the module's end


def left_to_the_end(child: Child) -> None:
    """Nothing of this child is closed or collected before the interpreter goes."""
    child.loops.clear()
    gc.disable()


@in_child(stderr=None)
def test_exit_with_pending_tasks_timers_and_futures(child: Child) -> None:
    loop = child.aio.new_event_loop()

    async def waits() -> None:
        await loop.create_future()

    async def closes_late() -> None:
        try:
            await child.aio.sleep(1000)
        finally:
            asyncio.all_tasks(loop)
            await child.aio.sleep(0)

    async def main() -> None:
        KEPT.append(loop.create_task(waits()))
        KEPT.append(loop.create_task(closes_late()))
        KEPT.append(loop.call_later(1000, print, "never"))
        KEPT.append(child.aio.gather(waits(), closes_late()))
        failed = loop.create_future()
        failed.set_exception(ValueError("not retrieved"))
        KEPT.append(failed)
        timeout = child.aio.timeout(1000)
        await timeout.__aenter__()
        KEPT.append(timeout)
        loop.create_task(waits())
        await child.aio.sleep(0)
        await child.aio.sleep(0)

    loop.run_until_complete(main())
    KEPT.append(loop)
    left_to_the_end(child)


@in_child(stderr=None)
def test_exit_in_debug_mode_names_what_was_pending(child: Child) -> None:
    # No file can be read and no module imported any more: all that a report says must be there.
    loop = child.aio.new_event_loop()
    loop.set_debug(True)

    def report(
        _loop: Any,
        context: dict[str, Any],
        show: Any = loop.default_exception_handler,
        write: Any = os.write,
        leave: Any = os._exit,
    ) -> None:
        try:
            show(context)
        except BaseException as error:
            write(2, f"reporting failed with {type(error).__name__}: {error}\n".encode())
            leave(1)

    loop.set_exception_handler(report)
    KEPT.append(loop.create_task(child.aio.sleep(1000)))
    child.turns(loop)
    KEPT.append(loop)
    left_to_the_end(child)


@in_child(stderr=None)
def test_exit_with_cycles_nobody_collects(child: Child) -> None:
    loop = child.aio.new_event_loop()

    class Cycle:
        def __init__(self, held: Any) -> None:
            self.myself, self.held = self, held

        def __del__(self) -> None:
            repr(self.held)
            if not loop.is_closed():
                loop.call_soon(print)

    async def waits(held: Any) -> None:
        await held

    for _ in range(10):
        future = loop.create_future()
        Cycle(future)
        Cycle(loop.create_task(waits(future)))
        Cycle(loop.call_later(1, print))
        Cycle(loop)
    child.turns(loop)
    left_to_the_end(child)


@in_child(stderr=None)
def test_exit_inside_a_running_loop(child: Child) -> None:
    # sys.exit() in a task; what is left of the loop dies with the interpreter.
    print("returned", flush=True)

    async def main() -> None:
        KEPT.append(child.aio.get_running_loop().create_task(child.aio.sleep(100)))
        await child.aio.sleep(0)
        sys.exit(0)

    loop = child.aio.new_event_loop()
    KEPT.append(loop)
    left_to_the_end(child)
    try:
        loop.run_until_complete(main())
    except SystemExit:
        return


def leave_a_daemon_thread(child: Child, work: Any) -> None:
    started = threading.Event()

    def run() -> None:
        loop = child.aio.new_event_loop()
        loop.call_soon(started.set)
        loop.run_until_complete(work(loop))

    threading.Thread(target=run, daemon=True).start()
    started.wait()
    left_to_the_end(child)


@in_child(stderr=None)
def test_exit_with_an_idle_loop_in_a_daemon_thread(child: Child) -> None:
    async def work(loop: Any) -> None:
        await loop.create_future()

    leave_a_daemon_thread(child, work)


@in_child(stderr=None)
def test_exit_with_a_busy_loop_in_a_daemon_thread(child: Child) -> None:
    async def work(loop: Any) -> None:
        while True:
            await child.aio.sleep(0)

    leave_a_daemon_thread(child, work)


@in_child(stderr=None)
def test_exit_with_a_loop_full_of_work_in_daemon_threads(child: Child) -> None:
    async def work(loop: Any) -> None:
        async def child_work() -> None:
            while True:
                async with child.aio.timeout(10):
                    await child.aio.gather(child.aio.sleep(0), child.aio.sleep(0.0001))
                loop.call_later(0.0001, sum, range(1000))
                future = loop.create_future()
                future.add_done_callback(repr)
                future.set_result(sorted(range(1000)))

        await child.aio.gather(*(child_work() for _ in range(10)))

    for _ in range(4):
        leave_a_daemon_thread(child, work)
    time.sleep(0.05)  # at exit they should be somewhere in it, wherever that is


@in_child(stderr=None)
def test_a_loop_that_runs_at_exit(child: Child) -> None:
    def last() -> None:
        loop = child.aio.new_event_loop()

        async def main() -> str:
            await child.aio.gather(child.aio.sleep(0), child.aio.sleep(0.001))
            return "ran"

        assert loop.run_until_complete(main()) == "ran"
        KEPT.append(loop.create_task(child.aio.sleep(1)))
        loop.close()

    atexit.register(last)


@in_child(stderr=None)
def test_loops_and_tasks_that_module_teardown_finds(child: Child) -> None:
    class AtTheEnd:
        """Used when most modules are gone."""

        def __init__(self) -> None:
            self.loop = child.aio.new_event_loop()
            self.future = self.loop.create_future()
            self.task = self.loop.create_task(child.aio.sleep(1))

        def __del__(self) -> None:
            repr(self.future)
            self.future.add_done_callback(print)
            self.task.cancel()
            self.future.set_exception(ValueError("late"))
            self.loop.call_soon(print)
            self.loop.close()

    sys.modules["zzz_kept"] = AtTheEnd()  # type: ignore[assignment]
    left_to_the_end(child)


@in_child
def test_a_fork_in_a_running_loop(child: Child) -> None:
    loop = child.new_loop()

    async def in_the_fork() -> int:
        await child.aio.gather(child.aio.sleep(0.001), child.aio.sleep(0.002))
        async with child.aio.timeout(5):
            assert await loop_of_fork().run_in_executor(None, int, "7") == 7
        return 7

    def loop_of_fork() -> Any:
        return child.aio.get_running_loop()

    async def main() -> list[int]:
        ticks = child.aio.create_task(child.aio.sleep(0.05))
        children = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    inherited = [loop.create_future(), loop.create_task(child.aio.sleep(0))]
                    status = 0 if child.aio.run(in_the_fork()) == 7 else 2
                    del inherited
                    gc.collect()
                finally:
                    os._exit(status)
            children.append(pid)
        await ticks
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]

    import warnings

    warnings.simplefilter("ignore")  # 3.12: forks beside threads
    assert child.run(main(), loop) == [0, 0, 0]


@in_child(stderr=None)
def test_a_fork_that_leaves_by_unwinding_the_running_loop(child: Child) -> None:
    # The fork raises out of the loop that runs; the interpreter then ends as always.
    loop = child.new_loop()

    class Leave(BaseException):
        pass

    async def main() -> int:
        pid = os.fork()
        if pid == 0:
            raise SystemExit(0)
        await child.aio.sleep(0.01)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    import warnings

    warnings.simplefilter("ignore")
    mine = os.getpid()
    try:
        status = child.run(main(), loop)
    finally:
        if os.getpid() != mine:
            del loop
            gc.collect()
            os._exit(0)
    assert status == 0


@in_child(stderr=None)
def test_forks_while_threads_run_loops(child: Child) -> None:
    stop = threading.Event()

    async def work() -> None:
        while not stop.is_set():
            await child.aio.gather(child.aio.sleep(0), child.aio.sleep(0.0001))

    threads = [threading.Thread(target=lambda: child.aio.run(work())) for _ in range(3)]
    for thread in threads:
        thread.start()
    import warnings

    warnings.simplefilter("ignore")
    try:
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    asyncio.all_tasks(child.aio.new_event_loop())
                    status = child.aio.run(child.aio.sleep(0.001, 0))
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
