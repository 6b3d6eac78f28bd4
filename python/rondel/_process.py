"""``rondel.to_process``: a call in another process, beside ``to_thread``.

::

    to_process ─► an idle worker, a new one, or a place in the queue
        request ─► socket ─► _worker.serve ─► socket ─► answer
        cancelled: the worker is killed, or finishes what nobody hears of
        worker dies: the socket ends, and the caller gets WorkerDied

Workers are ``multiprocessing`` processes (start method *spawn*), as many as there are processors,
shared by all loops of the process and used again; one that was idle for ``IDLE_SECONDS`` ends at
the next call. The socket to a worker is watched by the loop of the call. They end with the process:
idle ones of themselves, those at work are killed; if the process is killed, by the kernel
(``_worker``).

The list of workers is guarded by a lock, which is held for moments only; whatever else belongs to a
worker is used by the loop that it works for.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import multiprocessing
import multiprocessing.util
import os
import pickle
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rondel._worker import LENGTH, RemoteError, serve

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RemoteError", "WorkerDied", "to_process"]

T = TypeVar("T")

# An idle worker older than this ends when somebody looks.
IDLE_SECONDS = 60.0
# So long may idle workers take to end at exit before they are killed.
EXIT_SECONDS = 5.0
_CHUNK = 1 << 18


class WorkerDied(RuntimeError):
    """The process that made a call has ended before it could answer.

    Attributes:
        pid: the process.
        exitcode: what it exited with; the negative number of the signal that killed it; None if
            that is not known.
    """

    def __init__(self, pid: int | None, exitcode: int | None, doing: str) -> None:
        super().__init__(pid, exitcode, doing)
        self.pid = pid
        self.exitcode = exitcode
        self._doing = doing

    def __str__(self) -> str:
        return f"worker process {self.pid} {_ending(self.exitcode)} {self._doing}"


def _ending(exitcode: int | None) -> str:
    if exitcode is None:
        return "closed its connection"
    if exitcode >= 0:
        return f"exited with code {exitcode}"
    try:
        return f"was killed by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"was killed by signal {-exitcode}"


async def to_process(
    fn: Callable[..., T],
    /,
    *args: Any,
    cancel: Literal["kill", "abandon"] = "kill",
    **kwargs: Any,
) -> T:
    """Call ``fn(*args, **kwargs)`` in a worker process and return what it returns.

    For work that computes: threads share one interpreter, processes do not. ``fn``, its arguments
    and its result are pickled, so ``fn`` must be importable by name: a function or class of a
    module, no lambda and no local function. As with ``multiprocessing``, a program's main module is
    imported by the workers and needs its ``if __name__ == "__main__":``. Context variables are not
    carried over.

    At most as many calls run at once as the process may use processors; others wait. It works on
    every asyncio loop.

    Args:
        fn: what to call.
        args, kwargs: its arguments. One named ``cancel`` takes a ``functools.partial``.
        cancel: what cancelling the call does once it runs. ``"kill"`` ends the worker by SIGKILL,
            ``"abandon"`` lets it finish, unheard, and the worker is free for others after that. A
            call that waits for a worker is not made in either case.

    Returns:
        What ``fn`` returned.

    Raises:
        TypeError: ``fn``, its arguments or its result can't be pickled.
        ValueError: ``cancel`` is neither of the two.
        WorkerDied: the process has ended meanwhile; the message names the signal or the exit code.
        RemoteError: ``fn`` raised an exception that can't be pickled.
        BaseException: what ``fn`` raised; its ``__cause__`` shows the traceback over there.
    """
    if cancel not in ("kill", "abandon"):
        raise ValueError(f"cancel must be 'kill' or 'abandon', not {cancel!r}")
    try:
        request = pickle.dumps((fn, args, kwargs), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise TypeError(
            f"to_process() can't send {_describe(fn)} or its arguments to another process: {error}"
            " (functions must be importable by name, arguments picklable)"
        ) from error
    worker = await _take()
    answer = worker.call(request, _describe(fn))
    try:
        succeeded, value = pickle.loads(await answer)
    except BaseException as error:
        if cancel == "kill" or not isinstance(error, asyncio.CancelledError):
            worker.kill(answer)
        raise
    if succeeded:
        return value  # type: ignore[no-any-return]
    try:
        raise value
    finally:
        del value


def _describe(fn: object) -> str:
    name = getattr(fn, "__qualname__", None)
    return repr(fn) if name is None else f"{getattr(fn, '__module__', '?')}.{name}"


class _Worker:
    """One process and the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                context = multiprocessing.get_context("spawn")
                self._process = context.Process(target=serve, args=(theirs,), name="rondel-worker")
                self._process.start()
            except BaseException:
                self._socket.close()
                raise
        self._socket.setblocking(False)
        self.pid = self._process.pid
        self.since = time.monotonic()
        # The loop that the present call belongs to.
        self.loop: asyncio.AbstractEventLoop | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._doing = ""
        self._ready = False
        self._out = memoryview(b"")
        self._in = bytearray()

    # ---------------------------------------------------------------- a call

    def call(self, request: bytes, name: str) -> asyncio.Future[bytes]:
        """Send a request; the future is the answer."""
        self.loop = loop = asyncio.get_running_loop()
        self._doing = f"while it ran {name}"
        self._answer = answer = loop.create_future()
        self._out = memoryview(LENGTH.pack(len(request)) + request)
        loop.add_reader(self._socket, self._readable)
        self._send()
        if self._out:
            loop.add_writer(self._socket, self._writable)
        return answer

    def _send(self) -> None:
        try:
            while self._out:
                self._out = self._out[self._socket.send(self._out) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            # It has ended: the reader is told so.
            self._out = memoryview(b"")

    def _writable(self) -> None:
        self._send()
        if not self._out and self.loop is not None:
            self.loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._ended()
            return
        self._in += data
        while len(self._in) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._in)
            if len(self._in) < LENGTH.size + length:
                return
            message = bytes(self._in[LENGTH.size : LENGTH.size + length])
            del self._in[: LENGTH.size + length]
            if self._ready:
                self._answered(message)
                return
            self._ready = True

    def _answered(self, message: bytes) -> None:
        answer, self._answer = self._answer, None
        self._unwatch()
        self.since = time.monotonic()
        _free(self)
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _ended(self) -> None:
        """The socket has ended, and with it the process, or soon."""
        answer, self._answer = self._answer, None
        self._unwatch()
        _lose(self)
        self._process.join(EXIT_SECONDS)
        code = self._process.exitcode
        if code is None:  # it has closed its socket, and lives
            self._process.kill()
            self._process.join()
        self._close()
        if answer is not None and not answer.done():
            answer.set_exception(WorkerDied(self.pid, code, self._state()))

    def _state(self) -> str:
        if self._ready:
            return self._doing
        return (
            "before it could begin: its own traceback is on stderr "
            '(does the program keep its start under `if __name__ == "__main__":`?)'
        )

    def _unwatch(self) -> None:
        loop, self.loop = self.loop, None
        self._out = memoryview(b"")
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)

    # ---------------------------------------------------------------- the end

    def kill(self, answer: asyncio.Future[bytes] | None = None) -> None:
        """End it now, in the middle of its call; the loop sees to what is left of it.

        With an answer: if it is still that call. It may be another's by now.
        """
        if answer is not None and self._answer is not answer:
            return
        loop = self.loop
        self._answer = None
        self._unwatch()
        _lose(self)
        self._process.kill()
        if loop is None or loop.is_closed():
            self.reap()
            return
        self._watch_end(loop)

    def retire(self, loop: asyncio.AbstractEventLoop) -> None:
        """An idle one ends of itself when its socket does."""
        self._socket.close()
        self._watch_end(loop)

    def _watch_end(self, loop: asyncio.AbstractEventLoop) -> None:
        # Readable when the process has ended: nobody waits for that, and no zombie stays.
        _dying.add(self)
        loop.add_reader(self._process.sentinel, self._gone, loop)

    def _gone(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._process.sentinel)
        self.reap()

    def reap(self) -> None:
        """Wait for a process that was killed, or has ended."""
        _dying.discard(self)
        self._process.join()
        self._close()

    def _close(self) -> None:
        self._socket.close()
        self._process.close()

    def wait(self, deadline: float) -> None:
        """At exit: it has been killed, or ends of itself, as its socket has."""
        self._socket.close()
        self._process.join(max(0.0, deadline - time.monotonic()))
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._process.close()

    def is_lost(self) -> bool:
        """Its loop was closed in the middle of a call."""
        return self.loop is not None and self.loop.is_closed()

    def forget(self) -> None:
        """In a forked child: the process is the parent's."""
        self._socket.close()


# ---------------------------------------------------------------------------- the workers

_lock = threading.Lock()
# Idle ones, the last to go idle last.
_idle: list[_Worker] = []
_busy: set[_Worker] = set()
_starting = 0
# Killed, and not yet gone.
_dying: set[_Worker] = set()
# Who waits for a worker, in order; a future belongs to its loop's thread.
_queue: collections.deque[asyncio.Future[None]] = collections.deque()


def _limit() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


async def _take() -> _Worker:
    """A worker for one call; the caller gives it work at once."""
    global _starting
    loop = asyncio.get_running_loop()
    while True:
        waiter = None
        with _lock:
            lost = [worker for worker in _busy if worker.is_lost()]
            now = time.monotonic()
            old = [worker for worker in _idle if now - worker.since > IDLE_SECONDS]
            for worker in old:
                _idle.remove(worker)
            if _idle:
                worker = _idle.pop()
                _busy.add(worker)
                found = worker
            else:
                found = None
                if len(_busy) - len(lost) + _starting < _limit():
                    _starting += 1
                else:
                    waiter = loop.create_future()
                    _queue.append(waiter)
        for worker in lost:
            worker.kill()
        for worker in old:
            worker.retire(loop)
        if found is not None:
            return found
        if waiter is None:
            return await _started(loop)
        try:
            await waiter
        except BaseException:
            with _lock, contextlib.suppress(ValueError):
                _queue.remove(waiter)
            # It may have been told just now: somebody else is to go on.
            if waiter.done() and not waiter.cancelled():
                _tell_next()
            raise


async def _started(loop: asyncio.AbstractEventLoop) -> _Worker:
    """A new worker. Starting one takes milliseconds, which the loop does not spend."""
    global _starting
    try:
        starting = loop.run_in_executor(None, _start)
    except BaseException:
        with _lock:
            _starting -= 1
        raise
    try:
        worker = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # Nobody waits for it: it is there for others.
        starting.add_done_callback(_keep)
        raise
    return worker


def _start() -> _Worker:
    global _starting
    try:
        worker = _Worker()
    except BaseException:
        with _lock:
            _starting -= 1
        _tell_next()
        raise
    with _lock:
        _starting -= 1
        _busy.add(worker)
    return worker


def _keep(started: asyncio.Future[_Worker]) -> None:
    if not started.cancelled() and started.exception() is None:
        _free(started.result())


def _free(worker: _Worker) -> None:
    with _lock:
        _busy.discard(worker)
        _idle.append(worker)
    _tell_next()


def _lose(worker: _Worker) -> None:
    with _lock:
        _busy.discard(worker)
        if worker in _idle:
            _idle.remove(worker)
    _tell_next()


def _tell_next() -> None:
    """There is a worker, or room for one: the first who waits goes on."""
    while True:
        with _lock:
            if not _queue:
                return
            waiter = _queue.popleft()
        # Its loop may be closed, with the waiter forgotten.
        with contextlib.suppress(RuntimeError):
            waiter.get_loop().call_soon_threadsafe(_go_on, waiter)
            return


def _go_on(waiter: asyncio.Future[None]) -> None:
    if waiter.done():
        _tell_next()
    else:
        waiter.set_result(None)


def _end_all() -> None:
    """At exit: idle workers end of themselves, those at work are killed."""
    with _lock:
        idle, busy = list(_idle), list(_busy)
        _idle.clear()
        _busy.clear()
    for worker in idle:
        worker._socket.close()
    for worker in busy:
        worker._process.kill()
    deadline = time.monotonic() + EXIT_SECONDS
    for worker in [*busy, *idle, *_dying]:
        worker.wait(deadline)
    _dying.clear()


def _forked() -> None:
    global _lock, _starting
    _lock = threading.Lock()
    _starting = 0
    for worker in [*_idle, *_busy, *_dying]:
        worker.forget()
    _idle.clear()
    _busy.clear()
    _dying.clear()
    _queue.clear()


os.register_at_fork(after_in_child=_forked)
# Before multiprocessing joins its processes.
multiprocessing.util.Finalize(None, _end_all, exitpriority=100)
