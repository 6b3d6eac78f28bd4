"""Many loops in many threads, and threads that reach into each other's loops."""

import asyncio
import contextlib
import gc
import random
import sys
import threading
import time
from typing import Any

from tests.runtime.child import Child, in_child, rondel_only


async def give(value: Any) -> Any:
    return value


def run_threads(works: list[Any]) -> None:
    """Run each in a thread; the first exception of any is raised here."""
    failures: list[BaseException] = []

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@in_child
def test_a_loop_in_each_of_many_threads(child: Child) -> None:
    sys.setswitchinterval(1e-5)
    rounds = 10 if child.way != "rondel-gc" else 2

    async def echo(value: int) -> int:
        await child.aio.sleep(0)
        return value

    async def main() -> None:
        assert await child.aio.gather(*map(echo, range(50))) == list(range(50))
        assert asyncio.all_tasks() == {asyncio.current_task()}
        async with child.aio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(child.aio.sleep(0.0001))
        try:
            async with child.aio.timeout(0.0005):
                await child.aio.sleep(10)
        except TimeoutError:
            pass
        else:
            raise AssertionError("no TimeoutError")
        stock = asyncio.Task(echo(1), loop=asyncio.get_running_loop())
        assert await stock == 1

    def work() -> None:
        for _ in range(rounds):
            child.aio.run(main())

    run_threads([work] * 10)


@in_child
def test_a_storm_of_calls_from_threads(child: Child) -> None:
    sys.setswitchinterval(1e-5)
    loop = child.new_loop()
    each = 5000 if child.way != "rondel-gc" else 500
    seen = [0] * 4

    def call(which: int, number: int) -> None:
        assert seen[which] == number  # in order, none lost
        seen[which] += 1
        if all(count == each for count in seen):
            loop.stop()

    def work(which: int) -> None:
        for number in range(each):
            loop.call_soon_threadsafe(call, which, number)
            if number % 100 == 0:
                time.sleep(0)

    guard = loop.call_later(60, loop.stop)
    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    loop.run_forever()
    guard.cancel()
    for thread in threads:
        thread.join()
    assert seen == [each] * 4


# asyncio says that its loops are not thread-safe; Rondel's stay whole.
@in_child(ways=rondel_only)
def test_threads_that_use_a_loop_which_is_not_theirs(child: Child) -> None:
    sys.setswitchinterval(1e-5)
    loop = child.new_loop()
    stop = threading.Event()
    count = 0

    def called(*_: Any) -> None:
        nonlocal count
        count += 1

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            loop.call_soon(called)
            loop.call_soon_threadsafe(called)
            handle = loop.call_later(0.0001, called)
            if number % 3 == 0:
                handle.cancel()
            future = loop.create_future()
            future.add_done_callback(called)
            future.set_result(1)
            asyncio.all_tasks(loop)
            asyncio.current_task(loop)
            if number % 20 == 0:
                loop.create_task(give(1)).cancel()
            if number % 50 == 0:
                time.sleep(0)

    async def spin() -> None:
        for _ in range(50):
            await child.aio.sleep(0)

    async def main() -> None:
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            await child.aio.gather(*(spin() for _ in range(10)))
            async with child.aio.timeout(5):
                await child.aio.sleep(0.0005)
        stop.set()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    child.run(main(), loop)
    for thread in threads:
        thread.join()
    loop.run_until_complete(child.aio.sleep(0.001))
    assert count > 100


@in_child
def test_futures_of_two_loops_shared_and_dropped_at_random(child: Child) -> None:
    sys.setswitchinterval(1e-5)
    loops = [child.new_loop(), child.new_loop()]
    shared: list[Any] = []
    each = 1000 if child.way != "rondel-gc" else 100

    async def produce(loop: Any) -> None:
        chance = random.Random(7)
        for number in range(each):
            future = loop.create_future()
            future.add_done_callback(lambda _: None)
            future.set_result(number)
            failed = loop.create_future()
            failed.set_exception(ValueError(number))
            shared.extend((future, failed, loop.create_task(child.aio.sleep(0))))
            with contextlib.suppress(IndexError):
                shared.pop(chance.randrange(len(shared)))
            if number % 5 == 0:
                await child.aio.sleep(0)
        other = loops[0] if loop is loops[1] else loops[1]
        try:
            await other.create_future()
        except RuntimeError as error:
            assert "attached to a different loop" in str(error)

    run_threads([lambda loop=loop: loop.run_until_complete(produce(loop)) for loop in loops])
    shared.clear()
    gc.collect()
    assert set(child.messages()) == {"Future exception was never retrieved"}
    for loop in loops:
        child.turns(loop)


@in_child
def test_a_loop_made_here_run_there_and_closed_elsewhere(child: Child) -> None:
    for _ in range(10):
        loop = child.new_loop()
        kept = [loop.create_task(give(1)), loop.call_later(1000, print)]
        run_threads([lambda loop=loop: loop.run_until_complete(child.aio.sleep(0.001))])
        run_threads([loop.close])
        run_threads([kept.clear])
        child.loops.remove(loop)
        del loop
        run_threads([gc.collect])


@in_child
def test_collections_in_a_thread_while_loops_run(child: Child) -> None:
    sys.setswitchinterval(1e-5)
    stop = threading.Event()

    def collect() -> None:
        while not stop.is_set():
            gc.collect()
            for each in gc.get_objects()[-200:]:
                gc.get_referents(each)

    async def work() -> None:
        for _ in range(30):
            await child.aio.gather(child.aio.sleep(0), child.aio.sleep(0.0001))
            async with child.aio.TaskGroup() as group:
                for number in range(10):
                    group.create_task(give(number))

    def run() -> None:
        try:
            child.aio.run(work())
        finally:
            stop.set()

    run_threads([run, collect])
