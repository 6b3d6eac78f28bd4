"""call_soon, its batches, its handles and the contexts callbacks run in."""

import asyncio
import contextvars
import functools
import gc
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.support import Runtime, run_once

Loop = asyncio.AbstractEventLoop
var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


def test_callbacks_run_in_the_order_they_were_scheduled(loop: Loop) -> None:
    seen: list[int] = []
    for number in range(100):
        loop.call_soon(seen.append, number)
    run_once(loop)
    assert seen == list(range(100))


def test_call_soon_passes_positional_arguments(loop: Loop) -> None:
    seen: list[tuple[Any, ...]] = []
    loop.call_soon(lambda *args: seen.append(args), 1, "two", None)
    loop.call_soon(lambda *args: seen.append(args))
    run_once(loop)
    assert seen == [(1, "two", None), ()]


def test_a_callback_scheduled_by_a_callback_waits_for_the_next_turn(loop: Loop) -> None:
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        loop.call_soon(seen.append, "child")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    run_once(loop)
    assert seen == ["first", "second"]
    run_once(loop)
    assert seen == ["first", "second", "child"]


def test_stop_does_not_cut_the_batch_short(loop: Loop) -> None:
    seen: list[str] = []
    loop.call_soon(loop.stop)
    loop.call_soon(seen.append, "after stop")
    loop.run_forever()
    assert seen == ["after stop"]


def test_what_is_scheduled_after_stop_stays_for_the_next_run(loop: Loop) -> None:
    seen: list[str] = []

    def stop() -> None:
        loop.stop()
        loop.call_soon(seen.append, "next run")

    loop.call_soon(stop)
    loop.run_forever()
    assert seen == []
    run_once(loop)
    assert seen == ["next run"]


def test_a_cancelled_handle_does_not_run(loop: Loop) -> None:
    seen: list[str] = []
    handle = loop.call_soon(seen.append, "never")
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled()
    run_once(loop)
    assert seen == []


def test_a_handle_can_be_cancelled_by_an_earlier_callback_of_its_batch(loop: Loop) -> None:
    seen: list[str] = []
    handles: list[asyncio.Handle] = []
    loop.call_soon(lambda: handles[0].cancel())
    handles.append(loop.call_soon(seen.append, "never"))
    loop.call_soon(seen.append, "third")
    run_once(loop)
    assert seen == ["third"]


def test_cancelling_twice_or_after_the_run_does_nothing(loop: Loop) -> None:
    seen: list[str] = []
    ran = loop.call_soon(seen.append, "ran")
    run_once(loop)
    ran.cancel()
    ran.cancel()
    assert seen == ["ran"]


def test_a_cancelled_handle_lets_go_of_its_callback_and_arguments(loop: Loop) -> None:
    class Thing:
        def method(self, other: object) -> None: ...

    thing = Thing()
    gone = weakref.ref(thing)
    handle = loop.call_soon(thing.method, thing)
    handle.cancel()
    del thing
    gc.collect()
    assert gone() is None


def test_a_handle_that_ran_lets_go_of_its_callback(loop: Loop) -> None:
    class Thing:
        def method(self) -> None: ...

    thing = Thing()
    gone = weakref.ref(thing)
    loop.call_soon(thing.method)
    run_once(loop)
    del thing
    gc.collect()
    assert gone() is None


def test_handles_name_their_callback_and_state(loop: Loop) -> None:
    soon, later = loop.call_soon(print), loop.call_later(60, print)
    assert type(soon).__name__ == "Handle"
    assert type(later).__name__ == "TimerHandle"
    assert "print" in repr(soon)
    assert "print" in repr(later)
    for handle in (soon, later):
        handle.cancel()
        assert "cancelled" in repr(handle)


def test_handles_can_be_weakly_referenced_and_hold_their_context(loop: Loop) -> None:
    context = contextvars.copy_context()
    handle = loop.call_soon(print, context=context)
    assert weakref.ref(handle)() is handle
    if hasattr(asyncio.Handle, "get_context"):
        assert handle.get_context() is context  # type: ignore[attr-defined]
    handle.cancel()


def test_a_callback_runs_in_the_context_it_was_scheduled_from(loop: Loop) -> None:
    seen: list[str] = []

    def schedule(value: str) -> None:
        var.set(value)
        loop.call_soon(lambda: seen.append(var.get()))

    contextvars.copy_context().run(schedule, "one")
    contextvars.copy_context().run(schedule, "two")
    loop.call_soon(lambda: seen.append(var.get()))
    run_once(loop)
    assert seen == ["one", "two", "unset"]


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_an_explicit_context_is_used_and_keeps_what_the_callback_sets(
    loop: Loop, method: str
) -> None:
    context = contextvars.copy_context()
    context.run(var.set, "given")
    seen: list[str] = []

    def callback() -> None:
        seen.append(var.get())
        var.set("changed")
        loop.stop()

    when = {"call_later": (0,), "call_at": (loop.time(),)}.get(method, ())
    getattr(loop, method)(*when, callback, context=context)
    loop.run_forever()
    assert seen == ["given"]
    assert context[var] == "changed"
    assert var.get() == "unset"


def test_two_callbacks_may_share_one_context(loop: Loop) -> None:
    context = contextvars.copy_context()
    seen: list[str] = []
    loop.call_soon(var.set, "from the first", context=context)
    loop.call_soon(lambda: seen.append(var.get()), context=context)
    run_once(loop)
    assert seen == ["from the first"]


def test_a_callback_is_freed_outside_of_its_context(loop: Loop) -> None:
    # What its end runs may enter the context again: a task's forgotten error does, from 3.12 on.
    context = contextvars.copy_context()
    seen: list[str] = []

    class Callback:
        def __call__(self) -> None: ...

        def __del__(self) -> None:
            context.run(seen.append, "entered again")

    loop.call_soon(Callback(), context=context)
    loop.call_later(0, Callback(), context=context)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert seen == ["entered again"] * 2


@pytest.mark.parametrize("callback", [None, 3, "text"])
def test_scheduling_what_cannot_be_called_is_reported(
    runtime: Runtime, loop: Loop, callback: Any
) -> None:
    loop.set_debug(True)
    with pytest.raises(TypeError):
        loop.call_soon(callback)
    # asyncio checks at the call in debug mode only, Rondel always.
    loop.set_debug(False)
    if runtime.native:
        with pytest.raises(TypeError):
            loop.call_soon(callback)
    else:
        loop.call_soon(callback)
        run_once(loop)
        assert [type(context["exception"]) for context in runtime.take_errors()] == [TypeError]


def test_scheduling_a_coroutine_function_is_refused_in_debug_mode(loop: Loop) -> None:
    async def coroutine() -> None: ...

    loop.set_debug(True)
    with pytest.raises(TypeError, match="[Cc]oroutine"):
        loop.call_soon(coroutine)


@pytest.mark.parametrize(
    "callable_",
    [functools.partial(list.append), list.append, lambda seen, item: seen.append(item)],
    ids=["partial", "method descriptor", "lambda"],
)
def test_any_callable_is_a_callback(loop: Loop, callable_: Callable[..., None]) -> None:
    seen: list[str] = []
    loop.call_soon(callable_, seen, "item")
    run_once(loop)
    assert seen == ["item"]


def test_keyword_arguments_other_than_context_are_refused(loop: Loop) -> None:
    with pytest.raises(TypeError):
        loop.call_soon(print, end="")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        loop.call_soon()  # type: ignore[call-arg]


async def test_the_running_loop_is_set_within_callbacks_and_coroutines(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    seen: list[Any] = []
    loop.call_soon(lambda: seen.append(aio.get_running_loop()))
    loop.call_soon(lambda: seen.append(asyncio.get_event_loop()))
    await aio.sleep(0)
    assert seen == [loop, loop]


def test_no_loop_runs_outside_of_one(runtime: Runtime, loop: Loop) -> None:
    run_once(loop)
    with pytest.raises(RuntimeError, match="no running event loop"):
        runtime.aio.get_running_loop()


async def test_ready_callbacks_do_not_starve_timers_and_descriptors(aio: ModuleType) -> None:
    # A chain that is always ready must let a due timer in within a bounded number of turns.
    loop = aio.get_running_loop()
    due = loop.create_future()
    loop.call_later(0.01, due.set_result, None)

    def chain() -> None:
        if not due.done():
            loop.call_soon(chain)

    chain()
    await aio.wait_for(due, 5)
