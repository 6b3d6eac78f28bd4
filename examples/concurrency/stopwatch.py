"""What all of these programs share: a clock that starts with the program, and a drawing.

Times are printed in tenths of a second: finer digits differ from run to run and say nothing about
what overlapped.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

# One column of the drawing stands for this many seconds.
SECONDS_PER_COLUMN = 0.05


@dataclass
class Span:
    """One piece of work: its name, its first and its last moment, and how it ended."""

    name: str
    start: float
    end: float
    ending: str


class Stopwatch:
    """Says when things happen and, in the end, draws what ran beside what."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._spans: list[Span] = []

    def seconds(self) -> float:
        """Seconds since the stopwatch was made."""
        return time.perf_counter() - self._began

    def say(self, text: str) -> None:
        """Print `text` with the time in front."""
        print(f"{self.seconds():4.1f} s  {text}", flush=True)

    @asynccontextmanager
    async def span(self, name: str) -> AsyncIterator[None]:
        """Remember the enclosed block for the drawing, however it ends."""
        span = Span(name, self.seconds(), 0.0, "")
        self._spans.append(span)
        try:
            yield
        except asyncio.CancelledError:
            span.ending = " cancelled"
            raise
        except BaseException as error:
            span.ending = f" {type(error).__name__}"
            raise
        finally:
            span.end = self.seconds()

    async def brew(self, name: str, seconds: float) -> str:
        """Take `seconds` without holding up the loop, and return `name`: the work of our demos."""
        async with self.span(name):
            self.say(f"{name} starts")
            await asyncio.sleep(seconds)
            self.say(f"{name} is ready")
            return name

    def draw(self) -> None:
        """Print one bar for each span, then the total against the sum."""
        print()
        for span in self._spans:
            before = " " * round(span.start / SECONDS_PER_COLUMN)
            bar = "#" * max(1, round((span.end - span.start) / SECONDS_PER_COLUMN))
            print(f"  {span.name:<12} |{before}{bar}{span.ending}")
        total = sum(span.end - span.start for span in self._spans)
        print(f"  took {self.seconds():.1f} s; one after another {total:.1f} s")
