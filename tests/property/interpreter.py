"""Runs a program on one runtime and notes every step: who, when, what came out.

Nothing here depends on the runtime but `aio`, the module whose names are used. A program may wait
for what never comes: after a while of virtual time everything is cancelled, as often as it takes.
"""

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, cast

from tests.property.programs import FUTURES, Block, Program, Statement

TICK = 1 / 512
"""Seconds by which deadlines that would be equal are moved apart."""

PATIENCE = 1000
"""Seconds after which what still runs is cancelled."""

ROUNDS = 30
"""How often what is left is cancelled before the program counts as stuck."""


class Boom(Exception):
    """What a program raises."""


class Bang(BaseException):
    """What no `except Exception` catches."""


def plain(outcome: Any) -> Any:
    """A result or an exception as what can be compared."""
    if isinstance(outcome, BaseExceptionGroup):
        return (type(outcome).__name__, [plain(exc) for exc in outcome.exceptions])
    if isinstance(outcome, BaseException):
        return (type(outcome).__name__, str(outcome))
    if isinstance(outcome, list | tuple):
        return [plain(item) for item in outcome]
    return outcome if outcome is None or isinstance(outcome, int | str) else "object"


class Interpreter:
    def __init__(self, aio: ModuleType, loop: asyncio.AbstractEventLoop) -> None:
        self.aio = aio
        self.loop = loop
        self.trace: list[Any] = []
        self.ends: list[Any] = []
        self.unfinished = True
        self.tasks: list[Any] = []
        self.names: dict[str, str] = {}
        self.deadlines: set[float] = set()
        self.futures: list[Any] = [loop.create_future() for _ in range(FUTURES)]
        self.lock = aio.Lock()
        self.event = aio.Event()
        self.semaphore = aio.Semaphore(2)
        self.condition = aio.Condition()
        self.barrier = aio.Barrier(2)
        self.queue = aio.Queue(2)
        self.timeouts: list[Any] = []
        loop.set_exception_handler(self.handled)

    def handled(self, _loop: Any, context: dict[str, Any]) -> None:
        message = context["message"].split("\n")[0][:40]
        if "never retrieved" in message or "destroyed" in message:
            self.ends.append((message, plain(context.get("exception"))))
        else:
            self.note("handler", message, context.get("exception"))

    def note(self, *what: Any) -> None:
        try:
            task = self.aio.current_task(self.loop)
        except RuntimeError:
            task = None
        name = task.get_name() if task is not None else "-"
        if name.startswith("Task-"):  # numbered through the whole process
            name = self.names.setdefault(name, f"unnamed {len(self.names)}")
        self.trace.append((name, self.loop.time(), *(plain(w) for w in what)))

    def delay(self, seconds: int) -> float:
        """A delay whose deadline no other timer has: heapq gives equal ones in any order."""
        delay = float(seconds)
        if seconds > 0:
            while self.loop.time() + delay in self.deadlines:
                delay += TICK
            self.deadlines.add(self.loop.time() + delay)
        return delay

    async def block(self, block: Block, label: str) -> str:
        for at, statement in enumerate(block):
            here = f"{label}.{at}"
            self.note("begin", here, statement[0])
            try:
                value = await self.statement(statement, here)
            except BaseException as exc:
                self.note("raised", here, exc)
                raise
            self.note("end", here, value)
        return label

    async def statement(self, statement: Statement, here: str) -> Any:
        kind = cast(str, statement[0])
        method: Callable[..., Awaitable[Any]] = getattr(self, f"do_{kind}")
        return await method(*statement[1:], here)

    # -- leaves

    async def do_yield(self, n: int, _here: str) -> None:
        for _ in range(n + 1):
            await self.aio.sleep(0)

    async def do_sleep(self, n: int, here: str) -> Any:
        return await self.aio.sleep(self.delay(n), here)

    async def do_set(self, n: int, here: str) -> None:
        if not self.futures[n].done():
            self.futures[n].set_result(here)

    async def do_fail(self, n: int, here: str) -> None:
        if not self.futures[n].done():
            self.futures[n].set_exception(Boom(here))

    async def do_cancel_future(self, n: int, here: str) -> bool:
        return cast(bool, self.futures[n].cancel(here))

    async def do_await_future(self, n: int, _here: str) -> Any:
        return await self.futures[n]

    async def do_callback(self, n: int, here: str) -> None:
        self.futures[n].add_done_callback(lambda future: self.note("callback", here, future.done()))

    def group(self) -> Any:
        """A TaskGroup that cancels its tasks in the order they were made: a set's is by chance."""
        group = self.aio.TaskGroup()

        def abort() -> None:
            group._aborting = True
            for task in sorted(group._tasks, key=self.tasks.index):
                if not task.done():
                    task.cancel()

        group._abort = abort
        return group

    def task(self, n: int) -> Any:
        return self.tasks[n % len(self.tasks)]

    async def do_cancel_task(self, n: int, _here: str) -> bool:
        return cast(bool, self.task(n).cancel())

    async def do_cancel_with(self, n: int, here: str) -> bool:
        task = self.task(n)
        return cast(bool, task.cancel(here)) and task.cancelling() > 0

    async def do_await_task(self, n: int, _here: str) -> Any:
        # Only a task made later than this one: tasks that await each other in a circle can't be
        # cancelled, asyncio's run into the recursion limit.
        me = self.aio.current_task()
        later = self.tasks[self.tasks.index(me) + 1 :] if me in self.tasks else []
        return await later[n % len(later)] if later else None

    async def do_uncancel(self, _n: int, _here: str) -> int:
        return cast(int, self.aio.current_task().uncancel())

    async def do_raise(self, n: int, here: str) -> None:
        if n == 2:
            raise asyncio.CancelledError(here)
        raise (Boom, LookupError)[n](here)

    async def do_call_later(self, n: int, here: str) -> None:
        handle = self.loop.call_later(self.delay(n + 1), self.note, "timer", here)
        if n % 3 == 2:
            handle.cancel()

    async def do_set_event(self, _n: int, _here: str) -> None:
        self.event.set()

    async def do_clear_event(self, _n: int, _here: str) -> None:
        self.event.clear()

    async def do_wait_event(self, _n: int, _here: str) -> Any:
        return await self.event.wait()

    async def do_put(self, n: int, _here: str) -> None:
        await self.queue.put(n)

    async def do_put_nowait(self, n: int, _here: str) -> Any:
        try:
            self.queue.put_nowait(n)
        except self.aio.QueueFull as exc:
            return exc
        return self.queue.qsize()

    async def do_get(self, _n: int, _here: str) -> Any:
        return await self.queue.get()

    async def do_get_nowait(self, _n: int, _here: str) -> Any:
        try:
            return self.queue.get_nowait()
        except self.aio.QueueEmpty as exc:
            return exc

    async def do_task_done(self, _n: int, _here: str) -> Any:
        try:
            self.queue.task_done()
        except ValueError as exc:
            return exc
        return None

    async def do_join(self, _n: int, _here: str) -> None:
        await self.queue.join()

    async def do_notify(self, n: int, _here: str) -> None:
        async with self.condition:
            self.condition.notify(n + 1)

    async def do_notify_all(self, _n: int, _here: str) -> None:
        async with self.condition:
            self.condition.notify_all()

    async def do_wait_until(self, n: int, here: str) -> Any:
        def enough() -> bool:
            self.note("asked", here)
            return cast(bool, self.queue.qsize() >= n)

        async with self.condition:
            return await self.condition.wait_for(enough)

    async def do_pass_barrier(self, n: int, here: str) -> Any:
        if n == 0:
            return await self.barrier.wait()
        async with self.barrier as place:
            self.note("passed", here, self.barrier.n_waiting)
            return place

    async def do_reset_barrier(self, _n: int, _here: str) -> Any:
        await self.barrier.reset()
        return self.barrier.n_waiting

    async def do_abort_barrier(self, _n: int, _here: str) -> Any:
        await self.barrier.abort()
        return self.barrier.broken

    async def do_reschedule(self, n: int, _here: str) -> Any:
        if not self.timeouts:
            return None
        try:
            self.timeouts[-1].reschedule(self.loop.time() + self.delay(n) if n < 5 else None)
        except RuntimeError as exc:
            return type(exc).__name__
        return self.timeouts[-1].when() is None

    # -- one block

    async def do_catch(self, block: Block, here: str) -> Any:
        try:
            return await self.block(block, here)
        except (Exception, asyncio.CancelledError) as exc:
            return exc

    async def do_finally(self, block: Block, here: str) -> Any:
        try:
            return await self.block(block, here)
        finally:
            await self.aio.sleep(0)
            self.note("finally", here)

    def spawn(self, block: Block, here: str) -> Any:
        task = self.aio.create_task(self.block(block, here), name=here)
        task.add_done_callback(lambda task: self.note("done", here, task.cancelled()))
        self.tasks.append(task)
        return task

    async def do_child(self, block: Block, here: str) -> None:
        self.spawn(block, here)

    async def do_shield(self, block: Block, here: str) -> Any:
        return await self.aio.shield(self.spawn(block, here))

    async def do_lock(self, block: Block, here: str) -> Any:
        async with self.lock:
            self.note("locked", here)
            return await self.block(block, here)

    async def do_semaphore(self, block: Block, here: str) -> Any:
        async with self.semaphore:
            self.note("acquired", here, self.semaphore.locked())
            return await self.block(block, here)

    async def do_condition(self, block: Block, here: str) -> Any:
        async with self.condition:
            return await self.block(block, here)

    async def do_wait_notified(self, block: Block, here: str) -> Any:
        async with self.condition:
            self.note("notified", here, await self.condition.wait())
        return await self.block(block, here)

    # -- a delay and a block

    async def within(self, timeout: Any, block: Block, here: str) -> Any:
        async with timeout:
            self.timeouts.append(timeout)
            try:
                return await self.block(block, here)
            finally:
                self.timeouts.remove(timeout)

    async def do_timeout(self, n: int, block: Block, here: str) -> Any:
        timeout = self.aio.timeout(self.delay(n))
        try:
            return await self.within(timeout, block, here)
        finally:
            self.note("expired", here, timeout.expired())

    async def do_timeout_at(self, n: int, block: Block, here: str) -> Any:
        when = None if n == 4 else self.loop.time() + self.delay(n - 1)
        return await self.within(self.aio.timeout_at(when), block, here)

    async def do_wait_for(self, n: int, block: Block, here: str) -> Any:
        timeout = self.delay(n - 1) if n < 4 else None
        return await self.aio.wait_for(self.block(block, here), timeout)

    async def do_wait_for_task(self, n: int, block: Block, here: str) -> Any:
        return await self.aio.wait_for(self.spawn(block, here), self.delay(n))

    # -- several blocks

    async def do_gather(self, blocks: list[Block], here: str) -> Any:
        return await self.aio.gather(*[self.block(b, f"{here}[{i}]") for i, b in enumerate(blocks)])

    async def do_gather_all(self, blocks: list[Block], here: str) -> Any:
        return await self.aio.gather(
            *[self.spawn(b, f"{here}[{i}]") for i, b in enumerate(blocks)], return_exceptions=True
        )

    async def do_group(self, blocks: list[Block], here: str) -> None:
        async with self.group() as group:
            for i, block in enumerate(blocks):
                name = f"{here}[{i}]"
                self.tasks.append(group.create_task(self.block(block, name), name=name))

    async def wait(self, blocks: list[Block], here: str, when: str) -> Any:
        tasks = [self.spawn(b, f"{here}[{i}]") for i, b in enumerate(blocks)]
        if not tasks:
            return None
        done, _pending = await self.aio.wait(tasks, timeout=self.delay(4), return_when=when)
        return sorted(task.get_name() for task in done)

    async def do_wait_all(self, blocks: list[Block], here: str) -> Any:
        return await self.wait(blocks, here, asyncio.ALL_COMPLETED)

    async def do_wait_first(self, blocks: list[Block], here: str) -> Any:
        return await self.wait(blocks, here, asyncio.FIRST_COMPLETED)

    async def do_wait_error(self, blocks: list[Block], here: str) -> Any:
        return await self.wait(blocks, here, asyncio.FIRST_EXCEPTION)

    async def do_as_completed(self, blocks: list[Block], here: str) -> Any:
        # Which of several coroutines becomes a task first is a set's order: tasks are ordered here.
        tasks = [self.spawn(b, f"{here}[{i}]") for i, b in enumerate(blocks)]
        outcomes: list[Any] = []
        for nxt in self.aio.as_completed(tasks, timeout=self.delay(3)):
            try:
                outcomes.append(await nxt)
            except (Boom, LookupError, TimeoutError) as exc:
                outcomes.append(exc)
            self.note("completed", here, outcomes[-1])
        return outcomes

    def left(self) -> list[Any]:
        """The tasks that still run, without this one, in the order in which they were made."""

        def order(task: Any) -> tuple[bool, int, str]:
            name = task.get_name()
            return (name.startswith("Task-"), len(name), name)

        return sorted(self.aio.all_tasks() - {self.aio.current_task()}, key=order)

    async def main(self, program: Program) -> None:
        for at, block in enumerate(program):
            self.spawn(block, f"T{at}")
        await self.aio.wait(self.tasks, timeout=self.delay(PATIENCE))
        for _ in range(ROUNDS):
            left = self.left()
            if not left:
                self.unfinished = False
                break
            for task in left:
                task.cancel("the end")
            await self.aio.wait(left, timeout=self.delay(1))
        else:
            self.note("stuck")
        for task in self.tasks:
            if task.done():
                self.note("outcome", task.get_name(), task.cancelled() or plain(task.exception()))
        for future in self.futures:
            if future.done() and not future.cancelled():
                future.exception()


def run(aio: ModuleType, loop: asyncio.AbstractEventLoop, program: Program) -> list[Any]:
    """The trace of `program` with the names of `aio` on `loop`, which is closed.

    What destructors report follows at the end, in an order of its own: when they run depends on
    the frames and cycles that keep a task alive, which no runtime promises.
    """
    collecting = gc.isenabled()
    gc.disable()
    hook = sys.unraisablehook
    interpreter = Interpreter(aio, loop)
    trace, ends = interpreter.trace, interpreter.ends
    sys.unraisablehook = lambda unraisable: ends.append(("ignored", plain(unraisable.exc_value)))
    try:
        loop.run_until_complete(interpreter.main(program))
    except BaseException as exc:
        trace.append(("main", plain(exc)))
        if not isinstance(exc, Exception | asyncio.CancelledError):
            raise
    finally:
        # Not by a Runner: it would wait for ever for what noted itself as stuck.
        loop.close()
        closed, unfinished = len(trace), interpreter.unfinished
        # Whatever is alive in a collection is old after it. Loops that nobody collects make each
        # all_tasks() slower: with these two alive the trees took time that grew as their square.
        del interpreter, loop
        gc.collect(0)  # all that was made since the last run
        if unfinished:
            # The ends of its coroutines have kept others alive, which are old by now: they would
            # end, and complain, at any later time.
            gc.collect()
        sys.unraisablehook = hook
        if collecting:
            gc.enable()
    if unfinished:
        # What it leaves ends in any order, and complains of the others' ends.
        return trace[:closed]
    return [*trace, *sorted(ends, key=repr)]
