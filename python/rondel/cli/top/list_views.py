"""The views of requests, threads, stalls and processes."""

import time
from collections.abc import Hashable
from typing import Any, ClassVar

from rondel.cli.top.figures import Figures, ThreadFigures
from rondel.cli.top.text import Cell, amount, brief, duration, heat, memory, percent
from rondel.cli.top.view import Answer, Choice, Column, Question, Row, View
from rondel.inspect._model import Frame, Stall

__all__ = ["ProcessesView", "RequestsView", "StallsView", "ThreadsView"]


def _rank(figure: float | None) -> float:
    return -1.0 if figure is None else figure


class RequestsView(View):
    """Requests that are being answered, and below them the last ones that were."""

    name = "requests"
    question = Question.REQUESTS
    columns = (
        Column("REQUEST", 9, grows=True),
        Column("STATE", 7),
        Column("AGE", 8, right=True),
        Column("VIEW", 5, grows=True),
        Column("HOPS", 4, right=True),
        Column("HOP WAIT", 3, right=True),
        Column("THREAD", 3, right=True),
        Column("TASK", 2, right=True),
    )
    empty = "no request so far"
    falling = frozenset({"AGE", "HOPS", "HOP WAIT", "THREAD"})

    def all(self, answer: Answer, figures: Figures | None) -> list[Any]:
        told = answer.requests or {}
        now = sorted(told.get("requests", ()), key=lambda one: -float(one.get("age") or 0))
        # Of the slow ones more is known.
        ended = {one["id"]: one for kind in ("recent", "slow") for one in told.get(kind, ())}
        return now + sorted(ended.values(), key=lambda one: (one.get("ago", 0.0), -one["id"]))

    def key(self, item: dict[str, Any]) -> Hashable:
        return ("request", item.get("id"))

    def text(self, item: dict[str, Any]) -> str:
        parts = (item.get(name) for name in ("method", "path", "view", "state", "status"))
        return " ".join(str(part) for part in parts if part is not None)

    def rank(self, item: dict[str, Any], column: str, answer: Answer) -> Any:
        match column:
            case "AGE":
                return _rank(_took(item))
            case "HOPS":
                return _rank(item.get("hops"))
            case "HOP WAIT":
                return _rank(item.get("hop_wait"))
            case "THREAD":
                return _rank(item.get("thread_run"))
            case "STATE":
                return str(item.get("status") or item.get("state") or "")
            case "VIEW":
                return str(item.get("view") or "")
            case "TASK":
                return _rank(item.get("task"))
            case _:
                return str(item.get("path") or "")

    def row(self, item: dict[str, Any], answer: Answer) -> Row:
        status, over = item.get("status"), "seconds" in item
        state = Cell(str(item.get("state") or "?"), "good")
        if over:
            failed = isinstance(status, int) and status >= 500
            state = Cell("ended" if status is None else str(status), "bad" if failed else "dim")
        style = "dim" if over else ""
        hops, task = item.get("hops"), item.get("task")
        cells = (
            f"{item.get('method') or ''} {item.get('path') or '?'}".strip(),
            state,
            duration(_took(item), fine=True),
            str(item.get("view") or ""),
            "-" if hops is None else str(hops),
            duration(item.get("hop_wait"), fine=True),
            duration(item.get("thread_run"), fine=True),
            "" if task is None else str(task),
        )
        return [cell if isinstance(cell, Cell) else Cell(cell, style) for cell in cells]

    def story(self, item: dict[str, Any], answer: Answer) -> list[str]:
        over = "seconds" in item
        lines = [f"{item.get('method') or ''} {item.get('path') or '?'}".strip()]
        took = duration(_took(item), fine=True)
        lines.append(f"answered in {took}" if over else f"for {took}, {item.get('state') or '?'}")
        if item.get("status") is not None:
            lines.append(f"status {item['status']}")
        if item.get("view"):
            lines.append(f"view {item['view']}")
        if item.get("hops") is not None:
            many = "1 hop to a thread" if item["hops"] == 1 else f"{item['hops']} hops to threads"
            lines.append(
                f"{many}, {duration(item.get('hop_wait'))} of waiting for "
                f"one, {duration(item.get('thread_run'))} in them"
            )
        if item.get("stack"):
            lines += ["", "The stack of its thread, innermost first:"]
            lines += [f"  {Frame(*frame)}" for frame in item["stack"]]
        task = item.get("task")
        if task is not None and not over:
            lines.append("")
            lines += answer.book.story(task) if answer.book else ["its task is being asked for …"]
        return lines


def _took(item: dict[str, Any]) -> float | None:
    took = item.get("seconds", item.get("age"))
    return None if took is None else float(took)


class ThreadsView(View):
    """The system's threads of the process."""

    name = "threads"
    columns = (
        Column("TID", 9, right=True),
        Column("NAME", 8),
        Column("STATE", 6),
        Column("CPU", 7, right=True),
        Column("CPU TIME", 5, right=True),
    )
    empty = "its threads cannot be seen from here (another PID namespace?)"
    falling = frozenset({"CPU", "CPU TIME"})

    _states: ClassVar = {
        "R": "runs",
        "S": "sleeps",
        "D": "waits for a disk",
        "T": "stopped",
        "t": "traced",
        "I": "idle",
        "Z": "ended",
    }

    def all(self, answer: Answer, figures: Figures | None) -> list[Any]:
        return list(figures.each_thread) if figures else []

    def key(self, item: ThreadFigures) -> Hashable:
        return ("thread", item.tid)

    def text(self, item: ThreadFigures) -> str:
        return f"{item.tid} {item.name} {self._states.get(item.state, item.state)}"

    def rank(self, item: ThreadFigures, column: str, answer: Answer) -> Any:
        match column:
            case "TID":
                return item.tid
            case "NAME":
                return item.name
            case "STATE":
                return item.state
            case "CPU":
                return _rank(item.share)
            case _:
                return item.cpu

    def row(self, item: ThreadFigures, answer: Answer) -> Row:
        state = self._states.get(item.state, item.state)
        return (
            str(item.tid),
            item.name,
            Cell(state, "good" if item.state == "R" else "dim" if item.state == "S" else "warn"),
            Cell(percent(item.share), heat(item.share or 0.0, 0.4, 0.8)),
            duration(item.cpu),
        )

    def remark(self, answer: Answer, figures: Figures | None) -> str:
        pool = figures.pool if figures else None
        if pool is None:
            return ""
        told = f"pool: {pool.busy} of {pool.threads} threads busy, {pool.queued} calls queued"
        if pool.calls is not None:
            told += f", {amount(pool.calls)} calls/s"
        if pool.waited is not None and pool.ran is not None:
            told += f", each waited {duration(pool.waited)} and ran {duration(pool.ran)}"
        return told


class StallsView(View):
    """Steps that kept a loop from everything else."""

    name = "stalls"
    columns = (
        Column("WHEN", 5),
        Column("LASTED", 9, right=True),
        Column("TIMES", 4, right=True),
        Column("WHO", 7, grows=True),
        Column("WHERE", 8, grows=True),
    )
    empty = "no step has kept a loop for too long"
    falling = frozenset({"WHEN", "LASTED", "TIMES"})

    def all(self, answer: Answer, figures: Figures | None) -> list[Any]:
        return sorted(answer.stalls, key=lambda stall: -stall.at)

    def key(self, item: Stall) -> Hashable:
        return ("stall", item.loop, item.at)

    def text(self, item: Stall) -> str:
        return str(item)

    def rank(self, item: Stall, column: str, answer: Answer) -> Any:
        match column:
            case "WHEN":
                return item.at
            case "LASTED":
                return item.seconds
            case "TIMES":
                return item.count
            case "WHO":
                return item.name or ""
            case _:
                return self._where(item)

    def _where(self, item: Stall) -> str:
        if not item.stack:
            return "native code, with the GIL" if item.native else "?"
        return str(item.stack[0])

    def row(self, item: Stall, answer: Answer) -> Row:
        return (
            time.strftime("%H:%M:%S", time.localtime(item.at)),
            Cell(
                duration(item.seconds, fine=True) + ("" if item.over else " so far"),
                "" if item.over else "bad",
            ),
            str(item.count),
            "a callback" if item.name is None else f"{item.name}  {brief(item.coro or '')}",
            self._where(item),
        )

    def story(self, item: Stall, answer: Answer) -> list[str]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item.at))
        return [when, *str(item).split("\n")]


class ProcessesView(View):
    """The processes that can be looked into."""

    name = "processes"
    question = Question.PROCESSES
    columns = (
        Column("PID", 9, right=True),
        Column("LOOPS", 3, right=True),
        Column("TASKS", 5, right=True),
        Column("BUSY", 7, right=True),
        Column("CPU", 6, right=True),
        Column("RSS", 4, right=True),
        Column("LAG", 5, right=True),
        Column("AGE", 4, right=True),
        Column("PROGRAM", 8, grows=True),
    )
    empty = "no process of this user runs a Rondel loop"
    falling = frozenset({"LOOPS", "TASKS", "BUSY", "CPU", "RSS", "LAG", "AGE"})

    def all(self, answer: Answer, figures: Figures | None) -> list[Any]:
        return answer.processes

    def key(self, item: Choice) -> Hashable:
        return ("process", item.pid)

    def text(self, item: Choice) -> str:
        return f"{item.pid} {item.program}"

    def rank(self, item: Choice, column: str, answer: Answer) -> Any:
        found = item.figures
        match column:
            case "PID":
                return item.pid
            case "PROGRAM":
                return item.program
        if found is None:
            return -1.0
        match column:
            case "LOOPS":
                return float(len(found.loops))
            case "TASKS":
                return float(found.tasks)
            case "BUSY":
                return _rank(found.busy)
            case "CPU":
                return _rank(found.cpu)
            case "RSS":
                return _rank(found.rss)
            case "LAG":
                return _rank(_latest(found))
            case _:
                return found.age

    def row(self, item: Choice, answer: Answer) -> Row:
        found = item.figures
        if found is None:
            return (str(item.pid), "?", "?", "?", "?", "?", "?", "?", item.program)
        busy = found.busy
        return (
            str(item.pid),
            str(len(found.loops)),
            amount(found.tasks),
            Cell(percent(busy), heat(busy or 0.0, 0.4, 0.8)),
            percent(found.cpu),
            memory(found.rss),
            duration(_latest(found)),
            duration(found.age),
            item.program,
        )


def _latest(found: Figures) -> float | None:
    """What 99 % of the timers of its latest loop were late by at most."""
    lags = [lag["p99"] for lag in (loop.lag() for loop in found.loops) if lag is not None]
    return max(lags, default=None)
