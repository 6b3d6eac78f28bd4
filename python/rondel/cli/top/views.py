"""What can be looked at: a table each, of what one question was answered.

A view is pure. It makes items of an answer, cells of an item (only of those that are seen), and the
text of an item that is looked into. Items are any objects; ``key`` tells which is the same one in
the next answer.
"""

import re
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, NamedTuple

from rondel.cli.top.figures import Figures, ThreadFigures
from rondel.cli.top.tasks import Node, TaskBook
from rondel.cli.top.text import Cell, amount, duration, memory, percent
from rondel.inspect._model import Stall
from rondel.inspect._text import names_of

__all__ = ["PROCESSES", "VIEWS", "Answer", "Choice", "Column", "Pick", "Question", "View"]


class Question(Enum):
    """What a view has a process asked, beside its counters."""

    NOTHING = ""
    TASKS = "tasks"
    #: A recording of some time, and the tasks.
    RECORDED = "recorded"
    REQUESTS = "requests"
    #: Every process, for its counters.
    PROCESSES = "processes"


class Column(NamedTuple):
    """A column of a table."""

    name: str
    #: The least goes first when there is no room.
    weight: int
    right: bool = False
    #: It takes what room is left, and gives it first.
    grows: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a process was asked for a view."""

    #: Tasks, with what was recorded where that was asked for.
    book: TaskBook | None = None
    requests: dict[str, Any] | None = None
    stalls: list[Stall] = field(default_factory=list)
    processes: list["Choice"] = field(default_factory=list)
    #: What the one who looks has to know of it.
    remark: str = ""


class Choice(NamedTuple):
    """A process that can be looked into."""

    pid: int
    program: str
    #: None if it does not answer.
    figures: Figures | None


@dataclass(frozen=True, slots=True)
class Pick:
    """What is wanted of a view: which items, in what order."""

    wanted: re.Pattern[str] | None = None
    #: The column's number; None for the view's own order.
    sort: int | None = None
    reverse: bool = False
    #: Keys that were opened, or closed, by hand.
    turned: frozenset[Hashable] = frozenset()


Row = Sequence[str | Cell]


class View:
    """A table. The class is the view: there is one object of each."""

    name: ClassVar[str]
    question: ClassVar[Question] = Question.NOTHING
    columns: ClassVar[tuple[Column, ...]]
    empty: ClassVar[str]
    #: Columns whose greatest figure comes first.
    falling: ClassVar[frozenset[str]] = frozenset()

    def items(self, answer: Answer, figures: Figures | None, pick: Pick) -> list[Any]:
        """All that match, in order."""
        found = self.all(answer, figures)
        if pick.wanted is not None:
            found = [item for item in found if pick.wanted.search(self.text(item))]
        if pick.sort is not None:
            name = self.columns[pick.sort].name
            found = sorted(
                found,
                key=lambda item: self.rank(item, name, answer),
                reverse=(name in self.falling) != pick.reverse,
            )
        elif pick.reverse:
            found = found[::-1]
        return found

    def all(self, answer: Answer, figures: Figures | None) -> list[Any]:
        """All items, in the view's own order."""
        raise NotImplementedError

    def key(self, item: Any) -> Hashable:
        """The same for the same thing in another answer."""
        raise NotImplementedError

    def text(self, item: Any) -> str:
        """What a filter is matched with."""
        raise NotImplementedError

    def rank(self, item: Any, column: str, answer: Answer) -> Any:
        """What it is sorted by."""
        raise NotImplementedError

    def row(self, item: Any, answer: Answer) -> Row:
        """A text for each column."""
        raise NotImplementedError

    def story(self, item: Any, answer: Answer) -> list[str]:
        """What is shown of it alone; nothing if the row is all there is."""
        return []

    def remark(self, answer: Answer, figures: Figures | None) -> str:
        """A line above the table."""
        return answer.remark


_STATES = {"running": "good", "ready": "good", "created": "dim", "sleeping": "dim"}


def _rank(figure: float | None) -> float:
    return -1.0 if figure is None else figure


class TreeView(View):
    """Tasks by who created whom, those that wait alike as one."""

    name = "tree"
    question = Question.TASKS
    columns = (
        Column("TASK", 9, grows=True),
        Column("STATE", 6),
        Column("AGE", 4, right=True),
        Column("AT", 3),
        Column("WAITS FOR", 5, grows=True),
    )
    empty = "no task"
    falling = frozenset({"AGE"})

    def items(self, answer: Answer, figures: Figures | None, pick: Pick) -> list[Any]:
        book = answer.book
        if book is None:
            return []
        order, reverse = None, pick.reverse
        if pick.sort is not None:
            name = self.columns[pick.sort].name
            reverse = reverse != (name in self.falling)

            def order(task: dict[str, Any]) -> Any:
                return _task_rank(book, task, name)

        return book.tree(pick.wanted, set(pick.turned), order, reverse=reverse)

    def key(self, item: Node) -> Hashable:
        return item.key

    def row(self, item: Node, answer: Answer) -> Row:
        book = answer.book
        assert book is not None
        first = item.tasks[0]
        mark = {None: "  ", True: "▾ ", False: "▸ "}[item.open]
        if len(item.tasks) == 1:
            title = f"{first['name']}  {_short(first['coro'])}"
        else:
            title = f"{len(item.tasks)} × {_short(first['coro'])}  ({names_of(item.tasks)})"
        if item.below and not item.open:
            title = f"{title}  +{item.below}"
        waits = book.waits(first)
        if len(item.tasks) > 1 and first.get("on", {}).get("kind") == "sleep":
            waits = "sleep"
        state = first["state"] + (", cancelled" if first.get("cancels") else "")
        return (
            item.branch + mark + title,
            Cell(state, _STATES.get(first["state"], "")),
            duration(book.age(first)),
            book.site(first),
            waits,
        )

    def story(self, item: Node, answer: Answer) -> list[str]:
        if answer.book is None:
            return []
        if len(item.tasks) == 1:
            return list(answer.book.story(item.tasks[0]["id"]))
        return list(answer.book.group_story(item))


def _short(coro: str) -> str:
    return coro.replace("<locals>.", "")


def _task_rank(book: TaskBook, task: dict[str, Any], column: str) -> Any:
    rates = book.rates(task)
    match column:
        case "BUSY":
            return rates.busy if rates else -1.0
        case "STEPS":
            return rates.steps if rates else -1
        case "LONGEST":
            return rates.longest if rates else -1.0
        case "AGE":
            # A later one is younger.
            return -int(task["id"])
        case "STATE":
            return task["state"]
        case "AT":
            return book.site(task)
        case "WAITS FOR":
            return book.waits(task)
        case "RUNS":
            return task["coro"]
        case _:
            return _natural(task["name"])


def _natural(name: str) -> list[tuple[int, int, str]]:
    """``Task-9`` comes before ``Task-10``."""
    parts = re.split(r"(\d+)", name[:200], maxsplit=8)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


class TasksView(View):
    """Each task by itself, with what it did."""

    name = "tasks"
    question = Question.RECORDED
    columns = (
        Column("TASK", 9, grows=True),
        Column("BUSY", 8, right=True),
        Column("STEPS/S", 7, right=True),
        Column("LONGEST", 3, right=True),
        Column("RUNS", 4),
        Column("STATE", 6),
        Column("AGE", 4, right=True),
        Column("AT", 2),
        Column("WAITS FOR", 5, grows=True),
    )
    empty = "no task"
    falling = frozenset({"BUSY", "STEPS/S", "LONGEST", "AGE"})

    def items(self, answer: Answer, figures: Figures | None, pick: Pick) -> list[Any]:
        book = answer.book
        if book is None:
            return []
        found = list(book.chosen(pick.wanted))
        # What runs most comes first.
        name = self.columns[1 if pick.sort is None else pick.sort].name
        found.sort(
            key=lambda task: _task_rank(book, task, name.removesuffix("/S")),
            reverse=(name in self.falling) != pick.reverse,
        )
        return found

    def key(self, item: dict[str, Any]) -> Hashable:
        return int(item["id"])

    def row(self, item: dict[str, Any], answer: Answer) -> Row:
        book = answer.book
        assert book is not None
        rates = book.rates(item)
        seconds = book.recorded.seconds if book.recorded else 0.0
        busy = percent(rates.busy) if rates else "-"
        return (
            item["name"],
            Cell(busy, _how_busy(rates.busy) if rates else ""),
            amount(rates.steps / seconds) if rates and seconds else "-",
            duration(rates.longest) if rates else "-",
            _short(item["coro"]),
            Cell(item["state"], _STATES.get(item["state"], "")),
            duration(book.age(item)),
            book.site(item),
            book.waits(item),
        )

    def story(self, item: dict[str, Any], answer: Answer) -> list[str]:
        return list(answer.book.story(item["id"])) if answer.book else []

    def remark(self, answer: Answer, figures: Figures | None) -> str:
        others = answer.book.others if answer.book else None
        if others is None:
            return answer.remark
        told = f"tasks that have ended: {percent(others.busy)} of the time in {others.steps} steps"
        return f"{told}; {answer.remark}" if answer.remark else told


def _how_busy(share: float) -> str:
    return "bad" if share >= 0.8 else "warn" if share >= 0.4 else ""


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
        return now + list(reversed(told.get("recent", ())))

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
            duration(_took(item)),
            str(item.get("view") or ""),
            "-" if hops is None else str(hops),
            duration(item.get("hop_wait")),
            duration(item.get("thread_run")),
            "" if task is None else str(task),
        )
        return [cell if isinstance(cell, Cell) else Cell(cell, style) for cell in cells]

    def story(self, item: dict[str, Any], answer: Answer) -> list[str]:
        over = "seconds" in item
        lines = [f"{item.get('method') or ''} {item.get('path') or '?'}".strip()]
        took = duration(_took(item))
        lines.append(f"answered in {took}" if over else f"for {took}, {item.get('state') or '?'}")
        if item.get("status") is not None:
            lines.append(f"status {item['status']}")
        if item.get("view"):
            lines.append(f"view {item['view']}")
        if item.get("hops") is not None:
            lines.append(
                f"{item['hops']} hops to threads, {duration(item.get('hop_wait'))} of waiting for "
                f"one, {duration(item.get('thread_run'))} in them"
            )
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
            Cell(percent(item.share), _how_busy(item.share or 0.0)),
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
                duration(item.seconds) + ("" if item.over else " so far"),
                "" if item.over else "bad",
            ),
            str(item.count),
            "a callback" if item.name is None else f"{item.name}  {_short(item.coro or '')}",
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
            Cell(percent(busy), _how_busy(busy or 0.0)),
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


VIEWS: tuple[View, ...] = (
    TreeView(),
    TasksView(),
    RequestsView(),
    ThreadsView(),
    StallsView(),
)
PROCESSES: View = ProcessesView()
