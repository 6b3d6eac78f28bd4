"""The tasks of a process at one moment: found, filtered, and grouped by where they wait.

Works on the JSON of the answer itself; what is shown of a task is made when it is shown. With a
recording of the time before, a task also has its steps and the time in them.
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from os.path import basename
from typing import Any

from rondel.cli.top.text import brief
from rondel.inspect import recording
from rondel.inspect._model import age_of, read_wait
from rondel.inspect._text import alike, by_creator, chain_lines, names_of
from rondel.inspect.recording import Recording

__all__ = ["Node", "Rates", "TaskBook"]

Raw = dict[str, Any]
SortKey = Callable[[Raw], Any]

_LIBRARY = re.compile(r"(^|/)(asyncio|rondel)/[^/]+\.py$")
# Characters of the lines that lead to a task.
_BRANCH = 24
# Tasks that wait for each other, as far as they are followed.
_DEEP = 20


@dataclass(slots=True)
class Node:
    """A line of the tree: one task, or several that wait alike."""

    key: Hashable
    tasks: list[Raw]
    #: How many it stands below, and the lines that lead to it: the last ones, if there are many.
    depth: int
    branch: str
    #: Whether what is below it is shown; None if there is nothing.
    open: bool | None
    #: How many tasks there are below it, in all.
    below: int


@dataclass(frozen=True, slots=True)
class Rates:
    """What a task did in a recording."""

    #: Share of the time that it was in its steps.
    busy: float
    steps: int
    #: Its longest step, in seconds.
    longest: float


@dataclass(slots=True)
class TaskBook:
    """A snapshot, with a recording or without."""

    data: dict[str, Any]
    recorded: Recording | None = None
    #: In the order of creation.
    tasks: list[Raw] = field(init=False)
    _by_id: dict[int, Raw] = field(init=False)
    #: Method and path, by the task that answers it.
    _requests: dict[int, str] = field(init=False)
    _sites: dict[int, tuple[str, str]] = field(init=False, default_factory=dict)
    _rates: dict[int, Rates] = field(init=False, default_factory=dict)
    #: Steps of tasks that have ended, or cannot be told from others of their name.
    others: Rates | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.tasks = sorted(self.data["tasks"], key=lambda task: task["id"])
        self._by_id = {task["id"]: task for task in self.tasks}
        told = self.data.get("requests", ())
        self._requests = {task: f"{method} {path}" for task, method, path in told}
        if self.recorded is not None:
            self._join(self.recorded)

    # -- of one task

    def get(self, number: object) -> Raw | None:
        """The task of that number, if it is not done."""
        return self._by_id.get(number) if isinstance(number, int) else None

    def age(self, task: Raw) -> float | None:
        """Seconds since it was created."""
        return age_of(task["id"], self.data["ages"])

    def waits(self, task: Raw) -> str:
        """What it waits for."""
        on = task.get("on")
        if on is None or on["kind"] == "nothing":
            return ""
        return str(read_wait(on))

    def title(self, task: Raw) -> str:
        """Its name and what it runs, and the request that it answers."""
        request = self._requests.get(task["id"])
        runs = brief(task["coro"])
        return f"{task['name']}  {runs}" + ("" if request is None else f"  {request}")

    def site(self, task: Raw) -> str:
        """Where the innermost Python of it stands that is none of asyncio's or ours."""
        return self._site(task)[0]

    def _site(self, task: Raw) -> tuple[str, str]:
        """That, and all text of the chain."""
        chain = task["chain"]
        found = self._sites.get(chain)
        if found is None:
            frames = [self.data["frames"][i] for i in self.data["chains"][chain]]
            python = [frame for frame in frames if frame[0] != "<native>"]
            own = [frame for frame in python if not _LIBRARY.search(frame[0])]
            place = ""
            for file, line, function in (own or python)[-1:]:
                place = f"{basename(file)}:{line} {brief(function)}"
            found = place, " ".join(f"{file}:{line} {function}" for file, line, function in frames)
            self._sites[chain] = found
        return found

    def rates(self, task: Raw) -> Rates | None:
        """What the recording tells of it."""
        return self._rates.get(task["id"])

    def matches(self, task: Raw, wanted: re.Pattern[str]) -> bool:
        """Whether its name, coroutine, state, place or wait does."""
        request = self._requests.get(task["id"], "")
        parts = (task["name"], task["coro"], task["state"], request)
        if any(wanted.search(part) for part in parts):
            return True
        return bool(wanted.search(self._site(task)[1]) or wanted.search(self.waits(task)))

    # -- what it did

    def _join(self, recorded: Recording) -> None:
        """Gives each task what the recording has of the one of its number."""
        seconds = max(recorded.seconds, 1e-9)

        def rates(tasks: list[recording.Task]) -> Rates:
            steps = [step.seconds for task in tasks for step in task.steps]
            return Rates(min(sum(steps) / seconds, 1.0), len(steps), max(steps, default=0.0))

        rest = {one.id: one for one in recorded.tasks}
        for task in self.tasks:
            known = rest.pop(task["id"], None)
            if known is not None:
                self._rates[task["id"]] = rates([known])
        if any(one.steps for one in rest.values()):
            self.others = rates(list(rest.values()))

    # -- all of them

    def chosen(self, wanted: re.Pattern[str] | None) -> list[Raw]:
        """The tasks that match, in the order of creation."""
        if wanted is None:
            return self.tasks
        return [task for task in self.tasks if self.matches(task, wanted)]

    def tree(
        self,
        wanted: re.Pattern[str] | None,
        turned: set[Hashable],
        order: SortKey | None = None,
        *,
        reverse: bool = False,
    ) -> list[Node]:
        """The lines of the tree of those that match; without their creators they are at the top.

        A task is open and several are closed, but for the keys that were ``turned``.
        """
        tasks = self.chosen(wanted)
        children = by_creator(tasks)
        kinds = alike(tasks, children)
        sizes = _sizes(tasks, children)
        nodes: list[Node] = []
        todo: list[tuple[Hashable, list[Raw], str, int]] = []

        def plan(siblings: list[Raw], above: Hashable, indent: str, depth: int) -> None:
            groups: dict[int, list[Raw]] = {}
            for task in siblings:
                groups.setdefault(kinds[task["id"]], []).append(task)
            listed = list(groups.values())
            if order is not None:
                listed.sort(key=lambda group: order(group[0]))
            if reverse:
                listed.reverse()
            add(listed, above, indent, depth)

        def add(listed: list[list[Raw]], above: Hashable, indent: str, depth: int) -> None:
            met: Counter[Hashable] = Counter()
            lines = []
            for i, group in enumerate(listed):
                first = group[0]
                key: Hashable = first["id"]
                if len(group) > 1:
                    # The same from one look to the next, whatever tasks come and go.
                    kind = (first["coro"], self.site(first), first.get("on", {}).get("kind"))
                    key = (above, kind, met[kind])
                    met[kind] += 1
                branch = indent + ("└ " if i == len(listed) - 1 else "├ ") if depth else ""
                if len(branch) > _BRANCH:
                    branch = "…" + branch[1 - _BRANCH :]
                lines.append((key, group, branch, depth))
            todo.extend(reversed(lines))

        plan(children.get(0, []), 0, "", 0)
        while todo:
            key, group, branch, depth = todo.pop()
            inner = children.get(group[0]["id"], [])
            several = len(group) > 1
            shown: bool | None = None
            if several or inner:
                shown = (key in turned) if several else (key not in turned)
            below = sum(sizes[task["id"]] for task in group) - len(group)
            nodes.append(Node(key, group, depth, branch, shown, below))
            if shown:
                indent = branch[:-2] + ("  " if branch.endswith("└ ") else "│ ") if depth else ""
                if several:
                    add([[task] for task in group], key, indent, depth + 1)
                else:
                    plan(inner, key, indent, depth + 1)
        return nodes

    # -- in words

    def story(self, number: int) -> Iterator[str]:
        """All that is known of a task: its stack, what it waits for, who created it."""
        task = self.get(number)
        if task is None:
            yield "This task has ended."
            return
        cancels = ", cancelled" if task.get("cancels") else ""
        yield f"{self.title(task)}  [{task['state']}{cancels}]"
        age = self.age(task)
        yield f"number {task['id']} on loop {task['loop']}" + (
            "" if age is None else f", {age:.0f} s old"
        )
        if "created" in task:
            file, line, function = task["created"]
            yield f"created at {file}:{line} {function}"
        rates = self.rates(task)
        if rates is not None:
            yield (
                f"{rates.busy:.1%} of the time in {rates.steps} steps, "
                f"the longest {rates.longest * 1000:.1f} ms"
            )
        yield ""
        yield "Await chain, outermost first:"
        yield from self._chain([task])
        yield from self._awaited(task)
        yield from self._creators(task)

    def group_story(self, node: Node) -> Iterator[str]:
        """What tasks that wait alike have in common."""
        first = node.tasks[0]
        yield f"{len(node.tasks)} tasks {first['coro']}  [{first['state']}]"
        yield names_of(node.tasks)
        yield ""
        yield "Await chain of each, outermost first:"
        yield from self._chain(node.tasks)
        yield from self._creators(first)

    def _chain(self, group: list[Raw]) -> Iterator[str]:
        for line in chain_lines(self.data, group):
            yield f"  {line}"

    def _awaited(self, task: Raw) -> Iterator[str]:
        """The tasks that it waits for, and they for."""
        seen = {task["id"]}
        while len(seen) <= _DEEP:
            on = task.get("on", {})
            numbers = [on["task"]] if "task" in on else list(on.get("tasks", ()))
            pending = [number for number in numbers if number in self._by_id]
            if not pending:
                return
            yield ""
            if pending[0] in seen:
                yield f"It waits for {self._by_id[pending[0]]['name']}: they wait for each other."
                return
            task = self._by_id[pending[0]]
            seen.add(task["id"])
            more = f" and {len(pending) - 1} more" if len(pending) > 1 else ""
            yield f"It waits for {task['name']}  {task['coro']}  [{task['state']}]{more}:"
            yield from self._chain([task])

    def _creators(self, task: Raw) -> Iterator[str]:
        parent = task.get("parent")
        if parent is None:
            return
        yield ""
        for _ in range(_DEEP):
            found = self.get(parent)
            if found is None:
                yield f"Created by task {parent}, which has ended."
                return
            yield f"Created by {found['name']}  {found['coro']}"
            parent = found.get("parent")
            if parent is None:
                return


def _sizes(tasks: list[Raw], children: dict[int, list[Raw]]) -> dict[int, int]:
    """How many tasks each stands for, with those below it. Children come later: backwards."""
    sizes: dict[int, int] = {}
    for task in reversed(tasks):
        sizes[task["id"]] = 1 + sum(
            sizes.get(child["id"], 1) for child in children.get(task["id"], ())
        )
    return sizes
