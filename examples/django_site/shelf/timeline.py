"""Records when each awaited thing began and ended, so that a page can draw what overlapped.

Used from one event loop; `span` may also be entered in a worker thread, as appending to a list
is all that is shared. Times are seconds since the timeline was made.
"""

import time
from asyncio import CancelledError
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

T = TypeVar("T")

Outcome = Literal["running", "done", "cancelled", "failed"]


@dataclass
class Span:
    """One piece of work on the timeline."""

    label: str
    start: float
    end: float = 0.0
    outcome: Outcome = "running"

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


@dataclass
class Timeline:
    """The spans of one request."""

    began: float = field(default_factory=time.perf_counter)
    spans: list[Span] = field(default_factory=list)

    def now(self) -> float:
        """Seconds since the timeline was made."""
        return time.perf_counter() - self.began

    @contextmanager
    def span(self, label: str) -> Iterator[Span]:
        """Record the enclosed block, however it ends."""
        span = Span(label, self.now())
        self.spans.append(span)
        try:
            yield span
            span.outcome = "done"
        except CancelledError:
            span.outcome = "cancelled"
            raise
        except BaseException:
            span.outcome = "failed"
            raise
        finally:
            span.end = self.now()

    async def watch(self, label: str, work: Awaitable[T]) -> T:
        """Await `work` inside a span; hand its result or its exception on."""
        with self.span(label):
            return await work

    def report(self) -> "Report":
        """What a page or a program needs to know, all times final."""
        elapsed = self.now()
        total = sum(span.seconds for span in self.spans)
        return Report(
            elapsed=elapsed,
            one_after_another=total,
            bars=[
                Bar(
                    label=span.label,
                    start=span.start,
                    seconds=span.seconds,
                    outcome=span.outcome,
                    left=100 * span.start / elapsed,
                    width=max(0.6, 100 * span.seconds / elapsed),
                )
                for span in self.spans
            ],
        )


@dataclass(frozen=True)
class Bar:
    """One span as it is drawn; `left` and `width` are percentages of the whole."""

    label: str
    start: float
    seconds: float
    outcome: Outcome
    left: float
    width: float


@dataclass(frozen=True)
class Report:
    """A finished timeline."""

    elapsed: float
    one_after_another: float
    bars: list[Bar]

    @property
    def saved(self) -> float:
        """Seconds that overlapping won; 0 when nothing overlapped."""
        return max(0.0, self.one_after_another - self.elapsed)

    @property
    def elapsed_percent(self) -> float:
        """Elapsed time as a percentage of the sum, for drawing both to one scale."""
        if self.one_after_another <= 0:
            return 100.0
        return min(100.0, 100 * self.elapsed / self.one_after_another)

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "elapsed": self.elapsed,
            "one_after_another": self.one_after_another,
            "spans": [asdict(bar) for bar in self.bars],
        }
