"""One process of the supervisor's: how it is started, told and ended.

    starting ──ready──► serving ──retire──► leaving ──► gone
        └──────── dies or fails ────────────────────────► gone

A worker is either our own child or the template's: the former is reaped here, of the latter the
template tells. The end of both is seen by a pidfd (pidfd_open(2)), so a number that was used anew
is never signalled.

Our own children are forks, so that they share with us, until they write, what Python and Rondel
take. Where the supervisor has more (``manage.py serve`` has imported the project) or a second
thread (the health port's), and for the watcher, which looks at modules, a child is started afresh
(exec).
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, NoReturn

from rondel.server.supervisor.channel import Channel

__all__ = ["Channel", "Child", "State", "fork", "start"]


class State(Enum):
    """Where in its life a process is."""

    STARTING = auto()
    SERVING = auto()
    LEAVING = auto()
    GONE = auto()


@dataclass(frozen=True, slots=True)
class Forked:
    """A fork of ours, to be waited for as a ``Popen`` is."""

    pid: int

    def wait(self) -> int:
        """Its exit status, or the negative number of a signal."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


@dataclass(eq=False, slots=True)
class Child:
    """A process and our end of its channel."""

    # "worker 2", "template".
    name: str
    # The slot of a worker; 0 for a template.
    number: int
    # Of which reload it is: those of an older one are replaced.
    generation: int
    channel: Channel
    process: subprocess.Popen[bytes] | Forked | None = None
    pid: int = 0
    pidfd: int = -1
    state: State = State.STARTING
    since: float = field(default_factory=time.monotonic)
    # When it began to serve.
    ready_at: float | None = None
    # Kill it at that time, if it is still there.
    deadline: float | None = None
    # It does not do what it is told: it gets no more time than its requests.
    stuck: bool = False
    # It was told to by a signal that can't be missed, after it was silent for too long.
    aborted: bool = False
    # What it said of its failure, and with which status it was to end.
    failure: str | None = None
    failure_status: int = 1
    # The template that forked it.
    parent: "Child | None" = None
    # Its pidfd says that it has ended, but its parent has not told how.
    vanished: bool = False
    # How it ended: an exit status, or the negative number of a signal; None: not known.
    status: int | None = None

    def watch(self, pid: int) -> None:
        """It has this number from now on."""
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it is still there."""
        if self.pidfd >= 0 and self.state is not State.GONE:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def gone(self) -> None:
        """Its pidfd says that it has ended: reap it and let go of what we had for it."""
        if self.process is not None:
            self.status = self.process.wait()
        self.state = State.GONE
        os.close(self.pidfd)
        self.pidfd = -1
        self.channel.close()

    def how_it_ended(self) -> str:
        """For a sentence: "was killed by SIGKILL", "exited with status 1"."""
        if self.status is None:
            return "is gone"
        if self.status < 0:
            with contextlib.suppress(ValueError):
                return f"was killed by {signal.Signals(-self.status).name}"
            return f"was killed by signal {-self.status}"
        return f"exited with status {self.status}"


def start(
    name: str,
    number: int,
    generation: int,
    role: str,
    spec: dict[str, Any],
    listening: list[socket.socket],
    ledger: int,
) -> Child:
    """Start ``rondel.server.supervisor.ROLE`` afresh, in a process group of its own: Ctrl+C at a
    terminal is the supervisor's to pass on.

    The spec goes through the standard input, which is nobody's in a service.
    """
    channel, theirs = Channel.pair()
    told = {
        **spec,
        "number": number,
        "channel": theirs.fileno(),
        "ledger": ledger,
        "listening": [sock.fileno() for sock in listening],
        "path": sys.path,
    }
    with theirs:
        process = subprocess.Popen(
            [
                sys.executable,
                *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
                "-c",
                f"from rondel.server.supervisor.{role} import main; main()",
            ],
            stdin=subprocess.PIPE,
            pass_fds=[theirs.fileno(), ledger, *(sock.fileno() for sock in listening)],
            process_group=0,
        )
    child = Child(name, number, generation, channel, process)
    child.watch(process.pid)
    assert process.stdin is not None
    # Smaller than a pipe's buffer, so it never waits for a process that dies at once.
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(json.dumps(told).encode())
    return child


def fork(
    name: str,
    number: int,
    generation: int,
    role: str,
    spec: dict[str, Any],
    listening: list[socket.socket],
    ledger: int,
    *,
    leave: Callable[[], None],
) -> Child:
    """The same by a fork. ``leave`` is called in it, to close what is the supervisor's alone."""
    channel, theirs = Channel.pair()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()  # or both would write what is left
    # A signal to the fork must not be told to our own pipe of signals, which it still has.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            # The sockets are made anew: the supervisor's objects are closed, in this process.
            told = {
                **spec,
                "number": number,
                "channel": os.dup(theirs.fileno()),
                "ledger": ledger,
                "listening": [os.dup(sock.fileno()) for sock in listening],
                "path": sys.path,
            }

            def left() -> None:
                leave()
                channel.close()
                theirs.close()
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)

            _run(role, told, left)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    child = Child(name, number, generation, channel, Forked(pid))
    child.watch(pid)
    return child


def _run(role: str, told: dict[str, Any], left: Callable[[], None]) -> NoReturn:
    """The fork's life. It stands on the supervisor's frames, to which it must not return."""
    status = 1
    try:
        os.setpgid(0, 0)
        left()
        importlib.import_module(f"rondel.server.supervisor.{role}").run(told)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
