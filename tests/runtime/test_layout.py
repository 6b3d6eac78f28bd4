"""The native Future and Task lie on top of asyncio's C fields: nobody may read one for the other.

Three ways lead Python code to C code that takes a native object for its own: the C methods called
by hand (``asyncio.Task.get_name(task)``: after ``install()`` that name still is asyncio's), classes
with both kinds of base, and assignment to ``__class__`` and ``__bases__``. Each runs here, the
first in a child process under the debug allocator: a crash or a damaged block is a failure.
"""

import asyncio
import gc
import os
import sys
import weakref
from typing import Any

import pytest

from tests.support import ONLY_ASYNCIO, python

if ONLY_ASYNCIO:
    pytest.skip("RONDEL_TEST_ONLY_ASYNCIO is set", allow_module_level=True)
if sys.version_info >= (3, 14):
    pytest.skip("from 3.14 on the payload lies behind the C fields", allow_module_level=True)

import rondel

BY_HAND = r"""
import asyncio, contextvars, gc, io, sys, types, warnings
import rondel
warnings.simplefilter("ignore")
sys.stderr = io.StringIO()  # reports of forgotten errors, repr of stacks
loop = rondel.new_event_loop()
loop.set_exception_handler(lambda loop, context: None)

class SubFuture(rondel.Future): pass
class SubTask(rondel.Task): pass

# `__init__` would make a C object of it; the rest has to leave the native object whole.
SKIP = {"__new__", "__init__", "__getattribute__", "__doc__", "__module__", "__dict__"}
ARGUMENTS = [(), (None,), (1,), (KeyError("argument"),), (print,), ("text",), (None, None)]

async def turns(n=3):
    for _ in range(n): await asyncio.sleep(0)

def futures():
    for make in (loop.create_future, lambda: SubFuture(loop=loop)):
        for state in ("pending", "result", "callbacks", "exception", "cancelled"):
            future = make()
            if state == "result": future.set_result([1])
            if state == "exception": future.set_exception(KeyError("state"))
            if state == "cancelled": future.cancel("why")
            if state == "callbacks":
                future.add_done_callback(print, context=contextvars.copy_context())
                future.add_done_callback(id)
            yield future
    yield SubFuture.__new__(SubFuture)
    async def gathered(): return rondel.gather(loop.create_future())
    yield loop.run_until_complete(gathered())

def tasks():
    gate = loop.create_future()
    async def work(state):
        if state == "waiting": await gate
        if state == "exception": raise KeyError("state")
        if state == "sleeping": await asyncio.sleep(100)
    for make in (loop.create_task, lambda c: SubTask(c, loop=loop, name="n")):
        for state in ("returned", "waiting", "exception", "sleeping", "cancelled"):
            task = make(work(state))
            if state == "cancelled": task.cancel("m")
            loop.run_until_complete(turns())
            yield task

calls = 0
def outcome(call):
    global calls
    calls += 1
    try:
        repr(call())
    except BaseException:
        pass

def poke(victim, cls):
    for name, attribute in list(cls.__dict__.items()):
        if name in SKIP:
            continue
        if isinstance(attribute, (types.GetSetDescriptorType, types.MemberDescriptorType)):
            for value in (True, "text", None, 1):
                outcome(lambda: attribute.__get__(victim))
                outcome(lambda: attribute.__set__(victim, value))
            outcome(lambda: attribute.__delete__(victim))
        elif callable(attribute):
            for arguments in ARGUMENTS:
                outcome(lambda: attribute(victim, *arguments))

for victim in [*futures(), *tasks()]:
    if isinstance(victim, asyncio.Task):
        poke(victim, asyncio.Task)
    poke(victim, asyncio.Future)
    for use in (repr, lambda v: v.done(), lambda v: v.cancel(), lambda v: v.get_loop(),
                lambda v: v.result(), lambda v: v._callbacks, lambda v: v.get_name()):
        outcome(lambda: use(victim))
    poke(victim, rondel.Future)  # a task's own base: may change it, may not break it
    outcome(lambda: repr(victim))
del victim
gc.collect()
async def reuse(): await rondel.gather(*[asyncio.sleep(0) for _ in range(400)])
loop.run_until_complete(reuse())
loop.run_until_complete(turns())
loop.close()
del loop
gc.collect()
print("whole after", calls)
"""


def test_c_methods_by_hand_leave_native_objects_whole() -> None:
    env = {**os.environ, "PYTHONMALLOC": "debug", "PYTHONFAULTHANDLER": "1"}
    ended = python(BY_HAND, timeout=120, env=env)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert int(ended.stdout.split()[-1]) > 5000


def test_c_methods_find_the_task_s_own() -> None:
    """What overlaps with one meaning is one object; an offset that is off would differ."""

    async def main() -> None:
        async def work() -> None:
            await asyncio.sleep(30)

        coro = work()
        task = asyncio.get_running_loop().create_task(coro, name="the name")
        assert type(task) is rondel.Task
        assert asyncio.Task.get_coro(task) is coro
        assert asyncio.Task.get_name(task) == "the name"
        if hasattr(asyncio.Task, "get_context"):
            assert asyncio.Task.get_context(task) is task.get_context()
        assert asyncio.Task.cancelling(task) == 0
        await asyncio.sleep(0)
        task.cancel()
        assert asyncio.Task.cancelling(task) == 1
        assert not asyncio.Future.done(task)
        with pytest.raises(asyncio.CancelledError):
            await task

    rondel.run(main())


def test_the_hierarchy_is_asyncio_s() -> None:
    assert issubclass(rondel.Task, rondel.Future)
    assert issubclass(rondel.Task, asyncio.Task)
    assert rondel.Task.__mro__[:4] == (rondel.Task, rondel.Future, asyncio.Task, asyncio.Future)

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(asyncio.sleep(0))
        assert isinstance(task, rondel.Future)
        gathered = rondel.gather(task)
        assert isinstance(gathered, rondel.Future)
        await gathered

    rondel.run(main())


def test_no_larger_than_asyncio_s_future() -> None:
    assert rondel.Future.__basicsize__ == asyncio.Future.__basicsize__


class StockFuture(asyncio.Future):  # type: ignore[type-arg]
    pass


class StockTask(asyncio.Task):  # type: ignore[type-arg]
    pass


@pytest.mark.parametrize(
    "bases",
    [
        (StockFuture, rondel.Future),
        (StockTask, rondel.Future),
        (asyncio.Task, rondel.Future),
        (rondel.Future, asyncio.Task),
    ],
    ids=lambda bases: "+".join(base.__qualname__ for base in bases),
)
def test_a_class_with_the_c_base_s_memory_is_refused(bases: tuple[type, ...]) -> None:
    with pytest.raises(TypeError, match="memory of asyncio's own"):
        type("Mixed", bases, {})


def test_a_class_with_native_memory_may_have_both() -> None:
    loop = rondel.new_event_loop()
    try:
        mixed = type("Mixed", (rondel.Future, StockFuture), {})(loop=loop)
        mixed.set_result(5)
        assert mixed.result() == 5
    finally:
        loop.close()


def test_init_subclass_passes_keywords_on() -> None:
    class Tagged:
        tag: str

        def __init_subclass__(cls, *, tag: str) -> None:
            cls.tag = tag

    assert type("Own", (rondel.Future, Tagged), {}, tag="t").tag == "t"  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        type("Odd", (rondel.Future,), {}, odd=1)


def test_class_and_bases_cannot_be_changed_across() -> None:
    class Native(rondel.Future):
        pass

    loop = rondel.new_event_loop()
    try:
        stock: Any = StockFuture(loop=loop)
        native: Any = Native(loop=loop)
        for victim, other in ((stock, rondel.Future), (stock, Native), (native, StockFuture)):
            with pytest.raises(TypeError, match="layout differs"):
                victim.__class__ = other
        for cls, base in ((StockFuture, rondel.Future), (Native, asyncio.Future)):
            with pytest.raises(TypeError, match="layout differs"):
                cls.__bases__ = (base,)
        for maker, cls in (
            (asyncio.Future, Native),
            (asyncio.Task, rondel.Task),
            (rondel.Future, rondel.Task),
        ):
            with pytest.raises(TypeError, match="is not safe"):
                maker.__new__(cls)
    finally:
        loop.close()


class WithDict(rondel.Future):
    pass


class WithSlots(rondel.Future):
    __slots__ = ("me",)


class TaskWithDict(rondel.Task):
    pass


@pytest.mark.parametrize("cls", [WithDict, WithSlots, TaskWithDict])
def test_subclasses_in_cycles_are_collected_with_their_weak_references(cls: type) -> None:
    """A Python subclass's deallocator leaves `__dict__` and weak references to the native one."""

    async def nothing() -> None:
        pass

    loop = rondel.new_event_loop()
    try:
        gone: list[object] = []
        references = []
        for i in range(50):
            victim: Any = cls(*((nothing(),) if cls is TaskWithDict else ()), loop=loop)
            if i % 2:
                victim.me = victim
                victim.add_done_callback(lambda _, victim=victim: victim)
            references.append(weakref.ref(victim, gone.append))
        loop.run_until_complete(asyncio.sleep(0))
        del victim
        gc.collect()
        assert [reference() for reference in references] == [None] * 50
        # The references are outside their objects' cycles: each makes its call.
        assert len(gone) == 50
    finally:
        loop.close()


def test_set_result_over_a_task_s_head_is_reported() -> None:
    """`Future.set_result(task, …)` ends the task; its next step is an error and runs nothing."""
    loop = rondel.new_event_loop()
    seen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: seen.append(context))

    async def work() -> None:
        raise AssertionError("it must not run")

    coro = work()
    try:
        task = loop.create_task(coro)
        rondel.Future.set_result(task, "spam")
        assert loop.run_until_complete(task) == "spam"
        assert task not in asyncio.all_tasks(loop)
    finally:
        coro.close()
        loop.close()
    (context,) = seen
    assert isinstance(context["exception"], asyncio.InvalidStateError)
