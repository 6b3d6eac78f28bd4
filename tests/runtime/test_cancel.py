"""Task.cancel, cancelling and uncancel, wherever the task waits."""

import asyncio
import contextlib
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.support import Runtime, spin


async def give(value: Any) -> Any:
    return value


async def test_cancel_raises_in_the_task_where_it_waits(aio: ModuleType) -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await aio.get_running_loop().create_future()
        except aio.CancelledError:
            seen.append("cancelled")
            raise

    task = aio.create_task(wait())
    await aio.sleep(0)
    assert task.cancel() is True
    assert not task.cancelled()
    with pytest.raises(aio.CancelledError):
        await task
    assert seen == ["cancelled"]
    assert task.cancelled()
    assert task.done()


async def test_cancel_before_the_first_step_runs_no_code(aio: ModuleType) -> None:
    seen: list[str] = []

    async def never() -> None:
        seen.append("ran")

    task = aio.create_task(never())
    task.cancel()
    with pytest.raises(aio.CancelledError):
        await task
    assert seen == []
    assert task.cancelled()


async def test_cancel_cancels_the_future_waited_for(aio: ModuleType) -> None:
    future = aio.get_running_loop().create_future()

    async def wait() -> None:
        await future

    task = aio.create_task(wait())
    await aio.sleep(0)
    task.cancel("message")
    assert future.cancelled()
    with pytest.raises(aio.CancelledError, match="message"):
        await task


async def test_cancel_goes_down_to_the_task_waited_for(aio: ModuleType) -> None:
    seen: list[str] = []

    async def inner() -> None:
        try:
            await aio.sleep(60)
        except aio.CancelledError:
            seen.append("inner")
            raise

    async def outer() -> None:
        try:
            await child
        except aio.CancelledError:
            seen.append("outer")
            raise

    child = aio.create_task(inner())
    parent = aio.create_task(outer())
    await spin(aio)
    parent.cancel()
    with pytest.raises(aio.CancelledError):
        await parent
    assert seen == ["inner", "outer"]
    assert child.cancelled()


async def test_cancelling_one_of_two_waiters_cancels_what_both_wait_for(aio: ModuleType) -> None:
    shared = aio.create_task(aio.sleep(60))

    async def wait() -> None:
        await shared

    first, second = aio.create_task(wait()), aio.create_task(wait())
    await spin(aio)
    first.cancel()
    await aio.wait([first, second])
    assert first.cancelled()
    assert second.cancelled()
    assert shared.cancelled()


async def test_a_task_that_swallows_cancel_ends_normally(aio: ModuleType) -> None:
    async def stubborn() -> str:
        with contextlib.suppress(aio.CancelledError):
            await aio.sleep(60)
        return "survived"

    task = aio.create_task(stubborn())
    await aio.sleep(0)
    task.cancel()
    assert await task == "survived"
    assert not task.cancelled()
    assert task.cancelling() == 1


async def test_cancel_of_a_ready_task_is_delivered_at_its_next_step(aio: ModuleType) -> None:
    # The future is done, the wake-up queued: the cancel still has to win.
    future = aio.get_running_loop().create_future()

    async def wait() -> Any:
        return await future

    task = aio.create_task(wait())
    await aio.sleep(0)
    future.set_result("too late")
    task.cancel()
    with pytest.raises(aio.CancelledError):
        await task
    assert future.result() == "too late"


async def test_cancel_during_sleep_zero(aio: ModuleType) -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await aio.sleep(0)
            seen.append("not cancelled")
        except aio.CancelledError:
            seen.append("cancelled")
            raise

    task = aio.create_task(wait())
    await aio.sleep(0)
    task.cancel()
    await aio.wait([task])
    assert seen == ["cancelled"]


async def test_a_task_may_cancel_itself(aio: ModuleType) -> None:
    async def selfless() -> None:
        aio.current_task().cancel("by myself")
        await aio.sleep(0)
        raise AssertionError("went on")

    with pytest.raises(aio.CancelledError, match="by myself"):
        await aio.create_task(selfless())


async def test_a_task_that_cancels_itself_and_returns_is_cancelled_or_done(
    aio: ModuleType,
) -> None:
    # Without a further await the pending cancel beats the result: asyncio's rule.
    async def selfless() -> str:
        aio.current_task().cancel()
        return "result"

    task = aio.create_task(selfless())
    await aio.wait([task])
    assert task.cancelled()


async def test_cancelling_a_done_task_does_nothing(aio: ModuleType) -> None:
    task = aio.create_task(give(1))
    await task
    assert task.cancel() is False
    assert task.cancelling() == 0
    assert task.result() == 1


@pytest.mark.parametrize("message", ["why", None, ("a", "tuple"), 3])
async def test_the_message_arrives_in_the_task_and_at_the_awaiter(
    aio: ModuleType, message: Any
) -> None:
    seen: list[tuple[Any, ...]] = []

    async def wait() -> None:
        try:
            await aio.sleep(60)
        except aio.CancelledError as error:
            seen.append(error.args)
            raise

    task = aio.create_task(wait())
    await aio.sleep(0)
    task.cancel(message)
    with pytest.raises(aio.CancelledError) as caught:
        await task
    expected = () if message is None else (message,)
    assert seen == [expected]
    assert caught.value.args == expected


async def test_the_last_message_wins(aio: ModuleType) -> None:
    task = aio.create_task(aio.sleep(60))
    task.cancel("first")
    task.cancel("second")
    with pytest.raises(aio.CancelledError) as caught:
        await task
    assert caught.value.args == ("second",)


async def test_cancelled_error_raised_by_the_coroutine_cancels_the_task(aio: ModuleType) -> None:
    async def give_up() -> None:
        raise aio.CancelledError("own")

    task = aio.create_task(give_up())
    with pytest.raises(aio.CancelledError, match="own"):
        await task
    assert task.cancelled()
    assert task.cancelling() == 0


async def test_cancelling_counts_and_uncancel_counts_back(aio: ModuleType) -> None:
    async def wait() -> None:
        while True:
            try:
                await aio.sleep(60)
            except aio.CancelledError:
                if aio.current_task().cancelling() == 0:
                    raise

    task = aio.create_task(wait())
    await aio.sleep(0)
    assert task.cancelling() == 0
    task.cancel()
    assert task.cancelling() == 1
    await spin(aio)
    task.cancel()
    assert task.cancelling() == 2
    await spin(aio)
    assert not task.done()
    assert task.uncancel() == 1
    assert task.uncancel() == 0
    assert task.uncancel() == 0
    task.cancel()
    task.uncancel()
    with pytest.raises(aio.CancelledError):
        await task


async def test_a_cancel_taken_back_before_the_sleep_it_meets_is_not_counted_again(
    aio: ModuleType,
) -> None:
    # Found by a random tree (seed 10008587). Before 3.13 the sleep is cancelled all the same.
    counts: list[int] = []

    async def body() -> None:
        task = aio.current_task()
        task.cancel()
        task.uncancel()
        counts.append(task.cancelling())
        try:
            await aio.sleep(0.001)
        except aio.CancelledError:
            counts.append(task.cancelling())
        task.cancel()
        counts.append(task.cancelling())
        with contextlib.suppress(aio.CancelledError):
            await aio.sleep(60)
        counts.append(task.cancelling())

    await aio.create_task(body())
    assert counts == ([0, 0, 1, 1] if sys.version_info < (3, 13) else [0, 1, 1])


async def test_a_second_cancel_interrupts_the_cleanup(aio: ModuleType) -> None:
    seen: list[str] = []

    async def clean_up() -> None:
        try:
            await aio.sleep(60)
        finally:
            try:
                await aio.sleep(60)
            except aio.CancelledError:
                seen.append("cleanup interrupted")
                raise

    task = aio.create_task(clean_up())
    await aio.sleep(0)
    task.cancel()
    await spin(aio)
    assert not task.done()
    task.cancel()
    with pytest.raises(aio.CancelledError):
        await task
    assert seen == ["cleanup interrupted"]


async def test_an_error_raised_on_cancel_is_the_result(aio: ModuleType) -> None:
    async def convert() -> None:
        try:
            await aio.sleep(60)
        except aio.CancelledError:
            raise KeyError("converted") from None

    task = aio.create_task(convert())
    await aio.sleep(0)
    task.cancel()
    with pytest.raises(KeyError, match="converted"):
        await task
    assert not task.cancelled()


async def test_a_cancelled_task_may_be_awaited_again_and_again(aio: ModuleType) -> None:
    task = aio.create_task(aio.sleep(60))
    await aio.sleep(0)
    task.cancel("message")
    with pytest.raises(aio.CancelledError, match="message"):
        await task
    for _ in range(2):  # asyncio gives the message away with the first error
        with pytest.raises(aio.CancelledError):
            await task


async def test_the_traceback_of_a_cancel_reaches_the_awaiting_place(aio: ModuleType) -> None:
    async def place_of_waiting() -> None:
        await aio.sleep(60)

    task = aio.create_task(place_of_waiting())
    await aio.sleep(0)
    task.cancel()
    with pytest.raises(aio.CancelledError) as caught:
        await task
    names, error = set(), caught.value
    while error is not None:  # the task's own error is the context of the awaiter's on 3.11
        frame = error.__traceback__
        while frame is not None:
            names.add(frame.tb_frame.f_code.co_name)
            frame = frame.tb_next
        error = error.__context__
    assert "place_of_waiting" in names


async def test_cancel_through_a_chain_of_coroutines_runs_every_finally(aio: ModuleType) -> None:
    seen: list[int] = []

    async def nest(depth: int) -> None:
        try:
            if depth:
                await nest(depth - 1)
            else:
                await aio.sleep(60)
        finally:
            seen.append(depth)

    task = aio.create_task(nest(5))
    await aio.sleep(0)
    task.cancel()
    await aio.wait([task])
    assert seen == list(range(6))


async def test_awaits_inside_finally_work_during_cancellation(aio: ModuleType) -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            await aio.sleep(60)
        finally:
            await aio.sleep(0.001)
            seen.append(await aio.create_task(give("cleaned")))

    task = aio.create_task(work())
    await aio.sleep(0)
    task.cancel()
    await aio.wait([task])
    assert task.cancelled()
    assert seen == ["cleaned"]


def test_leaving_the_runner_cancels_what_still_runs(runtime: Runtime) -> None:
    seen: list[str] = []

    async def background() -> None:
        try:
            await runtime.aio.sleep(60)
        finally:
            seen.append("cancelled")

    async def main() -> str:
        task = runtime.aio.create_task(background())
        await runtime.aio.sleep(0)
        assert not task.done()
        return "main"

    assert runtime.run(main()) == "main"
    assert seen == ["cancelled"]


def test_an_error_while_the_runner_cancels_is_reported(runtime: Runtime) -> None:
    async def background() -> None:
        try:
            await runtime.aio.sleep(60)
        finally:
            raise KeyError("at shutdown")

    async def main() -> None:
        runtime.aio.create_task(background(), name="bg")
        await runtime.aio.sleep(0)

    runtime.run(main())
    (context,) = runtime.take_errors()
    assert "unhandled exception during" in context["message"]
    assert context["task"].get_name() == "bg"


@pytest.mark.parametrize("turns", [0, 1])
def test_a_cancels_message_reaches_the_first_who_asks_only(runtime: Runtime, turns: int) -> None:
    async def main() -> list[Any]:
        aio = runtime.aio
        never = aio.get_running_loop().create_future()

        async def wait() -> None:
            await never

        task = aio.create_task(wait())
        for _ in range(turns):
            await aio.sleep(0)
        task.cancel("why")
        [gathered] = await aio.gather(task, return_exceptions=True)
        seen = [gathered.args]
        for _ in range(2):
            try:
                task.result()
            except asyncio.CancelledError as exc:
                seen.append(exc.args)
        return seen

    assert runtime.run(main()) == [("",), ("why",), ()]
