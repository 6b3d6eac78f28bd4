"""``rondel.EventLoop``: the native loop with what runs once per loop, server or connection.

The native base (``_rondel.LoopBase``) owns scheduling, futures, tasks, timers and readiness. What
is not native yet is asyncio's own: the class derives from asyncio's selector loop for its set-up
of connections, servers, subprocesses and pipes, all of which run over the native base. No selector
is ever made; the native base comes first in the method resolution order.

Everything here runs with the GIL held, on the loop's thread unless said otherwise.
"""

# mypy: disable-error-code="attr-defined,misc"
# asyncio's private methods, which this class inherits and calls, are not in typeshed's stubs.

from __future__ import annotations

import asyncio
import atexit
import collections
import contextlib
import logging
import os
import signal
import sys
import threading
import weakref
from asyncio import base_events, coroutines, events, unix_events
from typing import TYPE_CHECKING, Any

from rondel import _rondel, _tls, _watch
from rondel._pipes import PipeMethods
from rondel._sendfile import SendFile
from rondel._sockets import SocketMethods
from rondel._subprocess import ChildProcesses
from rondel.transports import SocketTransport

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["EventLoop"]

logger = logging.getLogger("asyncio")

# Every loop that is alive: asyncio.all_tasks() asks them for their native tasks.
live_loops: weakref.WeakSet[EventLoop] = weakref.WeakSet()

os.register_at_fork(
    before=_rondel._inspect_pause,
    after_in_parent=_rondel._inspect_resume,
    after_in_child=_rondel._forked,
)
atexit.register(_rondel._inspect_end)


class EventLoop(
    _tls.TLSLoop,
    ChildProcesses,
    _rondel.LoopBase,
    SocketMethods,
    PipeMethods,
    SendFile,
    unix_events._UnixSelectorEventLoop,
):
    """An asyncio event loop in Rust.

    A drop-in for ``asyncio.SelectorEventLoop`` (Python docs: *Event Loop*). Make one with
    ``rondel.new_event_loop()``; most programs only ever call ``rondel.run()``.

    Raises:
        OSError: no file descriptor is left for epoll.
    """

    def __init__(self) -> None:
        # asyncio's own __init__ methods would open a selector and a self-pipe: the state that their
        # other methods use is set here instead.
        try:
            self._setup()
        except OSError:
            self._shutdown()  # closed: or its end would say that it was not
            raise
        self._ready: collections.deque[Any] = (
            collections.deque()
        )  # asyncio's name for its queue; ours is native
        self._exception_handler: Callable[..., object] | None = None
        self._default_executor = None
        self._executor_shutdown_called = False
        self._thread_id: int | None = None
        self._clock_resolution = 1e-9
        self._current_handle = None
        self._internal_fds = 0
        self._asyncgens: weakref.WeakSet[Any] = weakref.WeakSet()
        self._asyncgens_shutdown_called = False
        self._coroutine_origin_tracking_enabled = False
        self._coroutine_origin_tracking_saved_depth: int | None = None
        self._signal_handlers: dict[int, Any] = {}
        self._unix_server_sockets: dict[Any, Any] = {}
        self._ssock: socket.socket | None = None
        self._csock: socket.socket | None = None
        debug: bool = coroutines._is_debug_mode()
        self.set_debug(debug)
        live_loops.add(self)

    # The native base has a finalizer of its own, which would hide asyncio's warning.
    __del__ = base_events.BaseEventLoop.__del__

    def __repr__(self) -> str:
        return (
            f"<{self.__class__.__name__} running={self.is_running()} "
            f"closed={self.is_closed()} debug={self.get_debug()}>"
        )

    # ------------------------------------------------------------------ running

    def run_forever(self) -> None:
        """Run until ``stop()`` is called.

        Raises:
            RuntimeError: the loop is closed or running, or another loop runs in this thread.
        """
        self._check_closed()
        self._check_running()
        hooks = sys.get_asyncgen_hooks()
        self._set_coroutine_origin_tracking(self._debug)
        try:
            self._thread_id = threading.get_ident()
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
            )
            events._set_running_loop(self)
            with self._woken_by_signals(), _watch.tracking():
                self._run()
        finally:
            self._thread_id = None
            events._set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*hooks)

    @contextlib.contextmanager
    def _woken_by_signals(self) -> Any:
        """In the main thread, let every signal end the loop's sleep.

        Without it a signal that arrives just before the loop falls asleep would be handled only
        when something else wakes it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        if self._csock is None:
            self._make_self_pipe()
        assert self._csock is not None
        ours = self._csock.fileno()
        try:
            old = signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
        except ValueError:  # the main thread of a subinterpreter
            yield
            return
        if old not in (-1, ours):  # somebody else's: theirs stays
            signal.set_wakeup_fd(old, warn_on_full_buffer=False)
        try:
            yield
        finally:
            # Signal handlers of this loop outlive the run, and so does what they need.
            if old == -1 and not self._signal_handlers:
                current = signal.set_wakeup_fd(-1)
                if current not in (-1, ours):
                    signal.set_wakeup_fd(current, warn_on_full_buffer=False)

    def close(self) -> None:
        """Close the loop: drop what is scheduled, stop the default executor without waiting.

        Raises:
            RuntimeError: the loop is running.
        """
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        if sys.is_finalizing():
            self._signal_handlers.clear()
        for number in list(self._signal_handlers):
            self.remove_signal_handler(number)
        if self._ssock is not None:
            self._close_self_pipe()
        self._executor_shutdown_called = True
        executor, self._default_executor = self._default_executor, None
        if executor is not None:
            executor.shutdown(wait=False)
        self._forget_children()
        self._shutdown()

    def _set_coroutine_origin_tracking(self, enabled: bool) -> None:
        before = self._coroutine_origin_tracking_enabled
        super()._set_coroutine_origin_tracking(enabled)
        if bool(enabled) != before:
            _watch.debugging(1 if enabled else -1)

    def _report_slow(self, subject: object, seconds: float) -> None:
        """Debug mode: a callback or a step took longer than ``slow_callback_duration``."""
        # As text: a handle lets go of its callback before a queue's listener looks.
        if isinstance(subject, (_rondel.Handle, _rondel.TimerHandle)):
            text = base_events._format_handle(subject)
        else:
            text = repr(subject)
        logger.warning("Executing %s took %.3f seconds", text, seconds)

    def _make_default_executor(self) -> Any:
        """What native code asks for at the first use of the default executor."""
        from rondel._executor import LoopExecutor

        return LoopExecutor(self)

    # ------------------------------------------------------------------ signals

    def add_signal_handler(  # type: ignore[override]  # asyncio's stub ties args to the callback
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """Call ``callback(*args)`` on the loop when the signal arrives (main thread only).

        Raises:
            ValueError: the signal number is invalid, or this is not the main thread.
            RuntimeError: the signal can't be caught.
        """
        if self._csock is None:
            self._make_self_pipe()
        super().add_signal_handler(sig, callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove a signal's handler; return whether there was one."""
        removed: bool = super().remove_signal_handler(sig)
        if removed and self.is_running() and not self._signal_handlers and self._csock is not None:
            # asyncio has just unset the wake-up descriptor; this run still needs it.
            with contextlib.suppress(ValueError):
                signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)
        return removed

    def _add_callback(self, handle: Any) -> None:
        # asyncio's own code schedules Handle objects it made itself (signals).
        if not handle._cancelled:
            self.call_soon(handle._run)

    def _add_callback_signalsafe(self, handle: Any) -> None:
        self._add_callback(handle)
        self._write_to_self()

    # ------------------------------------------------------------------ transports

    async def _accept_connection2(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        conn: socket.socket,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """As asyncio's, but a protocol factory that raises is reported and its socket closed.

        asyncio says so in debug mode only and leaves the socket to the collector.
        """
        report = None if self._debug else self._report_not_made
        await super()._accept_connection2(
            _closing(conn, protocol_factory, report), conn, *args, **kwargs
        )

    async def _create_connection_transport(
        self,
        sock: socket.socket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As asyncio's, but a protocol factory that raises does not leak the socket."""
        return await super()._create_connection_transport(
            sock, _closing(sock, protocol_factory), *args, **kwargs
        )

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
    ) -> SocketTransport:
        self._ensure_fd_no_transport(sock)
        return SocketTransport(self, sock, protocol, waiter, extra, server)


def _closing(
    sock: socket.socket,
    factory: Callable[[], asyncio.BaseProtocol],
    report: Callable[[BaseException], None] | None = None,
) -> Callable[[], asyncio.BaseProtocol]:
    """The factory; if it raises, the socket is closed and the exception reported."""

    def make() -> asyncio.BaseProtocol:
        try:
            return factory()
        except BaseException as exc:
            sock.close()
            if report is not None and not isinstance(exc, (SystemExit, KeyboardInterrupt)):
                report(exc)
            raise

    return make
