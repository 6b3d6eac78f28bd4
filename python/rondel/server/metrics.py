"""What ``--metrics PATH`` answers: Prometheus text, of all workers whichever is asked.

    worker 1 ── counts requests (native, `tally`) ──► page 1 ┐
             ── every second: its gauges ───────────► page 1 ├─ the ledger's file ──► any worker
    worker 2 ── ... ────────────────────────────────► page 2 ┘   reads all pages when it is asked

The supervisor's file outlives workers: who takes a dead worker's number counts on in its page, so
that sums never go down. A gauge is of a worker that is there: what a dead process left is not told.

The text is written by hand. ``prometheus_client`` would bring files per process for several workers
(its multiprocess mode never forgets a dead one's), a registry that applications share, and a
dependency, for some forty lines of text. Programs that have metrics of their own serve those as
ever.

Invariants: the layout is that of ``tally.rs``; a page is written by the process of that number
alone, and read without locks: numbers of one answer may be a request apart.
"""

import asyncio
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rondel._pool import ThreadPool

__all__ = ["PAGE", "Metrics", "room"]

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "other")
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
# Seconds.
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)
BOUNDS = (*_FAST, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_BUCKETS = len(METHODS) * len(CLASSES)
_SUM = _BUCKETS + len(BOUNDS) + 1
_COUNTS = _SUM + 1
# What a worker writes itself begins there.
_GAUGES = 64
# Numbers (of 64 bits) of a page.
PAGE = 128

_NAMES = (
    "pid",
    "beat",
    "lag",
    "connections",
    "requests",
    "threads",
    "busy",
    "queued",
    "rss",
    "waiting",
)
_PERIOD = 1.0


def room(numbers: int, pages: int) -> int:
    """Bytes of a file with so many other numbers, then pages."""
    return 8 * (numbers + PAGE * pages)


class Metrics:
    """A worker's page, and what the other pages say.

    ``shared`` is the supervisor's file, how many numbers of the workers' shares (and pages) it has,
    and which is this process's; a process that is alone has a file of its own.
    """

    def __init__(self, shared: tuple[int, int, int] | None = None) -> None:
        if shared is None:
            self._fd, self._pages, self._mine = os.memfd_create("rondel-metrics"), 1, 0
            self._first, self._own = 0, True
            os.ftruncate(self._fd, room(0, 1))
        else:
            self._fd, self._pages, self._mine = shared
            self._first, self._own = self._pages, False
        self._look: Callable[[], dict[str, int]] = dict
        self._pool: ThreadPool | None = None
        self._lag = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def tally(self) -> tuple[int, int, int]:
        """For ``_rondel.serve_http``."""
        numbers = self._first + PAGE * self._pages
        return self._fd, numbers, self._first + PAGE * self._mine

    def start(
        self,
        loop: asyncio.AbstractEventLoop,
        look: Callable[[], dict[str, int]],
        pool: "ThreadPool",
    ) -> None:
        """Write the gauges from now on; ``look`` gives the server's ``stats``."""
        self._look, self._pool = look, pool
        self._beat(loop, loop.time())

    def retire(self) -> None:
        """The server is stopping: no gauges any more, the page may have a new owner."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        if self._read(self._mine)[_GAUGES] == os.getpid():
            self._write(dict.fromkeys(_NAMES, 0))

    def close(self) -> None:
        """The server has stopped."""
        self.retire()
        if self._own:
            self._own = False
            os.close(self._fd)

    def scrape(self) -> bytes:
        """The answer."""
        if self._timer is not None:
            self._publish()
        pages = [self._read(number) for number in range(self._pages)]
        lines = [*_requests(pages), *_workers(pages)]
        return ("\n".join(lines) + "\n").encode()

    def _beat(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self._lag = max(0.0, now - due)
        self._publish()
        self._timer = loop.call_at(now + _PERIOD, self._beat, loop, now + _PERIOD)

    def _publish(self) -> None:
        stats = self._look()
        threads = self._pool.stats() if self._pool is not None else {}
        self._write(
            {
                "pid": os.getpid(),
                "beat": time.monotonic_ns(),
                "lag": int(self._lag * 1e9),
                "connections": stats.get("connections", 0),
                "requests": stats.get("requests", 0),
                "threads": threads.get("threads", 0),
                "busy": threads.get("busy", 0),
                "queued": threads.get("queued", 0),
                "rss": _rss(),
                "waiting": stats.get("waiting", 0),
            }
        )

    def _at(self, page: int) -> int:
        return 8 * (self._first + PAGE * page)

    def _write(self, gauges: dict[str, int]) -> None:
        data = struct.pack(f"={len(_NAMES)}Q", *(gauges[name] for name in _NAMES))
        os.pwrite(self._fd, data, self._at(self._mine) + 8 * _GAUGES)

    def _read(self, page: int) -> tuple[int, ...]:
        return struct.unpack(f"={PAGE}Q", os.pread(self._fd, 8 * PAGE, self._at(page)))


def _rss() -> int:
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _is_there(pid: int) -> bool:
    return pid > 0 and os.path.exists(f"/proc/{pid}")


def _metric(
    name: str, kind: str, told: str, samples: Iterable[tuple[str, float | int]]
) -> Iterator[str]:
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"


def _requests(pages: list[tuple[int, ...]]) -> Iterator[str]:
    sums = [sum(page[at] for page in pages) for at in range(_COUNTS)]
    yield from _metric(
        "rondel_requests_total",
        "counter",
        "Requests that were finished.",
        (
            (f'method="{method}",status="{status}"', count)
            for (method, status), count in zip(
                ((method, status) for method in METHODS for status in CLASSES),
                sums[:_BUCKETS],
                strict=True,
            )
            if count
        ),
    )
    name = "rondel_request_duration_seconds"
    yield f"# HELP {name} From a request's head to the end of its handler."
    yield f"# TYPE {name} histogram"
    count = 0
    for bound, more in zip((*BOUNDS, "+Inf"), sums[_BUCKETS:_SUM], strict=True):
        count += more
        yield f'{name}_bucket{{le="{bound}"}} {count}'
    yield f"{name}_sum {sums[_SUM] / 1e6}"
    yield f"{name}_count {count}"


_EACH = (
    ("rondel_connections", "connections", 1, "Open connections."),
    ("rondel_requests_in_flight", "requests", 1, "Requests that are being answered."),
    ("rondel_requests_waiting", "waiting", 1, "Requests that wait for the application."),
    ("rondel_loop_lag_seconds", "lag", 1e9, "How late the loop's last timer of each second was."),
    ("rondel_threads", "threads", 1, "Threads for sync code."),
    ("rondel_threads_busy", "busy", 1, "Threads at work."),
    ("rondel_threads_queued", "queued", 1, "Calls that wait for a thread."),
    ("rondel_resident_memory_bytes", "rss", 1, "Resident memory, shared pages included."),
)


def _workers(pages: list[tuple[int, ...]]) -> Iterator[str]:
    there = [
        (number, dict(zip(_NAMES, page[_GAUGES:], strict=False)))
        for number, page in enumerate(pages, 1)
        if _is_there(page[_GAUGES])
    ]
    yield from _metric("rondel_workers", "gauge", "Processes that serve.", [("", len(there))])
    for name, key, unit, told in _EACH:
        samples = [
            (f'worker="{number}"', gauges[key] if unit == 1 else gauges[key] / unit)
            for number, gauges in there
        ]
        yield from _metric(name, "gauge", told, samples)
    now = time.monotonic_ns()
    ages = [(f'worker="{number}"', max(0, now - gauges["beat"]) / 1e9) for number, gauges in there]
    told = "Since the worker's loop last ran its timer of each second: a blocked loop's grows."
    yield from _metric("rondel_heartbeat_age_seconds", "gauge", told, ages)
