"""The tax report: what a request pays for changing between the loop and threads.

Every change is a *hop*: a call of ``sync_to_async`` that goes to a thread, one of ``async_to_sync``
that goes to the loop, a request that a thread answers as a whole. For each: how long it waited
(from being submitted to being begun) and how long it ran, without the hops inside of it. Calls of
the inline list are no hops; they are counted, and timed, as well.

    off    nothing is installed: a call asks ``observe.current``, which is None
    ask    requests with the header ``Rondel-Tax: 1`` are reported, in their response's
           ``Server-Timing`` header and in the log
    all    that, and every request is counted for the table that ``finish`` returns

What is under way when the response's head is sent, and what comes after it, is in the log and the
table but not in the header.

``application`` and ``on_threads`` wrap what the server calls. A request's report travels in a
context variable: into threads and tasks, and with them to the calls made there. Threads: records
are appended to lists and filled in by one thread each; they are added up when the request is over.
The totals have a lock.
"""

import copy
import logging
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Literal

from rondel.bridge import observe
from rondel.django.meter import HOPS, Kind, Meter, Points, Record, measure, place
from rondel.django.names import call_name, view_of
from rondel.server.sends import PassesFiles

__all__ = ["Mode", "Tax"]

logger = logging.getLogger("rondel.server.tax")

Mode = Literal["off", "ask", "all"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ASKING = "rondel-tax"
# Functions that a response's header names, at most: proxies refuse heads of more than some
# kilobytes.
_IN_HEADER = 12
# Rows of functions in the table.
_IN_TABLE = 25


@dataclass(slots=True)
class _Line:
    """Calls of one function, added up; seconds."""

    name: str
    kind: Kind
    calls: int = 0
    wait: float = 0.0
    run: float = 0.0

    @property
    def cost(self) -> float:
        """What it is ordered by."""
        return self.wait + self.run

    def add(self, other: "_Line") -> None:
        """As well."""
        self.calls += other.calls
        self.wait += other.wait
        self.run += other.run


class _Sums:
    """A request's figures, or those of many."""

    __slots__ = ("hops", "inline", "lines", "requests", "run", "total", "wait")

    def __init__(self) -> None:
        self.requests = 0
        self.hops = 0
        self.inline = 0
        self.wait = 0.0
        self.run = 0.0
        self.total = 0.0
        self.lines: dict[tuple[str, Kind], _Line] = {}

    def count(self, line: _Line) -> None:
        """A function's calls."""
        if line.kind in HOPS:
            self.hops += line.calls
        elif line.kind == "inline":
            self.inline += line.calls
        self.wait += line.wait
        # An async view on the loop: how much of it was waiting is not known.
        if line.kind != "view":
            self.run += line.run
        key = (line.name, line.kind)
        known = self.lines.get(key)
        if known is None:
            self.lines[key] = copy.copy(line)
        else:
            known.add(line)

    def costliest(self) -> list[_Line]:
        """Functions, the costliest first."""
        return sorted(self.lines.values(), key=lambda line: -line.cost)


class _Report:
    """What is known of one request."""

    def __init__(self, scope: Scope, *, asked: bool) -> None:
        self.scope = scope
        self.asked = asked
        self.records: list[Record] = []
        self.root = Record(self.records, None, None, "request")

    def sums(self) -> _Sums:
        """What was spent so far."""
        now = perf_counter()
        records = list(self.records)
        for record in records:
            record.within = 0.0
        for record in records:
            if record.parent is not None and record.begun:
                record.parent.within += (record.ended or now) - record.submitted
        sums = _Sums()
        sums.requests = 1
        sums.total = now - self.root.submitted
        for record in records:
            if not record.begun:
                continue  # not made: its task was cancelled; or not yet
            wait = record.begun - record.submitted
            run = max((record.ended or now) - record.begun - record.within, 0.0)
            name, kind = self._name(record)
            sums.count(_Line(name, kind, 1, wait if kind in HOPS else 0.0, run))
        return sums

    def _name(self, record: Record) -> tuple[str, Kind]:
        if record.kind == "request":
            return view_of(self.scope), "request"
        if isinstance(record.func, str):
            return record.func, record.kind
        name = call_name(record.func)
        # A request that came to the loop first, and went to a thread as a whole.
        if name == "SyncSide.respond":
            return view_of(self.scope), "request"
        return name, record.kind

    def threads(self) -> int:
        """How many threads it was on, the loop's aside."""
        return len({r.thread for r in list(self.records) if r.thread})

    # ---------------------------------------------------------------------------------- as text

    def server_timing(self) -> str:
        """The value of a Server-Timing header (https://www.w3.org/TR/server-timing/)."""
        sums = self.sums()
        parts = [
            f"hops;desc={_quoted(_summary(sums, self.threads()))}",
            f"wait;dur={sums.wait * 1000:.3f}",
            f"run;dur={sums.run * 1000:.3f}",
            f"total;dur={sums.total * 1000:.3f}",
        ]
        for number, line in enumerate(sums.costliest()[:_IN_HEADER], 1):
            times = f"{line.calls} x " if line.calls > 1 else ""
            waited = f", waited {line.wait * 1000:.3f} ms" if line.kind in HOPS else ""
            text = f"{times}{line.name}: {line.kind}{waited}"
            parts.append(f"call{number};dur={line.run * 1000:.3f};desc={_quoted(text)}")
        return ", ".join(parts)

    def log(self, sums: _Sums) -> None:
        """A line for the request, and one for each function."""
        rows = ["   waited       ran  (ms)"]
        for line in sums.costliest():
            waited = f"{line.wait * 1000:9.3f}" if line.kind in HOPS else " " * 9
            name = f"{line.calls:3} x {line.name}, {line.kind}"
            rows.append(f"{waited} {line.run * 1000:9.3f}  {name}")
        logger.info(
            "tax of %s %s (%s): %s; %.2f ms waiting, %.2f ms running, %.2f ms in all\n%s",
            self.scope.get("method", "?"),
            self.scope.get("path", "?"),
            view_of(self.scope),
            _summary(sums, self.threads()),
            sums.wait * 1000,
            sums.run * 1000,
            sums.total * 1000,
            "\n".join(rows),
        )


def _summary(sums: _Sums, threads: int) -> str:
    return (
        f"{_counted(sums.hops, 'hop')} on {_counted(threads, 'thread')}, "
        f"{_counted(sums.inline, 'call')} inline"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _quoted(text: str) -> str:
    """A quoted-string of HTTP; a function's name may be any identifier."""
    plain = text.encode("ascii", "replace").decode("ascii")
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Reply:
    """A thread's reply whose head gets the report, if it was asked for.

    Every method with a head is here; what has none is the reply's own.
    """

    def __init__(self, reply: Any, report: _Report) -> None:
        self._reply = reply
        self._report = report
        self.bounced = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reply, name)

    def _with_report(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        if not self._report.asked:
            return headers
        return [*headers, ("Server-Timing", self._report.server_timing())]

    def respond(self, status: int, headers: list[tuple[str, str]], *body: Any) -> Any:
        return self._reply.respond(status, self._with_report(headers), *body)

    def respond_file(self, status: int, headers: list[tuple[str, str]], *file: Any) -> Any:
        return self._reply.respond_file(status, self._with_report(headers), *file)

    def start(self, status: int, headers: list[tuple[str, str]]) -> Any:
        return self._reply.start(status, self._with_report(headers))

    def bounce(self) -> None:
        self.bounced = True
        self._reply.bounce()


class _ReportedSend(PassesFiles):
    """A `send` that puts the report into the response's head."""

    def __init__(self, inner: Send, report: _Report) -> None:
        super().__init__(inner)
        self._report = report

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            timing = (b"server-timing", self._report.server_timing().encode("ascii"))
            message = {**message, "headers": [*message.get("headers", ()), timing]}
        await self.inner(message)


class Tax:
    """Reports of one server's requests."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._meter = Meter()
        self._points = Points()
        self._lock = threading.Lock()
        # Guarded by `_lock`: by view.
        self._views: dict[str, _Sums] = {}
        observe.add(self._meter)
        # Said under `manage.py runserver` as well, whose server is quiet otherwise.
        logger.setLevel(logging.INFO)

    def finish(self) -> str:
        """Look on no longer; the table of what was seen, empty if there is none."""
        observe.remove(self._meter)
        self._points.restore()
        with self._lock:
            return table(self._views) if self._views else ""

    # ------------------------------------------------------------------------- what is wrapped

    def application(self, app: Any) -> Any:
        """An ASGI application whose requests are reported."""

        async def reporting(scope: Scope, receive: Receive, send: Send) -> None:
            report = self._report(scope) if scope["type"] == "http" else None
            if report is None:
                await app(scope, receive, send)
                return

            token = place.set(report.root)
            try:
                await app(
                    scope, receive, _ReportedSend(send, report).send if report.asked else send
                )
            finally:
                place.reset(token)
                self._over(report)

        return reporting

    def on_threads(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """What the server calls on threads for whole requests (``SyncSide.run``), reported."""

        def reporting(scope: Scope, body: Any, reply: Any) -> Any:
            report = self._report(scope)
            if report is None:
                return handler(scope, body, reply)
            root = report.root
            # `waited`: seconds from the request's being complete to this call, where the server
            # measures them.
            root.submitted -= getattr(reply, "waited", 0.0)
            report.records.append(root)
            wrapped = _Reply(reply, report)
            left: Any = None
            try:
                root.thread = threading.get_ident()
                left = measure(root, partial(handler, scope, body, wrapped))
            finally:
                # One that goes to the loop instead is reported there.
                if left is None and not wrapped.bounced:
                    self._over(report)
            return None if left is None else self._rest(left, report)

        return reporting

    def _rest(self, left: Generator[None], report: _Report) -> Generator[None]:
        """The pieces of a WSGI application's response that are left; they are not measured."""
        try:
            yield from left
        finally:
            self._over(report)

    def _report(self, scope: Scope) -> _Report | None:
        asked = _asks(scope)
        if not asked and self._mode != "all":
            return None
        if not self._points.set:
            self._points.replace()
        return _Report(scope, asked=asked)

    def _over(self, report: _Report) -> None:
        sums = report.sums()
        if report.asked:
            report.log(sums)
        if self._mode != "all":
            return
        view = view_of(report.scope)
        with self._lock:
            total = self._views.get(view)
            if total is None:
                total = self._views[view] = _Sums()
            total.requests += 1
            total.total += sums.total
            for line in sums.lines.values():
                total.count(line)


def _asks(scope: Mapping[str, Any]) -> bool:
    wanted = ASKING.encode()
    return any(name == wanted and value == b"1" for name, value in scope["headers"])


# ---------------------------------------------------------------------------------------------
# table


def table(views: Mapping[str, _Sums]) -> str:
    """Two tables: views, and the functions that cost most; means per request, or per call."""
    return "\n".join(["", *_view_rows(views), "", *_function_rows(views), ""])


def _view_rows(views: Mapping[str, _Sums]) -> Iterator[str]:
    width = max(len("view"), *map(len, views))
    yield "Per request, in the mean (milliseconds):"
    yield (
        f"{'view':{width}} {'requests':>9} {'hops':>6} {'inline':>7} "
        f"{'wait':>8} {'run':>8} {'total':>8}"
    )
    for view, sums in sorted(views.items(), key=lambda item: -(item[1].wait + item[1].run)):
        n = sums.requests
        yield (
            f"{view:{width}} {n:9} {sums.hops / n:6.1f} {sums.inline / n:7.1f} "
            f"{sums.wait / n * 1000:8.2f} {sums.run / n * 1000:8.2f} {sums.total / n * 1000:8.2f}"
        )


def _function_rows(views: Mapping[str, _Sums]) -> Iterator[str]:
    everything = _Sums()
    for sums in views.values():
        for line in sums.lines.values():
            everything.count(line)
    lines = everything.costliest()
    shown = lines[:_IN_TABLE]
    width = max([len("function"), *(len(line.name) for line in shown)])
    yield "What cost most, in all (milliseconds; wait and run of one call in the mean):"
    yield f"{'function':{width}} {'where':>8} {'calls':>8} {'wait':>8} {'run':>8} {'all':>10}"
    for line in shown:
        yield (
            f"{line.name:{width}} {line.kind:>8} {line.calls:8} "
            f"{line.wait / line.calls * 1000:8.3f} {line.run / line.calls * 1000:8.3f} "
            f"{line.cost * 1000:10.1f}"
        )
    if len(lines) > len(shown):
        yield f"and {_counted(len(lines) - len(shown), 'function')} more"
