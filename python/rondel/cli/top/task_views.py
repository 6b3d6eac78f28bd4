"""The views of tasks: as a tree, and each by itself with what it did."""

import re
from collections.abc import Hashable
from typing import Any

from rondel.cli.top.figures import Figures
from rondel.cli.top.tasks import Node, TaskBook
from rondel.cli.top.text import Cell, amount, brief, duration, heat, percent
from rondel.cli.top.view import Answer, Column, Pick, Question, Row, View
from rondel.inspect._text import names_of

__all__ = ["TasksView", "TreeView"]

_STATES = {"running": "good", "ready": "good", "created": "dim", "sleeping": "dim"}


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
            title = book.title(first)
        else:
            title = f"{len(item.tasks)} × {brief(first['coro'])}  ({names_of(item.tasks)})"
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
            Cell(busy, heat(rates.busy, 0.4, 0.8) if rates else ""),
            amount(rates.steps / seconds) if rates and seconds else "-",
            duration(rates.longest, fine=True) if rates else "-",
            brief(item["coro"]),
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
