"""``rondel ps``, ``rondel tree PID``, ``rondel stalls PID``: looking into running processes.

Invariants: what fails is one line on stderr that says what to do, exit status 1; bad usage 2.
Nothing of the other process may act on the terminal: control characters are shown escaped.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rondel.cli.inspect_client import InspectError, ask, processes
from rondel.inspect._model import LoopWindow, age_of, printable, read_stall, read_stats
from rondel.inspect._text import tree_lines

__all__ = [
    "add_pid",
    "guarded",
    "parser_for",
    "pattern",
    "printable",
    "program",
    "ps",
    "short",
    "stalls",
    "tree",
    "write",
]

PS = """\
List the processes of this user that run a Rondel loop.

columns:
  PID      the process, for `rondel tree PID` and `rondel stalls PID`
  LOOPS    loops that run now, one per thread
  TASKS    tasks that are not done, as of the loops' last look at their sockets
  BUSY     share of the time that the busiest loop was awake, over a fifth of a second
  LAG      how late timers were meanwhile: half of them less than the first, 99 % less than the
           second figure; - if none came due
  AGE      since the first loop began to run
  PROGRAM  its command line

With --json, `loops` are the counters since each loop was made, `window` is that fifth of a second.
Needs no GIL: it answers even while native code blocks the process.
"""

TREE = """\
Show each task of a process, by who created whom, and what it waits for.

Tasks that wait at the same place are one line with their number. Below each is its await chain,
outermost first, and what that ends in (→): a sleep, another task, a lock, a queue, a thread.

examples:
  rondel tree 4711                     all of them
  rondel tree 4711 --name 'worker-.*'  those whose name matches the regular expression
  rondel tree 4711 --state waiting     waiting, sleeping, ready, created or running
  rondel tree 4711 --older 60          created more than a minute ago (to within a second or so)
  rondel tree 4711 --json | jq .       everything, as JSON
"""

STALLS = """\
Show what has kept a process's loops from running: steps that took longer than 100 ms.

The stack is the one during the stall, innermost first. The process keeps the last 64 places.
RONDEL_STALL in its environment sets the limit in milliseconds, 0 for none. Works while the stall
lasts and native code holds the GIL.
"""


# Seconds that busy and lag are of.
_WINDOW = 0.2
# Seconds for a process of a list: counters are told at once, unless it is stopped.
_SHORT = 2.0


def parser_for(command: str, text: str, *, tells: bool = True) -> argparse.ArgumentParser:
    """The parser of one of these commands; with ``--json`` if it ``tells`` something."""
    parser = argparse.ArgumentParser(
        prog=f"rondel {command}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if tells:
        parser.add_argument("--json", action="store_true", help="machine-readable, as JSON")
    return parser


def guarded(command: str, work: Callable[[], int]) -> int:
    """Do ``work``; a failure is a line, and exit status 1."""
    try:
        return work()
    except InspectError as error:
        sys.stderr.write(f"rondel {command}: {error}\n")
        return 1
    except BrokenPipeError:
        # `| head` has seen enough; the interpreter must not try to flush what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def write(lines: Iterable[str]) -> None:
    """Write lines to stdout, with all that could act on a terminal escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    for text in lines:
        # A name, a path: only what prints goes to the terminal as it is.
        line = "\n".join(printable(part) for part in text.split("\n"))
        sys.stdout.write(line.encode(encoding, "replace").decode(encoding) + "\n")


# ------------------------------------------------------------------------------------------ ps


def ps(arguments: list[str]) -> int:
    """``rondel ps``."""
    options = parser_for("ps", PS).parse_args(arguments)
    return guarded("ps", lambda: _ps(options))


def _stats(pid: int, path: Path) -> dict[str, Any] | None:
    """Its counters; None if it has ended meanwhile, or is stopped."""
    try:
        return ask(pid, "stats", path, _SHORT)
    except InspectError:
        # Who wants to know why asks for it by number.
        return None


def _ps(options: argparse.Namespace) -> int:
    found = processes()
    earlier = {pid: _stats(pid, path) for pid, path in found}
    if found:
        time.sleep(_WINDOW)
    rows = []
    for pid, path in found:
        before, now = earlier[pid], None
        if before is not None:
            now = _stats(pid, path)
        rows.append(_described(pid, before, now))
    if options.json:
        write([json.dumps(rows)])
        return 0
    if not rows:
        sys.stderr.write("rondel ps: no process of this user runs a Rondel loop\n")
        return 0
    table: list[tuple[str, ...]] = [("PID", "LOOPS", "TASKS", "BUSY", "LAG", "AGE", "PROGRAM")]
    table += [_row(row) for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]) - 1)]
    for line in table:
        cells = [cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=True)]
        write(["  ".join([*cells, line[-1]])])
    return 0


def _described(
    pid: int, before: dict[str, Any] | None, now: dict[str, Any] | None
) -> dict[str, Any]:
    """What is told of a process: the counters, and what they grew by meanwhile."""
    told: dict[str, Any] = {"pid": pid, "program": program(pid), "loops": None, "window": None}
    if before is not None and now is not None:
        known = {loop.id: loop for loop in read_stats(before)}
        told["loops"] = now["loops"]
        told["window"] = [
            asdict(loop.since(known[loop.id])) for loop in read_stats(now) if loop.id in known
        ]
    return told


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    if row["loops"] is None:
        return (str(row["pid"]), "?", "?", "?", "?", "?", row["program"])
    loops = read_stats(row)
    windows = [LoopWindow(**window) for window in row["window"]]
    lag = "-"
    late = [window for window in windows if any(window.lag)]
    if late:
        half, most = (max(window.lag_at(share) for window in late) for share in (0.5, 0.99))
        lag = f"{short(half)} {short(most)}"
    return (
        str(row["pid"]),
        str(len(loops)),
        str(sum(loop.tasks for loop in loops)),
        f"{max((window.busy for window in windows), default=0.0):.0%}",
        lag,
        short(max((loop.age for loop in loops), default=0.0)),
        row["program"],
    )


def short(seconds: float) -> str:
    """A time in two or three figures and a unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds * 1e6:.0f}us"


def program(pid: int) -> str:
    """A process's command line, in printable characters."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")
    except OSError:
        return "?"
    text = b" ".join(words).decode(errors="replace").strip()
    return "".join(c if c.isprintable() else "?" for c in text)


# ---------------------------------------------------------------------------------------- tree


def add_pid(parser: argparse.ArgumentParser) -> None:
    """The process that is asked."""
    parser.add_argument("pid", metavar="PID", type=int, help="the process; see `rondel ps`")


def pattern(text: str) -> re.Pattern[str]:
    """An option's regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"no regular expression: {error}") from None


def tree(arguments: list[str]) -> int:
    """``rondel tree PID``."""
    parser = parser_for("tree", TREE)
    add_pid(parser)
    parser.add_argument("--name", type=pattern, metavar="REGEX", help="tasks whose name matches")
    parser.add_argument(
        "--state",
        choices=["running", "ready", "created", "sleeping", "waiting"],
        help="tasks in this state",
    )
    parser.add_argument(
        "--older", type=float, metavar="SECONDS", help="tasks created longer ago than this"
    )
    options = parser.parse_args(arguments)
    return guarded("tree", lambda: _tree(options))


def _tree(options: argparse.Namespace) -> int:
    data = ask(options.pid, "tasks")
    ages = data["ages"]

    def keep(task: dict[str, Any]) -> bool:
        if options.name is not None and options.name.search(task["name"]) is None:
            return False
        if options.state is not None and task["state"] != options.state:
            return False
        if options.older is None:
            return True
        age = age_of(task["id"], ages)
        return age is not None and age > options.older

    if options.json:
        data["tasks"] = [task for task in data["tasks"] if keep(task)]
        for task in data["tasks"]:
            task["age"] = age_of(task["id"], ages)
        write([json.dumps(data)])
    else:
        write(tree_lines(data, keep))
    return 0


# -------------------------------------------------------------------------------------- stalls


def stalls(arguments: list[str]) -> int:
    """``rondel stalls PID``."""
    parser = parser_for("stalls", STALLS)
    add_pid(parser)
    options = parser.parse_args(arguments)
    return guarded("stalls", lambda: _stalls(options))


def _stalls(options: argparse.Namespace) -> int:
    data = ask(options.pid, "stalls")
    if options.json:
        write([json.dumps(data["stalls"])])
        return 0
    if not data["stalls"]:
        sys.stderr.write(f"rondel stalls: process {options.pid} has had none\n")
    for one in data["stalls"]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["at"]))
        write([f"{when}  {read_stall(one)}", ""])
    return 0
