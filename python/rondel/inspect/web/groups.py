"""A snapshot of tasks as the page's tree: tasks that wait at the same place are one row.

Works on the JSON itself, one pass over the tasks: a hundred thousand become some rows. A row is a
place in the tree: the row of the creators, what the tasks run, where their await chains stand and
what these end in. What changes from moment to moment (state, seconds left) is no part of it, and
its id is made of names, not of numbers, so a row stays the same row from one snapshot to the next.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from operator import itemgetter
from typing import Any

from rondel.inspect._model import age_of, read_wait

__all__ = ["Filter", "Grouped", "detail"]

Snapshot = dict[str, Any]
Raw = dict[str, Any]

# Rows, names of a row, members told at a time, levels of the tree.
_ROWS, _FEW, _PAGE, _LEVELS = 2000, 3, 200, 40
# Creators and waiting tasks that a task's detail has.
_NEAR = 20

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(slots=True)
class _Row:
    id: str
    parent: int
    depth: int
    first: Raw
    tasks: list[Raw] = field(default_factory=list)
    below: list[int] = field(default_factory=list)
    whats: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which tasks are shown. Words must all be in a task's name, code, places or wait."""

    words: tuple[str, ...] = ()
    state: str = ""
    #: Seconds.
    older: float = 0.0

    def chosen(self, data: Snapshot) -> list[Raw]:
        """The tasks of a snapshot that are shown, a creator before what it creates."""
        tasks = data["tasks"] if self == _ALL else filter(self._of(data), data["tasks"])
        # Numbers grow.
        return sorted(tasks, key=itemgetter("id"))

    def _of(self, data: Snapshot) -> Callable[[Raw], bool]:
        """Whether a task of this snapshot is shown."""
        # Many tasks, few chains: a chain's text is looked at once.
        chains = [
            " ".join(f"{data['frames'][i][2]} {data['frames'][i][0]}" for i in chain).lower()
            for chain in data["chains"]
        ]
        words = [word.lower() for word in self.words]

        def keep(task: Raw) -> bool:
            if self.state and task["state"] != self.state:
                return False
            if words:
                on = task.get("on", {})
                text = f"{task['name']} {task['coro']} {on.get('call')} {on.get('what')}".lower()
                chain = chains[task["chain"]]
                if not all(word in text or word in chain for word in words):
                    return False
            if self.older:
                age = age_of(task["id"], data["ages"])
                return age is not None and age > self.older
            return True

        return keep


_ALL = Filter()


class Grouped:
    """The chosen tasks of a snapshot, as rows. May be made, and asked, on any thread."""

    def __init__(self, data: Snapshot, chosen: Filter) -> None:
        self._data = data
        self._rows = _rows(data, chosen.chosen(data))

    def tree(self) -> dict[str, Any]:
        """The rows, parents before what is below them."""
        data, rows = self._data, self._rows
        shown = list(islice(_in_order(rows), _ROWS))
        return {
            "loops": data["loops"],
            "total": len(data["tasks"]) + data.get("omitted", 0),
            "shown": sum(len(row.tasks) for row in rows),
            "rows": [_told(data, rows, number) for number in shown],
            "more": len(rows) - len(shown),
        }

    def members(self, row: str, begin: int = 0) -> dict[str, Any]:
        """Some of a row's tasks, by number."""
        tasks = next((one.tasks for one in self._rows if one.id == row), [])
        return {
            "count": len(tasks),
            "begin": begin,
            "tasks": [_short(self._data, task) for task in tasks[begin : begin + _PAGE]],
        }


def detail(data: Snapshot, number: int) -> dict[str, Any] | None:
    """All that is known of one task; None if it is not there."""
    by_id = {task["id"]: task for task in data["tasks"]}
    task = by_id.get(number)
    if task is None:
        return None
    creators: list[Raw] = []
    at = by_id.get(task.get("parent"))
    while at is not None and len(creators) < _NEAR:
        creators.append(at)
        at = by_id.get(at.get("parent"))
    made = [one for one in data["tasks"] if one.get("parent") == number]
    waiting = [one for one in data["tasks"] if number in _awaited(one)]
    awaited = [by_id[one] for one in _awaited(task) if one in by_id]
    return {
        **_short(data, task),
        "loop": task["loop"],
        "chain": _chain(data, task),
        "created": task.get("created"),
        "creators": [_short(data, one) for one in creators],
        "made": {"count": len(made), "tasks": [_short(data, one) for one in made[:_NEAR]]},
        "waited_by": {
            "count": len(waiting),
            "tasks": [_short(data, one) for one in waiting[:_NEAR]],
        },
        "awaits": [_short(data, one) for one in awaited[:_NEAR]],
    }


def _awaited(task: Raw) -> tuple[int, ...]:
    on = task.get("on", {})
    return (on["task"],) if "task" in on else tuple(on.get("tasks", ()))


def _rows(data: Snapshot, tasks: list[Raw]) -> list[_Row]:
    rows: list[_Row] = []
    numbers: dict[tuple[Any, ...], int] = {}
    row_of: dict[int, int] = {}
    kinds: dict[str, str] = {}
    for task in tasks:
        above = row_of.get(task.get("parent", 0), -1)
        if above >= 0 and rows[above].depth >= _LEVELS:
            above = rows[above].parent
        site = _site(task, kinds)
        key = (above, task["loop"], site)
        number = numbers.get(key)
        if number is None:
            number = numbers[key] = len(rows)
            depth = rows[above].depth + 1 if above >= 0 else 0
            name = _name_of(data, rows[above].id if above >= 0 else "", task, site)
            rows.append(_Row(name, above, depth, task))
            if above >= 0:
                rows[above].below.append(number)
        row = rows[number]
        row.tasks.append(task)
        row_of[task["id"]] = number
        if len(row.whats) < 2 and "what" in task.get("on", ()):
            row.whats.add(task["on"]["what"])
    return rows


def _site(task: Raw, kinds: dict[str, str]) -> tuple[Any, ...]:
    """Where a task waits. ``kinds``: of what others wait for, what is not its address."""
    on = task.get("on")
    if on is None or on["kind"] in ("nothing", "task", "gather"):
        # It runs, or will at once: no other place than its chain's. Tasks have names of their own.
        return task["coro"], task["chain"], on and on["kind"] != "nothing", None
    what = on.get("what")
    if what and (kind := kinds.get(what)) is None:
        kind = kinds[what] = _ADDRESS.sub("", what)
    return task["coro"], task["chain"], on.get("call", on["kind"]), what and kind


def _name_of(data: Snapshot, above: str, task: Raw, site: tuple[Any, ...]) -> str:
    text = repr((above, task["loop"], site[0], _chain(data, task), *site[2:]))
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _in_order(rows: list[_Row]) -> Iterator[int]:
    """Rows as they stand in the tree."""
    todo = [number for number, row in enumerate(rows) if row.parent < 0][::-1]
    while todo:
        number = todo.pop()
        yield number
        todo += rows[number].below[::-1]


def _told(data: Snapshot, rows: list[_Row], number: int) -> dict[str, Any]:
    row = rows[number]
    first = row.first
    told: dict[str, Any] = {
        "id": row.id,
        "depth": row.depth,
        "count": len(row.tasks),
        "below": len(row.below),
        "coro": first["coro"],
        "states": Counter(task["state"] for task in row.tasks),
        "names": [task["name"] for task in row.tasks[:_FEW]],
        "chain": _chain(data, first),
        "wait": _wait(row),
        "task": first["id"] if len(row.tasks) == 1 else None,
        # Numbers grow: the first is the oldest.
        "age": age_of(first["id"], data["ages"]),
        "youngest": age_of(row.tasks[-1]["id"], data["ages"]),
    }
    cancelled = sum(1 for task in row.tasks if task.get("cancels"))
    if cancelled:
        told["cancelled"] = cancelled
    return told


def _wait(row: _Row) -> str | None:
    on = next((task["on"] for task in row.tasks if "on" in task), None)
    if on is None or on["kind"] == "nothing":
        return None
    if len(row.tasks) == 1:
        return str(read_wait(on))
    if on["kind"] == "sleep":
        left = [task["on"]["left"] for task in row.tasks if "left" in task.get("on", ())]
        return f"sleep, {min(left):.1f} to {max(left):.1f} s left"
    if on["kind"] == "gather":
        return "gather"
    if on["kind"] == "task":
        return f"task {on['what']!r}" if len(row.whats) == 1 else "other tasks"
    if len(row.whats) > 1:
        return _ADDRESS.sub("", str(read_wait(on))) + " (not one and the same)"
    return str(read_wait(on))


def _chain(data: Snapshot, task: Raw) -> list[Any]:
    return [data["frames"][i] for i in data["chains"][task["chain"]]]


def _short(data: Snapshot, task: Raw) -> dict[str, Any]:
    on = task.get("on")
    return {
        "id": task["id"],
        "name": task["name"],
        "coro": task["coro"],
        "state": task["state"],
        "age": age_of(task["id"], data["ages"]),
        "wait": str(read_wait(on)) if on and on["kind"] != "nothing" else None,
        "cancels": task.get("cancels", 0),
    }
