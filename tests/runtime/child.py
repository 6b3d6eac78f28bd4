"""Tests whose failure may be the end of the process: each runs in a child, by its exit status.

`@in_child` on a test function makes it run in a fresh interpreter, once per way of running:

    asyncio     on stock asyncio: the oracle, so that a test says what is true of both
    rondel      on Rondel, with CPython's debug allocator: freed memory is overwritten, so that its
                use is seen
    rondel-gc   the same while every allocation collects garbage: collections come at any point
                where they can come

The function gets a `Child`. The test passes if it returns, the interpreter ends with status 0 and
nothing was written to standard error. The child imports no pytest, which would cost more than most
of these tests do; so their modules import it nowhere, and use `rondel_only` for what asyncio
can't do.

Invariant: what a loop's exception handler got is in `errors`, and the test must have emptied it.
"""

import asyncio
import contextlib
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

from tests.support import ONLY_ASYNCIO, python

IN_CHILD = os.environ.get("RONDEL_TEST_CHILD") == "1"
WAYS = ("asyncio",) if ONLY_ASYNCIO else ("asyncio", "rondel", "rondel-gc")
SECONDS = 60


class Child:
    """What a test in a child works with."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.native = way != "asyncio"
        self.aio: ModuleType = importlib.import_module("rondel") if self.native else asyncio
        self.errors: list[dict[str, Any]] = []
        self.loops: list[asyncio.AbstractEventLoop] = []
        # For a test that is not about reports: what there is of them at its end is well.
        self.any_reports = False

    def new_loop(self) -> Any:
        """A loop whose reports go to `errors`."""
        loop = self.aio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: self.errors.append(context))
        self.loops.append(loop)
        return loop

    def run(self, coro: Coroutine[Any, Any, Any], loop: Any = None) -> Any:
        """Run `coro`, then cancel what is left; the loop stays open for the caller to look at."""
        loop = loop or self.new_loop()
        try:
            return loop.run_until_complete(coro)
        finally:
            for task in asyncio.all_tasks(loop):
                with contextlib.suppress(Exception):  # of what it waits for
                    task.cancel()
            self.turns(loop, 10)

    def turns(self, loop: Any, count: int = 5) -> None:
        """Give a loop that does not run some whole turns."""
        for _ in range(count):
            loop.call_soon(loop.stop)
            loop.run_forever()

    def messages(self) -> list[str]:
        """The messages of the reports so far, which are thereby taken."""
        taken = [str(error.get("message")) for error in self.errors]
        self.errors.clear()
        return taken

    def finish(self) -> None:
        """Close what is open, and collect what is left."""
        while self.loops:
            loop = self.loops.pop()
            if not loop.is_closed():
                loop.close()
        gc.collect()
        if self.errors and not self.any_reports:
            raise AssertionError(f"reported and not expected: {self.errors}")


Body = Callable[[Child], None]


def in_child(
    test: Body | None = None,
    *,
    ways: tuple[str, ...] = WAYS,
    stderr: str | None = "",
    seconds: float = SECONDS,
    env: dict[str, str] | None = None,
) -> Any:
    """Run the test in a child. `stderr`: what the child writes there; None for anything."""

    def decorate(body: Body) -> Any:
        if IN_CHILD:
            return body
        import pytest

        @pytest.mark.timeout(seconds + 10)
        @pytest.mark.parametrize("way", [way for way in ways if way in WAYS])
        def test_in_child(way: str) -> None:
            code = "from tests.runtime.child import main; main()"
            ended = python(
                code,
                body.__module__,
                body.__name__,
                way,
                # Not in -X dev: asyncio's debug mode reports what is slow, and checks threads.
                env={
                    "RONDEL_TEST_CHILD": "1",
                    "PYTHONMALLOC": "debug",
                    "PYTHONDEVMODE": "",
                    **(env or {}),
                },
                timeout=seconds,
            )
            said = f"{way}: status {ended.returncode}\n{ended.stdout[-2000:]}{ended.stderr[-6000:]}"
            well = ended.returncode == 0 and ended.stdout.splitlines()[-1:] == ["returned"]
            if not well or stderr not in (None, ended.stderr):
                pytest.fail(said, pytrace=False)

        test_in_child.__name__ = body.__name__
        test_in_child.__doc__ = body.__doc__
        return test_in_child

    return decorate(test) if test is not None else decorate


# What only Rondel promises; the reason is in the test.
rondel_only = ("rondel", "rondel-gc")


def main() -> None:
    """In the child: argv is the module, the function and the way."""
    _, module, name, way = sys.argv
    child = Child(way)
    body = getattr(importlib.import_module(module), name)
    if way == "rondel-gc":
        gc.set_threshold(1)
    try:
        body(child)
        gc.set_threshold(700)
        child.finish()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    print("returned", flush=True)
