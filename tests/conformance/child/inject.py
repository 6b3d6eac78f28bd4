"""Put the loop under test where asyncio would create its own.

Patched: `SelectorEventLoop` and `EventLoop` in asyncio and asyncio.unix_events, and the default
policy's loop factory. Through these `new_event_loop()`, `Runner`, `asyncio.run`,
IsolatedAsyncioTestCase, pytest plugins and asgiref get the loop under test.

Runs in the child process, under the interpreter that is measured. The child's modules import
one another by their plain names: this directory is on its path, the package is not.
"""

import asyncio
import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

# Loops under test made so far in this process: a test that made none is not counted.
created = 0
# () -> loop, counting; and the same without counting.
factory: Callable[[], Any]
raw_factory: Callable[[], Any]
is_stdlib = True
loop_type: type
# The running test used CPython's virtual-time TestLoop instead.
virtual = False
# name -> replacement, with --primitives.
primitives: dict[str, Any] = {}

# What may stand in for asyncio's own.
PRIMITIVES = [
    "Future",
    "Task",
    "ensure_future",
    "create_task",
    "gather",
    "wait",
    "wait_for",
    "as_completed",
    "shield",
    "sleep",
    "current_task",
    "all_tasks",
    "run_coroutine_threadsafe",
    "wrap_future",
    "isfuture",
    "iscoroutine",
    "eager_task_factory",
    "create_eager_task_factory",
    "TaskGroup",
    "Timeout",
    "timeout",
    "timeout_at",
    "Lock",
    "Event",
    "Condition",
    "Semaphore",
    "BoundedSemaphore",
    "Barrier",
    "BrokenBarrierError",
    "Queue",
    "PriorityQueue",
    "LifoQueue",
    "QueueEmpty",
    "QueueFull",
    "QueueShutDown",
    "StreamReader",
    "StreamWriter",
    "StreamReaderProtocol",
    "open_connection",
    "start_server",
    "open_unix_connection",
    "start_unix_server",
    "to_thread",
    "Runner",
    "run",
    "CancelledError",
    "InvalidStateError",
]
SUBMODULES = [
    "streams",
    "tasks",
    "futures",
    "locks",
    "queues",
    "timeouts",
    "taskgroups",
    "threads",
    "runners",
    "exceptions",
]


def load(spec: str) -> Callable[[], Any]:
    module, _, attribute = spec.partition(":")
    if module == "stdlib":
        return asyncio.SelectorEventLoop
    found: Callable[[], Any] = getattr(
        importlib.import_module(module), attribute or "new_event_loop"
    )
    return found


def install() -> None:
    global factory, raw_factory, is_stdlib, loop_type
    from asyncio import unix_events

    stock: Any = asyncio.SelectorEventLoop
    raw_factory = load(os.environ.get("CONF_LOOP", "stdlib"))
    is_stdlib = raw_factory is stock
    probe = raw_factory()
    loop_type = type(probe)
    probe.close()

    def make() -> Any:
        global created
        created += 1
        return raw_factory()

    factory = make

    class Meta(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, (stock, loop_type))

        def __subclasscheck__(cls, subclass: type) -> bool:
            return subclass is loop_type or issubclass(subclass, stock)

    class SelectorEventLoop(metaclass=Meta):
        # A selector argument is dropped: only the loop under test is measured.
        def __new__(cls, selector: Any = None, **options: Any) -> Any:
            return make()

    for module in (asyncio, unix_events):
        for name in ("SelectorEventLoop", "EventLoop"):
            if hasattr(module, name):
                setattr(module, name, SelectorEventLoop)
    for name in dir(unix_events):
        found = getattr(unix_events, name)
        if isinstance(found, type) and "_loop_factory" in vars(found):
            found._loop_factory = SelectorEventLoop  # type: ignore[attr-defined]
    if not isinstance(probe, stock) and hasattr(unix_events, "BaseChildWatcher"):
        _neutral_watchers(unix_events, stock)
    if replacement := os.environ.get("CONF_PRIMITIVES"):
        _install_primitives(replacement)


def _neutral_watchers(unix_events: Any, stock: type) -> None:
    """Child watchers belong to the stock loop: do not let tests hang a SIGCHLD handler of one
    on a foreign loop, which reaps its children itself."""
    for name in ("BaseChildWatcher", "SafeChildWatcher", "FastChildWatcher"):
        watcher = getattr(unix_events, name, None)
        if watcher is None or "attach_loop" not in vars(watcher):
            continue
        original = watcher.attach_loop

        @functools.wraps(original)
        def attach_loop(self: Any, loop: Any, _original: Any = original) -> Any:
            if loop is not None and not isinstance(loop, stock) and isinstance(loop, loop_type):
                self._loop = None
                return None
            return _original(self, loop)

        watcher.attach_loop = attach_loop


def _install_primitives(module_name: str) -> None:
    module = importlib.import_module(module_name)
    places = [asyncio, *(getattr(asyncio, name) for name in SUBMODULES if hasattr(asyncio, name))]
    for name in PRIMITIVES:
        if not hasattr(module, name):
            continue
        primitives[name] = new = getattr(module, name)
        old = getattr(asyncio, name, None)
        if old is None:
            continue
        for place in places:
            if getattr(place, name, None) is old:
                setattr(place, name, new)
