"""A snapshot as a tree of text, in which tasks that wait alike are one line.

Works on the JSON itself: a hundred thousand tasks are grouped before any object is made of one.
Two siblings are alike if their coroutines stand at the same places, wait for the same kind of
thing, and so do their children. No recursion: a task may have been created by a task by a task, to
any depth.
"""

from collections.abc import Callable, Iterator
from typing import Any

from rondel.inspect._model import read_wait

__all__ = ["alike", "by_creator", "chain_lines", "names_of", "tree_lines"]

Snapshot = dict[str, Any]
Raw = dict[str, Any]

# Names of a group that are shown, and levels of the tree.
_FEW = 3
_LEVELS = 60


def tree_lines(data: Snapshot, keep: Callable[[Raw], bool] | None = None) -> Iterator[str]:
    """The lines. ``keep``: which tasks are shown; without their creators they are at the top."""
    shown = sorted(
        (task for task in data["tasks"] if keep is None or keep(task)), key=lambda task: task["id"]
    )
    answers = {task: (method, path) for task, method, path in data.get("requests", ())}
    for task in shown:
        if task["id"] in answers:
            task["answers"] = " ".join(answers[task["id"]])
    for loop in data["loops"]:
        own = [task for task in shown if task["loop"] == loop["id"]]
        of_all = "" if len(own) == loop["tasks"] else f" of {loop['tasks']}"
        yield f"loop {loop['id']}, {loop['phase']}: {len(own)}{of_all} tasks"
        yield from _loop_lines(data, own)
    if data.get("omitted"):
        yield f"({data['omitted']} more tasks are not shown)"


def _loop_lines(data: Snapshot, tasks: list[Raw]) -> Iterator[str]:
    children = by_creator(tasks)
    kinds = alike(tasks, children)
    # Groups to be written, the next one last: its tasks, what its lines begin with, its level.
    todo: list[tuple[list[Raw], str, bool, int]] = []

    def plan(siblings: list[Raw], indent: str, level: int) -> None:
        groups: dict[int, list[Raw]] = {}
        for task in siblings:
            groups.setdefault(kinds[task["id"]], []).append(task)
        for i, group in enumerate(reversed(groups.values())):
            todo.append((group, indent, i == 0, level))

    plan(children.get(0, []), "", 0)
    while todo:
        group, indent, last, level = todo.pop()
        below = indent + ("    " if last else "│   ")
        inner = children.get(group[0]["id"], [])
        yield indent + ("└── " if last else "├── ") + _title(group)
        for line in chain_lines(data, group):
            yield below + ("│   " if inner else "    ") + line
        if inner and level >= _LEVELS:
            yield below + "└── …"
        elif inner:
            plan(inner, below, level + 1)


def by_creator(tasks: list[Raw]) -> dict[int, list[Raw]]:
    """Tasks by the number of the one that created them; 0 if that is not among them."""
    known = {task["id"] for task in tasks}
    children: dict[int, list[Raw]] = {}
    for task in tasks:
        parent = task.get("parent", 0)
        children.setdefault(parent if parent in known else 0, []).append(task)
    return children


def alike(tasks: list[Raw], children: dict[int, list[Raw]]) -> dict[int, int]:
    """A number for each task: the same for those that are alike, children and all.

    The tasks are in the order of their creation.
    """
    kinds: dict[int, int] = {}
    numbers: dict[tuple[Any, ...], int] = {}
    # A task has a higher number than its creator: children first.
    for task in reversed(tasks):
        below = sorted(kinds.get(child["id"], -1) for child in children.get(task["id"], ()))
        on = task.get("on", {})
        what = on.get("what") if on.get("kind") in ("thread", "call", "other") else None
        key = (task["state"], task["coro"], task["chain"], on.get("kind"), what, *below)
        kinds[task["id"]] = numbers.setdefault(key, len(numbers))
    return kinds


def _title(group: list[Raw]) -> str:
    first = group[0]
    cancels = ", cancelled" if first.get("cancels") else ""
    if len(group) == 1:
        answers = f"  {first['answers']}" if "answers" in first else ""
        return f"{first['name']}  {first['coro']}  [{first['state']}{cancels}]{answers}"
    return f"{len(group)} × {first['coro']}  [{first['state']}{cancels}]  ({names_of(group)})"


def names_of(group: list[Raw]) -> str:
    """The first tasks' names."""
    names = ", ".join(task["name"] for task in group[:_FEW])
    return names + (", …" if len(group) > _FEW else "")


def chain_lines(data: Snapshot, group: list[Raw]) -> Iterator[str]:
    """The await chain of tasks that are alike, and what it ends in."""
    first = group[0]
    for number in data["chains"][first["chain"]]:
        file, line, function = data["frames"][number]
        yield function if file == "<native>" else f"{function}  {file}:{line}"
    if "on" not in first or first["on"]["kind"] == "nothing":
        return
    if first["on"]["kind"] == "sleep" and len(group) > 1:
        left = [task["on"]["left"] for task in group]
        yield f"→ sleep, {min(left):.1f} to {max(left):.1f} s left"
    else:
        yield f"→ {read_wait(first['on'])}"
