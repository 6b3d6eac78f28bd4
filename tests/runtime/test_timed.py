"""`timed`: what it measures and what it says.

Times are made by waiting for clocks, so that a loaded machine can only add to them: `burn` uses CPU
time of this thread, a gate that another task opens makes a suspension.
"""

import asyncio
import io
import logging
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import redirect_stdout
from types import ModuleType
from typing import Any

import pytest

from tests.support import ONLY_ASYNCIO, Runtime, spin

if ONLY_ASYNCIO:
    pytest.skip("Rondel's own names", allow_module_level=True)

import rondel
from rondel import Timing, timed
from tests.runtime.timing import WORK, Boom, Taken, burn

# ---------------------------------------------------------------------------------- figures


async def test_a_coroutines_own_steps_are_its_cpu_time(aio: ModuleType, taken: Taken) -> None:
    gate = aio.Event()

    async def other() -> None:
        burn(10 * WORK)
        gate.set()

    @timed(to=taken.append)
    async def work() -> str:
        burn()
        await gate.wait()
        burn()
        return "value"

    task = aio.create_task(other())
    assert await work() == "value"
    await task
    timing = taken.one()
    assert timing.cpu is not None and timing.suspended is not None
    assert 2 * WORK <= timing.cpu < 8 * WORK
    assert timing.suspended >= 10 * WORK
    assert timing.wall >= timing.cpu + timing.suspended
    assert timing.steps == 2
    assert timing.outcome == "returned"


async def test_what_a_coroutine_awaits_directly_is_its_own(aio: ModuleType, taken: Taken) -> None:
    @timed("inner", to=taken.append)
    async def inner() -> None:
        await aio.sleep(0)
        burn()
        await aio.sleep(0)

    @timed("outer", to=taken.append)
    async def outer() -> None:
        await inner()
        burn()

    await outer()
    first, second = taken
    assert (first.name, second.name) == ("inner", "outer")
    assert first.cpu is not None and second.cpu is not None
    assert first.cpu >= WORK
    assert second.cpu >= first.cpu + WORK
    assert (first.steps, second.steps) == (3, 3)


async def test_calls_at_the_same_time_are_kept_apart(aio: ModuleType, taken: Taken) -> None:
    @timed(to=taken.append)
    async def work(pieces: int) -> None:
        for _ in range(pieces):
            burn()
            await aio.sleep(0)

    await aio.gather(work(1), work(6))
    cpus = [timing.cpu or 0.0 for timing in taken]
    assert [timing.steps for timing in taken] == [2, 7]
    assert WORK <= cpus[0] < 5 * WORK
    assert cpus[1] >= 6 * WORK


def test_a_function_is_one_step(taken: Taken) -> None:
    @taken.timed
    def work(depth: int) -> int:
        burn()
        return work(depth - 1) + 1 if depth else 0

    assert work(1) == 1
    inner, outer = taken
    assert inner.cpu is not None and outer.cpu is not None
    assert inner.cpu >= WORK
    assert outer.cpu >= inner.cpu + WORK
    assert (outer.suspended, outer.steps) == (0.0, 1)


def test_blocking_is_told_from_working(taken: Taken) -> None:
    @taken.timed
    def work() -> None:
        time.sleep(5 * WORK)

    work()
    timing = taken.one()
    assert timing.cpu is not None and timing.cpu < WORK
    assert timing.blocked is not None and timing.blocked >= 4 * WORK
    assert timing.suspended == 0.0


def test_a_generators_consumer_is_not_its_work(taken: Taken) -> None:
    @taken.timed
    def numbers() -> Generator[int, None, str]:
        burn()
        yield 1
        burn()
        return "end"

    def consume() -> Generator[int, None, None]:
        assert (yield from numbers()) == "end"

    for _ in consume():
        burn(10 * WORK)
    timing = taken.one()
    assert timing.cpu is not None and timing.suspended is not None
    assert 2 * WORK <= timing.cpu < 8 * WORK
    assert timing.suspended >= 10 * WORK
    assert timing.steps == 2


async def test_neither_is_an_async_generators(aio: ModuleType, taken: Taken) -> None:
    @taken.timed
    async def numbers() -> AsyncGenerator[int, None]:
        burn()
        yield 1
        await aio.sleep(0)
        burn()
        yield 2

    async for _ in numbers():
        burn(5 * WORK)
    timing = taken.one()
    assert timing.cpu is not None and timing.suspended is not None
    assert 2 * WORK <= timing.cpu < 8 * WORK
    assert timing.suspended >= 10 * WORK
    assert timing.steps == 4
    assert timing.outcome == "returned"


def test_a_generator_may_be_driven_from_several_threads(taken: Taken) -> None:
    @taken.timed
    def work() -> Generator[None, None, None]:
        burn()
        yield
        burn()
        yield

    generator = work()
    for _ in range(3):
        thread = threading.Thread(target=next, args=(generator, None))
        thread.start()
        thread.join()
    timing = taken.one()
    assert timing.cpu is not None
    assert 2 * WORK <= timing.cpu < 8 * WORK


# ---------------------------------------------------------------------------------- blocks


async def test_a_block_meters_its_tasks_steps(
    aio: ModuleType, runtime: Runtime, taken: Taken
) -> None:
    gate = aio.Event()

    async def other() -> None:
        burn(10 * WORK)
        gate.set()

    burn(5 * WORK)  # before the block, in the same step
    task = aio.create_task(other())
    async with taken.timed("load") as timing:
        assert timing.wall == 0.0
        burn()
        await gate.wait()
        burn()
    burn(5 * WORK)
    await task
    assert taken.one() is timing
    assert timing.wall >= 12 * WORK
    if runtime.native:
        assert 2 * WORK <= timing.cpu < 8 * WORK
        assert timing.suspended >= 10 * WORK
        assert timing.steps == 2
    else:
        # Nobody can tell: the loop went on meanwhile.
        assert (timing.cpu, timing.suspended, timing.steps, timing.blocked) == (None,) * 4


async def test_a_block_without_a_suspension_is_known_everywhere(
    aio: ModuleType, taken: Taken
) -> None:
    with taken.timed("parse"):
        burn()
    timing = taken.one()
    assert timing.cpu is not None and timing.cpu >= WORK
    assert (timing.suspended, timing.steps, timing.kind) == (0.0, 1, "block")


NATIVE = pytest.mark.parametrize("runtime", ["rondel", "asyncio-on-rondel"], indirect=True)


@NATIVE
async def test_blocks_nest_and_follow_each_other(aio: ModuleType, taken: Taken) -> None:
    async with taken.timed("outer"):
        await aio.sleep(0)
        with taken.timed("inner"):
            burn()
            await aio.sleep(0)
            await aio.sleep(0)
        burn()
    async with taken.timed("next"):
        await aio.sleep(0)
    steps = {timing.name: timing.steps for timing in taken}
    assert steps == {"inner": 3, "outer": 4, "next": 2}
    cpus = {timing.name: timing.cpu or 0.0 for timing in taken}
    assert cpus["inner"] >= WORK
    assert cpus["outer"] >= cpus["inner"] + WORK
    assert cpus["next"] < WORK


@NATIVE
async def test_blocks_of_tasks_at_the_same_time(aio: ModuleType, taken: Taken) -> None:
    async def work(name: str, pieces: int) -> None:
        async with taken.timed(name):
            for _ in range(pieces):
                burn()
                await aio.sleep(0)

    await aio.gather(work("short", 1), work("long", 6))
    cpus = {timing.name: timing.cpu or 0.0 for timing in taken}
    assert WORK <= cpus["short"] < 5 * WORK
    assert cpus["long"] >= 6 * WORK
    assert {timing.name: timing.steps for timing in taken} == {"short": 2, "long": 7}


@NATIVE
async def test_every_kind_of_suspension_ends_a_step(aio: ModuleType, taken: Taken) -> None:
    loop = asyncio.get_running_loop()

    async def child() -> None:
        burn(3 * WORK)

    async with taken.timed("waits"):
        await aio.sleep(0)
        await aio.sleep(0.001)
        await aio.create_task(child())
        await aio.gather(child(), child())
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
        asyncio.current_task()  # asks asyncio's own table in the middle of a step
        stock = asyncio.Future()
        loop.call_soon(stock.set_result, None)
        await stock
    timing = taken.one()
    assert timing.steps == 7
    assert timing.cpu is not None and timing.cpu < 3 * WORK
    assert timing.suspended is not None and timing.suspended >= 9 * WORK


@NATIVE
async def test_an_eager_tasks_step_is_not_its_creators(aio: ModuleType, taken: Taken) -> None:
    create = asyncio.get_running_loop().create_task

    async def child() -> None:
        burn(10 * WORK)

    options: dict[str, Any] = {"eager_start": True}
    with taken.timed("creator"):
        burn()
        task = create(child(), **options)
        burn()
        await aio.sleep(0)
    await task
    timing = taken.one()
    assert timing.cpu is not None and 2 * WORK <= timing.cpu < 8 * WORK
    assert timing.steps == 2


@NATIVE
def test_blocks_leave_no_trace(runtime: Runtime, taken: Taken) -> None:
    """Once every block has ended, even by force, steps are not metered any more."""

    async def hang() -> None:
        with taken.timed("dropped"):
            await asyncio.get_running_loop().create_future()

    async def main() -> None:
        task = runtime.aio.create_task(hang())
        await spin(runtime.aio)
        task.cancel()
        await runtime.aio.wait([task])
        assert task.cancelled()

    runtime.run(main())
    assert taken.one().outcome == "cancelled"
    with pytest.raises(ValueError, match="no block began"):
        rondel._rondel._block_ended(None)


def test_a_block_in_a_thread_without_a_loop(taken: Taken) -> None:
    with taken.timed() as timing:
        burn()
    assert timing.name == "block"
    assert timing.cpu is not None and timing.cpu >= WORK


async def test_a_block_leaves_nothing_in_the_loop(aio: ModuleType, taken: Taken) -> None:
    ran: list[str] = []
    with taken.timed("first"):
        pass
    asyncio.get_running_loop().call_soon(ran.append, "own")
    with taken.timed("second"):
        assert ran == []
    await aio.sleep(0)
    assert ran == ["own"]


def test_a_timed_serves_one_block_at_a_time(taken: Taken) -> None:
    block = timed("again", to=taken.append)
    with block, pytest.raises(RuntimeError, match="in a block already"), block:
        pass
    with block:
        pass
    assert len(taken) == 2
    with pytest.raises(RuntimeError, match="in no block"):
        block.__exit__(None, None, None)


# ---------------------------------------------------------------------------------- reports


def printed(work: Callable[[], object]) -> list[str]:
    out = io.StringIO()
    with redirect_stdout(out):
        work()
    return out.getvalue().splitlines()


def without_times(lines: list[str]) -> list[str]:
    return [re.sub(r"\d+\.\d{4}", "T", line) for line in lines]


def test_it_prints_in_the_tutorials_words(runtime: Runtime) -> None:
    @timed
    async def greet(name: str, delay: float) -> str:
        await runtime.aio.sleep(delay)
        return name

    @timed
    def add(a: int, b: int = 0) -> int:
        return a + b

    async def main() -> None:
        await greet("hello", delay=0)
        add(1)
        async with timed("block"):
            pass
        with pytest.raises(ZeroDivisionError), timed("bad"):
            _ = 1 / 0
        task = runtime.aio.create_task(greet("late", 30))
        await runtime.aio.sleep(0)
        task.cancel()
        await runtime.aio.wait([task])

    assert without_times(printed(lambda: runtime.run(main()))) == [
        "running func: greet, params: ('hello',), {'delay': 0}",
        "func: greet, total time: T, cpu time: T in 2 steps, suspended: T",
        "running func: add, params: (1,), {}",
        "func: add, total time: T, cpu time: T",
        "block: block, total time: T, cpu time: T",
        "block: bad, total time: T, cpu time: T, raised ZeroDivisionError('division by zero')",
        "running func: greet, params: ('late', 30), {}",
        "func: greet, total time: T, cpu time: T in 2 steps, suspended: T, cancelled",
    ]


def test_what_cannot_be_told_is_left_out() -> None:
    assert str(Timing("x", "block", None, 1.5, None, None, None)) == "block: x, total time: 1.5000"


def test_it_logs_to_a_logger(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tests.timed")

    @timed("job", to=logger, level=logging.WARNING)
    def work(text: str) -> None: ...

    work("100%")
    with timed("block", to=logger):
        pass
    records = caplog.records
    assert [record.levelno for record in records] == [logging.WARNING] * 2
    assert without_times([record.getMessage() for record in records]) == [
        "running func: job, params: ('100%',), {}",
        "func: job, total time: T, cpu time: T",
    ]
    assert {record.name for record in records} == {"tests.timed"}


def test_arguments_are_optional_and_bounded(taken: Taken) -> None:
    class Bad:
        def __repr__(self) -> str:
            raise Boom

    class deque:  # noqa: N801  (a name that reprlib would take for the real one)
        pass

    looked: list[str] = []

    class Costly:
        def __repr__(self) -> str:
            looked.append("looked")
            return "costly"

    @taken.timed
    def take(*args: Any, **kwargs: Any) -> None: ...

    take("x" * 10_000, list(range(10_000)), key={i: i for i in range(10_000)})
    text = taken.pop().arguments
    assert text is not None
    assert len(text) <= 200
    assert text.endswith("...")
    take(Bad(), deque())
    text = taken.pop().arguments
    assert text is not None
    assert "Bad" in text
    assert "deque" in text
    take()
    assert taken.pop().arguments == "(), {}"
    timed(take, arguments=False, to=taken.append)
    plain = timed(arguments=False, to=taken.append)(lambda value: None)
    plain(Costly())
    assert taken.pop().arguments is None
    assert looked == []
    assert printed(lambda: timed(arguments=False)(take)())[0].startswith("running func: ")
    short = timed(limit=20, to=taken.append)(lambda value: None)
    short("y" * 100)
    assert len(taken[-1].arguments or "") == 20

    @timed(limit=30, to=taken.append)
    def fail() -> None:
        raise Boom("z" * 1000)

    with pytest.raises(Boom):
        fail()
    assert len(taken[-1].error or "") <= 30


def test_what_the_receiver_raises_reaches_the_caller() -> None:
    def receive(timing: Timing) -> None:
        raise Boom

    with pytest.raises(Boom):
        timed(to=receive)(lambda: None)()


def test_misuse_is_refused() -> None:
    class Class:
        pass

    with pytest.raises(TypeError, match="decorates functions"):
        timed(Class)
    with pytest.raises(TypeError, match="decorates functions, not 3"):
        timed(3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="below @classmethod"):
        timed(classmethod(lambda cls: None))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="logger or a callable, not int"):
        timed(to=3)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="at least 20"):
        timed(limit=19)
