"""Whom the page shows: a process and those that descend from it; and asking them.

Questions go out on threads, a few at a time; a snapshot of tasks is kept for a moment, as one look
at the page is several questions about it.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from rondel.cli.inspect_client import InspectError, Recorder, ask, ask_requests, folders
from rondel.inspect.web.groups import Filter, Grouped

__all__ = ["Processes", "Taken"]

P = ParamSpec("P")
T = TypeVar("T")

# Processes that are shown.
MOST = 64
# Seconds: of a process that is one of many; for a recording to be made and sent.
_SHORT, _LONG = 2.0, 60.0
# Seconds for which a snapshot may be shown again, and after which it is dropped.
_FRESH, _KEPT = 0.5, 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """A snapshot of a process's tasks."""

    data: dict[str, Any]
    at: float
    #: How long the process took for it.
    took: float
    #: Its rows, by the filter that was asked for last.
    rows: dict[Filter, Grouped] = field(default_factory=dict)


class Processes:
    """The process ``pid`` and its descendants."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._turns = asyncio.Semaphore(4)
        self._snapshots: dict[int, Taken] = {}
        self._looking: dict[int, asyncio.Lock] = {}

    async def state(self) -> dict[str, Any]:
        """Every process with its counters."""
        return {"root": self.pid, "processes": await self.each("stats")}

    async def each(self, question: str) -> list[dict[str, Any]]:
        """The answer of every process, or its error."""

        return await self._all(lambda pid: ask(pid, question, None, _SHORT))

    async def requests(self, *, stacks: bool) -> list[dict[str, Any]]:
        """The requests of every process, or its error; with their threads' stacks if wanted."""
        return await self._all(lambda pid: ask_requests(pid, stacks=stacks, patience=_SHORT))

    async def _all(self, work: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
        async def one(pid: int) -> dict[str, Any]:
            try:
                answer = await self._on_thread(work, pid)
            except InspectError as error:
                answer = {"error": str(error)}
            return {**answer, "pid": pid, "program": _program(pid)}

        found = await asyncio.to_thread(self._find)
        return list(await asyncio.gather(*map(one, found)))

    async def ask(self, pid: int, question: str, patience: float = 8.0) -> dict[str, Any]:
        """One process's answer. Raises InspectError."""
        return await self._on_thread(ask, pid, question, None, patience)

    async def _on_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a question is answered, when it is its turn."""
        async with self._turns:
            return await asyncio.to_thread(work, *args, **kwargs)

    async def tasks(self, pid: int) -> Taken:
        """A snapshot that is fresh. Raises InspectError."""
        async with self._looking.setdefault(pid, asyncio.Lock()):
            kept = self._snapshots.get(pid)
            if kept is not None and time.monotonic() - kept.at < max(_FRESH, kept.took):
                return kept
            began = time.monotonic()
            data = await self.ask(pid, "tasks")
            now = time.monotonic()
            self._snapshots[pid] = taken = Taken(data, now, now - began)
            asyncio.get_running_loop().call_later(_KEPT, self._drop, pid, taken)
            return taken

    async def record(self, pid: int, seconds: float) -> dict[str, Any]:
        """Have a process record for so long. Raises InspectError."""
        begun = asyncio.ensure_future(self._on_thread(Recorder, pid, seconds))
        try:
            recorder = await asyncio.shield(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(_close)
            raise
        # Without it, or if nobody looks any more, the process need not go on.
        with recorder:
            await asyncio.sleep(seconds)
            return await self._on_thread(recorder.fetch, _LONG)

    def shows(self, pid: int) -> bool:
        """Whether it is one of those that the page is about."""
        return pid == self.pid or self.pid in _ancestors(pid)

    def _find(self) -> list[int]:
        found: set[int] = set()
        for folder in folders():
            for path in folder.glob("*.sock"):
                if path.stem.isdecimal() and self.shows(int(path.stem)):
                    found.add(int(path.stem))
        # One without a loop (a supervisor) is shown only while nobody else is there.
        return sorted(found)[:MOST] or [self.pid]

    def _drop(self, pid: int, taken: Taken) -> None:
        """Keep no snapshot of an old time, however long nobody looks."""
        if self._snapshots.get(pid) is taken:
            del self._snapshots[pid]


def _close(begun: "asyncio.Future[Recorder]") -> None:
    if begun.exception() is None:
        begun.result().close()


def _ancestors(pid: int) -> list[int]:
    """Parents of a process, the nearest first."""
    found: list[int] = []
    while pid > 1 and len(found) < 64:
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            break
        # The name before it, in parentheses, may have anything in it.
        pid = int(stat.rpartition(b")")[2].split()[1])
        found.append(pid)
    return found


def _program(pid: int) -> str:
    """Its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()[:4096].split(b"\0")
    except OSError:
        return "?"
    # What it is called says more at the beginning of a line than where its interpreter lies.
    words[0] = words[0].rpartition(b"/")[2]
    return b" ".join(words).decode(errors="replace").strip()
