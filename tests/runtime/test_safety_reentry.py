"""Re-entrancy: code that runs inside the loop's work and changes what the loop works on."""

import asyncio
import contextlib
import gc
import sys
from typing import Any

from tests.runtime.child import Child, in_child, rondel_only
from tests.runtime.reentry import give, hand_over, wait_on


# In 3.13.0 a second run_forever() takes asyncio's loop apart.
@in_child(ways=rondel_only)
def test_a_callback_that_closes_stops_or_runs_its_own_loop(child: Child) -> None:
    loop = child.new_loop()
    said: list[str] = []

    def tries(call: Any) -> None:
        try:
            call()
            said.append("went through")
        except RuntimeError as error:
            said.append(str(error))

    loop.call_soon(tries, loop.close)
    loop.call_soon(tries, loop.run_forever)
    never = loop.create_future()
    loop.call_soon(tries, lambda: loop.run_until_complete(never))
    loop.call_soon(tries, loop.stop)
    loop.call_soon(tries, loop.close)
    loop.run_forever()
    never.cancel()
    assert said == [
        "Cannot close a running event loop",
        "This event loop is already running",
        "This event loop is already running",
        "went through",
        "Cannot close a running event loop",
    ]


@in_child
def test_a_task_that_cancels_itself_or_drops_its_last_reference(child: Child) -> None:
    loop = child.new_loop()
    ended: list[str] = []

    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("me")
        try:
            await child.aio.sleep(0)
        except asyncio.CancelledError:
            ended.append("cancelled itself")
            raise

    async def forgets_itself(box: list[Any]) -> None:
        box.clear()
        gc.collect()
        await child.aio.sleep(0)
        gc.collect()
        ended.append("forgotten")

    async def closes_its_coroutine() -> None:
        task: Any = asyncio.current_task()
        try:
            task.get_coro().close()
        except ValueError:
            ended.append("close refused")
        task.get_coro().cr_frame  # noqa: B018

    async def main() -> None:
        tasks = [loop.create_task(cancels_itself()), loop.create_task(closes_its_coroutine())]
        box: list[Any] = []
        box.append(loop.create_task(forgets_itself(box)))
        await child.aio.wait(tasks)
        for _ in range(3):
            await child.aio.sleep(0)
        assert tasks[0].cancelled()

    child.run(main(), loop)
    assert sorted(ended) == ["cancelled itself", "close refused", "forgotten"]


@in_child
def test_done_callbacks_that_change_the_callbacks(child: Child) -> None:
    loop = child.new_loop()
    seen: list[str] = []

    def second(future: Any) -> None:
        seen.append("second")

    def first(future: Any) -> None:
        seen.append("first")
        assert future.remove_done_callback(second) == 0  # scheduled already
        future.add_done_callback(late)
        future.add_done_callback(late)
        assert future.remove_done_callback(late) == 0

    def late(future: Any) -> None:
        seen.append("late")

    async def main() -> None:
        future = loop.create_future()
        for callback in (first, second, second):
            future.add_done_callback(callback)
        assert future.remove_done_callback(second) == 2
        future.add_done_callback(second)
        future.set_result(1)
        for _ in range(3):
            await child.aio.sleep(0)

    child.run(main(), loop)
    assert seen == ["first", "second", "late", "late"]


@in_child
def test_callbacks_whose_comparison_changes_the_callbacks(child: Child) -> None:
    loop = child.new_loop()

    class Compares:
        def __init__(self, future: Any, change: Any) -> None:
            self.future, self.change = future, change

        def __call__(self, *_: Any) -> None: ...

        def __eq__(self, other: object) -> bool:
            self.change(self.future)
            return False

        __hash__ = None  # type: ignore[assignment]

    def finish(future: Any) -> None:
        if not future.done():
            future.set_result(1)

    changes = [
        finish,
        lambda future: future.cancel(),
        lambda future: future.__init__(loop=loop),
        lambda future: future.add_done_callback(print) if len(future._callbacks or ()) < 9 else 0,
        lambda future: gc.collect(),
        lambda future: future._callbacks,
    ]

    async def main() -> None:
        for change in changes:
            for count in (1, 2, 5):
                future = loop.create_future()
                for _ in range(count):
                    future.add_done_callback(Compares(future, change))
                future.remove_done_callback(3)
                future.remove_done_callback(print)
                future.cancel()
                await child.aio.sleep(0)

    child.run(main(), loop)


@in_child
def test_a_comparison_that_raises_leaves_the_callbacks(child: Child) -> None:
    loop = child.new_loop()

    class Raises:
        def __call__(self, *_: Any) -> None: ...

        def __eq__(self, other: object) -> bool:
            raise ValueError("no comparison")

        __hash__ = None  # type: ignore[assignment]

    async def main() -> None:
        for count in (1, 2, 5):
            future = loop.create_future()
            for _ in range(count):
                future.add_done_callback(Raises())
            try:
                future.remove_done_callback(print)
            except ValueError:
                pass
            else:
                raise AssertionError("no ValueError")
            assert len(future._callbacks) == count
            future.set_result(1)
            await child.aio.sleep(0)

    child.run(main(), loop)


@in_child
def test_removing_many_callbacks_is_linear(child: Child) -> None:
    # 200 000 at a quadratic cost would be minutes: the child's time limit is the assertion. (The
    # collector of a debug build, at every allocation, would take those, too.)
    if hasattr(sys, "gettotalrefcount"):
        gc.set_threshold(700)
    future = child.new_loop().create_future()
    callbacks = [lambda _, number=number: None for number in range(2)]
    for number in range(200_000):
        future.add_done_callback(callbacks[number % 2])
    assert future.remove_done_callback(callbacks[0]) == 100_000
    assert len(future._callbacks) == 100_000


@in_child
def test_collections_while_callbacks_are_looked_at(child: Child) -> None:
    loop = child.new_loop()
    gc.set_threshold(1)

    def nothing(_: Any) -> None: ...

    async def main() -> None:
        future = loop.create_future()

        class Cycle:
            def __init__(self) -> None:
                self.myself = self

            def __del__(self) -> None:
                if not future.done():
                    future.add_done_callback(nothing)
                    future.remove_done_callback(nothing)

        tasks = [loop.create_task(wait_on(future)) for _ in range(20)]
        await child.aio.sleep(0)
        await child.aio.sleep(0)
        for _ in range(100):
            Cycle()
            assert len(future._callbacks) >= 20
            Cycle()
            future.remove_done_callback(print)
        future.set_result(7)
        assert await child.aio.gather(*tasks) == [7] * 20

    child.run(main(), loop)


@in_child(stderr=None)
def test_repr_that_raises(child: Child) -> None:
    loop = child.new_loop()
    loop.set_debug(True)

    class Unspeakable(Exception):
        def __repr__(self) -> str:
            raise ValueError("no repr")

        __str__ = __repr__

    class Future(child.aio.Future):  # type: ignore[misc, name-defined]
        def __repr__(self) -> str:
            raise ValueError("no repr")

    class Task(child.aio.Task):  # type: ignore[misc, name-defined]
        def __repr__(self) -> str:
            raise ValueError("no repr")

    async def raises() -> None:
        raise Unspeakable

    async def main() -> None:
        for _ in range(3):
            loop.create_task(raises())
            Task(raises(), loop=loop)
            Task(give(1), loop=loop)
            Future(loop=loop).set_exception(Unspeakable())
            loop.create_future().set_result(Unspeakable())
            repr(loop.create_task(give(Unspeakable())))
            # What the task makes of these asks for their repr.
            for odd in (Unspeakable(), Future(loop=loop)):
                bad = loop.create_task(hand_over(odd))
                worse = Task(hand_over(odd), loop=loop)
                for _ in range(5):
                    await child.aio.sleep(0)
                bad.cancel()
                worse.cancel()
        gc.collect()

    child.run(main(), loop)
    gc.collect()
    child.any_reports = True


@in_child
def test_objects_with_half_a_future_protocol(child: Child) -> None:
    loop = child.new_loop()

    class Bad:
        _asyncio_future_blocking: Any = True

        def get_loop(self) -> Any:
            return asyncio.get_running_loop()

        def add_done_callback(self, callback: Any, **_: Any) -> None: ...

    class NoLoop(Bad):
        def get_loop(self) -> Any:
            raise ValueError("get_loop")

    class BlockingRaises(Bad):
        @property
        def _asyncio_future_blocking(self) -> Any:  # type: ignore[override]
            raise ValueError("blocking")

    class NotSettable(Bad):
        @property
        def _asyncio_future_blocking(self) -> Any:  # type: ignore[override]
            return True

    class NoTruth(Bad):
        class Truth:
            def __bool__(self) -> bool:
                raise ValueError("bool")

        _asyncio_future_blocking = Truth()

    class AddRaises(Bad):
        def add_done_callback(self, callback: Any, **_: Any) -> None:
            raise KeyError

    class CallsAtOnce(Bad):
        def add_done_callback(self, callback: Any, **_: Any) -> None:
            callback(self)
            callback(self)

        def result(self) -> Any:
            raise ValueError("result")

    class CallsTwice(Bad):
        def add_done_callback(self, callback: Any, **_: Any) -> None:
            loop.call_soon(callback, self)
            loop.call_soon(callback, self)

        def result(self) -> Any:
            return 1

    class CancelRaises(Bad):
        def cancel(self, *_: Any, **__: Any) -> Any:
            raise ValueError("cancel")

    made = [Bad, NoLoop, BlockingRaises, NotSettable, NoTruth, AddRaises, CallsAtOnce, CallsTwice]
    made += [CancelRaises, int, object, lambda: child.aio.sleep(1), child.aio.Future]
    made += [lambda: (each for each in ())]
    if child.native:
        made += [lambda: child.aio.Future.__new__(child.aio.Future)]

    async def main() -> None:
        for make in made:
            odd = make()
            tasks = [loop.create_task(hand_over(odd)), loop.create_task(hand_over(odd))]
            for _ in range(5):
                await child.aio.sleep(0)
            for task in tasks:
                with contextlib.suppress(AttributeError, ValueError):
                    task.cancel()
            for _ in range(5):
                await child.aio.sleep(0)
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.exception()
            if hasattr(odd, "close"):
                odd.close()

    child.run(main(), loop)
    child.any_reports = True


@in_child(stderr=None)
def test_a_coroutine_like_object_that_changes_its_task(child: Child) -> None:
    import collections.abc

    loop = child.new_loop()
    seen: list[str] = []

    class Odd(collections.abc.Coroutine[Any, Any, Any]):
        def __init__(self, act: Any) -> None:
            self.act = act

        def send(self, value: Any) -> Any:
            return self.act(self.task)

        def throw(self, *error: Any) -> Any:
            return self.act(self.task)

        def close(self) -> None: ...

        def __await__(self) -> Any:
            yield

    def note(call: Any) -> None:
        try:
            call()
            seen.append("done")
        except BaseException as error:
            seen.append(type(error).__name__)

    def act_close(task: Any) -> None:
        note(loop.close)
        raise StopIteration(1)

    def act_finish(task: Any) -> None:
        note(lambda: asyncio.Future.set_result(task, 1))
        raise StopIteration(2)

    def act_cancel(task: Any) -> None:
        note(task.cancel)
        raise StopIteration(3)

    def act_init(task: Any) -> None:
        note(lambda: task.__init__(give(1), loop=loop))
        raise StopIteration(4)

    def act_step(task: Any) -> None:
        note(lambda: task.get_coro().send(None) if seen.count("RecursionError") == 0 else None)
        raise StopIteration(5)

    def act_stop(task: Any) -> None:
        note(loop.stop)
        raise StopIteration(6)

    async def main() -> None:
        for act in (act_close, act_finish, act_cancel, act_init, act_stop):
            odd = Odd(act)
            odd.task = loop.create_task(odd)
            for _ in range(4):
                await child.aio.sleep(0)
            repr(odd.task)
            del odd
            gc.collect()

    task = loop.create_task(main())
    while not task.done():
        child.turns(loop, 3)
    task.result()
    assert seen[0] == "RuntimeError" and len(seen) == 5, seen
    child.any_reports = True


@in_child
def test_the_loop_dropped_while_it_is_used(child: Child) -> None:
    for _ in range(20):
        loop = child.aio.new_event_loop()
        future = loop.create_future()
        task = loop.create_task(wait_on(future))
        handle = loop.call_later(1000, print)
        child.turns(loop)
        task.cancel()
        child.turns(loop)
        loop.close()
        del loop
        gc.collect()
        repr((future, task, handle))
        handle.cancel()
        del handle, future, task
        gc.collect()
