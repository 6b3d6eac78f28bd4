"""Workloads of tasks, futures, and what waits for several; and what a workload is.

One per primitive: `count` operations of it, after which everything is as before. A workload leaves
nothing pending and holds nothing back: what is still alive after it is a leak, of Rondel or (see
`python -m tests.safety references --aio asyncio`) of asyncio itself. Each takes the names it uses
from `aio`, the runtime's module.
"""

import asyncio
import contextlib
import contextvars
import gc
import sys
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

Body = Callable[[ModuleType, int], Awaitable[None]]


@dataclass(frozen=True)
class Workload:
    body: Body
    weight: int
    """How many times dearer than a task an operation is: a soak does so many times fewer."""

    @property
    def name(self) -> str:
        return self.body.__name__


WORKLOADS: dict[str, Workload] = {}


def workload(weight: int = 1) -> Callable[[Body], Body]:
    def add(body: Body) -> Body:
        found = Workload(body, weight)
        WORKLOADS[found.name] = found
        return body

    return add


class Boom(Exception):
    pass


class Bang(BaseException):
    pass


async def give(value: Any) -> Any:
    return value


async def fail(value: Any) -> Any:
    raise Boom(value)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def batches(count: int, size: int) -> int:
    return max(1, count // size)


# -- tasks


@workload()
async def create_and_await(aio: ModuleType, count: int) -> None:
    for number in range(count):
        assert await aio.create_task(give(number)) == number


@workload()
async def tasks_that_suspend(aio: ModuleType, count: int) -> None:
    for _ in range(batches(count, 10)):
        for task in [aio.create_task(aio.sleep(0)) for _ in range(10)]:
            await task


@workload()
async def cancelled_tasks(aio: ModuleType, count: int) -> None:
    for number in range(count):
        task = aio.create_task(forever())
        if number % 2:
            await aio.sleep(0)
        task.cancel("enough")
        with contextlib.suppress(asyncio.CancelledError):
            await task


@workload()
async def cancelled_sleeps(aio: ModuleType, count: int) -> None:
    for _ in range(count):
        task = aio.create_task(aio.sleep(60))
        await aio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()


@workload()
async def failing_tasks(aio: ModuleType, count: int) -> None:
    for number in range(count):
        task = aio.create_task(fail(number))
        with contextlib.suppress(Boom):
            await task
        assert isinstance(task.exception(), Boom)


@workload(4)
async def exceptions_nobody_retrieves(aio: ModuleType, count: int) -> None:
    seen = 0

    def handler(_loop: Any, _context: Any) -> None:
        nonlocal seen
        seen += 1

    loop = aio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(handler)
    for number in range(count):
        aio.create_task(fail(number))
        await aio.sleep(0)
        await aio.sleep(0)
        loop.create_future().set_exception(Boom(number))
    gc.collect()
    loop.set_exception_handler(before)
    assert seen >= count


@workload(4)
async def tasks_destroyed_while_pending(aio: ModuleType, count: int) -> None:
    loop = aio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda *_: None)
    for number in range(count):
        task = aio.create_task(forever())
        await aio.sleep(0)
        del task
        if number % 100 == 0:
            gc.collect()
    gc.collect()
    loop.set_exception_handler(before)


@workload(4)
async def cycles_of_everything(aio: ModuleType, count: int) -> None:
    loop = aio.get_running_loop()

    class Holder:
        pass

    async def holding(holder: Holder) -> Any:
        holder.task = aio.current_task()  # type: ignore[attr-defined]
        await aio.sleep(0)
        return holder

    for number in range(count):
        future = loop.create_future()
        future.set_result([future])
        waiting = loop.create_future()
        waiting.add_done_callback(lambda _, waiting=waiting: waiting)
        holder = Holder()
        await aio.create_task(holding(holder))
        handle = loop.call_later(60, print)
        handle.cancel()
        gathered = aio.gather(waiting)
        waiting.set_result(gathered)
        await gathered
        for thing in (aio.Lock(), aio.Event(), aio.Queue(), aio.Semaphore(), aio.Condition()):
            thing.itself = thing
        queue = aio.Queue()
        queue.put_nowait(queue)
        queue.getting = queue.get()  # never suspends
        assert await queue.getting is queue
        if number % 100 == 0:
            gc.collect()
    gc.collect()


@workload()
async def tasks_in_contexts(aio: ModuleType, count: int) -> None:
    variable = contextvars.ContextVar("variable", default=0)

    async def sets(number: int) -> int:
        variable.set(number)
        await aio.sleep(0)
        return variable.get()

    for number in range(count):
        context = contextvars.copy_context()
        loop = aio.get_running_loop()
        assert await loop.create_task(sets(number), context=context) == number
        assert context[variable] == number


@workload(2)
async def subclasses(aio: ModuleType, count: int) -> None:
    loop = aio.get_running_loop()

    class Task(aio.Task):  # type: ignore[misc, name-defined]
        pass

    class Future(aio.Future):  # type: ignore[misc, name-defined]
        __slots__ = ("more",)

    for number in range(count):
        future = Future(loop=loop)
        future.more = future
        task = Task(give(number), loop=loop, name="named")
        task.more = task
        weak = weakref.ref(task)
        future.set_result(await task)
        assert await future == number
        assert weak() is task
        del task.more, future.more
    del Task, Future
    gc.collect()


@workload(2)
async def eager_tasks(aio: ModuleType, count: int) -> None:
    if sys.version_info < (3, 12):
        return
    loop = aio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(aio.eager_task_factory)
    for number in range(count):
        assert await aio.create_task(give(number)) == number
        await aio.create_task(aio.sleep(0))
        with contextlib.suppress(Boom):
            await aio.create_task(fail(number))
    loop.set_task_factory(before)


@workload(2)
async def looked_at(aio: ModuleType, count: int) -> None:
    loop = aio.get_running_loop()
    for _ in range(count):
        task = aio.create_task(aio.sleep(0), name="looked at")
        assert task in asyncio.all_tasks(loop)
        repr(task), task.get_stack(), task.get_coro(), task.get_name()
        assert aio.current_task() is not task
        await task
        repr(task)


# -- futures and callbacks


@workload()
async def futures(aio: ModuleType, count: int) -> None:
    loop = aio.get_running_loop()
    for number in range(count):
        future = loop.create_future()
        loop.call_soon(future.set_result, number)
        assert await future == number


@workload()
async def callbacks_of_futures(aio: ModuleType, count: int) -> None:
    loop = aio.get_running_loop()
    seen: list[Any] = []
    for number in range(count):
        future = loop.create_future()
        future.add_done_callback(seen.append)
        future.add_done_callback(print)
        future.add_done_callback(print)
        assert future.remove_done_callback(print) == 2
        if number % 3 == 0:
            future.cancel()
        elif number % 3 == 1:
            future.set_exception(Boom(number))
            future.exception()
        else:
            future.set_result(number)
        await aio.sleep(0)
        assert seen.pop() is future


@workload()
async def call_soon(aio: ModuleType, count: int) -> None:
    loop = aio.get_running_loop()
    for _ in range(batches(count, 10)):
        for _ in range(10):
            loop.call_soon(int, 5)
        loop.call_soon(int).cancel()
        await aio.sleep(0)


@workload()
async def call_later_and_cancel(aio: ModuleType, count: int) -> None:
    loop = aio.get_running_loop()
    for number in range(count):
        handle = loop.call_later(60 + number % 7, int)
        handle.when()
        handle.cancel()
        if number % 100 == 0:
            await aio.sleep(0)


@workload()
async def call_later_and_run(aio: ModuleType, count: int) -> None:
    loop = aio.get_running_loop()
    for _ in range(batches(count, 20)):
        done = loop.create_future()
        for _ in range(19):
            loop.call_later(0, int)
        loop.call_later(0, done.set_result, None)
        await done


@workload(2)
async def callbacks_that_raise(aio: ModuleType, count: int) -> None:
    loop = aio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda *_: None)
    for _ in range(count):
        loop.call_soon(int, "x")
        await aio.sleep(0)
    loop.set_exception_handler(before)


# -- sleeping and deadlines


@workload()
async def sleep_zero(aio: ModuleType, count: int) -> None:
    for _ in range(count):
        await aio.sleep(0)


@workload()
async def sleep_a_moment(aio: ModuleType, count: int) -> None:
    for _ in range(batches(count, 50)):
        await aio.gather(*[aio.sleep(1e-9 * n, n) for n in range(50)])


@workload()
async def timeout(aio: ModuleType, count: int) -> None:
    for _ in range(count):
        async with aio.timeout(60) as scope:
            scope.reschedule(scope.when() + 1)
            await aio.sleep(0)


@workload(2)
async def timeout_expires(aio: ModuleType, count: int) -> None:
    for _ in range(count):
        with contextlib.suppress(TimeoutError):
            async with aio.timeout(0):
                await forever()


@workload()
async def wait_for(aio: ModuleType, count: int) -> None:
    for number in range(count):
        assert await aio.wait_for(give(number), 60) == number
        await aio.wait_for(aio.sleep(0), None)


@workload(2)
async def wait_for_expires(aio: ModuleType, count: int) -> None:
    for number in range(count):
        with contextlib.suppress(TimeoutError):
            await aio.wait_for(forever(), 0 if number % 2 else 1e-9)


# -- several at once


@workload()
async def gather(aio: ModuleType, count: int) -> None:
    for _ in range(batches(count, 10)):
        assert await aio.gather(*map(give, range(10))) == list(range(10))


@workload(2)
async def gather_with_exceptions(aio: ModuleType, count: int) -> None:
    for number in range(batches(count, 3)):
        with contextlib.suppress(Boom):
            await aio.gather(give(1), fail(number), aio.sleep(0))
        outcome = await aio.gather(give(1), fail(number), return_exceptions=True)
        assert isinstance(outcome[1], Boom)
        await aio.sleep(0)


@workload(2)
async def gather_cancelled(aio: ModuleType, count: int) -> None:
    for _ in range(batches(count, 3)):
        gathered = aio.gather(forever(), forever())
        await aio.sleep(0)
        gathered.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gathered


@workload()
async def task_group(aio: ModuleType, count: int) -> None:
    for _ in range(batches(count, 10)):
        async with aio.TaskGroup() as group:
            for number in range(10):
                group.create_task(give(number))


@workload(2)
async def task_group_fails(aio: ModuleType, count: int) -> None:
    for number in range(batches(count, 3)):
        with contextlib.suppress(ExceptionGroup):
            async with aio.TaskGroup() as group:
                group.create_task(fail(number))
                group.create_task(forever())
                await forever()


@workload(2)
async def wait(aio: ModuleType, count: int) -> None:
    for _ in range(batches(count, 5)):
        tasks = [aio.create_task(aio.sleep(0, n)) for n in range(5)]
        done, pending = await aio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if pending:
            await aio.wait(pending, timeout=60)
        assert done


@workload(2)
async def wait_times_out(aio: ModuleType, count: int) -> None:
    for _ in range(batches(count, 2)):
        future = aio.get_running_loop().create_future()
        _, pending = await aio.wait([future], timeout=0)
        assert pending == {future}


@workload(2)
async def as_completed(aio: ModuleType, count: int) -> None:
    for _ in range(batches(count, 5)):
        for each in aio.as_completed([give(n) for n in range(5)]):
            await each


@workload(2)
async def as_completed_left_early(aio: ModuleType, count: int) -> None:
    for _ in range(batches(count, 5)):
        tasks = [aio.create_task(give(n)) for n in range(5)]
        for each in aio.as_completed(tasks, timeout=60):
            await each
            break
        await aio.gather(*tasks)


@workload()
async def shield(aio: ModuleType, count: int) -> None:
    for number in range(count):
        assert await aio.shield(give(number)) == number


@workload(2)
async def shield_cancelled(aio: ModuleType, count: int) -> None:
    for number in range(count):
        inner = aio.create_task(aio.sleep(0, number))
        outer = aio.shield(inner)
        outer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await outer
        assert await inner == number
