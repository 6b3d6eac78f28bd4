"""`ThreadPool` and `Pin` as executors, and on a Rondel loop."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

import rondel
from rondel._pool import Pin, ThreadPool
from tests.support import PATIENCE


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(2, "test")
    yield pool
    pool.shutdown()


def test_it_is_an_executor(pool: ThreadPool) -> None:
    assert pool.submit(pow, 2, 10).result(PATIENCE) == 1024
    assert list(pool.map(str, range(5))) == ["0", "1", "2", "3", "4"]
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result(PATIENCE)


def test_threads_are_named_and_as_many_as_are_needed(pool: ThreadPool) -> None:
    assert pool.stats()["threads"] == 0
    both = threading.Barrier(2, timeout=PATIENCE)

    def name() -> str:
        both.wait()
        return threading.current_thread().name

    names = [pool.submit(name) for _ in range(2)]
    assert sorted(future.result(PATIENCE) for future in names) == ["test-0", "test-1"]
    assert pool.stats()["limit"] == 2


def test_thread_local_data_lives_as_long_as_the_thread() -> None:
    pool = ThreadPool(1)
    local = threading.local()
    pool.submit(setattr, local, "name", "kept").result(PATIENCE)
    assert pool.submit(getattr, local, "name").result(PATIENCE) == "kept"
    pool.shutdown()


def test_a_call_that_is_cancelled_in_the_queue_is_not_made() -> None:
    pool = ThreadPool(1)
    began, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        go_on.wait(PATIENCE)

    pool.submit(hold)
    assert began.wait(PATIENCE)
    made: list[int] = []
    queued = pool.submit(made.append, 1)
    assert queued.cancel()
    go_on.set()
    pool.shutdown()
    assert made == []


def test_a_closed_pool_refuses(pool: ThreadPool) -> None:
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after the pool was closed"):
        pool.submit(int)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_pool_without_threads_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="one thread at least"):
        ThreadPool(limit)


def test_shutdown_from_one_of_its_threads_returns(pool: ThreadPool) -> None:
    pool.submit(pool.shutdown).result(PATIENCE)


def test_arguments_and_results_are_let_go(pool: ThreadPool) -> None:
    class Thing: ...

    thing = Thing()
    known = weakref.ref(thing)
    assert pool.submit(lambda x: x, thing).result(PATIENCE) is thing
    del thing
    pool.submit(int).result(PATIENCE)
    gc.collect()
    assert known() is None


def test_pins_keep_their_thread_on_any_loop(pool: ThreadPool) -> None:
    pins = [pool.pin(), pool.pin()]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for pin in pins:
            idents = {await loop.run_in_executor(pin, threading.get_ident) for _ in range(5)}
            assert len(idents) == 1
            thread = pin.thread
            assert thread is not None and {thread.ident} == idents

    asyncio.run(main())
    rondel.run(main())


def test_a_call_on_a_loop_comes_back_to_it(pool: ThreadPool) -> None:
    async def main() -> None:
        hop = pool.call(threading.get_ident)
        assert await hop.wait() != threading.get_ident()
        assert hop.done
        # The outcome stays.
        assert await hop.wait() == await hop.wait()

        failing = pool.call(lambda: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await failing.wait()

    rondel.run(main())


def test_a_cancelled_wait_leaves_the_call_alone(pool: ThreadPool) -> None:
    async def main() -> None:
        go_on = threading.Event()
        hop = pool.call(lambda: go_on.wait(PATIENCE))
        waiting = hop.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()
        assert await hop.wait() is True
        assert hop.cancel() is False

    rondel.run(main())


def test_a_call_needs_a_rondel_loop(pool: ThreadPool) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="no Rondel event loop"):
            pool.call(int)

    asyncio.run(main())


def test_what_a_posted_call_raises_is_reported(
    pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    told = threading.Event()

    def hook(args: object) -> None:
        seen.append(type(getattr(args, "exc_value", None)))
        told.set()

    monkeypatch.setattr("sys.unraisablehook", hook)
    pool.post(lambda: 1 / 0)
    assert told.wait(PATIENCE)
    assert seen == [ZeroDivisionError]


def test_a_held_thread_is_its_pins_alone() -> None:
    pool = ThreadPool(1)
    holding = True
    order: list[str] = []
    pin = pool.pin(hold=lambda: holding)
    pin.submit(order.append, "begin").result(PATIENCE)
    other = pool.submit(order.append, "other")
    pin.submit(order.append, "middle").result(PATIENCE)
    holding = False
    pin.submit(order.append, "end").result(PATIENCE)
    other.result(PATIENCE)
    assert order == ["begin", "middle", "end", "other"]
    pool.shutdown()


def test_a_paced_pool_uses_a_further_thread_when_one_is_blocked() -> None:
    async def main() -> int:
        pool = ThreadPool(4)
        pool.native.pace(asyncio.get_running_loop())
        all_there = threading.Barrier(3, timeout=PATIENCE)
        hops = [pool.call(all_there.wait) for _ in range(3)]
        await asyncio.gather(*(hop.wait() for hop in hops))
        threads = pool.stats()["threads"]
        pool.shutdown(wait=False)
        return threads

    assert rondel.run(main()) >= 3


def test_a_pool_that_is_dropped_without_threads_is_gone() -> None:
    pool = ThreadPool(1)
    known = weakref.ref(pool)
    del pool
    gc.collect()
    assert known() is None


def test_the_pins_own_pool_is_used(pool: ThreadPool) -> None:
    pin = pool.pin()
    assert isinstance(pin, Pin)
    assert pin.submit(lambda: threading.current_thread().name).result(PATIENCE).startswith("test-")
