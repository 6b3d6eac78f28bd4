"""The workers that are wanted, and how soon one that failed is started again."""

import time
from dataclasses import dataclass

from rondel.server.supervisor.child import Child

__all__ = ["Slot", "lived", "pause"]

# A worker that served so long did not die of its start.
_LIVED = 10.0
_BACK_OFF, _MOST_BACK_OFF = 0.5, 30.0


@dataclass(eq=False, slots=True)
class Slot:
    """A worker that is wanted."""

    number: int
    current: Child | None = None
    coming: Child | None = None
    # Starts in a row that did not live.
    failures: int = 0
    # When the next start is due.
    start_at: float | None = None


def lived(process: Child) -> bool:
    """Whether it served long enough for its end to be no matter of its start."""
    return process.ready_at is not None and time.monotonic() - process.ready_at >= _LIVED


def pause(failures: int) -> float:
    """Seconds before the next start, after so many in a row that did not live."""
    return min(_BACK_OFF * 2 ** (failures - 1), _MOST_BACK_OFF) if failures else 0.0
