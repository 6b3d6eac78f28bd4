"""``rondel requests PID``: what a process's server is answering, and what it has answered.

Invariants: those of ``rondel.cli.inspect``. Asked without the GIL where that cannot be had: views
and the states of tasks are not known then.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rondel.cli.inspect import add_pid, guarded, parser_for, short, write
from rondel.cli.inspect_client import ask_requests
from rondel.inspect._model import Request, read_ended, read_requests

__all__ = ["requests"]

TEXT = """\
Show the requests that a process is answering, the oldest first, and those that it has answered.

columns:
  STATE    queued   for its turn, or for a thread
           loop     its task runs, or is about to
           waiting  its task waits: `rondel tree PID` shows for what
           thread   a thread is at it
           200 ...  it has ended, with this status
  TIME     since it came, or in all
  HOPS     calls in threads: sync_to_async, to_thread, a whole request on a thread
  WAITED   how long these have waited for a thread, and
  RAN      run there
  TASK     the number of its task
  REQUEST  method, path, and the view that it has come to

The process keeps the last 256 that have ended, and the last 64 of those that took 0.1 s or more.
While native code holds the GIL, views are not shown.

examples:
  rondel requests 4711               those that are being answered
  rondel requests 4711 --stacks      with the stacks of the threads that are at them
  rondel requests 4711 --ended       the last ones that have ended as well
  rondel requests 4711 --slow 0.5    those that take, or took, half a second or more
"""

_COLUMNS = ("STATE", "TIME", "HOPS", "WAITED", "RAN", "TASK", "REQUEST")


def requests(arguments: list[str]) -> int:
    """``rondel requests PID``."""
    parser = parser_for("requests", TEXT)
    add_pid(parser)
    parser.add_argument("--ended", action="store_true", help="those that have ended as well")
    parser.add_argument(
        "--slow",
        type=float,
        metavar="SECONDS",
        help="those that take or took so long, ended ones as well",
    )
    parser.add_argument("--stacks", action="store_true", help="with the stacks of threads")
    options = parser.parse_args(arguments)
    return guarded("requests", lambda: _requests(options))


def _requests(options: argparse.Namespace) -> int:
    data = ask_requests(options.pid, stacks=options.stacks)
    least = options.slow or 0.0
    if options.json:
        for kind, seconds in (("requests", "age"), ("recent", "seconds"), ("slow", "seconds")):
            data[kind] = [one for one in data[kind] if one[seconds] >= least]
        write([json.dumps(data)])
        return 0
    found = read_requests(data)
    if options.ended or options.slow is not None:
        found = [*read_ended(data), *found]
    shown = [request for request in found if request.seconds >= least]
    write(_table(shown))
    return 0


def _table(shown: list[Request]) -> Iterator[str]:
    rows = [_COLUMNS, *map(_row, shown)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS) - 1)]
    stacks: Iterable[tuple[Any, ...]] = [(), *(request.stack for request in shown)]
    for row, stack in zip(rows, stacks, strict=True):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True)]
        yield "  ".join([*cells, row[-1]])
        yield from (f"    {frame}" for frame in stack)


def _row(request: Request) -> tuple[str, ...]:
    ended = "dropped" if request.status is None else str(request.status)
    time: Callable[[float], str] = short
    return (
        ended if request.state == "ended" else request.state,
        time(request.seconds),
        str(request.hops),
        time(request.hop_wait) if request.hops else "-",
        time(request.thread_run) if request.hops else "-",
        "-" if request.task is None else str(request.task),
        f"{request.method} {request.path}"
        + (" (websocket)" if request.websocket else "")
        + (f"  {request.view}" if request.view is not None else ""),
    )
