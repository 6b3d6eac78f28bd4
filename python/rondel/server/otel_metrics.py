"""OpenTelemetry metrics, by the library (`--otel`): requests, the loops, the threads.

Requests are counted where their spans are made (`telemetry`); loops and threads are looked at when
a reader collects, from what the inspector counts anyway.

Invariants: nothing is imported or counted unless there is a provider. A window (how busy a loop
was, how late its timers) is the time between two collections; collections within a moment share
one, so that each instrument's callback sees the same.
"""

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from rondel import _rondel
from rondel.inspect._model import LoopStats, lag_at, read_stats
from rondel.server.otel_exporters import meter_provider

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

__all__ = ["Meters", "meters"]

# What the conventions advise for http.server.request.duration, in seconds.
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
# Seconds within which collections share what was looked at.
_MOMENT = 0.1

_Kind = str
# Name, kind, unit, what it is.
_OBSERVED: tuple[tuple[str, _Kind, str, str], ...] = (
    ("rondel.loop.busy", "gauge", "1", "Share of the time that a loop was awake."),
    ("rondel.loop.lag", "gauge", "s", "How late 99 % of a loop's timers were at most."),
    ("rondel.loop.tasks", "gauge", "{task}", "Tasks that are not done."),
    ("rondel.loop.ready", "gauge", "{callback}", "Callbacks and steps that are ready to run."),
    ("rondel.loop.steps", "counter", "{step}", "Steps of tasks, and callbacks."),
    ("rondel.pool.threads", "gauge", "{thread}", "Threads for sync code."),
    ("rondel.pool.busy", "gauge", "{thread}", "Threads at work."),
    ("rondel.pool.queued", "gauge", "{call}", "Calls that wait for a thread."),
    ("rondel.pool.calls", "counter", "{call}", "Calls that a thread has taken."),
    ("rondel.pool.wait_time", "counter", "s", "Time that calls have waited for a thread."),
    ("rondel.pool.run_time", "counter", "s", "Time that calls have run, those that are over."),
)


def meters(*, ours: bool) -> "Meters | None":
    """What counts, if somebody wants it counted.

    The program's own provider, if it has set one; else one as `OTEL_METRICS_EXPORTER` says. That is
    `otlp` if it says nothing, where the tracer provider is ``ours`` and the exporter installed: a
    program that sets up its spans by itself has not asked for metrics by that. Raises UsageError if
    an exporter is named that is not there.
    """
    from opentelemetry import metrics

    provider = metrics.get_meter_provider()
    if type(provider).__name__ == "_ProxyMeterProvider":  # the library's stand-in for none
        made = meter_provider(ours=ours)
        if made is None:
            return None
        metrics.set_meter_provider(made)
        provider = made
    return Meters(provider)


class Meters:
    """The instruments of one server."""

    def __init__(self, provider: "MeterProvider") -> None:
        import rondel

        meter: Meter = provider.get_meter(
            "rondel", rondel.__version__, schema_url="https://opentelemetry.io/schemas/1.37.0"
        )
        self._active = meter.create_up_down_counter(
            "http.server.active_requests", "{request}", "Requests that are being answered."
        )
        self._duration = meter.create_histogram(
            "http.server.request.duration",
            "s",
            "Duration of requests, to the end of the response.",
            explicit_bucket_boundaries_advisory=_BOUNDS,
        )
        self._stalls = meter.create_counter(
            "rondel.loop.stalls",
            "{stall}",
            "Steps that kept a loop for too long.",
        )
        self._loops = _Loops()
        make: dict[_Kind, Callable[..., object]] = {
            "gauge": meter.create_observable_gauge,
            "counter": meter.create_observable_counter,
        }
        for name, kind, unit, told in _OBSERVED:
            make[kind](name, callbacks=[self._observer(name)], unit=unit, description=told)

    def begins(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """A request has come, with these attributes; those that `ends` takes."""
        kept = {name: attributes[name] for name in ("http.request.method", "url.scheme")}
        self._active.add(1, kept)
        return kept

    def ends(self, kept: dict[str, Any], seconds: float | None, more: Mapping[str, Any]) -> None:
        """It is over, after so long; None: it is answered elsewhere."""
        self._active.add(-1, kept)
        if seconds is not None:
            self._duration.record(seconds, {**kept, **more})

    def stalled(self) -> None:
        """A stall was reported."""
        self._stalls.add(1)

    def _observer(self, name: str) -> "Callable[[CallbackOptions], Iterable[Observation]]":
        from opentelemetry.metrics import Observation

        def observe(_options: "CallbackOptions") -> "Iterable[Observation]":
            for value, loop in self._loops.values(name):
                yield Observation(value, {} if loop is None else {"rondel.loop": loop})

        return observe


class _Loops:
    """What is looked at, by instruments' names."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Guarded by `_lock`: when it was looked, what was found, and what there was before.
        self._at = 0.0
        self._found: dict[str, list[tuple[float, int | None]]] = {}
        self._before: dict[int, tuple[float, LoopStats]] = {}

    def values(self, name: str) -> list[tuple[float, int | None]]:
        """Values with the numbers of their loops."""
        with self._lock:
            now = monotonic()
            if not self._found or now - self._at > _MOMENT:
                self._look(now)
            return self._found[name]

    def _look(self, now: float) -> None:
        data = json.loads(_rondel._inspect_stats())
        found: dict[str, list[tuple[float, int | None]]] = {row[0]: [] for row in _OBSERVED}
        before, self._before = self._before, {}
        for loop in read_stats(data):
            then, old = before.get(loop.id, (now, None))
            self._before[loop.id] = (now, loop)
            # The first window is all of its run.
            busy = loop.busy if old is None else 1.0 - (_idle(loop) - _idle(old)) / (now - then)
            found["rondel.loop.busy"].append((min(max(busy, 0.0), 1.0), loop.id))
            found["rondel.loop.lag"].append((_lag(loop, old), loop.id))
            found["rondel.loop.tasks"].append((loop.tasks, loop.id))
            found["rondel.loop.ready"].append((loop.ready, loop.id))
            found["rondel.loop.steps"].append((loop.steps, loop.id))
        pool = data["pool"]
        for name, key in (
            ("threads", "threads"),
            ("busy", "busy"),
            ("queued", "queued"),
            ("calls", "calls"),
            ("wait_time", "waited"),
            ("run_time", "ran"),
        ):
            found[f"rondel.pool.{name}"].append((pool[key], None))
        self._at, self._found = now, found


def _idle(loop: LoopStats) -> float:
    # A wait that goes on is not in `idle` yet.
    return loop.idle + (loop.in_phase if loop.phase == "idle" else 0.0)


def _lag(loop: LoopStats, old: LoopStats | None) -> float:
    counts = loop.lag
    if old is not None:
        # They wrap after 2**32.
        counts = tuple((a - b) % 2**32 for a, b in zip(loop.lag, old.lag, strict=True))
    return lag_at(counts, 0.99)
