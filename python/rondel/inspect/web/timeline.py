"""A recording as the page's timeline: JSON with each text once, and spans as flat numbers.

    {"seconds", "lost", "joined", "findings": {"summary", "remarks"},
     "texts":  [text, ...],            what is waited for, and places
     "tasks":  [{"name", "runs", "parent", "depth", "created", "ended", "outcome", "place",
                 "ran", "steps": [begin, end, ...],
                 "waits": [begin, end, kind, text, place, other, ...], "cancels": [[at, by], ...]}],
     "calls":  [{"runs", "made", "begun", "ended"}]}

Tasks stand in the order of the rows, parents before their children, and are meant by their place in
it; -1 is none. A wait's ``kind`` is an index of ``KINDS``; its ``other`` is the task that is waited
for, or the call if it is one in a thread. Times are microseconds since the recording began.

Bound: spans. If there are more than ``MOST``, a task's short steps are joined with those next to
them, and ``joined`` says below how many microseconds.
"""

from typing import Any

from rondel.inspect.explain import findings, of_program
from rondel.inspect.recording import Place, Recording, Span, Task, Wait, descendants

__all__ = ["KINDS", "timeline"]

KINDS = ("ready", "sleep", "thread", "world", "inside")
MOST = 300_000


def timeline(recording: Recording, *, most: int = MOST) -> dict[str, Any]:
    """What ``static/timeline`` draws."""
    rows = list(descendants(of_program(recording)))
    spans = sum(len(task.steps) + len(task.waits) for _, task in rows)
    resolution = 0.0
    if spans > most:
        # A task has two spans of this length at most in twice it.
        resolution = recording.seconds * len(rows) / most * 4
    texts = _Texts()
    numbers = {task: number for number, (_, task) in enumerate(rows)}
    calls = {id(call): number for number, call in enumerate(recording.calls)}
    summary, remarks = findings(recording)
    tasks = [_task(task, depth, numbers, calls, texts, resolution) for depth, task in rows]
    return {
        "seconds": recording.seconds,
        "lost": recording.lost,
        "joined": _micro(resolution),
        "findings": {"summary": summary, "remarks": remarks},
        "texts": texts.all,
        "tasks": tasks,
        "calls": [
            {
                "runs": call.runs,
                "made": _micro(call.made),
                "begun": _micro(call.begun),
                "ended": _micro(call.ended),
            }
            for call in recording.calls
        ],
    }


class _Texts:
    """Each text once."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._known: dict[str, int] = {}

    def number(self, text: str) -> int:
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = len(self.all)
            self.all.append(text)
        return found

    def place(self, place: Place | None) -> int:
        if place is None:
            return -1
        return self.number(f"{place.function.replace('<locals>.', '')} {place.file}:{place.line}")


def _task(
    task: Task,
    depth: int,
    numbers: dict[Task, int],
    calls: dict[int, int],
    texts: _Texts,
    resolution: float,
) -> dict[str, Any]:
    steps, waits = (task.steps, task.waits) if not resolution else _joined(task, resolution)
    flat: list[float | int | None] = []
    for wait in waits:
        other = -1 if wait.task is None else numbers.get(wait.task, -1)
        if wait.call is not None:
            other = calls[id(wait.call)]
        flat += [_micro(wait.begin), _micro(wait.end), _kind(wait)]
        flat += [texts.number(wait.what), texts.place(wait.place), other]
    return {
        "name": task.name,
        "runs": task.runs,
        "parent": -1 if task.parent is None else numbers.get(task.parent, -1),
        "depth": depth,
        "created": _micro(task.created),
        "ended": _micro(task.ended),
        "outcome": task.outcome and task.outcome.value,
        "place": texts.place(task.place),
        "ran": _micro(task.running),
        "steps": [_micro(at) for step in steps for at in (step.begin, step.end)],
        "waits": flat,
        "cancels": [
            [_micro(at), -1 if by is None else numbers.get(by, -1)] for at, by in task.cancels
        ],
    }


def _kind(wait: Wait) -> int:
    if wait.kind in ("ready", "sleep", "thread"):
        return KINDS.index(wait.kind)
    return KINDS.index("world" if wait.outside else "inside")


def _joined(task: Task, resolution: float) -> tuple[list[Span], list[Wait]]:
    """Its spans without the waits that are shorter than ``resolution``."""
    waits = [wait for wait in task.waits if wait.seconds >= resolution]
    steps: list[Span] = []
    for step in task.steps:
        if steps and step.begin - steps[-1].end < resolution:
            steps[-1].end = step.end
        else:
            steps.append(Span(step.begin, step.end))
    return steps, waits


def _micro(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e6, 1)
