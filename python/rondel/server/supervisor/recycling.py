"""When a worker asks to be replaced: after so many requests, so long, or with so much memory.

Each limit has a jitter, so that workers that started together do not go together. A worker that
asks goes on serving until its successor is ready. It asks once; if the successor fails, the
supervisor tries again when it asks the next time, after a minute.

Memory is what the process has resident (/proc/self/statm, in pages), with what it shares.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from rondel.server.config import Config

__all__ = ["Limits", "resident", "watch"]

# Seconds between two looks, and before it asks again.
_EVERY = 1.0
_AGAIN = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one worker, drawn when it starts."""

    requests: int | None
    age: float | None
    rss: int | None

    @classmethod
    def draw(cls, config: Config) -> "Limits":
        """With a share of the jitter each."""
        chance = random.Random()
        return cls(
            config.max_requests
            and config.max_requests + chance.randint(0, config.max_requests_jitter),
            config.max_age and config.max_age + chance.uniform(0, config.max_age_jitter),
            config.max_rss and config.max_rss + chance.randint(0, config.max_rss_jitter or 0),
        )

    def reason(self, served: int, age: float, rss: int) -> str | None:
        """Why the worker should go; None if it may stay."""
        if self.requests and served >= self.requests:
            return f"{served} requests served"
        if self.age and age >= self.age:
            return f"{age:.0f} s old"
        if self.rss and rss >= self.rss:
            return f"{rss >> 20} MiB resident"
        return None


def resident() -> int:
    """Bytes of resident memory."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def watch(limits: Limits, served: Callable[[], int], ask: Callable[[str], object]) -> None:
    """Look now and then, on the worker's loop, until cancelled."""
    if limits == Limits(None, None, None):
        return
    since = time.monotonic()
    while True:
        await asyncio.sleep(_EVERY)
        why = limits.reason(served(), time.monotonic() - since, resident() if limits.rss else 0)
        if why is not None:
            ask(why)
            await asyncio.sleep(_AGAIN)
