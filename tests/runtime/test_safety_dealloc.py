"""The end of futures, tasks and what hangs on them: chains, resurrection, recycled memory.

An object's end runs Python code (finalizers, weak references' callbacks, exception handlers), which
may look at the half-dead object, revive it, or end the next one.
"""

import asyncio
import contextlib
import gc
import threading
import warnings
import weakref
from typing import Any

from tests.runtime.child import Child, in_child, rondel_only


async def wait_on(future: Any) -> Any:
    return await future


async def give(value: Any) -> Any:
    return value


# asyncio's own futures overflow C's stack here (seen on 3.12 and 3.13).
@in_child(ways=rondel_only)
def test_a_long_chain_of_results_is_freed(child: Child) -> None:
    gc.disable()
    loop = child.new_loop()
    ends = []
    for way in range(3):
        link = None
        for _ in range(100_000):
            if way == 0:
                future = loop.create_future()
                future.set_result(link)
            elif way == 1:
                future = loop.create_future()
                future.set_result([link, (link,)])
            else:
                future = loop.create_future()
                future.add_done_callback(lambda _, link=link: None)
            link = future
        weakref.finalize(link, ends.append, way)
        del future, link
    assert ends == [0, 1, 2]


@in_child(ways=rondel_only)
def test_a_long_chain_is_freed_in_a_thread_with_a_small_stack(child: Child) -> None:
    loop = child.new_loop()
    box: list[Any] = [None]
    for _ in range(50_000):
        future = loop.create_future()
        future.set_result(box[0])
        box[0] = future
    del future
    threading.stack_size(256 << 10)
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()


@in_child(ways=rondel_only)
def test_a_long_chain_with_a_finalizer_at_each_link(child: Child) -> None:
    # Each link reports its exception: the handler runs deep inside the chain's end, and there
    # frees chains of its own.
    loop = child.new_loop()
    seen = []

    def handler(_: Any, context: dict[str, Any]) -> None:
        seen.append(context["message"])
        link = None
        for _ in range(3):
            future = loop.create_future()
            future.set_result(link)
            link = future

    loop.set_exception_handler(handler)
    link = None
    for _ in range(3000):
        future = loop.create_future()
        future.set_exception(ValueError(link))
        link = future
    del link, future
    gc.collect()
    assert len(seen) == 3000


@in_child
def test_a_long_chain_of_tasks_that_await_each_other_ends(child: Child) -> None:
    loop = child.new_loop()
    length = 20_000 if child.way != "rondel-gc" else 2000

    async def main() -> None:
        first = link = loop.create_future()
        for _ in range(length):
            link = loop.create_task(wait_on(link))
        await child.aio.sleep(0)
        first.set_result("through")
        assert await link == "through"

    child.run(main(), loop)


@in_child
def test_a_long_chain_of_waiting_tasks_is_abandoned(child: Child) -> None:
    loop = child.new_loop()
    length = 20_000 if child.way != "rondel-gc" else 2000
    count = 0

    def handler(_: Any, context: dict[str, Any]) -> None:
        nonlocal count
        count += context["message"] == "Task was destroyed but it is pending!"

    loop.set_exception_handler(handler)

    async def main() -> None:
        link = loop.create_future()
        for _ in range(length):
            link = loop.create_task(wait_on(link))
        await child.aio.sleep(0)
        await child.aio.sleep(0)

    loop.run_until_complete(main())
    loop.close()
    gc.collect()
    assert count == length


@in_child
def test_cancelling_a_chain_longer_than_the_stack_is_an_error_that_leaves_it_whole(
    child: Child,
) -> None:
    loop = child.new_loop()

    async def main() -> None:
        first = link = loop.create_future()
        tasks = []
        length = 20_000
        for _ in range(length):
            link = loop.create_task(wait_on(link))
            tasks.append(link)
        await child.aio.sleep(0)
        await child.aio.sleep(0)
        try:
            link.cancel()
        except RecursionError:
            pass
        else:
            raise AssertionError("no RecursionError")
        first.set_result(1)
        done, pending = await child.aio.wait(tasks)
        assert len(done) == length and not pending

    child.run(main(), loop)


@in_child
def test_a_dying_task_is_not_in_all_tasks(child: Child) -> None:
    # A weak reference's callback and a subclass's slots run code after the last reference has gone.
    loop = child.new_loop()
    seen: list[int] = []

    class Looks:
        def __del__(self) -> None:
            seen.append(len(asyncio.all_tasks(loop)))

    class Slotted(child.aio.Task):  # type: ignore[misc, name-defined]
        __slots__ = ("more",)

    class Subclass(child.aio.Task):  # type: ignore[misc, name-defined]
        pass

    async def main() -> None:
        for task_class in (child.aio.Task, Slotted, Subclass):
            for _ in range(20):
                task = task_class(wait_on(loop.create_future()), loop=loop)
                if task_class is not child.aio.Task:
                    task.more = Looks()
                await child.aio.sleep(0)
                task._log_destroy_pending = False  # nothing has taken it off the list by then
                future = task._fut_waiter
                future.remove_done_callback(future._callbacks[0][0])
                reference = weakref.ref(task, lambda _: seen.append(len(asyncio.all_tasks(loop))))
                del future, task, reference
                task = task_class(wait_on(loop.create_future()), loop=loop)
                await child.aio.sleep(0)
                task._log_destroy_pending = False
                keep = weakref.ref(task, lambda _: seen.append(len(asyncio.all_tasks(loop))))
                task._fut_waiter.remove_done_callback(task._fut_waiter._callbacks[0][0])
                del task, keep

    child.run(main(), loop)
    gc.collect()
    assert set(seen) <= {0, 1}, seen
    assert len(seen) >= 40


@in_child
def test_an_object_revived_by_its_subclass_stays_whole(child: Child) -> None:
    loop = child.new_loop()
    kept: list[Any] = []

    class Future(child.aio.Future):  # type: ignore[misc, name-defined]
        def __del__(self) -> None:
            kept.append(self)

    class Task(child.aio.Task):  # type: ignore[misc, name-defined]
        def __del__(self) -> None:
            kept.append(self)

    async def main() -> None:
        for number in range(300):
            Future(loop=loop)
            Future(loop=loop).set_result(number)
            Task(give(number), loop=loop)
        await child.aio.sleep(0)
        await child.aio.sleep(0)
        gc.collect()
        assert len(kept) == 900
        for revived in kept:
            repr(revived)
            revived.done()
        kept.clear()
        gc.collect()
        assert not kept  # a finalizer runs once
        assert await child.aio.gather(*map(give, range(1000))) == list(range(1000))

    child.run(main(), loop)


@in_child
def test_an_object_kept_by_the_exception_handler_stays_whole(child: Child) -> None:
    loop = child.new_loop()

    async def bad() -> None:
        raise ValueError("task")

    async def main() -> None:
        for _ in range(100):
            loop.create_future().set_exception(ValueError("future"))
            loop.create_task(bad())
            loop.create_task(wait_on(loop.create_future()))
        for _ in range(3):
            await child.aio.sleep(0)
        gc.collect()
        assert len(child.errors) == 300
        for context in child.errors:
            kept = context.get("task") or context["future"]
            repr(kept)
            if kept.done():
                assert isinstance(kept.exception(), ValueError)
            else:
                assert kept not in asyncio.all_tasks()
        child.errors.clear()
        gc.collect()
        assert not child.errors
        assert await child.aio.gather(*map(give, range(500))) == list(range(500))
        # Memory that is used again reports again.
        for _ in range(100):
            loop.create_future().set_exception(ValueError("again"))
        gc.collect()
        assert child.messages() == ["Future exception was never retrieved"] * 100

    child.run(main(), loop)


@in_child
def test_callbacks_of_weak_references_may_make_new_objects(child: Child) -> None:
    loop = child.new_loop()
    seen: list[Any] = []

    def gone(reference: Any) -> None:
        seen.append(reference())
        loop.create_future().set_result(1)
        if len(seen) < 500:
            loop.create_task(give(2))

    async def main() -> None:
        references = []
        for _ in range(100):
            future = loop.create_future()
            task = loop.create_task(give(1))
            gathered = child.aio.gather(give(1), give(2))
            references += [weakref.ref(each, gone) for each in (future, task, gathered)]
            await task
            await gathered
            del future, task, gathered
        gc.collect()
        await child.aio.sleep(0)
        assert len(seen) == 300
        assert set(seen) == {None}

    child.run(main(), loop)


@in_child
def test_finalizers_that_call_into_the_loop(child: Child) -> None:
    loop = child.new_loop()
    calls: list[str] = []

    class Calls:
        def __init__(self, what: Any) -> None:
            self.what = what
            self.cycle = self

        def __del__(self) -> None:
            self.what()

    async def holds(what: Any) -> None:
        kept = Calls(what)
        await loop.create_future()
        del kept

    def everything() -> None:
        calls.append("called")
        asyncio.all_tasks(loop)
        future = loop.create_future()
        future.add_done_callback(lambda _: calls.append("future"))
        future.set_result(1)
        loop.call_soon(calls.append, "soon")
        loop.call_later(0, calls.append, "later")
        loop.create_task(give(1))

    async def main() -> None:
        for _ in range(10):
            Calls(everything)
            loop.call_soon(Calls(everything).what)
            loop.call_later(1000, print, Calls(everything)).cancel()
            loop.create_future().set_result(Calls(everything))
            task = loop.create_task(holds(everything))
            await child.aio.sleep(0)
            task.cancel()
            del task
            gc.collect()
            await child.aio.sleep(0)
        gc.collect()
        await child.aio.sleep(0.01)
        assert calls.count("called") == 60
        assert calls.count("soon") == calls.count("later") == calls.count("future") == 60

    child.run(main(), loop)


@in_child
def test_a_class_assigned_to_a_live_object(child: Child) -> None:
    # Recycled memory must not come back under another class.
    loop = child.new_loop()

    class MyFuture(child.aio.Future):  # type: ignore[misc, name-defined]
        __slots__ = ()

    class MyTask(child.aio.Task):  # type: ignore[misc, name-defined]
        __slots__ = ()

    def assign(instance: Any, new_class: Any) -> None:
        with contextlib.suppress(TypeError):
            instance.__class__ = new_class

    async def main() -> None:
        for number in range(300):
            future = loop.create_future()
            assign(future, MyFuture)
            future.set_result(number)
            assert future.result() == number
            future = MyFuture(loop=loop)
            assign(future, child.aio.Future)
            task = loop.create_task(give(number))
            assign(task, MyTask)
            other = MyTask(give(number), loop=loop)
            assign(other, child.aio.Task)
            assign(future, child.aio.Task)
            assign(task, child.aio.Future)
            assert await task == await other == number

    child.run(main(), loop)
    del MyFuture, MyTask
    gc.collect()


@in_child
def test_futures_and_tasks_freed_in_another_thread(child: Child) -> None:
    loop = child.new_loop()
    box: list[Any] = []

    async def main() -> None:
        def free(count: int) -> None:
            while count:
                if box:
                    box.pop()
                    count -= 1

        each = 3000 if child.way != "rondel-gc" else 300
        thread = threading.Thread(target=free, args=(each * 3,))
        thread.start()
        for number in range(each):
            future = loop.create_future()
            future.set_result(number)
            box.append(future)
            failed = loop.create_future()
            failed.set_exception(ValueError(number))
            box.append(failed)
            box.append(loop.create_task(give(number)))
            del future, failed
            await child.aio.sleep(0)
        await loop.run_in_executor(None, thread.join)
        assert set(child.messages()) == {"Future exception was never retrieved"}

    child.run(main(), loop)


@in_child
def test_an_object_kept_by_the_exception_handler_is_collected_later(child: Child) -> None:
    # A native task that has never suspended is unknown to the collector until it is kept.
    loop = child.new_loop()
    gone: list[int] = []

    async def bad() -> None:
        raise ValueError("task")

    for number in range(10):
        task = loop.create_task(bad())
        weakref.finalize(task, gone.append, number)
        del task
        child.turns(loop, 2)
    gc.collect()
    assert len(child.errors) == 10
    for context in child.errors:
        kept = context["future"]
        kept.exception().cycle = kept  # the exception is the task's, and now the other way about
    del context, kept
    kept_tasks = [weakref.ref(context["future"]) for context in child.errors]
    child.errors.clear()
    gc.collect()
    assert [reference() for reference in kept_tasks] == [None] * 10


class Holder:
    coro: Any = None


def coroutines_that_end_at_once(child: Child, holder: Holder) -> dict[str, Any]:
    """Coroutines, none of which has to wait, each in a cycle with `holder`."""
    aio = child.aio
    done = aio.get_running_loop().create_future()
    done.set_result(holder)
    lock, event, semaphore, condition = aio.Lock(), aio.Event(), aio.Semaphore(), aio.Condition()
    event.set()
    full, empty = aio.Queue(), aio.Queue()
    full.put_nowait(holder)
    for owner in (lock, event, semaphore, condition, full, empty):
        owner.holder = holder
    return {
        "lock": lock.acquire(),
        "event": event.wait(),
        "semaphore": semaphore.acquire(),
        "get": full.get(),
        "put": empty.put(1),
        "join": empty.join(),
        "wait": aio.wait([done]),
        "wait_for": aio.wait_for(done, None),
        "as_completed": next(iter(aio.as_completed([done]))),
        "future": done.__await__(),
        "enter": lock.__aenter__(),
    }


async def awaited(coro: Any) -> None:
    with contextlib.suppress(BaseException):
        await coro


# A coroutine that has not suspended, or never will, is known to the collector all the same.
@in_child
def test_a_cycle_through_a_coroutine_is_collected(child: Child) -> None:
    loop = child.new_loop()
    warnings.simplefilter("ignore", RuntimeWarning)  # of those that nobody awaits
    kept: list[str] = []

    async def main(ends: bool) -> None:
        for name in coroutines_that_end_at_once(child, Holder()):
            holder = Holder()
            coros = coroutines_that_end_at_once(child, holder)
            holder.coro = coros.pop(name)
            for each in coros.values():
                each.close()
            await child.aio.sleep(0)
            if ends:
                await awaited(holder.coro)
            reference = weakref.ref(holder)
            del holder, coros, each
            await child.aio.sleep(0)
            gc.collect()
            if reference() is not None:
                kept.append(f"{name} {'ended' if ends else 'never awaited'}")

    child.run(main(True), loop)
    child.run(main(False), loop)
    assert not kept, kept
