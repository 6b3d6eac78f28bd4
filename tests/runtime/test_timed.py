"""`timed`: what it measures, what it says, and that it changes nothing else.

Times are made by waiting for clocks, so that a loaded machine can only add to them: `burn` uses CPU
time of this thread, a gate that another task opens makes a suspension.
"""

import asyncio
import functools
import gc
import inspect
import io
import logging
import re
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import redirect_stdout, suppress
from types import ModuleType
from typing import Any

import pytest

from tests.support import ONLY_ASYNCIO, Runtime, spin

if ONLY_ASYNCIO:
    pytest.skip("Rondel's own names", allow_module_level=True)

import rondel
from rondel import Timing, timed

# Seconds of CPU time of one piece of work; several fit under what is asserted about others.
WORK = 0.02


def burn(seconds: float = WORK) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


class Boom(Exception):
    """What fails in these tests."""


class Taken(list[Timing]):
    """Collects reports."""

    @property
    def timed(self) -> Callable[..., Any]:
        return functools.partial(timed, to=self.append)

    def one(self) -> Timing:
        (timing,) = self
        return timing


@pytest.fixture
def taken() -> Taken:
    return Taken()


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


# -------------------------------------------------------------------------- transparency


async def test_the_kind_and_the_signature_stay(aio: ModuleType) -> None:
    def function(a: int, *, b: str = "x") -> None:
        """Its doc."""

    async def coroutine(a: int, *, b: str = "x") -> None:
        """Its doc."""

    def generator(a: int, *, b: str = "x") -> Generator[None, None, None]:
        """Its doc."""
        yield

    async def async_generator(a: int, *, b: str = "x") -> AsyncGenerator[None, None]:
        """Its doc."""
        yield

    kinds = [
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    ]
    for original in (function, coroutine, generator, async_generator):
        for decorated in (timed(original), timed()(original), timed("name")(original)):
            assert [is_(decorated) for is_ in kinds] == [is_(original) for is_ in kinds]
            assert inspect.signature(decorated) == inspect.signature(original)
            assert decorated.__name__ == original.__name__
            assert decorated.__qualname__ == original.__qualname__
            assert decorated.__doc__ == "Its doc."
            assert decorated.__wrapped__ is original  # type: ignore[attr-defined]
    task = aio.create_task(timed(to=lambda _: None)(coroutine)(1))
    assert asyncio.iscoroutine(task.get_coro())
    await task


async def test_native_and_partial_coroutine_functions(aio: ModuleType, taken: Taken) -> None:
    assert await taken.timed(rondel.sleep)(0, "value") == "value"
    assert await taken.timed(functools.partial(rondel.sleep, 0.001))(result="late") == "late"
    assert [timing.name for timing in taken] == ["sleep", "sleep"]
    assert [timing.steps for timing in taken] == [2, 2]


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="inspect.markcoroutinefunction is new in 3.12"
)
async def test_a_marked_function_may_return_any_awaitable(aio: ModuleType, taken: Taken) -> None:
    class Plain:
        def __await__(self) -> Any:
            return iter([None, None])

    mark = getattr(inspect, "markcoroutinefunction")  # noqa: B009  (not there on 3.11)

    @taken.timed
    @mark
    def future() -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_result("value")
        return future

    assert await future() == "value"
    assert await taken.timed(mark(lambda: Plain()))() is None
    assert [timing.steps for timing in taken] == [1, 3]


async def test_exceptions_and_cancellation_go_on(aio: ModuleType, taken: Taken) -> None:
    @taken.timed
    async def work(error: BaseException | None) -> None:
        if error is not None:
            raise error
        await aio.sleep(30)

    with pytest.raises(Boom, match="text"):
        await work(Boom("text"))
    task = aio.create_task(work(None))
    await aio.sleep(0)
    task.cancel("reason")
    with pytest.raises(aio.CancelledError):
        await task
    assert task.cancelled()
    with pytest.raises(TimeoutError):
        async with aio.timeout(0.001):
            await work(None)
    suspended = work(None)
    suspended.send(None)
    suspended.close()
    assert [(timing.outcome, timing.error) for timing in taken] == [
        ("raised", "Boom('text')"),
        ("cancelled", None),
        ("cancelled", None),
        ("closed", None),
    ]


async def test_what_is_thrown_in_arrives_and_may_be_caught(aio: ModuleType, taken: Taken) -> None:
    @taken.timed
    async def stubborn() -> str:
        try:
            await aio.sleep(30)
        except aio.CancelledError:
            await aio.sleep(0)
        return "stayed"

    task = aio.create_task(stubborn())
    await aio.sleep(0)
    task.cancel()
    assert await task == "stayed"
    assert taken.one().outcome == "returned"
    assert taken.one().steps == 3


def test_a_coroutine_that_is_never_awaited_warns_in_its_name(taken: Taken) -> None:
    @taken.timed
    async def forgotten() -> None: ...

    with pytest.warns(RuntimeWarning, match="forgotten' was never awaited"):
        forgotten()
        gc.collect()
    assert taken == []


class Both:
    """A generator function, and the same timed, to be driven alike."""

    def __init__(self, function: Callable[..., Any], taken: Taken) -> None:
        self.functions = [function, taken.timed(function)]

    def play(self, *moves: Callable[[Any], Any]) -> list[list[str]]:
        """What each move gives, on the original and on the timed one."""

        def attempt(move: Callable[[Any], Any], target: Any) -> str:
            try:
                return repr(move(target))
            except BaseException as error:
                return repr(error)

        games = []
        for function in self.functions:
            target = function()
            games.append([attempt(move, target) for move in moves])
        return games


def test_a_generator_is_driven_as_without(taken: Taken) -> None:
    def echo() -> Generator[Any, Any, str]:
        got: Any = "start"
        while got != "stop":
            try:
                got = yield got
            except Boom as error:
                got = error
        return "end"

    def ignores() -> Generator[Any, Any, None]:
        with suppress(GeneratorExit):
            yield 1
        yield 2

    def cleans() -> Generator[Any, Any, None]:
        try:
            yield 1
        finally:
            raise Boom("cleaning")

    both = Both(echo, taken)
    one, other = both.play(
        next,
        lambda g: g.send(5),
        lambda g: g.throw(Boom("in")),
        lambda g: g.send("stop"),
        lambda g: g.send(None),
    )
    assert one == other
    one, other = both.play(next, lambda g: g.throw(KeyError("out")), next)
    assert one == other
    one, other = both.play(next, lambda g: g.close(), next, lambda g: g.close())
    assert one == other
    one, other = both.play(lambda g: g.send(5))
    assert one == other
    one, other = Both(ignores, taken).play(next, lambda g: g.close())
    assert one == other == ["1", "RuntimeError('generator ignored GeneratorExit')"]
    one, other = Both(cleans, taken).play(next, lambda g: g.close())
    assert one == other == ["1", "Boom('cleaning')"]
    assert [timing.outcome for timing in taken[:3]] == ["returned", "raised", "closed"]


async def test_an_async_generator_is_driven_as_without(aio: ModuleType, taken: Taken) -> None:
    async def echo() -> AsyncGenerator[Any, Any]:
        got: Any = "start"
        while got != "stop":
            try:
                await aio.sleep(0)
                got = yield got
            except Boom as error:
                got = error

    async def ignores() -> AsyncGenerator[Any, Any]:
        with suppress(GeneratorExit):
            yield 1
        await aio.sleep(0)
        yield 2

    async def cleans() -> AsyncGenerator[Any, Any]:
        try:
            yield 1
        finally:
            await aio.sleep(0)
            raise Boom("cleaning")

    async def play(function: Any, *moves: Callable[[Any], Any]) -> list[str]:
        target = function()
        results = []
        for move in moves:
            try:
                results.append(repr(await move(target)))
            except BaseException as error:
                results.append(repr(error))
        return results

    first = anext
    games: list[tuple[Any, list[Callable[[Any], Any]]]] = [
        (
            echo,
            [
                first,
                lambda g: g.asend(5),
                lambda g: g.athrow(Boom("in")),
                lambda g: g.asend("stop"),
                lambda g: g.asend(None),
                lambda g: g.aclose(),
            ],
        ),
        (echo, [first, lambda g: g.athrow(KeyError("out")), first]),
        (echo, [first, lambda g: g.aclose(), first, lambda g: g.aclose()]),
        (echo, [first, lambda g: g.athrow(StopAsyncIteration("odd"))]),
        (echo, [lambda g: g.asend(5)]),
        (echo, [lambda g: g.aclose(), first]),
        (ignores, [first, lambda g: g.aclose()]),
        (cleans, [first, lambda g: g.aclose(), first]),
    ]
    for function, moves in games:
        assert await play(taken.timed(function), *moves) == await play(function, *moves)
    assert [timing.outcome for timing in taken[:3]] == ["returned", "raised", "closed"]


def test_an_unfinished_async_generator_is_closed_by_the_loop(
    runtime: Runtime, taken: Taken
) -> None:
    """By its shutdown, and when it is dropped: once, with everything in it awaited."""
    closed: list[str] = []

    @taken.timed
    async def numbers(name: str) -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await runtime.aio.sleep(0)
            await runtime.aio.sleep(0)
            closed.append(name)

    kept: list[Any] = []

    async def main() -> None:
        dropped = numbers("dropped")
        await anext(dropped)
        del dropped
        gc.collect()
        await spin(runtime.aio, 10)
        assert closed == ["dropped"]
        kept.append(numbers("kept"))
        await anext(kept[0])

    runtime.run(main())
    assert closed == ["dropped", "kept"]
    assert runtime.take_errors() == []
    assert [timing.outcome for timing in taken] == ["closed", "closed"]


async def test_methods_of_every_kind(aio: ModuleType, taken: Taken) -> None:
    class Service:
        @timed(to=taken.append)
        async def fetch(self, n: int) -> int:
            return n

        @classmethod
        @timed(to=taken.append)
        def make(cls, n: int) -> int:
            return n

        @staticmethod
        @timed(to=taken.append)
        def add(n: int) -> int:
            return n

        def __repr__(self) -> str:
            return "<service>"

    service = Service()
    assert await service.fetch(1) + service.make(2) + service.add(3) == 6
    assert [timing.name for timing in taken] == ["Service.fetch", "Service.make", "Service.add"]
    assert taken[0].arguments == "(<service>, 1), {}"


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
