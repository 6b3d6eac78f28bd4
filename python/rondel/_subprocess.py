"""Child processes: their end is a readable descriptor (pidfd), on every version, without a thread.

The processes are ``subprocess.Popen``'s with all of its options, the transports and streams
asyncio's. What is ours is how the loop hears of an exit: asyncio 3.11 has a thread per child that
sits in ``waitpid``; here, as in asyncio 3.12 and later, it is a descriptor of the loop's. SIGCHLD
is left alone, and only children of this loop are ever waited for.

A child watcher of another kind that the program has set goes on to be used.
"""

# mypy: disable-error-code="attr-defined,misc,no-any-return"
# asyncio's private methods, which this class inherits and calls, are not in typeshed's stubs.

from __future__ import annotations

import logging
import os
from asyncio import events, unix_events
from typing import Any

__all__ = ["ChildProcesses"]

logger = logging.getLogger("asyncio")

# Those that asyncio itself makes: what they do is done here. (3.14 has private ones alone.)
_REPLACED = tuple(
    getattr(unix_events, name)
    for name in ("ThreadedChildWatcher", "PidfdChildWatcher")
    if hasattr(unix_events, name)
)


class _SubprocessTransport(unix_events._UnixSubprocessTransport):  # type: ignore[name-defined]
    def send_signal(self, signal: int) -> None:
        """Send a signal, unless the process is over: its number may be another's by now."""
        self._check_proc()
        if self._proc.returncode is None:
            super().send_signal(signal)


_SubprocessTransport.__name__ = _SubprocessTransport.__qualname__ = "_UnixSubprocessTransport"


class ChildProcesses:
    """``subprocess_exec`` and ``subprocess_shell`` of the loop: the part that watches the child."""

    # Children that have not ended, by their pidfd.
    _children: dict[int, _SubprocessTransport]

    async def _make_subprocess_transport(
        self,
        protocol: Any,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        extra: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        watcher = getattr(events._event_loop_policy, "_watcher", None)
        if watcher is not None and type(watcher) not in _REPLACED:
            return await super()._make_subprocess_transport(
                protocol, args, shell, stdin, stdout, stderr, bufsize, extra, **kwargs
            )
        waiter = self.create_future()
        transport = _SubprocessTransport(
            self,
            protocol,
            args,
            shell,
            stdin,
            stdout,
            stderr,
            bufsize,
            waiter=waiter,
            extra=extra,
            **kwargs,
        )
        try:
            self._watch_child(transport)
        except BaseException:
            # Neither a descriptor nor a thread: nobody would hear of its end.
            process = transport._proc
            transport.close()
            transport._process_exited(process.wait())
            raise
        try:
            await waiter
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await transport._wait()
            raise
        return transport

    def _watch_child(self, transport: _SubprocessTransport) -> None:
        pid = transport.get_pid()
        pidfd = -1
        try:
            pidfd = os.pidfd_open(pid)
            self._add_reader(pidfd, self._child_ended, pidfd, pid)
        except OSError:
            if pidfd >= 0:
                os.close(pidfd)
            # Refused by a sandbox, no descriptor left, or somebody else has reaped it already: what
            # asyncio has for systems without pidfds (and what it says then).
            _threaded_watcher().add_child_handler(pid, self._child_watcher_callback, transport)
            return
        self.__dict__.setdefault("_children", {})[pidfd] = transport

    def _child_ended(self, pidfd: int, pid: int) -> None:
        self._remove_reader(pidfd)
        transport = self._children.pop(pidfd)
        os.close(pidfd)
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:
            # `transport.close()` polls the process; what it took is with the `Popen`.
            taken = None if transport._proc is None else transport._proc.returncode
            returncode = 255 if taken is None else taken
            if taken is None:
                logger.warning(
                    "child process pid %d exit status already read: will report returncode 255",
                    pid,
                )
        else:
            returncode = os.waitstatus_to_exitcode(status)
        if transport._proc is not None:
            # From here on the number is not this process's.
            transport._proc.returncode = returncode
        self._child_watcher_callback(pid, returncode, transport)

    def _forget_children(self) -> None:
        """The loop is closed: nobody hears of their ends any more."""
        children = self.__dict__.get("_children", {})
        while children:
            pidfd, _transport = children.popitem()
            os.close(pidfd)


_fallback: Any = None


def _threaded_watcher() -> Any:
    global _fallback
    if _fallback is None:
        name = "ThreadedChildWatcher"
        found = getattr(unix_events, name, None) or getattr(unix_events, f"_{name}")
        _fallback = found()
    return _fallback
