"""Work of a known length, and what `timed` reports of it."""

import functools
import time
from collections.abc import Callable
from typing import Any

from rondel import Timing, timed

# Seconds of CPU time of one piece of work; several fit under what is asserted about others.
WORK = 0.02


def burn(seconds: float = WORK) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


class Boom(Exception):
    """What fails in these tests."""


class Taken(list[Timing]):
    """Collects reports."""

    @property
    def timed(self) -> Callable[..., Any]:
        return functools.partial(timed, to=self.append)

    def one(self) -> Timing:
        (timing,) = self
        return timing
