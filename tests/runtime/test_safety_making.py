"""Objects that are made twice, half, or while somebody looks on."""

import asyncio
import contextlib
import contextvars
import gc
import sys
from typing import Any

from tests.runtime.child import Child, in_child, rondel_only
from tests.runtime.reentry import give, wait_on


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
