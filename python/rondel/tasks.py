"""The native names of asyncio, and what makes native tasks visible to asyncio's own functions.

``NATIVE`` maps each public asyncio name that is native to its object. Importing this module
teaches ``asyncio.all_tasks()`` about native tasks: they are not in asyncio's WeakSet (adding each
task to it costs more than creating the task), so the set's iteration asks the living loops.

It is also ``rondel.tasks``, which stands for ``asyncio.tasks`` under ``import rondel as asyncio``:
every other name is asyncio's.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from asyncio import taskgroups
from asyncio import tasks as _stock
from typing import TYPE_CHECKING, Any

from rondel import _locks, _queues, _rondel, _streams
from rondel._submodules import of_asyncio
from rondel.loop import live_loops

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "NATIVE",
    "Future",
    "Handle",
    "Task",
    "TaskGroup",
    "Timeout",
    "TimerHandle",
    "as_completed",
    "create_task",
    "current_task",
    "ensure_future",
    "gather",
    "run_coroutine_threadsafe",
    "shield",
    "sleep",
    "timeout",
    "timeout_at",
    "to_thread",
    "wait",
    "wait_for",
    "wrap_future",
]

Future = _rondel.Future
Task = _rondel.Task
Handle = _rondel.Handle
TimerHandle = _rondel.TimerHandle
Timeout = _rondel.Timeout
create_task = _rondel.create_task
current_task = _rondel.current_task
ensure_future = _rondel.ensure_future
gather = _rondel.gather
as_completed = _rondel.as_completed
run_coroutine_threadsafe = _rondel.run_coroutine_threadsafe
shield = _rondel.shield
sleep = _rondel.sleep
timeout = _rondel.timeout
timeout_at = _rondel.timeout_at
to_thread = _rondel.to_thread
wait = _rondel.wait
wait_for = _rondel.wait_for
wrap_future = _rondel.wrap_future


class TaskGroup(_locks.Copied, _rondel.TaskGroupBase, asyncio.TaskGroup):  # type: ignore[misc]
    """asyncio's TaskGroup with native task creation and counting.

    Entering, leaving and error handling are asyncio's own methods (Python docs: *Task Groups*), so
    they are those of the Python that runs; what runs once per task is native.
    """

    _fields = ("_tasks", "_loop", "_on_completed_fut", "_entered", "_exiting", "_aborting")
    _stock_create_task = taskgroups.TaskGroup.create_task


NATIVE: dict[str, Any] = {
    "Future": Future,
    "Task": Task,
    "TaskGroup": TaskGroup,
    "Timeout": Timeout,
    "as_completed": as_completed,
    "create_task": create_task,
    "current_task": current_task,
    "ensure_future": ensure_future,
    "gather": gather,
    "run_coroutine_threadsafe": run_coroutine_threadsafe,
    "shield": shield,
    "sleep": sleep,
    "timeout": timeout,
    "timeout_at": timeout_at,
    "to_thread": to_thread,
    "wait": wait,
    "wait_for": wait_for,
    "wrap_future": wrap_future,
    **{name: getattr(_locks, name) for name in _locks.__all__},
    **{name: getattr(_queues, name) for name in _queues.__all__},
    **{name: getattr(_streams, name) for name in _streams.__all__},
}

if sys.version_info >= (3, 12):

    def _factory(custom_task_constructor: Any, native: Any) -> Any:
        # In asyncio's shape: libraries tell an eager factory by its code, and look into its closure
        # for the constructor, which comes first there by its name.
        def factory(loop: Any, coro: Any, *, name: Any = None, context: Any = None) -> Any:
            """Make a task that takes its first step at once."""
            if native is not None:
                return native(loop, coro, name=name, context=context)
            return custom_task_constructor(
                coro, loop=loop, name=name, context=context, eager_start=True
            )

        return factory

    eager_task_factory = _factory(Task, _rondel.factory)

    def create_eager_task_factory(custom_task_constructor: Any) -> Any:
        """Make a task factory whose tasks take their first step at once.

        ``custom_task_constructor``: ``rondel.Task``, whose factory is native, or any callable that
        takes what ``asyncio.Task`` does, ``eager_start=True`` among it.
        """
        native = _rondel._eager_native_task if custom_task_constructor is Task else None
        return _factory(custom_task_constructor, native)

    NATIVE["create_eager_task_factory"] = create_eager_task_factory
    NATIVE["eager_task_factory"] = eager_task_factory
    __all__ += ["create_eager_task_factory", "eager_task_factory"]


def __getattr__(name: str) -> Any:
    return of_asyncio(name, "tasks")


class _AllTasks(weakref.WeakSet[Any]):
    """asyncio's registry of tasks, with the native ones of every living loop."""

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
        for loop in list(live_loops):
            yield from loop._native_tasks()

    def __len__(self) -> int:
        return super().__len__() + sum(len(loop._native_tasks()) for loop in list(live_loops))


def _adopt_registry() -> None:
    # 3.11 has `_all_tasks`, 3.12 on `_scheduled_tasks`; C code holds the same object and only calls
    # its add() and discard(), so giving the object our class reaches everybody.
    for name in ("_scheduled_tasks", "_all_tasks"):
        registry = getattr(_stock, name, None)
        if type(registry) is weakref.WeakSet:
            registry.__class__ = _AllTasks
            return


_adopt_registry()
