"""A server's process tree: its start and end, its CPU time and its memory.

Invariant: a server runs in a session of its own, so nothing of it outlives `running`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from harness.environment import progress

START_TIMEOUT = 20.0
"""Seconds until a server must answer; the slowest here needs about one."""

STOP_TIMEOUT = 10.0


Starter = Callable[[], contextlib.AbstractContextManager[tuple[int, int]]]
"""Starts a server and gives its process id and port; see `running`."""


class ServerError(Exception):
    """The server cannot be measured; the message says why."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: Callable[[int], list[str]], folder: Path, variables: dict[str, str]
) -> Iterator[tuple[int, int]]:
    """The server's process id and port, answering; gone with all its children afterwards.

    `command` is given the port.
    """
    port = free_port()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command(port),
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_until_answering(process, port, log)
            yield process.pid, port
        finally:
            stop(process)


def wait_until_answering(process: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
    end = time.monotonic() + START_TIMEOUT
    while True:
        if process.poll() is not None:
            raise ServerError(f"ended at start with status {process.returncode}: {tail(log)}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise ServerError(f"no answer in {START_TIMEOUT:.0f} s: {tail(log)}") from None
            time.sleep(0.02)  # nothing tells a stranger that the port is bound


def tail(log: IO[str]) -> str:
    log.seek(0)
    lines = log.read().strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the parent, as a user would; what is left of its session is killed."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        progress(f"{process.args!r:.60} did not stop on SIGTERM; killed")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# ---------------------------------------------------------------------------- CPU time and memory


def process_tree(root: int) -> set[int]:
    """The process and its descendants, from the parents in /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = (entry / "stat").read_text()
                # The name, in parentheses, may hold spaces and parentheses of its own.
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return tree


def cpu_clock(pid: int) -> int:
    """The process's CPU clock in ns; /proc's utime and stime count ticks of 10 ms only.

    The identifier is what clock_getcpuclockid(3) makes on Linux: the inverted process id over
    three bits, of which 2 stands for "all threads, time on a CPU".
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def tree_cpu(root: int) -> dict[int, int]:
    clocks: dict[int, int] = {}
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            clocks[pid] = cpu_clock(pid)
    return clocks


def cpu_since(before: dict[int, int], root: int) -> int:
    """ns since `before`; a process that ended meanwhile would be missing, so it is an error."""
    after = tree_cpu(root)
    if gone := before.keys() - after.keys():
        raise ServerError(f"{len(gone)} of its processes ended under load")
    return sum(clock - before.get(pid, 0) for pid, clock in after.items())


def tree_memory(root: int, kind: str = "Rss") -> int:
    """Bytes of the whole tree. Rss: what processes share counts in each, as `ps` counts it; Pss: it
    is divided among those that share it, on the whole machine.

    From smaps_rollup: the counters of /proc/PID/statm lag behind by some pages per CPU.
    """
    total = 0
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            sizes = [line.split()[1] for line in lines if line.startswith(f"{kind}:")]
            total += sum(map(int, sizes)) * 1024
    return total
