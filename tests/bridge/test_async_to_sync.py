"""`async_to_sync`: the same at asgiref's executor and at a native gate."""

import asyncio
import contextvars
import logging
import threading
from types import ModuleType

import asgiref
import pytest
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, async_to_sync, sync_to_async

from tests.support import PATIENCE, Runtime

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


async def test_runs_on_the_loop_that_the_thread_came_from(aio: ModuleType) -> None:
    here = aio.get_running_loop()

    async def inner(a: int, *, b: int) -> int:
        assert aio.get_running_loop() is here
        await aio.sleep(0)
        return a * b

    assert await sync_to_async(lambda: async_to_sync(inner)(6, b=7))() == 42


async def test_raises_what_the_async_code_raises(aio: ModuleType) -> None:
    async def inner() -> None:
        await aio.sleep(0)
        raise LookupError("inner")

    def work() -> None:
        with pytest.raises(LookupError, match="inner"):
            async_to_sync(inner)()
        raise RuntimeError("outer")

    with pytest.raises(RuntimeError, match="outer"):
        await sync_to_async(work)()


async def test_context_variables_go_there_and_back(aio: ModuleType) -> None:
    async def inner() -> str:
        seen = var.get()
        var.set("async")
        return seen

    def work() -> tuple[str, str]:
        var.set("sync")
        return async_to_sync(inner)(), var.get()

    assert await sync_to_async(work)() == ("sync", "async")
    assert var.get() == "async"


async def test_what_it_calls_runs_on_the_waiting_thread(aio: ModuleType) -> None:
    async def inner() -> list[int]:
        ident = sync_to_async(threading.get_ident)
        return [await ident(), *await aio.gather(ident(), ident())]

    def work() -> tuple[int, list[int]]:
        return threading.get_ident(), async_to_sync(inner)()

    mine, theirs = await sync_to_async(work)()
    assert set(theirs) == {mine}


async def test_refuses_to_block_the_loop(aio: ModuleType) -> None:
    async def inner() -> None: ...

    call = async_to_sync(inner)
    with pytest.raises(RuntimeError, match="same thread as an async event loop"):
        call()


async def test_a_call_after_the_wait_is_over_is_refused(aio: ModuleType) -> None:
    late = aio.Event()
    outcome = []

    async def background() -> None:
        await late.wait()
        try:
            await sync_to_async(len)("")
        except RuntimeError as error:
            outcome.append(str(error))

    tasks = []

    async def inner() -> None:
        tasks.append(aio.ensure_future(background()))

    await sync_to_async(lambda: async_to_sync(inner)())()
    late.set()
    await aio.gather(*tasks)
    # asgiref 3.8 forgets the executor for the whole context, and finds its one thread taken.
    early = asgiref.__version__.startswith("3.8.")
    assert outcome == [
        "Single thread executor already being used, would deadlock"
        if early
        else "CurrentThreadExecutor already quit or is broken"
    ]


def test_runs_a_loop_of_its_own_where_there_is_none(runtime: Runtime) -> None:
    async def inner() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    assert async_to_sync(inner)() != threading.current_thread().name


def test_a_thread_that_waits_for_a_closed_loop_is_told(runtime: Runtime) -> None:
    if not runtime.native:
        pytest.skip("asgiref waits for ever")
    errors = []
    waiting = threading.Event()
    thread = []

    async def inner() -> None:
        await runtime.aio.sleep(PATIENCE * 100)

    def work() -> None:
        thread.append(threading.current_thread())
        waiting.set()
        try:
            async_to_sync(inner)()
        except RuntimeError as error:
            errors.append(str(error))

    loop = runtime.new_event_loop()

    async def main() -> None:
        task = loop.create_task(sync_to_async(work)())
        await sync_to_async(waiting.wait, thread_sensitive=False)(PATIENCE)
        del task

    loop.run_until_complete(main())
    # Nobody tells its tasks: the loop is just closed.
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    done = threading.Event()
    from rondel.bridge.threads import only_pin

    only_pin().post(done.set)
    assert done.wait(PATIENCE)
    assert len(errors) == 1 and "closed" in errors[0]


async def test_a_likely_deadlock_is_reported_with_both_stacks(
    runtime: Runtime,
    aio: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not runtime.native:
        pytest.skip("asgiref says nothing")
    from rondel.bridge import deadlock

    monkeypatch.setattr(deadlock, "PATIENCE", 0.0)
    reported = aio.Event()

    class Tell(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reported.set()

    caplog.set_level(logging.WARNING, "rondel.bridge")
    handler = Tell()
    deadlock.logger.addHandler(handler)
    try:
        async with ThreadSensitiveContext():
            # Outside of the waiting thread's context: only its pin is known there. Not a copy of
            # this one, as asgiref 3.8 keeps what it knows in an object that copies share.
            context = contextvars.Context()
            pinned = SyncToAsync.thread_sensitive_context
            context.run(pinned.set, pinned.get())

            async def inner() -> None:
                stuck = context.run(aio.ensure_future, sync_to_async(lambda: "late")())
                await aio.wait_for(reported.wait(), PATIENCE)
                results.append(stuck)

            def the_waiting_function() -> None:
                async_to_sync(inner)()

            results: list[asyncio.Future[str]] = []
            await sync_to_async(the_waiting_function)()
            assert await results[0] == "late"
    finally:
        deadlock.logger.removeHandler(handler)
    (record,) = [record for record in caplog.records if record.name == "rondel.bridge"]
    message = record.getMessage()
    assert "possible deadlock" in message
    assert "the_waiting_function" in message
    assert "The task:" in message
