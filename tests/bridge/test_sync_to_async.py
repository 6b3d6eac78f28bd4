"""`sync_to_async`: the same on asgiref's threads and on native ones."""

import asyncio
import contextlib
import contextvars
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
from asgiref.local import Local
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, async_to_sync, sync_to_async

from tests.support import PATIENCE, Runtime

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


async def test_gives_the_value_from_another_thread(aio: ModuleType) -> None:
    def work(a: int, *, b: int) -> tuple[int, int]:
        return a + b, threading.get_ident()

    value, ident = await sync_to_async(work)(1, b=2)
    assert value == 3
    assert ident != threading.get_ident()


async def test_raises_what_the_function_raises_with_its_traceback(aio: ModuleType) -> None:
    def inner() -> None:
        raise KeyError("gone")

    def outer() -> None:
        inner()

    with pytest.raises(KeyError, match="gone") as caught:
        await sync_to_async(outer)()
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-2:] == ["outer", "inner"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_raises_exceptions_of_every_kind(aio: ModuleType, error: type[BaseException]) -> None:
    if error is not GeneratorExit and aio.get_running_loop().__class__.__module__[:7] == "asyncio":
        pytest.skip("the executor's future ends a stock loop by them")

    def work() -> None:
        raise error("on purpose")

    try:
        await sync_to_async(work)()
    except error as raised:
        assert raised.args == ("on purpose",)
    else:
        pytest.fail("nothing was raised")


async def test_context_variables_go_there_and_back(aio: ModuleType) -> None:
    def work() -> str:
        seen = var.get()
        var.set("by the thread")
        return seen

    var.set("by the task")
    assert await sync_to_async(work)() == "by the task"
    assert var.get() == "by the thread"


async def test_a_failed_call_carries_context_variables_back_too(aio: ModuleType) -> None:
    def work() -> None:
        var.set("before the error")
        raise ValueError

    with pytest.raises(ValueError):
        await sync_to_async(work)()
    assert var.get() == "before the error"


async def test_local_data_is_shared_with_the_thread(aio: ModuleType) -> None:
    local = Local()
    local.name = "task"

    def work() -> str:
        seen: str = local.name
        local.name = "thread"
        return seen

    assert await sync_to_async(work)() == "task"
    assert local.name == "thread"


async def test_the_handled_exception_is_there_in_the_thread(aio: ModuleType) -> None:
    def work() -> BaseException | None:
        return sys.exc_info()[1]

    error = ValueError("being handled")
    try:
        raise error
    except ValueError:
        assert await sync_to_async(work)() is error
    assert await sync_to_async(work)() is None


async def test_sensitive_calls_share_a_thread_within_a_context(aio: ModuleType) -> None:
    ident = sync_to_async(threading.get_ident)
    async with ThreadSensitiveContext():
        first = await ident()
        assert await ident() == first
        # A task of the context too.
        assert await aio.create_task(ident()) == first
        assert {await ident() for _ in range(10)} == {first}


async def test_contexts_at_the_same_time_have_threads_of_their_own(aio: ModuleType) -> None:
    both = threading.Barrier(2, timeout=PATIENCE)

    async def one() -> int:
        async with ThreadSensitiveContext():

            def work() -> int:
                both.wait()
                return threading.get_ident()

            return await sync_to_async(work)()

    first, second = await aio.gather(one(), one())
    assert first != second


async def test_a_call_lets_the_loop_go_round_however_quick_it_is(aio: ModuleType) -> None:
    turns: list[int] = []
    for _ in range(20):
        aio.get_running_loop().call_soon(turns.append, 1)
        await sync_to_async(int)()
    assert len(turns) == 20


async def test_without_a_context_all_sensitive_calls_share_one_thread(aio: ModuleType) -> None:
    ident = sync_to_async(threading.get_ident)
    found = await aio.gather(*(ident() for _ in range(20)))
    assert len(set(found)) == 1


async def test_calls_that_are_not_sensitive_run_at_the_same_time(aio: ModuleType) -> None:
    all_there = threading.Barrier(3, timeout=PATIENCE)
    work = sync_to_async(all_there.wait, thread_sensitive=False)
    assert sorted(await aio.gather(work(), work(), work())) == [0, 1, 2]


async def test_an_executor_of_the_programs_own_is_used(aio: ModuleType) -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as mine:
        name = sync_to_async(
            lambda: threading.current_thread().name, thread_sensitive=False, executor=mine
        )
        assert (await name()).startswith("mine")


async def test_the_loops_own_default_executor_is_used(aio: ModuleType) -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="default") as mine:
        aio.get_running_loop().set_default_executor(mine)
        name = sync_to_async(lambda: threading.current_thread().name, thread_sensitive=False)
        assert (await name()).startswith("default")


async def test_bridges_nest_in_any_depth_on_the_same_thread(aio: ModuleType) -> None:
    depth = 12
    idents = []

    def sync(level: int) -> int:
        idents.append(threading.get_ident())
        return level if level == depth else async_to_sync(async_)(level + 1)

    async def async_(level: int) -> int:
        return await sync_to_async(sync)(level + 1)

    assert await sync_to_async(sync)(0) == depth
    assert len(set(idents)) == 1
    assert len(idents) == depth // 2 + 1


async def test_a_cancelled_call_raises_at_once_and_its_thread_goes_on(aio: ModuleType) -> None:
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go_on.wait(PATIENCE)
        ended.set()

    task = aio.create_task(sync_to_async(work)())
    await sync_to_async(began.wait, thread_sensitive=False)(PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended.is_set()
    go_on.set()
    assert await sync_to_async(ended.wait, thread_sensitive=False)(PATIENCE)


async def test_a_call_that_is_cancelled_in_the_queue_is_not_made(aio: ModuleType) -> None:
    began, go_on = threading.Event(), threading.Event()
    made: list[int] = []

    def hold() -> None:
        began.set()
        go_on.wait(PATIENCE)

    async with ThreadSensitiveContext():
        holding = aio.create_task(sync_to_async(hold)())
        await sync_to_async(began.wait, thread_sensitive=False)(PATIENCE)
        queued = aio.create_task(sync_to_async(made.append)(1))
        await aio.sleep(0)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        go_on.set()
        await holding
        await sync_to_async(len)(made)
    assert made == []


async def test_a_cancel_reaches_the_async_code_that_the_thread_waits_for(aio: ModuleType) -> None:
    began = aio.Event()
    seen = []

    async def inner() -> str:
        began.set()
        try:
            await aio.sleep(PATIENCE)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return "not cancelled"

    task = aio.create_task(sync_to_async(async_to_sync(inner))())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]


async def test_async_code_that_survives_its_cancel_gives_its_result(aio: ModuleType) -> None:
    began = aio.Event()

    async def inner() -> str:
        began.set()
        try:
            await aio.sleep(PATIENCE)
        except asyncio.CancelledError:
            return "survived"
        return "not cancelled"

    task = aio.create_task(sync_to_async(lambda: async_to_sync(inner)())())
    await began.wait()
    task.cancel()
    # Cancelled, if the thread was quicker than the task that waits for it: asgiref's way.
    with contextlib.suppress(asyncio.CancelledError):
        assert await task == "survived"


async def test_a_subclass_decides_how_the_function_is_run(aio: ModuleType) -> None:
    calls = []

    class Logged(SyncToAsync[..., Any]):
        def thread_handler(self, loop: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append("before")
            try:
                handler: Any = super().thread_handler
                return handler(loop, *args, **kwargs)
            finally:
                calls.append("after")

    def seven() -> int:
        return 7

    assert await Logged(seven)() == 7
    assert calls == ["before", "after"]


async def test_methods_are_bound(aio: ModuleType) -> None:
    class Shop:
        name = "shop"

        @sync_to_async
        def ask(self, what: str) -> str:
            return f"{self.name}: {what}"

    assert await Shop().ask("open?") == "shop: open?"


async def test_whoever_wraps_the_call_is_asked(
    aio: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = SyncToAsync.__call__
    seen = []

    async def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.func)
        return await before(self, *args, **kwargs)

    monkeypatch.setattr(SyncToAsync, "__call__", wrapped)
    assert await sync_to_async(len)("abc") == 3
    assert seen == [len]


def test_a_result_for_a_closed_loop_is_dropped(runtime: Runtime) -> None:
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go_on.wait(PATIENCE)
        ended.set()

    async def main() -> None:
        task = runtime.aio.ensure_future(sync_to_async(work)())
        await sync_to_async(began.wait, thread_sensitive=False)(PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    runtime.run(main())
    go_on.set()
    assert ended.wait(PATIENCE)
