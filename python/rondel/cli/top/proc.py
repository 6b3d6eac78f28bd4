"""What the system counts about a process and its threads: ``/proc/PID``.

A process of another PID namespace, or one that has ended, has nothing here: None.
"""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Process", "Thread", "look"]

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Threads that are looked at.
_MOST = 512


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread, as of one look."""

    tid: int
    name: str
    #: ``R`` running or ready, ``S`` sleeping, ``D`` waiting for a disk, ``T`` stopped ...
    state: str
    #: Seconds of processor time so far.
    cpu: float


@dataclass(frozen=True, slots=True)
class Process:
    """A process, as of one look."""

    #: When it was started, in ticks since the machine was: with its number, who it is.
    started: int
    #: Seconds of processor time so far.
    cpu: float
    #: Bytes of memory that are resident.
    rss: int
    #: How many threads it has, and the first of them if they were asked for.
    count: int
    threads: list[Thread] = field(default_factory=list)


def look(pid: int, *, threads: bool = False) -> Process | None:
    """The process as of now; None if there is none (a zombie is none)."""
    found = _stat(Path(f"/proc/{pid}/stat"))
    if found is None:
        return None
    _, words = found
    if words[0] in "ZX":
        return None
    return Process(
        started=int(words[19]),
        cpu=(int(words[11]) + int(words[12])) / _TICK,
        rss=int(words[21]) * _PAGE,
        count=int(words[17]),
        threads=_threads(pid) if threads else [],
    )


def _threads(pid: int) -> list[Thread]:
    folder = Path(f"/proc/{pid}/task")
    try:
        tids = sorted(int(name) for name in os.listdir(folder))[:_MOST]
    except OSError:
        return []
    found = []
    for tid in tids:
        stat = _stat(folder / str(tid) / "stat")
        if stat is None:
            continue
        name, words = stat
        cpu = (int(words[11]) + int(words[12])) / _TICK
        # In nanoseconds, where the kernel has it.
        with contextlib.suppress(OSError, ValueError, IndexError):
            cpu = int((folder / str(tid) / "schedstat").read_text().split()[0]) * 1e-9
        found.append(Thread(tid, name, words[0], cpu))
    return found


def _stat(path: Path) -> tuple[str, list[str]] | None:
    """The name in the parentheses, which may be any text, and the words after it."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return None
    _, _, rest = text.partition("(")
    name, _, words = rest.rpartition(")")
    return name, words.split()
