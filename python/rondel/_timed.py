"""``rondel.timed``: how long a function or a block takes, and how much of it is its own work.

The time of a coroutine or generator is made of *steps*, in which its own code runs (and what it
calls), and of the time between them, in which it is suspended and others run. What the decorator
wraps is driven by hand: two clocks are read around each ``send`` and ``throw``, so that the work of
other tasks is in no figure but the wall time. It needs no particular loop.

A block has nobody who drives it. On a Rondel loop the native task meters its own steps
(``crates/rondel/src/meter.rs``). Elsewhere the loop is asked whether it ran anything meanwhile: if
not, the block never suspended and all of the thread's work in it was its own; if so, nobody knows.

Invariants: the wrapped function's result, exceptions, cancellation, ``send`` and ``throw`` go
through unchanged; a report is made exactly once for each call, when it is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from reprlib import Repr
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, overload

from rondel import _rondel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Generator
    from types import TracebackType

__all__ = ["Timed", "Timing", "timed"]

F = TypeVar("F", bound="Callable[..., Any]")
Outcome = Literal["returned", "raised", "cancelled", "closed"]

SECOND = 1_000_000_000


@dataclass(slots=True)
class Timing:
    """What one call of a function, or one run of a block, took. Times are in seconds.

    In a ``with`` block all times are 0 until the block is over. ``str()`` gives the line that is
    printed by default.
    """

    #: The function's name, or the block's.
    name: str
    #: What was timed.
    kind: Literal["func", "block"]
    #: The arguments, as bounded text: ``('a', 1), {}``; None for a block, or if not asked for.
    arguments: str | None = None
    #: From the first step to the end.
    wall: float = 0.0
    #: CPU time of the thread in the steps; None if that can't be told (see ``timed``).
    cpu: float | None = 0.0
    #: Between the steps; None if that can't be told.
    suspended: float | None = 0.0
    #: How many steps there were: 1 for what was never suspended. None if that can't be told.
    steps: int | None = 0
    #: How it ended. ``closed`` means ``close()`` or ``aclose()``, or that it was dropped.
    outcome: Outcome = "returned"
    #: The exception's bounded ``repr``, if it raised one.
    error: str | None = None

    @property
    def blocked(self) -> float | None:
        """Time in steps without CPU work: blocking calls, and waiting for the GIL or a processor.

        A large one in a coroutine means that it held up the whole loop.
        """
        if self.cpu is None or self.suspended is None:
            return None
        return max(0.0, self.wall - self.suspended - self.cpu)

    def __str__(self) -> str:
        text = f"{self.kind}: {self.name}, total time: {self.wall:.4f}"
        if self.cpu is not None:
            text += f", cpu time: {self.cpu:.4f}"
        if self.suspended is not None and self.steps is not None and self.steps > 1:
            text += f" in {self.steps} steps, suspended: {self.suspended:.4f}"
        if self.error is not None:
            text += f", raised {self.error}"
        elif self.outcome != "returned":
            text += f", {self.outcome}"
        return text


class Log(Protocol):
    """The part of ``logging.Logger`` that is used."""

    def log(self, level: int, msg: object, /, *args: object) -> None:
        """Log ``msg % args`` at ``level``."""


To: TypeAlias = Log | Callable[[Timing], object] | None


@overload
def timed(func: F, /) -> F: ...
@overload
def timed(
    name: str | None = None,
    /,
    *,
    to: To = None,
    level: int = logging.INFO,
    arguments: bool = True,
    limit: int = 200,
) -> Timed: ...
def timed(
    subject: Any = None,
    /,
    *,
    to: To = None,
    level: int = logging.INFO,
    arguments: bool = True,
    limit: int = 200,
) -> Any:
    """Report how long a function or a block takes: wall time, CPU time, and time suspended.

    A decorator for functions, coroutine functions, generator functions and async generator
    functions, with or without arguments, and a context manager for ``with`` and ``async with``::

        @timed
        async def fetch(url): ...

        @timed(to=logging.getLogger("times"), arguments=False)
        def parse(text): ...

        async with timed("load") as timing:
            ...
        print(timing.wall)

    By default two lines are printed for each call, at its first step and at its end, and one line
    for each block, at its end::

        running func: fetch, params: ('a',), {}
        func: fetch, total time: 1.0021, cpu time: 0.0005 in 4 steps, suspended: 1.0014

    CPU time is the thread's (``time.thread_time``), of the function's own steps: what it calls and
    awaits directly is in it, what other tasks do while it is suspended is not. Of a generator, the
    time between two steps is the consumer's. In a block, CPU time and time suspended are those of
    the task that runs it, on a Rondel loop; on another loop they are None if the loop went on
    meanwhile. What is left of the wall time is ``Timing.blocked``.

    The decorated function keeps its signature and its kind (``inspect.iscoroutinefunction`` and the
    like). An exception or a cancellation is in the report, and goes on. What ``to`` raises is
    raised to the function's caller.

    Args:
        subject: the function to decorate, or the name to report: of a block, or of a function in
            place of its own.
        to: where reports go. None: ``print``, to what ``sys.stdout`` is then. A logger, or another
            object with its method ``log(level, msg, *args)``: the same lines. Any other callable is
            called once, at the end, with a ``Timing``.
        level: the level for a logger.
        arguments: whether the arguments of calls are reported. Their ``repr`` is taken at the first
            step, one that fails is replaced.
        limit: the length in characters that the text of the arguments, and of an exception, is cut
            to; at least 20.

    Returns:
        The decorated function; without a function a ``Timed``, to decorate one or to enter.

    Raises:
        TypeError: ``subject`` or ``to`` is something else.
        ValueError: ``limit`` is below 20.
    """
    if limit < 20:
        raise ValueError(f"limit must be at least 20, not {limit}")
    name = subject if isinstance(subject, str) else None
    settings = Timed(name, _Reporter(to, level, arguments, limit))
    if subject is None or name is not None:
        return settings
    return settings(subject)


class Timed:
    """What ``timed(...)`` returns: decorates functions, and is a context manager.

    As a context manager it serves one block at a time; blocks may nest if each has its own.
    """

    __slots__ = ("_block", "_name", "_reporter")

    def __init__(self, name: str | None, reporter: _Reporter) -> None:
        self._name = name
        self._reporter = reporter
        self._block: _Block | None = None

    def __call__(self, func: F, /) -> F:
        """Decorate a function."""
        decorated: F = _decorate(func, self._name, self._reporter)
        return decorated

    def __enter__(self) -> Timing:
        """Begin a block; its times are known when it is over."""
        if self._block is not None:
            raise RuntimeError("this timed() is in a block already: make another for an inner one")
        self._block = _Block(Timing(self._name or "block", "block"))
        return self._block.timing

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the block and report it. An exception goes on."""
        block, self._block = self._block, None
        if block is None:
            raise RuntimeError("this timed() is in no block")
        block.end()
        self._reporter.finished(block.timing, error)

    async def __aenter__(self) -> Timing:
        """As ``with``."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """As ``with``."""
        self.__exit__(kind, error, traceback)


# ---------------------------------------------------------------------------------- reports


class _Reporter:
    """Where reports go, and how much they say."""

    __slots__ = ("_arguments", "_limit", "_repr", "_to", "_write")

    def __init__(self, to: To, level: int, arguments: bool, limit: int) -> None:
        self._arguments = arguments
        self._limit = limit
        self._repr = _bounded(limit)
        # One of them: what takes a line, or what takes a Timing.
        self._write: Callable[[str], object] | None = None
        self._to: Callable[[Timing], object] | None = None
        if to is None:
            self._write = print
        elif callable(log := getattr(to, "log", None)):
            self._write = functools.partial(log, level, "%s")
        elif callable(to):
            self._to = to
        else:
            raise TypeError(f"to must be a logger or a callable, not {type(to).__name__}")

    def started(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Timing:
        """A call's first step begins."""
        timing = Timing(name, "func")
        if self._arguments:
            timing.arguments = self._describe(args, kwargs)
        if self._write is not None:
            params = "" if timing.arguments is None else f", params: {timing.arguments}"
            self._write(f"running func: {name}{params}")
        return timing

    def finished(self, timing: Timing, error: BaseException | None) -> None:
        """A call or a block is over."""
        if isinstance(error, asyncio.CancelledError):
            timing.outcome = "cancelled"
        elif isinstance(error, GeneratorExit):
            timing.outcome = "closed"
        elif error is not None:
            timing.outcome = "raised"
            timing.error = self._cut(self._text(error))
        if self._write is not None:
            self._write(str(timing))
        if self._to is not None:
            self._to(timing)

    def _describe(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Arguments as a tuple and a dict show themselves, cut to the limit."""
        positional = ", ".join(map(self._text, args)) + ("," if len(args) == 1 else "")
        named = ", ".join(f"{key!r}: {self._text(value)}" for key, value in kwargs.items())
        return self._cut(f"({positional}), {{{named}}}")

    def _text(self, value: object) -> str:
        try:
            return self._repr.repr(value)
        except Exception:
            # `reprlib` goes by the names of types; one that is called `deque` need not be like one.
            return object.__repr__(value)

    def _cut(self, text: str) -> str:
        return text if len(text) <= self._limit else text[: self._limit - 3] + "..."


def _bounded(limit: int) -> Repr:
    """``repr`` with a bounded length, and bounded work for nested containers.

    For an object whose own ``repr`` fails it has a substitute.
    """
    bounded = Repr()
    bounded.maxlevel = 4
    bounded.maxstring = bounded.maxlong = bounded.maxother = limit
    bounded.maxtuple = bounded.maxlist = bounded.maxarray = bounded.maxdict = 20
    bounded.maxset = bounded.maxfrozenset = bounded.maxdeque = 20
    return bounded


# ----------------------------------------------------------------------------------- meters


class _Meter:
    """The clocks of one call, from its first step to its end."""

    __slots__ = ("_began", "_cpu", "_inside", "_started", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self._cpu = 0  # nanoseconds in steps that are over, as `_inside`
        self._inside = 0
        self._began = (0, 0)
        self._started = time.perf_counter_ns()

    def begin(self) -> None:
        """A step begins."""
        self.steps += 1
        self._began = (time.perf_counter_ns(), time.thread_time_ns())

    def end(self) -> None:
        """The step is over."""
        wall, cpu = self._began
        self._cpu += time.thread_time_ns() - cpu
        self._inside += time.perf_counter_ns() - wall

    def read(self, timing: Timing) -> None:
        """The call is over."""
        wall = time.perf_counter_ns() - self._started
        timing.wall = wall / SECOND
        timing.cpu = self._cpu / SECOND
        timing.suspended = max(0, wall - self._inside) / SECOND if self.steps > 1 else 0.0
        timing.steps = self.steps


class _Block:
    """The clocks of one block."""

    __slots__ = ("_cpu", "_flag", "_native", "_started", "timing")

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self._native = _rondel._block_began()
        self._flag: _Flag | None = None
        if self._native is None:
            with contextlib.suppress(RuntimeError):  # no loop runs here
                self._flag = _Flag(asyncio.get_running_loop())
        self._cpu = time.thread_time_ns()
        self._started = time.perf_counter_ns()

    def end(self) -> None:
        """The block is over."""
        wall = time.perf_counter_ns() - self._started
        cpu = time.thread_time_ns() - self._cpu
        timing = self.timing
        timing.wall = wall / SECOND
        if self._native is not None:
            task, *before = self._native
            after = _rondel._block_ended(task)
            spent, inside, steps = (b - a for a, b in zip(before, after, strict=True))
            timing.cpu = spent / SECOND
            timing.steps = steps + 1
            timing.suspended = max(0, wall - inside) / SECOND if steps else 0.0
        elif self._flag is not None and self._flag.lower():
            timing.cpu = timing.suspended = timing.steps = None
        else:
            timing.cpu = cpu / SECOND
            timing.suspended = 0.0
            timing.steps = 1


class _Flag:
    """Tells whether a loop has run anything since it was set up."""

    __slots__ = ("_handle", "_raised")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._raised = False
        self._handle = loop.call_soon(self._raise)

    def _raise(self) -> None:
        self._raised = True

    def lower(self) -> bool:
        """Whether it did; nothing is left in the loop."""
        self._handle.cancel()
        return self._raised


# ------------------------------------------------------------------------------- decorating


def _decorate(func: Any, name: str | None, reporter: _Reporter) -> Any:
    if isinstance(func, type) or not callable(func):
        raise TypeError(
            f"timed() decorates functions, not {func!r}"
            + ("; put it below @classmethod" if isinstance(func, classmethod) else "")
        )
    if name is None:
        name = _name_of(func)
    if inspect.isasyncgenfunction(func):
        wrapper = _async_generator_wrapper(func, name, reporter)
    elif _is_coroutine_function(func):
        wrapper = _coroutine_wrapper(func, name, reporter)
    elif inspect.isgeneratorfunction(func):
        wrapper = _generator_wrapper(func, name, reporter)
    else:
        wrapper = _function_wrapper(func, name, reporter)
    return functools.wraps(func)(wrapper)


def _name_of(func: Any) -> str:
    """``Class.method``, or the bare name of a function inside another."""
    while isinstance(func, functools.partial):
        func = func.func
    name = getattr(func, "__qualname__", None) or type(func).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _is_coroutine_function(func: Any) -> bool:
    if inspect.iscoroutinefunction(func):
        return True
    # Before 3.12 asyncio has a mark of its own; from then on it is inspect's.
    return sys.version_info < (3, 12) and asyncio.iscoroutinefunction(func)


def _function_wrapper(func: Any, name: str, reporter: _Reporter) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with _Call(reporter, name, args, kwargs) as meter:
            meter.begin()
            try:
                return func(*args, **kwargs)
            finally:
                meter.end()

    return wrapper


def _coroutine_wrapper(func: Any, name: str, reporter: _Reporter) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        with _Call(reporter, name, args, kwargs) as meter:
            return await _Driven(func(*args, **kwargs), meter)

    return wrapper


def _generator_wrapper(func: Any, name: str, reporter: _Reporter) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with _Call(reporter, name, args, kwargs) as meter:
            return (yield from _drive(func(*args, **kwargs), meter))

    return wrapper


def _async_generator_wrapper(func: Any, name: str, reporter: _Reporter) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        with _Call(reporter, name, args, kwargs) as meter:
            inner = func(*args, **kwargs)
            step = _unregistered_first_step(inner)
            while True:
                try:
                    value = await _Driven(step, meter)
                except StopAsyncIteration:
                    return
                try:
                    sent = yield value
                except BaseException as error:
                    # `aclose()` of ours is a GeneratorExit here. One that the inner generator
                    # ignores makes us yield once more, and the interpreter complains as it should.
                    step = inner.athrow(error)
                else:
                    step = inner.asend(sent)

    return wrapper


def _unregistered_first_step(generator: Any) -> Awaitable[Any]:
    """The first step of an async generator that nobody but its wrapper is to finalise.

    With its first step a generator meets the loop's hooks (Python docs:
    ``sys.set_asyncgen_hooks``): the loop would close it at its shutdown while the wrapper, which it
    closes too, does the same.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        step: Awaitable[Any] = generator.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)
    return step


class _Call:
    """One call: reported when entered and when left."""

    __slots__ = ("_meter", "_reporter", "_timing")

    def __init__(
        self, reporter: _Reporter, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._reporter = reporter
        self._timing = reporter.started(name, args, kwargs)
        self._meter = _Meter()

    def __enter__(self) -> _Meter:
        return self._meter

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._meter.read(self._timing)
        self._reporter.finished(self._timing, error)


class _Driven:
    """An awaitable whose steps are metered."""

    __slots__ = ("_awaitable", "_meter")

    def __init__(self, awaitable: Any, meter: _Meter) -> None:
        self._awaitable = awaitable
        self._meter = meter

    def __await__(self) -> Generator[Any, Any, Any]:
        awaitable = self._awaitable
        # A coroutine is driven itself: its `__await__` would be one object more in each step.
        if not hasattr(awaitable, "send"):
            awaitable = awaitable.__await__()
            if not hasattr(awaitable, "send"):  # a plain iterator is enough to be awaited
                awaitable = _generator_over(awaitable)
        return _drive(awaitable, self._meter)


def _generator_over(iterator: Any) -> Generator[Any, Any, Any]:
    return (yield from iterator)


def _drive(inner: Any, meter: _Meter) -> Generator[Any, Any, Any]:
    """``yield from inner`` (PEP 380), each step metered."""
    step = inner.send
    argument: Any = None
    while True:
        meter.begin()
        try:
            value = step(argument)
        except StopIteration as stop:
            return stop.value
        finally:
            meter.end()
        try:
            argument = yield value
            step = inner.send
        except GeneratorExit:
            meter.begin()
            try:
                inner.close()
            finally:
                meter.end()
            raise
        except BaseException as error:
            argument = error
            step = inner.throw
