"""Two looks at a process, as the figures of the time between them.

Pure: whoever asks (``asking.py``) hands over what was answered. Counters are cumulative, so a
window is the difference of two answers; the first look alone has figures of what is now, no rates.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rondel.cli.top.proc import Process
from rondel.inspect._model import LoopStats, LoopWindow, read_stats

__all__ = ["Figures", "LoopFigures", "PoolFigures", "Sample", "ThreadFigures", "figures"]

# Shares of timers whose lateness is told.
_SHARES = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))


@dataclass(frozen=True, slots=True)
class Sample:
    """One look."""

    #: Seconds, on any clock that goes evenly.
    at: float
    #: The answer to ``stats``.
    told: dict[str, Any]
    #: None if the process cannot be seen from here.
    process: Process | None
    #: Read from the answer.
    loops: list[LoopStats] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "loops", read_stats(self.told))


@dataclass(frozen=True, slots=True)
class LoopFigures:
    """A loop now, and what it did in the window (None: not known yet)."""

    now: LoopStats
    window: LoopWindow | None

    def per_second(self, count: str) -> float | None:
        """``steps``, ``turns`` or ``polls`` a second."""
        if self.window is None or self.window.seconds <= 0:
            return None
        return float(getattr(self.window, count) / self.window.seconds)

    def lag(self) -> dict[str, float] | None:
        """Seconds that timers were late by at most; None if none came due."""
        if self.window is None or not any(self.window.lag):
            return None
        return {name: self.window.lag_at(share) for name, share in _SHARES}


@dataclass(frozen=True, slots=True)
class ThreadFigures:
    """A thread, and its share of a processor in the window."""

    tid: int
    name: str
    state: str
    cpu: float
    share: float | None


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """The threads that run calls for the loops."""

    threads: int
    busy: int
    queued: int
    #: Calls a second; seconds that each waited for a thread, and ran. None without any.
    calls: float | None = None
    waited: float | None = None
    ran: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """A process over a window."""

    #: The window; 0 after the first look.
    seconds: float
    #: Share of one processor.
    cpu: float | None
    #: Bytes.
    rss: int | None
    threads: int | None
    #: Tasks that were created a second.
    created: float | None
    loops: list[LoopFigures]
    each_thread: list[ThreadFigures]
    pool: PoolFigures | None

    @property
    def age(self) -> float:
        """Seconds since the oldest loop's run began."""
        return max((loop.now.age for loop in self.loops), default=0.0)

    @property
    def tasks(self) -> int:
        """Those that are not done."""
        return sum(loop.now.tasks for loop in self.loops)

    @property
    def busy(self) -> float | None:
        """Share of the window that the busiest loop was awake for."""
        return max((loop.window.busy for loop in self.loops if loop.window), default=None)

    @property
    def steps(self) -> float:
        """Steps of all loops a second; 0 if that is not known."""
        return sum(loop.per_second("steps") or 0.0 for loop in self.loops)

    def as_json(self) -> dict[str, Any]:
        """For programs: rates are per second, times seconds, shares of 1."""
        told: dict[str, Any] = {
            "seconds": round(self.seconds, 3),
            "process": {"cpu": _round(self.cpu), "rss": self.rss, "threads": self.threads},
            "created": _round(self.created),
            "loops": [
                {
                    "id": loop.now.id,
                    "phase": loop.now.phase,
                    "age": loop.now.age,
                    "busy": _round(loop.window.busy if loop.window else None),
                    "lag": loop.lag(),
                    **{name: _round(loop.per_second(name)) for name in ("steps", "turns", "polls")},
                    "ready": loop.now.ready,
                    "timers": loop.now.timers,
                    "tasks": loop.now.tasks,
                }
                for loop in self.loops
            ],
            "threads": [
                {"tid": one.tid, "name": one.name, "state": one.state, "cpu": _round(one.share)}
                for one in self.each_thread
            ],
        }
        if self.pool is not None:
            pool = self.pool
            told["pool"] = {"threads": pool.threads, "busy": pool.busy, "queued": pool.queued}
            told["pool"]["calls"] = _round(pool.calls)
            told["pool"] |= {"waited": pool.waited, "ran": pool.ran}
        return told


def _round(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 4)


def figures(before: Sample | None, now: Sample) -> Figures:
    """What the later look says, over the time since the earlier."""
    seconds = now.at - before.at if before else 0.0
    if before and seconds <= 0:
        raise ValueError("the earlier look is not the earlier one")
    cpu, rss = _usage(now)
    cpu_before = _usage(before)[0] if before else None
    created_before = before.told.get("created") if before else None
    return Figures(
        seconds=seconds,
        cpu=_rate(cpu, cpu_before, seconds),
        rss=rss,
        threads=now.process.count if now.process else None,
        created=_rate(now.told.get("created"), created_before, seconds),
        loops=_loops(before.loops if before else [], now.loops),
        each_thread=_threads(before, now, seconds),
        pool=_pool(before, now, seconds),
    )


def _rate(now: float | None, before: float | None, seconds: float) -> float | None:
    if now is None or before is None or seconds <= 0:
        return None
    return max(now - before, 0.0) / seconds


def _usage(sample: Sample) -> tuple[float | None, int | None]:
    """Processor time and memory: as the process tells, which needs no common ``/proc``."""
    told = sample.told.get("process")
    if isinstance(told, dict) and "cpu" in told and "rss" in told:
        return float(told["cpu"]), int(told["rss"])
    if sample.process is not None:
        return sample.process.cpu, sample.process.rss
    return None, None


def _loops(before: Iterable[LoopStats], now: Iterable[LoopStats]) -> list[LoopFigures]:
    known = {loop.id: loop for loop in before}
    return [
        LoopFigures(loop, loop.since(known[loop.id]) if loop.id in known else None) for loop in now
    ]


def _threads(before: Sample | None, now: Sample, seconds: float) -> list[ThreadFigures]:
    if now.process is None:
        return []
    earlier = before.process.threads if before and before.process else []
    known = {thread.tid: thread.cpu for thread in earlier}
    return [
        ThreadFigures(
            thread.tid,
            thread.name,
            thread.state,
            thread.cpu,
            _rate(thread.cpu, known.get(thread.tid), seconds),
        )
        for thread in now.process.threads
    ]


def _pool(before: Sample | None, now: Sample, seconds: float) -> PoolFigures | None:
    pool = now.told.get("pool")
    if not isinstance(pool, dict):
        return None
    found = PoolFigures(pool.get("threads", 0), pool.get("busy", 0), pool.get("queued", 0))
    earlier = before.told.get("pool") if before else None
    if not isinstance(earlier, dict) or seconds <= 0:
        return found

    def grown(name: str) -> float:
        return max(float(pool.get(name, 0)) - float(earlier.get(name, 0)), 0.0)

    calls = grown("calls")
    return PoolFigures(
        found.threads,
        found.busy,
        found.queued,
        calls / seconds,
        grown("waited") / calls if calls else None,
        grown("ran") / calls if calls else None,
    )
