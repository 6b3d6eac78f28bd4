"""Future: states, callbacks, cancellation and its life as an object."""

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.support import Runtime, spin

Loop = asyncio.AbstractEventLoop
var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


def turn(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_a_new_future_is_pending(loop: Loop) -> None:
    future = loop.create_future()
    assert not future.done()
    assert not future.cancelled()
    assert future.get_loop() is loop
    assert future._state == "PENDING"


def test_a_result_finishes_it(loop: Loop) -> None:
    future = loop.create_future()
    assert future.set_result(3) is None  # type: ignore[func-returns-value]
    assert future.done()
    assert not future.cancelled()
    assert future.result() == 3
    assert future.exception() is None


def test_an_exception_finishes_it_and_is_raised_each_time(loop: Loop) -> None:
    future = loop.create_future()
    error = KeyError("it")
    future.set_exception(error)
    assert future.done()
    assert future.exception() is error
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            future.result()
        assert caught.value is error


def test_the_traceback_of_a_raised_exception_does_not_grow(loop: Loop) -> None:
    future = loop.create_future()
    future.set_exception(KeyError())
    lengths = []
    for _ in range(3):
        try:
            future.result()
        except KeyError as error:
            length, frame = 0, error.__traceback__
            while frame is not None:
                length, frame = length + 1, frame.tb_next
            lengths.append(length)
    assert len(set(lengths)) == 1


def test_an_exception_class_is_instantiated(loop: Loop) -> None:
    future = loop.create_future()
    future.set_exception(KeyError)
    assert type(future.exception()) is KeyError


@pytest.mark.parametrize("bad", [3, "text", None, object(), int])
def test_what_is_not_an_exception_is_refused(loop: Loop, bad: Any) -> None:
    future = loop.create_future()
    with pytest.raises(TypeError):
        future.set_exception(bad)
    assert not future.done()


class Stop(StopIteration):
    """A subclass, which asyncio treats otherwise in some versions."""


@pytest.mark.parametrize("stop", [StopIteration, StopIteration("value"), Stop, Stop("value")])
def test_stop_iteration_in_a_future_is_what_this_python_makes_of_it(loop: Loop, stop: Any) -> None:
    # Refused with a TypeError, kept, or replaced by a RuntimeError (gh-112182, from 3.12.2 on).
    def outcome(future: Any) -> object:
        try:
            future.set_exception(stop)
        except TypeError as error:
            assert not future.done()
            return str(error)
        found = future.exception()
        cause, context = found.__cause__, found.__context__
        return type(found), str(found), type(cause), type(context), found.__suppress_context__

    stock: asyncio.Future[None] = asyncio.Future(loop=loop)
    assert outcome(loop.create_future()) == outcome(stock)


def test_reading_a_pending_future_is_an_error(runtime: Runtime, loop: Loop) -> None:
    future = loop.create_future()
    with pytest.raises(runtime.aio.InvalidStateError, match="Result is not set"):
        future.result()
    with pytest.raises(runtime.aio.InvalidStateError, match="Exception is not set"):
        future.exception()


FINISH: dict[str, Callable[[Any], object]] = {
    "result": lambda future: future.set_result(1),
    "exception": lambda future: future.set_exception(KeyError()),
    "cancel": lambda future: future.cancel(),
}


@pytest.mark.parametrize("first", FINISH)
@pytest.mark.parametrize("second", ["result", "exception"])
def test_a_finished_future_cannot_be_finished_again(
    runtime: Runtime, loop: Loop, first: str, second: str
) -> None:
    future = loop.create_future()
    FINISH[first](future)
    with pytest.raises(runtime.aio.InvalidStateError):
        FINISH[second](future)
    if first == "exception":
        future.exception()


def test_cancel_finishes_once(runtime: Runtime, loop: Loop) -> None:
    future = loop.create_future()
    assert future.cancel() is True
    assert future.cancelled()
    assert future.done()
    assert future.cancel() is False
    with pytest.raises(runtime.aio.CancelledError):
        future.result()
    with pytest.raises(runtime.aio.CancelledError):
        future.exception()


def test_cancel_of_a_done_future_does_nothing(loop: Loop) -> None:
    future = loop.create_future()
    future.set_result(1)
    assert future.cancel() is False
    assert future.result() == 1


@pytest.mark.parametrize(
    ("given", "args"), [({}, ()), ({"msg": "why"}, ("why",)), ({"msg": None}, ())]
)
def test_the_message_of_cancel_is_raised(
    runtime: Runtime, loop: Loop, given: dict[str, Any], args: tuple[Any, ...]
) -> None:
    future = loop.create_future()
    future.cancel(**given)
    with pytest.raises(runtime.aio.CancelledError) as caught:
        future.result()
    assert caught.value.args == args


def test_callbacks_run_on_the_next_turn_in_order(loop: Loop) -> None:
    seen: list[Any] = []
    future = loop.create_future()
    for name in "abc":
        future.add_done_callback(lambda done, name=name: seen.append((name, done)))  # type: ignore[misc]
    future.set_result(None)
    assert seen == []
    turn(loop)
    assert seen == [("a", future), ("b", future), ("c", future)]


def test_a_callback_added_to_a_done_future_runs_on_the_next_turn(loop: Loop) -> None:
    seen: list[Any] = []
    future = loop.create_future()
    future.set_result(None)
    future.add_done_callback(seen.append)
    assert seen == []
    turn(loop)
    assert seen == [future]


def test_remove_done_callback_removes_all_equal_ones_and_counts(loop: Loop) -> None:
    seen: list[Any] = []
    future = loop.create_future()
    other = list[Any]().append
    assert future.remove_done_callback(seen.append) == 0
    for callback in (seen.append, other, seen.append, seen.append):
        future.add_done_callback(callback)
    assert future.remove_done_callback(seen.append) == 3
    assert future.remove_done_callback(seen.append) == 0
    assert future.remove_done_callback(other) == 1
    future.set_result(None)
    turn(loop)
    assert seen == []


def test_removing_from_within_a_comparison_is_safe(loop: Loop) -> None:
    # An __eq__ that empties the list while it is walked.
    future = loop.create_future()
    sprung: list[bool] = []

    class Evil:
        def __call__(self, future: object) -> None: ...

        def __eq__(self, other: object) -> bool:
            if not sprung:
                sprung.append(True)
                future.remove_done_callback(print)
            return False

        __hash__ = None  # type: ignore[assignment]

    for _ in range(4):
        future.add_done_callback(Evil())
        future.add_done_callback(print)
    future.remove_done_callback(Evil())
    assert sprung
    assert future.remove_done_callback(print) == 0
    future.cancel()


def test_callbacks_run_in_the_context_of_their_registration(loop: Loop) -> None:
    seen: list[str] = []
    future = loop.create_future()
    given = contextvars.copy_context()
    given.run(var.set, "given")
    contextvars.copy_context().run(
        lambda: (var.set("copied"), future.add_done_callback(lambda _: seen.append(var.get())))  # type: ignore[func-returns-value]
    )
    future.add_done_callback(lambda _: seen.append(var.get()), context=given)
    future.set_result(None)
    turn(loop)
    assert seen == ["copied", "given"]


def test_an_error_in_a_callback_does_not_stop_the_others(runtime: Runtime, loop: Loop) -> None:
    seen: list[Any] = []

    def broken(future: object) -> None:
        raise ZeroDivisionError

    future = loop.create_future()
    future.add_done_callback(broken)
    future.add_done_callback(seen.append)
    future.set_result(None)
    turn(loop)
    assert seen == [future]
    (context,) = runtime.take_errors()
    assert isinstance(context["exception"], ZeroDivisionError)


async def test_awaiting_waits_for_the_result(aio: ModuleType) -> None:
    future = aio.get_running_loop().create_future()
    aio.get_running_loop().call_soon(future.set_result, "later")
    assert await future == "later"
    assert await future == "later"


async def test_awaiting_a_done_future_does_not_yield(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    seen: list[str] = []
    future = loop.create_future()
    future.set_result(1)
    loop.call_soon(seen.append, "a turn passed")
    await future
    assert seen == []


@pytest.mark.parametrize("value", [(1, 2), (), None, StopIteration(3), KeyError("a value"), [1]])
async def test_any_object_comes_out_as_it_went_in(aio: ModuleType, value: Any) -> None:
    # Tuples and exceptions as values are what a careless StopIteration would unpack.
    future = aio.get_running_loop().create_future()
    future.set_result(value)
    assert await future is value
    later = aio.get_running_loop().create_future()
    aio.get_running_loop().call_soon(later.set_result, value)
    assert await later is value


async def test_awaiting_a_cancelled_future_raises_cancelled(aio: ModuleType) -> None:
    future = aio.get_running_loop().create_future()
    future.cancel("message")
    with pytest.raises(aio.CancelledError, match="message"):
        await future
    assert aio.current_task().cancelling() == 0


def test_the_iterator_yields_the_future_and_then_its_result(loop: Loop) -> None:
    future = loop.create_future()
    iterator = iter(future)
    assert next(iterator) is future
    future.set_result(4)
    with pytest.raises(StopIteration) as stopped:
        next(iterator)
    assert stopped.value.value == 4


def test_resuming_the_iterator_too_early_is_an_error(loop: Loop) -> None:
    future = loop.create_future()
    iterator = future.__await__()
    assert next(iterator) is future
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        next(iterator)


def test_the_iterator_passes_thrown_exceptions_on(loop: Loop) -> None:
    iterator = loop.create_future().__await__()
    next(iterator)
    with pytest.raises(KeyError):
        iterator.throw(KeyError())
    iterator = loop.create_future().__await__()
    next(iterator)
    iterator.close()


async def test_a_bare_yield_of_a_future_is_refused(aio: ModuleType) -> None:
    # `yield future` instead of `yield from future`: the flag set by __await__ is missing.
    future = aio.get_running_loop().create_future()

    class Bad:
        def __await__(self) -> Any:
            yield future

    with pytest.raises(RuntimeError, match="yield was used instead of yield from"):
        await Bad()


def test_debug_mode_checks_the_callbacks_of_a_done_future(loop: Loop) -> None:
    loop.set_debug(True)
    future = loop.create_future()
    future.add_done_callback(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a callable object was expected by call_soon"):
        future.set_result(None)
    with pytest.raises(TypeError, match="a callable object was expected by call_soon"):
        future.add_done_callback(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="coroutines cannot be used with call_soon"):
        future.add_done_callback(asyncio.sleep)


@pytest.mark.no_debug_mode
def test_repr_shows_state_result_and_callbacks(loop: Loop) -> None:
    def some_callback(future: object) -> None: ...

    future = loop.create_future()
    assert repr(future) == "<Future pending>"
    future.add_done_callback(some_callback)
    assert "cb=[" in repr(future)
    assert "some_callback" in repr(future)
    future.set_result([1])
    assert "finished result=[1]" in repr(future)
    cancelled = loop.create_future()
    cancelled.cancel()
    assert repr(cancelled) == "<Future cancelled>"
    failed = loop.create_future()
    failed.set_exception(KeyError("x"))
    failed.exception()
    assert "finished exception=KeyError('x')" in repr(failed)


def test_a_repr_that_contains_itself_ends(loop: Loop) -> None:
    future = loop.create_future()
    future.set_result([future])
    assert "..." in repr(future)


def test_isfuture_and_isinstance(runtime: Runtime, loop: Loop) -> None:
    future = loop.create_future()
    assert runtime.aio.isfuture(future)
    assert asyncio.isfuture(future)
    assert isinstance(future, asyncio.Future)
    assert isinstance(future, runtime.types.Future)
    assert not runtime.aio.isfuture(asyncio.Future)


def test_the_constructor_takes_the_loop_by_keyword_only(runtime: Runtime, loop: Loop) -> None:
    assert runtime.aio.Future(loop=loop).get_loop() is loop
    with pytest.raises(TypeError):
        runtime.aio.Future(loop)


async def test_the_constructor_finds_the_running_loop(aio: ModuleType) -> None:
    assert aio.Future().get_loop() is aio.get_running_loop()


def test_futures_can_be_subclassed_and_carry_attributes(runtime: Runtime, loop: Loop) -> None:
    class Mine(runtime.aio.Future):  # type: ignore[misc, name-defined]
        def __init__(self, **kw: Any) -> None:
            super().__init__(**kw)
            self.mine = 1

        def set_result(self, result: Any) -> None:
            super().set_result(result + self.mine)

    async def wait(future: Any) -> Any:
        return await future

    future = Mine(loop=loop)
    loop.call_soon(future.set_result, 1)
    assert loop.run_until_complete(wait(future)) == 2
    assert future.result() == 2


def test_a_future_can_be_weakly_referenced_and_is_freed_at_once(loop: Loop) -> None:
    future = loop.create_future()
    gone = weakref.ref(future)
    assert gone() is future
    future.set_result(None)
    del future
    assert gone() is None


def test_a_cycle_through_a_result_or_a_callback_is_collected(loop: Loop) -> None:
    class Node:
        pass

    by_result, by_callback = Node(), Node()
    gone = [weakref.ref(by_result), weakref.ref(by_callback)]
    first = loop.create_future()
    by_result.future = first  # type: ignore[attr-defined]
    first.set_result(by_result)
    second = loop.create_future()
    by_callback.future = second  # type: ignore[attr-defined]
    second.add_done_callback(lambda _, node=by_callback: None)  # type: ignore[misc]
    del first, second, by_result, by_callback
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_a_future_is_generic_and_hashable(runtime: Runtime, loop: Loop) -> None:
    assert runtime.aio.Future[int].__origin__ is runtime.aio.Future
    future = loop.create_future()
    assert future in {future}
    assert future != loop.create_future()


async def test_a_future_of_another_loop_is_refused(runtime: Runtime) -> None:
    other = runtime.new_event_loop()
    future = other.create_future()
    with pytest.raises(RuntimeError, match="attached to a different loop"):
        await future
    other.close()


async def test_a_done_future_of_another_loop_may_be_awaited(runtime: Runtime) -> None:
    other = runtime.new_event_loop()
    future = other.create_future()
    future.set_result("there")
    assert await future == "there"
    other.close()


async def test_ensure_future_returns_futures_as_they_are(aio: ModuleType) -> None:
    future = aio.get_running_loop().create_future()
    assert aio.ensure_future(future) is future
    future.cancel()


async def test_ensure_future_wraps_any_awaitable(runtime: Runtime) -> None:
    aio = runtime.aio

    class Awaitable:
        def __await__(self) -> Any:
            yield from aio.sleep(0).__await__()
            return "awaited"

    task = aio.ensure_future(Awaitable())
    assert isinstance(task, runtime.types.Task)
    assert await task == "awaited"
    with pytest.raises(TypeError):
        aio.ensure_future(3)


async def test_set_result_wakes_every_waiter(aio: ModuleType) -> None:
    future = aio.get_running_loop().create_future()

    async def wait() -> Any:
        return await future

    tasks = [aio.create_task(wait()) for _ in range(10)]
    await spin(aio)
    future.set_result("all")
    assert await aio.gather(*tasks) == ["all"] * 10
