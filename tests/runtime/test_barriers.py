"""Barriers, looked at closely: fields, copies, subclasses, and who comes or goes while one drains.

The names and signatures of their coroutines are in `test_conditions`.
"""

import asyncio
import copy
import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.runtime.locks import asleep
from tests.support import spin


async def test_the_private_fields_of_a_barrier_are_asyncios(aio: ModuleType) -> None:
    barrier = aio.Barrier(2)
    assert isinstance(barrier._cond, aio.Condition)
    assert (barrier._parties, barrier._count, barrier._state.name) == (2, 0, "FILLING")
    (task,) = await asleep(aio, barrier.wait())
    assert barrier._count == 1
    await barrier.abort()
    assert barrier._state.name == "BROKEN"
    with pytest.raises(aio.BrokenBarrierError, match="Abort or reset of barrier"):
        await task
    with pytest.raises(aio.BrokenBarrierError, match="Barrier aborted"):
        await barrier.wait()
    assert barrier._count == 0
    barrier._state = type(barrier._state).FILLING
    barrier._parties = 1
    assert await barrier.wait() == 0


async def test_a_copied_barrier_counts_for_itself(aio: ModuleType) -> None:
    barrier = aio.Barrier(1)
    await barrier.abort()
    for twin in (copy.deepcopy(barrier), pickle.loads(pickle.dumps(barrier))):
        assert twin.broken
        assert twin.parties == 1
        await twin.reset()
        assert await twin.wait() == 0
    assert barrier.broken


async def test_a_barrier_subclass_may_override_its_parts(aio: ModuleType) -> None:
    seen: list[str] = []

    class Noisy(aio.Barrier):  # type: ignore[misc, name-defined]
        async def wait(self) -> int:
            seen.append("wait")
            return int(await super().wait())

        async def _block(self) -> None:
            seen.append("block")
            await super()._block()

    barrier = Noisy(2)
    assert sorted(await aio.gather(barrier.wait(), barrier.wait())) == [0, 1]
    assert seen == ["wait", "block"] * 2
    lonely = Noisy(1)
    async with lonely as place:
        assert place == 0
    assert seen[4:] == ["wait", "block"]
    await lonely.abort()
    await lonely.reset()
    assert not lonely.broken


@pytest.mark.parametrize("lock", [asyncio.Lock, None])
async def test_a_barrier_works_on_a_condition_that_is_put_in(
    aio: ModuleType, lock: Callable[[], Any] | None
) -> None:
    class Plain(aio.Condition):  # type: ignore[misc, name-defined]
        pass

    barrier = aio.Barrier(2)
    barrier._cond = aio.Condition(lock()) if lock else Plain()
    assert sorted(await aio.gather(barrier.wait(), barrier.wait())) == [0, 1]
    await barrier.abort()
    with pytest.raises(aio.BrokenBarrierError):
        await barrier.wait()


async def test_who_comes_while_a_barrier_drains_waits_for_the_next_round(aio: ModuleType) -> None:
    barrier, seen = aio.Barrier(2), []

    async def party(name: str) -> None:
        seen.append((name, await barrier.wait()))

    tasks = await asleep(aio, party("a"))
    tasks += [aio.create_task(party(name)) for name in ("b", "c", "d")]
    await aio.gather(*tasks)
    assert sorted(seen[:2]) == [("a", 0), ("b", 1)]
    assert sorted(seen[2:]) == [("c", 0), ("d", 1)]


async def test_a_party_cancelled_while_it_drains_is_gone(aio: ModuleType) -> None:
    barrier = aio.Barrier(2)
    (first,) = await asleep(aio, barrier.wait())
    second = aio.create_task(barrier.wait())
    await aio.sleep(0)  # the second has opened the barrier
    first.cancel()
    await aio.wait([first, second])
    assert first.cancelled()
    assert second.result() == 1
    assert (barrier._count, barrier._state.name) == (0, "FILLING")
    assert sorted(await aio.gather(barrier.wait(), barrier.wait())) == [0, 1]


async def test_a_barrier_reset_while_it_is_used_waits_for_all_to_go(aio: ModuleType) -> None:
    barrier = aio.Barrier(3)
    tasks = await asleep(aio, barrier.wait(), barrier.wait())
    await barrier.reset()
    late = aio.create_task(barrier.wait())
    await spin(aio, 12)
    for task in tasks:
        with pytest.raises(aio.BrokenBarrierError, match="Abort or reset"):
            await task
    assert barrier.n_waiting == 1
    assert not late.done()
    await aio.gather(barrier.wait(), barrier.wait())
    assert await late == 0


async def test_a_party_that_waits_for_the_lock_can_be_cancelled(aio: ModuleType) -> None:
    barrier = aio.Barrier(1)
    async with barrier._cond:
        tasks = await asleep(aio, barrier.wait(), barrier.reset(), barrier.abort())
        for task in tasks:
            assert task.cancel()
        await spin(aio)
    assert all(task.cancelled() for task in tasks)
    assert not barrier.broken
    assert await barrier.wait() == 0


async def test_async_with_a_barrier_lets_errors_out(aio: ModuleType) -> None:
    with pytest.raises(ZeroDivisionError):
        async with aio.Barrier(1):
            raise ZeroDivisionError


def test_native_barriers_work_on_a_stock_loop() -> None:
    rondel = pytest.importorskip("rondel")

    async def main() -> None:
        barrier = rondel.Barrier(2)
        for _ in range(3):
            assert sorted(await asyncio.gather(barrier.wait(), barrier.wait())) == [0, 1]
        (task,) = await asleep(asyncio, barrier.wait())
        await barrier.reset()
        with pytest.raises(asyncio.BrokenBarrierError):
            await task

    asyncio.run(main())
