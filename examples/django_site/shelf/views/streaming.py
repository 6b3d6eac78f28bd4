"""Responses that arrive piece by piece: plain lines, and server-sent events.

Invariant: `open_streams()` counts the generators that have begun and not yet ended, whether they
ran out, failed or were cancelled because the client left.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render

MAX_LINES = 5000
MAX_DELAY_SECONDS = 5.0

# One loop runs all generators of this process, so a plain number needs no lock.
_open_streams = 0


def open_streams() -> int:
    """How many streaming responses are under way in this process."""
    return _open_streams


@contextmanager
def _counted() -> Iterator[None]:
    """Count the enclosed stream as open."""
    global _open_streams
    _open_streams += 1
    try:
        yield
    finally:
        _open_streams -= 1


def _number(request: HttpRequest, name: str, default: float, most: float) -> float:
    """A number from the query string, between 0 and `most`; the default if it is no number."""
    try:
        value = float(request.GET.get(name, default))
    except ValueError:
        return default
    # The comparison is false for NaN, which min() and max() would let through.
    return min(value, most) if value >= 0 else default


async def lines(request: HttpRequest) -> StreamingHttpResponse:
    """`?lines=10&delay=0.3`: numbered lines, each sent when it is made."""
    count = int(_number(request, "lines", 10, MAX_LINES))
    delay = _number(request, "delay", 0.3, MAX_DELAY_SECONDS)

    async def produce() -> AsyncIterator[str]:
        with _counted():
            for number in range(1, count + 1):
                yield f"line {number} of {count} at {time.time():.3f} · 第 {number} 行\n"
                if number < count:
                    await asyncio.sleep(delay)

    return StreamingHttpResponse(produce(), content_type="text/plain; charset=utf-8")


async def events_page(request: HttpRequest) -> HttpResponse:
    """The page that listens to the feed."""
    return render(request, "shelf/events.html")


async def events_feed(request: HttpRequest) -> StreamingHttpResponse:
    """Server-sent events: a tick every `?delay=` seconds, `?count=` times, then `end`."""
    count = int(_number(request, "count", 20, MAX_LINES))
    delay = _number(request, "delay", 0.4, MAX_DELAY_SECONDS)

    async def produce() -> AsyncIterator[str]:
        with _counted():
            for number in range(1, count + 1):
                data = {
                    "number": number,
                    "count": count,
                    "time": time.time(),
                    "tasks": len(asyncio.all_tasks()),
                    "streams": open_streams(),
                }
                yield f"id: {number}\nevent: tick\ndata: {json.dumps(data)}\n\n"
                await asyncio.sleep(delay)
            yield "event: end\ndata: {}\n\n"

    response = StreamingHttpResponse(produce(), content_type="text/event-stream")
    response["Cache-Control"] = "no-cache"
    return response
