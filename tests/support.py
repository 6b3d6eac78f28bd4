"""What the tests share: the runtimes under test, their leak checks, and child processes.

A runtime is one way into an event loop:

    asyncio             the stock names on the stock loop: the oracle
    rondel              Rondel's names on Rondel's loop (`import rondel as asyncio`)
    asyncio-on-rondel   the stock names on Rondel's loop (`loop_factory=rondel.new_event_loop`)
    rondel-on-asyncio   Rondel's names on the stock loop: they must behave as asyncio's there

The third way in, `rondel.install()`, changes a whole process and is tested in child
processes (`python()` below).

Invariants each test gets for free, checked by `Runtime.finish`:
- every loop it made is closed, by it or by us, and no task on it is pending;
- nothing reached a loop's exception handler that the test did not take;
- no descriptor is left open.
"""

import asyncio
import contextlib
import gc
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")
Context = dict[str, Any]

ONLY_ASYNCIO = os.environ.get("RONDEL_TEST_ONLY_ASYNCIO") == "1"
RUNTIMES = (
    ("asyncio",)
    if ONLY_ASYNCIO
    else ("asyncio", "rondel", "asyncio-on-rondel", "rondel-on-asyncio")
)

# The names of the package that are not asyncio's: it says so in its documents.
OWN = {
    "EventLoop",
    "EventLoopPolicy",
    "RemoteError",
    "Runner",
    "Timed",
    "Timing",
    "WorkerDied",
    "background",
    "install",
    "installed",
    "new_event_loop",
    "run",
    "timed",
    "to_process",
    "uninstall",
    "watch_tasks",
}

# asyncio's timeouts, streams and transports had bugs then that Rondel's have in no version.
EARLY_311 = sys.version_info < (3, 11, 7)

# How many times longer than usual everything may take. A debug build of CPython checks its lists of
# objects at each collection, so that what collects at every allocation takes 5 to 10 s of processor
# time, a minute and more beside other work; valgrind is slower still (scripts/valgrind.sh).
SLOWNESS = float(
    os.environ.get("RONDEL_TEST_SLOWNESS", 5 if hasattr(sys, "gettotalrefcount") else 1)
)

# How long a test may take to see something that should happen at once: generous, because
# only a failing test waits for it.
PATIENCE = 10.0 * SLOWNESS


class Leak(AssertionError):
    """A test left something behind."""


class Runtime:
    """One way into a loop, with every loop it makes watched until `finish`."""

    def __init__(self, name: str) -> None:
        self.name = name
        # The loop and the tasks that it makes are Rondel's.
        self.native = name in ("rondel", "asyncio-on-rondel")
        names = "rondel" if name.startswith("rondel") else "asyncio"
        self.aio: ModuleType = importlib.import_module(names)
        # What the loop's tasks and futures are instances of, by these names.
        self.types: Any = asyncio if name == "rondel-on-asyncio" else self.aio
        self.errors: list[Context] = []
        self._loops: list[asyncio.AbstractEventLoop] = []
        self._descriptors = open_descriptors()

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """A loop whose handled errors go to `errors` and which `finish` closes."""
        if self.native:
            loop = importlib.import_module("rondel").new_event_loop()
        else:
            loop = asyncio.new_event_loop()
        loop.set_exception_handler(self._on_error)
        self._loops.append(loop)
        return loop  # type: ignore[no-any-return]

    def Runner(self, *, debug: bool | None = None) -> Any:  # noqa: N802 (asyncio's name)
        return self.aio.Runner(debug=debug, loop_factory=self.new_event_loop)

    def run(self, coro: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
        with self.Runner(debug=debug) as runner:
            return runner.run(coro)  # type: ignore[no-any-return]

    def take_errors(self) -> list[Context]:
        """What the loops' exception handlers got; a test that expects errors takes them."""
        taken, self.errors = self.errors, []
        return taken

    def finish(self) -> None:
        """Close what is open, then raise `Leak` for anything left behind."""
        left: list[str] = []
        while self._loops:
            loop = self._loops.pop()
            if not loop.is_closed():
                left += [f"pending task {task!r}" for task in self.aio.all_tasks(loop)]
                loop.close()
            del loop
        asyncio.set_event_loop(None)
        gc.collect()
        left += [f"unhandled loop error {context!r}" for context in self.take_errors()]
        extra = open_descriptors() - self._descriptors
        left += [f"open descriptor {number} -> {target}" for number, target in sorted(extra)]
        if left:
            raise Leak("the test left behind:\n  " + "\n  ".join(left))

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self.errors.append(context)


def open_descriptors() -> set[tuple[int, str]]:
    """(number, target) of this process's descriptors, where the platform tells."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # listdir's own descriptor is gone by now
                found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return found


def run_settled(runtime: Runtime, test: Coroutine[Any, Any, None]) -> None:
    """The test; then turns of the loop, for at most a second, until what it opened is closed.

    A server's side sees the end of its peer when the kernel has passed it on, which on a busy
    machine can be later than the test's last step; before 3.12 `Server.wait_closed()` does not
    wait for it. The test is a main coroutine by itself: awaited by another one it would be closed
    where it is to get a GeneratorExit.
    """
    with runtime.Runner() as runner:
        loop = runner.get_loop()
        before = open_descriptors()
        runner.run(test)
        # What the loop itself has opened at its first run stays open with it.
        wakes = [getattr(loop, name, None) for name in ("_ssock", "_csock")]
        numbers = {sock.fileno() for sock in wakes if sock is not None}
        before |= {(number, what) for number, what in open_descriptors() if number in numbers}
        if open_descriptors() - before:
            runner.run(settle(runtime.aio, before))


async def settle(aio: ModuleType, before: set[tuple[int, str]]) -> None:
    end = time.monotonic() + 1
    while open_descriptors() - before and time.monotonic() < end:
        await aio.sleep(0.002)


async def spin(aio: ModuleType, turns: int = 5) -> None:
    """Give the loop some whole turns, so that callbacks of callbacks have run."""
    for _ in range(turns):
        await aio.sleep(0)


def run_once(loop: asyncio.AbstractEventLoop) -> None:
    """Run what is ready, and nothing that comes of it."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def python(
    code: str, *args: str, env: dict[str, str] | None = None, timeout: float = 30
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter, dev-mode warnings on, and return how it ended.

    `timeout` is in seconds, and `SLOWNESS` times as long in a debug build of CPython.
    """
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "always::ResourceWarning", "-c", code, *args],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout * SLOWNESS,
        check=False,
    )


@contextlib.contextmanager
def elapsed_at_least(seconds: float) -> Iterator[None]:
    """The block takes at least this long (less the clock's own grain)."""
    start = time.monotonic()
    yield
    spent = time.monotonic() - start
    assert spent >= seconds - 0.002, f"took {spent:.4f} s, expected at least {seconds} s"
