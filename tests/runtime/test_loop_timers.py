"""call_later and call_at: order, precision, cancellation."""

import asyncio
import time
from types import ModuleType

import pytest

from tests.support import Runtime, elapsed_at_least

Loop = asyncio.AbstractEventLoop


def test_time_is_monotonic_seconds(loop: Loop) -> None:
    assert abs(loop.time() - time.monotonic()) < 1
    assert loop.time() <= loop.time()


def test_a_timer_is_never_early(loop: Loop) -> None:
    fired: list[float] = []
    for delay in (0.001, 0.0105, 0.02):
        due = loop.time() + delay
        loop.call_at(due, lambda due=due: fired.append(loop.time() - due))  # type: ignore[misc]
    loop.call_later(0.03, loop.stop)
    loop.run_forever()
    # A timer may fire within the clock's resolution of its time, as in asyncio.
    assert len(fired) == 3
    assert min(fired) > -1e-3
    assert max(fired) < 1


def test_timers_fire_in_the_order_of_their_times(loop: Loop) -> None:
    seen: list[int] = []
    now = loop.time()
    for step in (5, 1, 4, 2, 3):
        loop.call_at(now + step / 1000, seen.append, step)
    loop.call_at(now + 0.01, loop.stop)
    loop.run_forever()
    assert seen == [1, 2, 3, 4, 5]


def test_timers_of_the_same_time_fire_in_the_order_they_were_made(
    runtime: Runtime, loop: Loop
) -> None:
    seen: list[int] = []
    when = loop.time() + 0.005
    for number in range(50):
        loop.call_at(when, seen.append, number)
    loop.call_at(when, loop.stop)
    loop.run_forever()
    # asyncio's heap keeps no order among equals; Rondel promises one.
    assert (seen if runtime.native else sorted(seen)) == list(range(50))


def test_a_zero_or_negative_delay_fires_on_the_next_turn(loop: Loop) -> None:
    seen: list[str] = []
    loop.call_later(0, seen.append, "zero")
    loop.call_later(-1, seen.append, "negative")
    loop.call_soon(seen.append, "soon")
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert seen[0] == "soon"
    assert sorted(seen[1:]) == ["negative", "zero"]


def test_a_cancelled_timer_neither_fires_nor_keeps_the_loop(loop: Loop) -> None:
    seen: list[str] = []
    handle = loop.call_later(0.001, seen.append, "never")
    handle.cancel()
    assert handle.cancelled()
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert seen == []


def test_many_cancelled_timers_do_not_pile_up(loop: Loop) -> None:
    # asyncio rebuilds its heap; the arguments of cancelled timers must not survive either way.
    class Thing:
        alive = 0

        def __init__(self) -> None:
            Thing.alive += 1

        def __del__(self) -> None:
            Thing.alive -= 1

    for _ in range(1000):
        loop.call_later(3600, print, Thing()).cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert Thing.alive == 0


def test_when_is_the_time_given(loop: Loop) -> None:
    when = loop.time() + 60
    handle = loop.call_at(when, print)
    assert handle.when() == when
    handle.cancel()
    later = loop.call_later(60, print)
    assert later.when() == pytest.approx(when, abs=1)
    later.cancel()


def test_timer_handles_compare_by_time(loop: Loop) -> None:
    now = loop.time()
    early, late = loop.call_at(now + 60, print), loop.call_at(now + 61, print)
    assert early < late
    assert late > early
    assert early <= late
    assert late >= early
    assert early != late
    assert early == early
    early.cancel()
    late.cancel()


def test_a_timer_made_by_a_timer_fires_in_a_later_turn(loop: Loop) -> None:
    seen: list[str] = []

    def first() -> None:
        loop.call_later(0, seen.append, "child")
        loop.call_soon(seen.append, "soon")
        loop.call_later(0.01, loop.stop)

    loop.call_later(0.001, first)
    loop.run_forever()
    assert seen == ["soon", "child"]


def test_an_idle_loop_sleeps_until_its_timer(loop: Loop) -> None:
    cpu = time.process_time()
    with elapsed_at_least(0.2):
        loop.call_later(0.2, loop.stop)
        loop.run_forever()
    assert time.process_time() - cpu < 0.1


def test_the_delay_must_be_a_number(loop: Loop) -> None:
    with pytest.raises(TypeError):
        loop.call_later("soon", print)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        loop.call_at(None, print)  # type: ignore[arg-type]


def test_a_far_timer_does_not_overflow_the_wait(loop: Loop) -> None:
    far = loop.call_later(1e9, print)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    far.cancel()


def test_a_timer_on_a_closed_loop_is_refused(runtime: Runtime) -> None:
    loop = runtime.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(1, print)
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_at(1, print)


async def test_a_timer_can_be_cancelled_by_the_one_before_it(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    seen: list[str] = []
    when = loop.time() + 0.002
    second = loop.call_at(when + 0.001, seen.append, "never")
    loop.call_at(when, second.cancel)
    await aio.sleep(0.01)
    assert seen == []
