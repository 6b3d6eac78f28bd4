"""Re-entrancy: code that runs inside the loop's work and changes what the loop works on."""

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
import types
from typing import Any

from tests.runtime.child import Child, in_child, rondel_only

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


async def wait_on(future: Any) -> Any:
    return await future


async def give(value: Any) -> Any:
    return value


async def hand_over(value: Any) -> Any:
    """Yield something to the task, as an awaitable's iterator would."""

    @types.coroutine
    def iterate() -> Any:
        return (yield value)

    return await iterate()


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


# asyncio's own Task crashes when its `__init__` is called in its own step (seen on 3.11).
@in_child(ways=rondel_only, stderr=None)
def test_init_called_again(child: Child) -> None:
    """What it does to a live object is nobody's promise; that nothing breaks is."""
    loop, other = child.new_loop(), child.new_loop()

    async def work() -> int:
        await child.aio.sleep(0)
        return 1

    async def re_initialises_itself() -> None:
        task: Any = asyncio.current_task()
        task.__init__(give(5), loop=loop)
        gc.collect()
        await child.aio.sleep(0)

    async def main() -> None:
        for _ in range(20):
            task = child.aio.Task(work(), loop=loop)
            task.__init__(work(), loop=loop)
            await child.aio.sleep(0)
            task.__init__(work(), loop=loop)
            child.aio.Future.__init__(task, loop=loop)
            task = child.aio.Task(work(), loop=loop)
            task.__init__(work(), loop=other)
            task.__init__(work(), loop=loop)
            waited = loop.create_future()
            waiting = loop.create_task(wait_on(waited))
            await child.aio.sleep(0)
            waited.__init__(loop=loop)
            waited.__init__(loop=other)
            waited.set_result(1)
            waited.__init__(loop=loop)
            waiting.cancel()
            loop.create_task(re_initialises_itself())
            for _ in range(5):
                await child.aio.sleep(0)
            len(asyncio.all_tasks())
        assert await child.aio.gather(*(work() for _ in range(100))) == [1] * 100

    child.run(main(), loop)
    child.turns(other)
    del loop, other
    child.any_reports = True


@in_child
def test_an_audit_hook_that_asks_for_the_socket_in_the_making(child: Child) -> None:
    loop = child.new_loop()
    seen: list[Any] = []
    asking = False

    class Server(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            made.set_result(transport)

    async def main() -> None:
        nonlocal made, asking
        made = loop.create_future()
        server = await loop.create_server(Server, "127.0.0.1", 0)
        client, _ = await loop.create_connection(
            asyncio.Protocol, *server.sockets[0].getsockname()[:2]
        )
        transport = await made

        def hook(event: str, args: Any) -> None:
            nonlocal asking
            if asking and event == "socket.__new__":
                asking = False
                seen.append(transport.get_extra_info("socket"))

        sys.addaudithook(hook)
        asking = True
        seen.append(transport.get_extra_info("socket"))
        asking = False
        for sock in seen:
            assert sock.getpeername() == client.get_extra_info("sockname")
        client.abort()
        transport.abort()
        server.close()
        await child.aio.sleep(0.01)

    made: Any = None
    child.run(main(), loop)


@in_child(stderr=None)
def test_half_made_objects(child: Child) -> None:
    """Every method, property and slot of an object whose `__init__` never ran."""
    names = ["Future", "Task", "Timeout", "TaskGroup", "Lock", "Event", "Queue", "Condition"]
    if child.native:  # asyncio's own half-made Task reads null (seen on 3.12.1)
        classes = [getattr(child.aio, name) for name in names]
        classes += [
            child.aio.EventLoop,
            child.aio._rondel.LoopBase,
            child.aio._rondel.TaskGroupBase,
        ]
        classes += [child.aio._rondel.TcpTransportBase]
    else:
        classes = [asyncio.Future]
    skip = {"__class__", "__init_subclass__", "__setattr__", "__delattr__", "__dict__", "close"}
    skip |= {"_run", "run_forever", "default_exception_handler", "run_until_complete", "__del__"}
    loop = child.new_loop()
    for cls in classes:
        for subclass in (cls, type("Sub", (cls,), {}), type("Slotted", (cls,), {"__slots__": ()})):
            for name in dir(cls):
                for arguments in ((), (1,), (None,), (loop,), (print, 2), (None, None, None)):
                    if name in skip:
                        continue
                    victim = subclass.__new__(subclass)
                    try:
                        result = getattr(victim, name)(*arguments)
                        if hasattr(result, "close"):
                            result.close()
                    except (Exception, asyncio.CancelledError):
                        pass
                    with contextlib.suppress(Exception):
                        setattr(victim, name, arguments)
                    with contextlib.suppress(Exception):
                        delattr(victim, name)
                    gc.get_referents(victim)
    child.any_reports = True


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


@in_child
def test_a_sleep_yielded_by_hand_is_a_bad_yield(child: Child) -> None:
    loop = child.new_loop()

    async def main() -> None:
        sleep = child.aio.sleep(1)
        try:
            await loop.create_task(hand_over(sleep))
        except RuntimeError as error:
            assert "Task got bad yield: <coroutine object sleep" in str(error), error
        else:
            raise AssertionError("no RuntimeError")
        sleep.close()

    child.run(main(), loop)


@in_child
def test_a_sleep_awaited_by_two(child: Child) -> None:
    loop = child.new_loop()

    async def main() -> None:
        for delay in (0, 0.001):
            sleep = child.aio.sleep(delay, "slept")
            both = await child.aio.gather(wait_on(sleep), wait_on(sleep), return_exceptions=True)
            assert both[0] == "slept", both
            assert str(both[1]) == "coroutine is being awaited already", both

    child.run(main(), loop)


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
def test_handles_run_by_hand_leave_the_contexts_alone(child: Child) -> None:
    loop = child.new_loop()
    seen: list[Any] = []

    def inner() -> None:
        seen.append(("inner", var.get()))
        var.set("inner's")

    def outer() -> None:
        var.set("outer's")
        loop.call_later(1000, inner)._run()
        seen.append(("after", var.get()))
        contextvars.copy_context().run(nested)
        seen.append(("after nested", var.get()))

    def nested() -> None:
        var.set("nested")
        loop.call_later(1000, inner)._run()
        seen.append(("nested", var.get()))

    loop.call_soon(outer)
    child.turns(loop)
    assert seen == [
        ("inner", "outer's"),
        ("after", "outer's"),
        ("inner", "nested"),
        ("nested", "nested"),
        ("after nested", "outer's"),
    ]


# asyncio's timers are not for other threads.
@in_child(ways=rondel_only)
def test_a_handle_run_by_hand_in_another_thread(child: Child) -> None:
    loop = child.new_loop()
    stop = threading.Event()
    runs: list[str] = []

    def runs_handles() -> None:
        while not stop.is_set():
            handle = loop.call_later(1000, lambda: runs.append(var.get()))
            handle._run()
            handle.cancel()

    async def main() -> None:
        sys.setswitchinterval(1e-5)
        var.set("the task's")
        thread = threading.Thread(target=runs_handles)
        thread.start()
        while len(runs) < 200:
            await child.aio.sleep(0)
            assert var.get() == "the task's"
        stop.set()
        await loop.run_in_executor(None, thread.join)

    child.run(main(), loop)
    assert set(runs) == {"unset"}


# asyncio 3.12 on takes the first step in the wrong thread, beside the running loop's.
@in_child(ways=rondel_only)
def test_an_eager_task_made_in_another_thread_starts_on_its_loop(child: Child) -> None:
    loop = child.new_loop()
    stop = threading.Event()
    tasks: list[Any] = []

    async def where() -> Any:
        await child.aio.sleep(0)
        return threading.get_ident()

    def makes_tasks() -> None:
        while not stop.is_set():
            tasks.append(child.aio.Task(where(), loop=loop, eager_start=True))

    async def main() -> None:
        thread = threading.Thread(target=makes_tasks)
        sys.setswitchinterval(1e-5)
        thread.start()
        while len(tasks) < 100:
            await child.aio.sleep(0)
        stop.set()
        await loop.run_in_executor(None, thread.join)
        assert set(await child.aio.gather(*tasks)) == {threading.get_ident()}

    child.run(main(), loop)


@in_child
def test_a_step_taken_by_hand(child: Child) -> None:
    loop = child.new_loop()

    async def calls(wakeup: Any, future: Any) -> str:
        try:
            wakeup(future)
        except RuntimeError as error:
            return str(error)
        return "taken"

    async def main() -> None:
        future = loop.create_future()
        task = loop.create_task(wait_on(future))
        await child.aio.sleep(0)
        wakeup = future._callbacks[0][0]
        future.set_result(3)
        said = await loop.create_task(calls(wakeup, future))
        assert said.startswith("Cannot enter into task"), said
        assert await task == 3

    child.run(main(), loop)


@in_child
def test_init_with_keywords_that_are_not_its_own(child: Child) -> None:
    loop = child.new_loop()
    names: list[Any] = [1, b"x", "loop\0", "é", "\ud800", None, ("loop",)]
    for cls in (child.aio.Future, child.aio.Task, child.aio.Timeout, child.aio.TaskGroup):
        for name in names:
            for call in (
                lambda cls=cls, name=name: cls(**{name: 1}),
                lambda cls=cls, name=name: cls.__init__(cls.__new__(cls), **{name: 1}),
                lambda cls=cls, name=name: type.__call__(cls, **{name: 1}),
                lambda name=name: loop.call_soon(print, **{name: 1}),
                lambda name=name: loop.create_task(1, **{name: 1}),
                lambda name=name: child.aio.gather(**{name: 1}),
                lambda name=name: loop.create_future().add_done_callback(print, **{name: 1}),
            ):
                try:
                    call()
                except (TypeError, UnicodeError):
                    continue
                raise AssertionError(f"{cls} took {name!r}")


@in_child
def test_keywords_changed_while_init_reads_them(child: Child) -> None:
    import functools

    loop = child.new_loop()

    class Name:
        def __str__(self) -> str:
            partial.keywords.clear()
            gc.collect()
            return "named"

    for _ in range(50):
        coro = give(1)
        partial = functools.partial(
            child.aio.Task, name=Name(), loop=loop, context=contextvars.copy_context()
        )
        task = partial(coro)
        assert task.get_name() == "named"
    child.turns(loop)


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
