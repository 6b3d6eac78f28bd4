"""A span for each stall that is reported, within that of its request if there is one (`--otel`).

The inspector reports a stall while it lasts; the span is begun then, with the time at which the
stall began, and ended by a thread that waits for the stall's end, for a minute at most.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from rondel.inspect import Stall, on_stall, stalls

__all__ = ["StallSpans"]

# Seconds between two looks whether it is over, and until nobody looks any more.
_LOOK = 0.05
_PATIENCE = 60.0


class StallSpans:
    """Makes the spans, until it is closed.

    ``context_of`` gives the context of a request's span by the request's number, if it has one;
    ``count`` is called for each stall.
    """

    def __init__(
        self, tracer: Any, context_of: Callable[[int], Any], count: Callable[[], object]
    ) -> None:
        from opentelemetry.context import Context

        self._tracer = tracer
        self._context_of = context_of
        self._count = count
        self._nothing = Context()
        self.close = on_stall(self._begins)

    def _begins(self, stall: Stall) -> None:
        self._count()
        parent = None if stall.request is None else self._context_of(stall.request.id)
        began = stall.at - stall.seconds
        span = self._tracer.start_span(
            "rondel.stall",
            context=self._nothing if parent is None else parent,
            attributes=_attributes(stall),
            start_time=int(began * 1e9),
        )
        if span.is_recording():
            work = threading.Thread(
                target=_end, args=(span, stall, began), name="rondel-otel-stall", daemon=True
            )
            work.start()


def _attributes(stall: Stall) -> dict[str, Any]:
    told: dict[str, Any] = {"rondel.loop": stall.loop}
    if stall.stack:
        place = stall.stack[0]
        told |= {
            "code.function.name": place.function,
            "code.file.path": place.file,
            "code.line.number": place.line,
            "code.stacktrace": "\n".join(str(frame) for frame in stall.stack),
        }
    if stall.name is not None:
        told["rondel.task.name"] = stall.name
    if stall.request is not None:
        told["http.request.method"] = stall.request.method
        told["url.path"] = stall.request.path
        if stall.request.view is not None:
            told["rondel.view"] = stall.request.view
    if stall.native:
        told["rondel.stall.native"] = True
    return told


def _end(span: Any, stall: Stall, began: float) -> None:
    until = time.monotonic() + _PATIENCE
    seconds = stall.seconds
    while time.monotonic() < until:
        now = [one for one in stalls() if (one.loop, one.at) == (stall.loop, stall.at)]
        if not now:
            break  # there were many since
        seconds = now[0].seconds
        if now[0].over or now[0].count > 1:
            break
        time.sleep(_LOOK)
    span.end(int((began + seconds) * 1e9))
