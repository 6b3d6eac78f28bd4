"""Exceptions of every kind, wherever they may come out: steps, callbacks, finalizers, handlers."""

import asyncio
import contextlib
import gc
import signal
import sys
import time
from typing import Any

from tests.runtime.child import Child, in_child, rondel_only


class Mine(BaseException):
    pass


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no str")

    __repr__ = __str__


class NotMadeTwice(Exception):
    """Needs what a second making of it would not give."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b)


def kinds() -> list[BaseException]:
    return [
        ValueError("plain"),
        Mine("base"),
        Unspeakable("unspeakable"),
        NotMadeTwice(1, 2),
        StopAsyncIteration(1),
        BaseExceptionGroup("group", [Mine(), ValueError()]),
        ExceptionGroup("group", [TimeoutError()]),
        MemoryError(),
        RecursionError(),
        asyncio.InvalidStateError(),
        GeneratorExit(),
        asyncio.CancelledError("message"),
    ]


async def raises(exc: BaseException) -> None:
    raise exc


async def raises_later(aio: Any, exc: BaseException) -> None:
    await aio.sleep(0)
    raise exc


@in_child
def test_every_kind_out_of_a_task(child: Child) -> None:
    loop = child.new_loop()

    async def main() -> None:
        for make in range(len(kinds())):
            exc = kinds()[make]
            for coro in (raises(exc), raises_later(child.aio, exc)):
                try:
                    await loop.create_task(coro)
                except BaseException as caught:
                    assert type(caught) is type(exc), (caught, exc)
                    if not isinstance(exc, asyncio.CancelledError):
                        assert caught is exc
                else:
                    raise AssertionError(f"no {type(exc)}")
            # Nobody asks for this one's result.
            loop.create_task(raises(kinds()[make]))
            await child.aio.sleep(0)
            await child.aio.sleep(0)
        gc.collect()

    child.run(main(), loop)
    assert set(child.messages()) == {"Task exception was never retrieved"}


@in_child
def test_every_kind_set_on_a_future(child: Child) -> None:
    loop = child.new_loop()

    async def main() -> None:
        for exc in kinds():
            for given in (exc, type(exc)):
                future = loop.create_future()
                try:
                    future.set_exception(given)
                except TypeError:  # a class that can't be called without arguments
                    assert given is NotMadeTwice or given in (BaseExceptionGroup, ExceptionGroup)
                    future.cancel()
                    continue
                try:
                    await future
                except BaseException as caught:
                    assert isinstance(caught, type(exc))
                else:
                    raise AssertionError(f"no {given}")

        class MadeWrong(Exception):
            def __new__(cls, *_: Any) -> Any:
                return 5

        class MakingRaises(Exception):
            def __init__(self) -> None:
                raise KeyError("init")

        for odd in (MadeWrong, MakingRaises, 5, int, None, "text"):
            future = loop.create_future()
            try:
                future.set_exception(odd)
            except (TypeError, KeyError):
                pass
            else:
                raise AssertionError(f"took {odd}")
            assert not future.done()
            future.cancel()

    child.run(main(), loop)


@in_child
def test_what_ends_the_loop_ends_it_and_the_loop_goes_on_after(child: Child) -> None:
    loop = child.new_loop()

    def callback(exc: BaseException) -> None:
        raise exc

    def times_out(exc: BaseException) -> None:
        loop.call_later(0, callback, exc)

    def done_callback(exc: BaseException) -> None:
        future = loop.create_future()
        future.add_done_callback(lambda _: callback(exc))
        future.set_result(1)

    ways = [
        lambda exc: loop.call_soon(callback, exc),
        times_out,
        done_callback,
        lambda exc: loop.create_task(raises(exc)),
        lambda exc: loop.create_task(raises_later(child.aio, exc)),
    ]
    for exc_class in (KeyboardInterrupt, SystemExit):
        for way in ways:
            exc = exc_class("end")
            task = way(exc)
            try:
                loop.run_until_complete(child.aio.sleep(1))
            except exc_class as caught:
                assert caught is exc
            else:
                raise AssertionError("the loop went on")
            assert asyncio.current_task(loop) is None
            assert not loop.is_running()
            if isinstance(task, asyncio.Task):
                assert task.done() and task.exception() is exc
            for left in asyncio.all_tasks(loop):
                left.cancel()
            assert loop.run_until_complete(child.aio.sleep(0, "goes on")) == "goes on"


@in_child
def test_generator_exit_inside_a_task(child: Child) -> None:
    loop = child.new_loop()
    said: list[str] = []

    async def awaits_on_exit() -> None:
        try:
            await loop.create_future()
        finally:
            await child.aio.sleep(0)

    async def ignores_exit() -> None:
        while True:
            try:
                await loop.create_future()
            except GeneratorExit:
                said.append("ignored")

    async def waits() -> None:
        await loop.create_future()

    async def main() -> None:
        for work in (awaits_on_exit, ignores_exit):
            task = loop.create_task(work())
            await child.aio.sleep(0)
            await child.aio.sleep(0)
            try:
                task.get_coro().close()
            except RuntimeError as error:
                said.append(str(error))
            task.cancel()
            try:
                await task
            except (asyncio.CancelledError, RuntimeError) as error:
                said.append(type(error).__name__)
        task = loop.create_task(waits())
        await child.aio.sleep(0)
        task.get_coro().close()
        task.cancel()
        try:
            await task
        except (RuntimeError, asyncio.CancelledError) as error:
            said.append(str(error))

    child.run(main(), loop)
    assert said[-1] == "cannot reuse already awaited coroutine", said
    assert said.count("coroutine ignored GeneratorExit") == 2, said


@in_child
def test_a_coroutine_like_object_that_stops_in_odd_ways(child: Child) -> None:
    import collections.abc

    loop = child.new_loop()

    class Odd(collections.abc.Coroutine[Any, Any, Any]):
        def __init__(self, exc: Any) -> None:
            self.exc = exc

        def send(self, value: Any) -> Any:
            raise self.exc

        def throw(self, *error: Any) -> Any:
            raise self.exc

        def close(self) -> None: ...

        def __await__(self) -> Any:
            yield

    class Stop(StopIteration):
        pass

    class StopMakingRaises(StopIteration):
        def __init__(self) -> None:
            raise KeyError("made")

    class StopMadeWrong(StopIteration):
        def __new__(cls, *_: Any) -> Any:
            return object()

    async def main() -> list[Any]:
        out = []
        for exc in (StopIteration(4), StopIteration, Stop(5), StopIteration((1, 2)), Stop):
            task = loop.create_task(Odd(exc))
            out.append(await task)
        for exc in (StopMakingRaises, StopMadeWrong, Unspeakable(), 5, None):
            for cancelled in (False, True):
                task = loop.create_task(Odd(exc))
                if cancelled:
                    task.cancel()
                try:
                    await task
                except (KeyError, TypeError, Unspeakable) as error:
                    out.append(type(error))
        return out

    out = child.run(main(), loop)
    assert out[:5] == [4, None, 5, (1, 2), None], out
    assert out[5:] == [KeyError] * 2 + [TypeError] * 2 + [Unspeakable] * 2 + [TypeError] * 4, out


@in_child(stderr=None)
def test_an_exception_handler_that_raises(child: Child) -> None:
    loop = child.new_loop()

    def raise_(exc: BaseException) -> Any:
        raise exc

    async def main() -> None:
        for exc in (ValueError("handler"), Mine("handler"), Unspeakable("handler")):
            loop.set_exception_handler(lambda _, context, exc=exc: raise_(exc))
            for _ in range(3):
                loop.call_soon(raise_, ValueError("callback"))
                loop.create_future().set_exception(ValueError("future"))
                loop.create_task(raises(ValueError("task")))
                for _ in range(3):
                    await child.aio.sleep(0)
                gc.collect()

    try:
        child.run(main(), loop)
    except Mine:  # asyncio lets a handler's BaseException end the loop
        pass
    loop.set_exception_handler(lambda *_: None)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    child.turns(loop)


# asyncio's iterator of a future breaks its word to the interpreter here: a debug build says so.
@in_child(ways=rondel_only)
def test_throw_send_and_close_of_every_awaitable(child: Child) -> None:
    loop = child.new_loop()

    class MadeWrong(Exception):
        def __new__(cls, *_: Any) -> Any:
            return 5

    async def make_all() -> list[Any]:
        timeout = child.aio.timeout(10)
        lock, queue, event = child.aio.Lock(), child.aio.Queue(), child.aio.Event()
        entered = timeout.__aenter__()
        return [
            iter(loop.create_future()),
            loop.create_future().__await__(),
            loop.create_task(child.aio.sleep(0)).__await__(),
            child.aio.sleep(1),
            child.aio.sleep(0),
            entered,
            lock.acquire(),
            queue.get(),
            queue.put(1),
            event.wait(),
            child.aio.gather(child.aio.sleep(0)).__await__(),
            child.aio.wait_for(loop.create_future(), 5),
        ]

    arguments: list[tuple[Any, ...]] = [
        (),
        (1,),
        (None,),
        (ValueError,),
        (ValueError, 1),
        (ValueError, 1, 2),
        (ValueError(),),
        (ValueError(), 1),
        (ValueError, None, None),
        (MadeWrong,),
        (MadeWrong, 1),
        (int,),
        (GeneratorExit,),
        (StopIteration,),
        (StopIteration(3),),
        (KeyboardInterrupt,),
        (asyncio.CancelledError("x"), None, None),
    ]

    async def main() -> None:
        import warnings

        warnings.simplefilter("ignore")
        for call in ("throw", "send", "close"):
            for given in arguments:
                for times in (1, 2):
                    for awaitable in await make_all():
                        for _ in range(times):
                            try:
                                getattr(awaitable, call)(*given)
                                awaitable.send(None)
                            except BaseException:
                                pass
                        with contextlib.suppress(AttributeError, RuntimeError):
                            awaitable.close()
                await child.aio.sleep(0)

    child.run(main(), loop)
    child.any_reports = True


# asyncio's loop may lose a handle to the interrupt, and then waits for ever (seen on 3.12).
@in_child(ways=rondel_only, stderr=None)
def test_a_signal_in_a_step_a_callback_and_the_wait(child: Child) -> None:
    loop = child.new_loop()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)

    async def steps() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        while True:
            await child.aio.sleep(0)

    async def spins() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        while True:
            pass

    async def sleeps() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        await child.aio.sleep(100)

    for work in (steps, spins, sleeps):
        task = loop.create_task(work())
        try:
            loop.run_until_complete(task)
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("not interrupted")
        assert asyncio.current_task(loop) is None
        task.cancel()
        loop.run_until_complete(child.aio.wait([task]))
        if not task.cancelled():
            assert isinstance(task.exception(), KeyboardInterrupt)


@in_child(ways=rondel_only, stderr=None)
def test_a_storm_of_interrupts(child: Child) -> None:
    """KeyboardInterrupt between any two bytecodes, a thousand times: the loop stays usable."""
    loop = child.new_loop()
    child.any_reports = True
    interrupted = 0

    def interrupt(*_: Any) -> None:
        if loop.is_running():
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)

    async def work() -> None:
        while True:
            await child.aio.gather(child.aio.sleep(0), child.aio.sleep(0.0001))
            async with child.aio.timeout(1):
                await child.aio.sleep(0)

    signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        stop = None
        try:
            loop.create_task(work())
            stop = loop.call_later(0.005, loop.stop)
            loop.run_forever()
        except KeyboardInterrupt:
            interrupted += 1
        if stop is not None:
            stop.cancel()
    signal.setitimer(signal.ITIMER_REAL, 0)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    # A `stop` whose handle was lost to the interrupt may still come.
    while asyncio.all_tasks(loop):
        child.turns(loop)
    time.sleep(0.01)
    child.turns(loop)
    assert loop.run_until_complete(child.aio.sleep(0.001, "usable")) == "usable"
    assert interrupted > 10


@in_child
def test_recursion_errors_in_steps(child: Child) -> None:
    loop = child.new_loop()

    async def deep(depth: int) -> int:
        if depth == 0:
            await child.aio.sleep(0)
            return 0
        return await deep(depth - 1) + 1

    async def main() -> None:
        assert await loop.create_task(deep(300)) == 300
        try:
            await loop.create_task(deep(100_000))
        except RecursionError:
            pass
        else:
            raise AssertionError("no RecursionError")
        sys.setrecursionlimit(3000)
        assert await loop.create_task(deep(900)) == 900

    child.run(main(), loop)


@in_child(stderr=None)
def test_eager_tasks_within_eager_tasks(child: Child) -> None:
    if sys.version_info < (3, 12):
        return
    loop = child.new_loop()
    loop.set_task_factory(child.aio.eager_task_factory)

    async def nest(depth: int) -> int:
        if depth == 0:
            await child.aio.sleep(0)
            return 0
        return 1 + await loop.create_task(nest(depth - 1))

    async def main() -> None:
        assert await loop.create_task(nest(50)) == 50
        try:
            await loop.create_task(nest(100_000))
        except RecursionError:
            pass
        else:
            raise AssertionError("no RecursionError")
        assert await loop.create_task(nest(50)) == 50
        assert asyncio.current_task() is not None

    child.run(main(), loop)
