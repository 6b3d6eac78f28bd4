"""Random small programs, run on asyncio and on Rondel: their traces must be the same.

A program is a tree of statements drawn from a seed: tasks that sleep, set and await futures,
cancel one another, open timeouts and groups, gather and shield. Each step appends to a trace.
Time is taken out of the question by spacing timers a whole millisecond grid apart and letting
`sleep(0)` count turns, so the order of the trace is fixed by the scheduling rules alone.

The interpreter of programs is the same for both runtimes; only `aio` differs.
"""

import asyncio
import importlib
import random
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import pytest

from tests.support import ONLY_ASYNCIO

SEEDS = range(60)
Step = tuple[Any, ...]
Program = list[list[Step]]  # one list of statements per task

FUTURES = 4


def draw(seed: int) -> Program:
    """A program of two to five tasks of up to eight statements."""
    random_ = random.Random(seed)
    count = random_.randint(2, 5)

    def statement(depth: int) -> Step:
        kinds = ["yield", "set", "fail", "cancel_future", "await", "cancel_task", "callback"]
        if depth:
            kinds += ["timeout", "try", "gather", "gather_all", "shield", "group", "child", "wait"]
        kind = random_.choice(kinds)
        if kind == "yield":
            return (kind, random_.randint(1, 3))
        if kind in ("set", "fail", "cancel_future", "await", "callback"):
            return (kind, random_.randrange(FUTURES))
        if kind == "cancel_task":
            return (kind, random_.randrange(count))
        if kind == "shield":
            return (kind, block(depth - 1))
        if kind in ("gather", "gather_all", "group", "wait"):
            return (kind, [block(depth - 1) for _ in range(random_.randint(0, 3))])
        return (kind, block(depth - 1))

    def block(depth: int) -> list[Step]:
        return [statement(depth) for _ in range(random_.randint(1, 3))]

    return [[statement(2) for _ in range(random_.randint(2, 8))] for _ in range(count)]


class Interpreter:
    """Runs a program on one runtime and notes what happens."""

    def __init__(self, aio: ModuleType) -> None:
        self.aio = aio
        self.trace: list[str] = []
        self.futures: list[Any] = []
        self.tasks: list[Any] = []

    async def run(self, program: Program) -> list[str]:
        loop = self.aio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: self.note("handler", context["message"]))
        self.futures = [loop.create_future() for _ in range(FUTURES)]
        for number, statements in enumerate(program):
            coro = self.block(f"t{number}", statements)
            task = self.aio.create_task(coro, name=f"t{number}")
            task.add_done_callback(lambda task: self.note(task.get_name(), self.ending(task)))
            self.tasks.append(task)
        # Whatever still waits after many turns waits for ever: end it, and trace how.
        for _ in range(120):
            await self.aio.sleep(0)
        for future in self.futures:
            if not future.done():
                self.note("end", "set")
                future.set_result("end")
        for _ in range(120):
            await self.aio.sleep(0)
        for task in self.tasks:
            if not task.done():
                self.note("end", task.get_name())
                task.cancel("end")
        await self.aio.wait(self.tasks, timeout=5)
        for future in self.futures:
            if not future.cancelled():
                future.exception()
        return self.trace

    def note(self, who: str, what: object) -> None:
        self.trace.append(f"{who}: {what}")

    def ending(self, task: Any) -> str:
        if task.cancelled():
            return f"cancelled {task.cancelling()}"
        if task.exception() is not None:
            return f"failed {self.shape(task.exception())}"
        return f"returned {task.result()!r}"

    def shape(self, error: BaseException) -> str:
        if isinstance(error, BaseExceptionGroup):
            return f"group[{', '.join(map(self.shape, error.exceptions))}]"
        return f"{type(error).__name__}{error.args!r}"

    async def block(self, who: str, statements: list[Step]) -> str:
        for number, statement in enumerate(statements):
            self.note(who, statement[0])
            try:
                value = await getattr(self, "do_" + statement[0])(f"{who}.{number}", *statement[1:])
            except BaseException as error:
                self.note(who, f"{statement[0]} raised {self.shape(error)}")
                raise
            self.note(who, f"{statement[0]} gave {value!r}")
        return who

    def part(self, who: str, blocks: list[list[Step]]) -> list[Coroutine[Any, Any, str]]:
        return [self.block(f"{who}/{number}", block) for number, block in enumerate(blocks)]

    async def do_yield(self, who: str, turns: int) -> None:
        for _ in range(turns):
            await self.aio.sleep(0)

    async def do_set(self, who: str, number: int) -> bool:
        if self.futures[number].done():
            return False
        self.futures[number].set_result(who)
        return True

    async def do_fail(self, who: str, number: int) -> bool:
        if self.futures[number].done():
            return False
        self.futures[number].set_exception(KeyError(who))
        return True

    async def do_cancel_future(self, who: str, number: int) -> bool:
        return bool(self.futures[number].cancel(who))

    async def do_await(self, who: str, number: int) -> Any:
        return await self.futures[number]

    async def do_callback(self, who: str, number: int) -> None:
        self.futures[number].add_done_callback(lambda future: self.note(who, "called back"))

    async def do_cancel_task(self, who: str, number: int) -> bool:
        if number >= len(self.tasks):
            return False
        return bool(self.tasks[number].cancel(who))

    async def do_timeout(self, who: str, block: list[Step]) -> bool:
        # An expired deadline: the timer is due at the next turn, no clock is involved.
        try:
            async with self.aio.timeout(-1) as scope:
                await self.block(who, block)
        except TimeoutError:
            return True
        return bool(scope.expired())

    async def do_try(self, who: str, block: list[Step]) -> str:
        try:
            await self.block(who, block)
        except self.aio.CancelledError as error:
            left = self.aio.current_task().uncancel()
            return f"swallowed {error.args!r} {left}"
        except Exception as error:
            return f"caught {self.shape(error)}"
        return "fine"

    async def do_gather(self, who: str, blocks: list[list[Step]]) -> Any:
        return await self.aio.gather(*self.part(who, blocks))

    async def do_gather_all(self, who: str, blocks: list[list[Step]]) -> Any:
        results = await self.aio.gather(*self.part(who, blocks), return_exceptions=True)
        return [self.shape(item) if isinstance(item, BaseException) else item for item in results]

    async def do_shield(self, who: str, block: list[Step]) -> Any:
        return await self.aio.shield(self.block(who, block))

    async def do_group(self, who: str, blocks: list[list[Step]]) -> list[Any]:
        async with self.aio.TaskGroup() as group:
            tasks = [group.create_task(coro) for coro in self.part(who, blocks)]
            await self.aio.sleep(0)
        return [self.ending(task) for task in tasks]

    async def do_child(self, who: str, block: list[Step]) -> Any:
        return await self.aio.create_task(self.block(who, block))

    async def do_wait(self, who: str, blocks: list[list[Step]]) -> Any:
        if not blocks:
            return None
        tasks = [self.aio.create_task(coro) for coro in self.part(who, blocks)]
        await self.aio.wait(tasks, return_when=self.aio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        return [
            item if isinstance(item, str) else self.shape(item)
            for item in await self.aio.gather(*tasks, return_exceptions=True)
        ]


def trace(
    aio: ModuleType, loop_factory: Callable[[], asyncio.AbstractEventLoop], program: Program
) -> list[str]:
    interpreter = Interpreter(aio)
    with aio.Runner(loop_factory=loop_factory) as runner:
        return list(runner.run(interpreter.run(program)))


def stock_trace(program: Program) -> list[str]:
    return trace(asyncio, asyncio.new_event_loop, program)


def test_the_oracle_agrees_with_itself_and_the_programs_are_rich() -> None:
    text = ""
    for seed in SEEDS:
        program = draw(seed)
        first = stock_trace(program)
        assert first == stock_trace(program)
        text += "\n".join(first)
    for sign in ("called back", "CancelledError", "group[", "swallowed", "timeout gave True"):
        assert sign in text


@pytest.mark.later_asyncio
@pytest.mark.skipif(ONLY_ASYNCIO, reason="RONDEL_TEST_ONLY_ASYNCIO is set")
@pytest.mark.parametrize("names", ["rondel", "asyncio"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_program_leaves_the_same_trace(names: str, seed: int) -> None:
    program = draw(seed)
    rondel = importlib.import_module("rondel")
    aio = rondel if names == "rondel" else asyncio
    assert trace(aio, rondel.new_event_loop, program) == stock_trace(program)
