"""What handles and the loop's warnings look like in debug mode: asyncio's texts, to the letter."""

import _asyncio
import asyncio
import logging
import re
import sys
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import run_once

Loop = asyncio.AbstractEventLoop

HERE = re.escape(__file__)
"""What asyncio puts behind `at`: the file, then a line's number."""


def dawdle(*_args: object) -> None:
    time.sleep(0.02)


def boom(*_args: object) -> None:
    raise ZeroDivisionError


@pytest.fixture
def debug(loop: Loop) -> Iterator[Loop]:
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    yield loop
    loop.set_debug(False)


def slow(caplog: pytest.LogCaptureFixture) -> list[str]:
    texts = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return [text for text in texts if text.startswith("Executing ")]


def test_a_slow_callback_is_named_with_its_arguments_and_places(
    debug: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    debug.call_soon(dawdle, 1, "two")
    debug.call_soon(dawdle, 1, 2, 3)
    run_once(debug)
    two, three = slow(caplog)
    places = rf"at {HERE}:\d+ created at {HERE}:\d+"
    took = r"took 0\.\d{3} seconds"
    assert re.fullmatch(rf"Executing <Handle dawdle\(1, 'two'\) {places}> {took}", two)
    assert re.fullmatch(rf"Executing <Handle dawdle\(1, 2, 3\) {places}> {took}", three)


def test_a_slow_timer_is_named_with_its_time(debug: Loop, caplog: pytest.LogCaptureFixture) -> None:
    timer = debug.call_later(0, dawdle)
    debug.call_later(0.001, debug.stop)
    debug.run_forever()
    (text,) = slow(caplog)
    when = re.escape(repr(timer.when()))
    assert re.match(rf"Executing <TimerHandle when={when} dawdle\(\) at {HERE}:\d+ created", text)


def test_a_slow_callback_that_cancels_its_handle_is_named_still(
    debug: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    handles: list[asyncio.Handle] = []

    def cancels() -> None:
        dawdle()
        handles.pop().cancel()

    handles.append(debug.call_soon(cancels))
    run_once(debug)
    (text,) = slow(caplog)
    assert re.match(r"Executing <Handle cancelled \S*cancels\(\) at ", text)


def test_a_slow_callback_of_a_task_is_shown_as_the_task(
    debug: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(_asyncio.Task[None]):
        """A task of CPython's own, whose steps are callbacks of the loop."""

    async def steps() -> None:
        dawdle()

    task = Odd(steps(), loop=debug, name="odd")
    debug.run_until_complete(task)
    assert any(
        re.match(r"Executing <Odd finished name='odd' coro=<", text) for text in slow(caplog)
    )


def test_a_handle_shows_where_it_was_made_in_debug_mode(debug: Loop) -> None:
    handle = debug.call_soon(boom, 1)
    shown = rf"<Handle boom\(1\) at {HERE}:\d+ created at {HERE}:\d+>"
    assert re.fullmatch(shown, repr(handle))
    handle.cancel()


def test_a_cancelled_handle_keeps_its_looks_in_debug_mode(debug: Loop) -> None:
    handle, timer = debug.call_soon(boom, 1), debug.call_at(debug.time() + 10, boom, 1, 2, 3)
    handle.cancel()
    timer.cancel()
    places = rf"at {HERE}:\d+ created at {HERE}:\d+"
    assert re.fullmatch(rf"<Handle cancelled boom\(1\) {places}>", repr(handle))
    when = re.escape(repr(timer.when()))
    shown = rf"<TimerHandle cancelled when={when} boom\(1, 2, 3\) {places}>"
    assert re.fullmatch(shown, repr(timer))
    assert handle._args is None and timer._callback is None


def test_a_cancelled_handle_keeps_nothing_alive_in_debug_mode(debug: Loop) -> None:
    class Held:
        pass

    held = Held()
    gone = weakref.ref(held)
    handle = debug.call_soon(boom, held)
    handle.cancel()
    del held
    assert gone() is None


def test_a_cancelled_handle_shows_nothing_of_its_callback_without_debug(loop: Loop) -> None:
    handle, timer = loop.call_soon(boom, 1), loop.call_at(1e9, boom)
    assert re.fullmatch(rf"<Handle boom\({args('1')}\) at {HERE}:\d+>", repr(handle))
    assert re.fullmatch(rf"<TimerHandle when=1000000000\.0 boom\(\) at {HERE}:\d+>", repr(timer))
    handle.cancel()
    timer.cancel()
    assert repr(handle) == "<Handle cancelled>"
    assert repr(timer) == "<TimerHandle cancelled when=1000000000.0>"


def args(shown: str) -> str:
    """How arguments are shown without debug mode: not at all since 3.13."""
    return shown if sys.version_info < (3, 13) else ""


@pytest.mark.parametrize("in_debug", [False, True])
def test_an_exception_in_a_callback_is_told_with_its_arguments(loop: Loop, in_debug: bool) -> None:
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: told.append(context))
    loop.set_debug(in_debug)
    loop.call_soon(boom, 1)
    run_once(loop)
    loop.set_debug(False)
    (context,) = told
    inside = "1" if in_debug else args("1")
    assert re.fullmatch(
        rf"Exception in callback boom\({inside}\) at {HERE}:\d+", context["message"]
    )
    assert ("source_traceback" in context) is in_debug
