"""A program's concurrency as text: what overlapped, what waited for what, and what that saved.

:func:`explain` draws a :class:`~rondel.inspect.recording.Recording`. It runs nothing itself.
"""

import math
import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from rondel.inspect.recording import (
    Outcome,
    Place,
    Recording,
    Span,
    Task,
    ThreadCall,
    Wait,
    descendants,
)

__all__ = ["Marks", "explain", "findings", "of_program"]

# What an event loop does at its end is no part of a program.
_OURS = frozenset(
    {"BaseEventLoop.shutdown_asyncgens", "BaseEventLoop.shutdown_default_executor"}
    | {"EventLoop.shutdown_asyncgens", "EventLoop.shutdown_default_executor"}
)
# A step that holds the loop for so many seconds is told of.
_LONG = 0.1
_ROWS = 40
# Remarks of a kind.
_MOST = 5
_NAMES = 36


@dataclass(frozen=True, slots=True)
class Marks:
    """The characters of a timeline."""

    runs: str = "█"
    #: A step that is too short to be seen.
    moment: str = "▪"
    #: Asleep, or waiting for the world or a thread.
    outside: str = "─"
    #: Waiting for another task.
    inside: str = "┄"
    branch: str = "└ "

    @classmethod
    def for_encoding(cls, encoding: str | None) -> "Marks":
        """Those that can be written in ``encoding``; plain ones if it has too few."""
        marks = cls()
        try:
            "".join((marks.runs, marks.moment, marks.outside, marks.inside, marks.branch)).encode(
                encoding or "ascii"
            )
        except (UnicodeEncodeError, LookupError):
            return cls("#", "+", "-", ".", "` ")
        return marks


def explain(
    recording: Recording, *, width: int = 100, rows: int = _ROWS, marks: Marks | None = None
) -> str:
    """The whole text, of lines of at most ``width`` characters and ``rows`` tasks (0: all).

    A program without tasks has a text that says so.
    """
    tasks = of_program(recording)
    if not tasks:
        return "no task ran on a Rondel loop\n"
    whole, calls = _whole(recording, tasks)
    lines = list(_timeline(tasks, calls, whole, width, rows, marks or Marks()))
    lines += ["", *_summary(tasks, calls, whole)]
    for remark in _remarks(recording, tasks):
        lines += textwrap.wrap(remark, width, subsequent_indent="  ")
    return "\n".join(lines) + "\n"


def of_program(recording: Recording) -> list[Task]:
    """Its tasks without those that a loop makes at its end."""
    return [task for task in recording.tasks if task.runs not in _OURS]


def findings(recording: Recording) -> tuple[list[str], list[str]]:
    """The words below a timeline, unbroken: what it amounts to, and remarks."""
    tasks = of_program(recording)
    if not tasks:
        return ["No task ran on a Rondel loop."], []
    whole, calls = _whole(recording, tasks)
    return list(_summary(tasks, calls, whole)), list(_remarks(recording, tasks))


def _whole(recording: Recording, tasks: list[Task]) -> tuple[Span, list[ThreadCall]]:
    """From the first task's making to the last one's end, and the calls in threads meanwhile."""
    begin = min(task.created for task in tasks)
    end = max(_end(task, recording) for task in tasks)
    return Span(begin, end), [call for call in recording.calls if begin <= call.made <= end]


def _end(task: Task, recording: Recording) -> float:
    return recording.seconds if task.ended is None else task.ended


# -- the timeline


def _timeline(
    tasks: list[Task],
    calls: list[ThreadCall],
    whole: Span,
    width: int,
    rows: int,
    marks: Marks,
) -> Iterator[str]:
    shown = list(_rows(tasks, calls, marks))
    left = shown[rows:] if rows else []
    shown = shown[:rows] if rows else shown
    names = min(max(len(name) for name, _, _ in shown), _NAMES)
    cells = max(width - names - 26, 20)
    scale = whole.seconds / cells or 1e-9
    yield f"{'':{names}} {_ruler(whole.seconds, cells)}"
    for name, bar, told in shown:
        drawn = _draw(bar, whole.begin, scale, cells, marks)
        yield f"{_fitted(name, names):{names}} {drawn} {told}".rstrip()
    if left:
        kinds = Counter(name.lstrip(f" {marks.branch}") for name, _, _ in left)
        words = ", ".join(f"{count} × {name}" for name, count in kinds.most_common(4))
        more = "" if len(kinds) <= 4 else ", ..."
        yield f"... and {len(left)} more rows (--rows 0 shows all): {words}{more}"
    yield ""
    yield (
        f"{marks.runs} runs   {marks.moment} runs for a moment   "
        f"{marks.outside} sleeps, or waits for a thread or the world   "
        f"{marks.inside} waits for other tasks"
    )


_Bar = list[tuple[Span, str]]


def _rows(
    tasks: list[Task], calls: list[ThreadCall], marks: Marks
) -> Iterator[tuple[str, _Bar, str]]:
    """A row's name, what is drawn of it (later over earlier things), and what stands behind."""
    for depth, task in descendants(tasks):
        branch = "  " * (depth - 1) + marks.branch if depth else ""
        yield branch + _name(task), list(_bar(task)), _told(task)
        for wait in task.waits:
            call = wait.call
            if call is not None and call.begun is not None:
                ended = wait.end if call.ended is None else call.ended
                bar = [(Span(call.begun, ended), "runs")]
                inner = "  " * depth + marks.branch
                yield f"{inner}in a thread: {call.runs}", bar, _seconds(ended - call.begun)


def _bar(task: Task) -> Iterator[tuple[Span, str]]:
    for wait in task.waits:
        yield wait, "outside" if wait.outside else "inside"
    for step in task.steps:
        yield step, "runs"


def _name(task: Task) -> str:
    plain = task.name.startswith("Task-") and task.name[5:].isdigit()
    return task.runs if plain or task.name == "?" else f"{task.name}: {task.runs}"


def _told(task: Task) -> str:
    if task.ended is None:
        return "not over"
    words = {Outcome.EXCEPTION: "  failed", Outcome.CANCELLED: "  cancelled"}
    ending = words.get(task.outcome, "") if task.outcome else ""
    return _seconds(task.ended - task.created) + ending


def _draw(bar: _Bar, begin: float, scale: float, cells: int, marks: Marks) -> str:
    line = [" "] * cells
    waits = {"outside": marks.outside, "inside": marks.inside}
    for span, kind in bar:
        first = min(int((span.begin - begin) / scale), cells - 1)
        last = min(int((span.end - begin) / scale), cells - 1)
        if kind in waits:
            line[first : last + 1] = waits[kind] * (last + 1 - first)
        elif span.seconds >= scale / 2:
            # The cells that it fills for the greater part.
            low = round((span.begin - begin) / scale)
            high = max(round((span.end - begin) / scale), low + 1)
            low, high = min(low, cells - 1), min(high, cells)
            line[low:high] = marks.runs * (high - low)
    for span, kind in bar:
        first = min(int((span.begin - begin) / scale), cells - 1)
        if kind == "runs" and span.seconds < scale / 2 and line[first] != marks.runs:
            line[first] = marks.moment
    return "".join(line)


def _ruler(seconds: float, cells: int) -> str:
    """Times above the cells, where there is room for them."""
    step = _round(seconds / max(cells / 12, 1))
    line = [" "] * (cells + 12)
    digits = max(0, -math.floor(math.log10(step))) if step < 1 else 0
    at = 0.0
    while at <= seconds * 1.0001:
        cell = int(at / seconds * cells) if seconds else 0
        word = f"{at:.{digits}f} s" if at else "0 s"
        if cell + len(word) <= len(line):
            line[cell : cell + len(word)] = word
        at += step
        if not seconds:
            break
    return "".join(line).rstrip()


def _round(seconds: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    if seconds <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(seconds))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= seconds * 0.999)


def _fitted(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


# -- the words below


def _summary(tasks: list[Task], calls: list[ThreadCall], whole: Span) -> Iterator[str]:
    ran = sum(task.running for task in tasks)
    outside = sum(wait.seconds for task in tasks for wait in task.waits if wait.outside)
    alone = ran + outside
    yield (
        f"It took {_seconds(whole.seconds)}. One after another, the same steps and waits take "
        f"{_seconds(alone)}"
        + (f": {alone / whole.seconds:.1f} times as long." if whole.seconds else ".")
    )
    together = _most_at_once([_life(task, whole) for task in tasks if not _only_waits(task)])
    many = f"{len(tasks)} tasks" if len(tasks) > 1 else "One task"
    threads = f", {_counted(len(calls), 'call')} in threads" if calls else ""
    yield f"{many}{threads}, at most {together} of them under way at once."
    busy = ran / whole.seconds * 100 if whole.seconds else 100.0
    yield f"The loop ran their code for {_seconds(ran)}, {busy:.1f} % of the time."


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _life(task: Task, whole: Span) -> Span:
    return Span(task.created, whole.end if task.ended is None else task.ended)


def _only_waits(task: Task) -> bool:
    """Whether all that it does is to wait for others."""
    return (
        bool(task.waits) and not any(wait.outside for wait in task.waits) and task.running < _LONG
    )


def _most_at_once(spans: Iterable[Span]) -> int:
    changes: list[tuple[float, int]] = []
    for span in spans:
        changes += [(span.begin, 1), (span.end, -1)]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def _remarks(recording: Recording, tasks: list[Task]) -> Iterator[str]:
    """What a learner should look at."""
    yield from _long_steps(tasks)
    yield from islice(_in_a_row(tasks), _MOST)
    if recording.lost:
        yield f"{recording.lost} events had no room: what came last is missing."


def _long_steps(tasks: list[Task]) -> Iterator[str]:
    """Steps that held the loop, each place told once, the longest first."""
    found: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for task in tasks:
        for step in task.steps:
            if step.seconds >= _LONG:
                still = sum(1 for other in tasks if other is not task and _lives(other, step))
                key = (_name(task), _around(task, step))
                found.setdefault(key, []).append((step.seconds, still))
    longest = sorted(found.items(), key=lambda entry: -max(entry[1])[0])
    for (name, place), steps in longest[:_MOST]:
        seconds, still = max(steps)
        times = f" {len(steps)} times, at most" if len(steps) > 1 else ""
        held = "one other task" if still == 1 else f"{still} other tasks"
        yield (
            f"! {name} ran{times} for {_seconds(seconds)} without an await{place}"
            + (f", and {held} stood still meanwhile. " if still else ". ")
            + "What blocks belongs into a thread (await asyncio.to_thread(...)); "
            "to pause, await asyncio.sleep(...), not time.sleep(...)."
        )


def _lives(task: Task, span: Span) -> bool:
    return task.created < span.end and (task.ended is None or task.ended > span.begin)


def _around(task: Task, step: Span) -> str:
    """Between which lines a step was."""
    after = next((wait.place for wait in task.waits if wait.end == step.begin), None)
    until = next((wait.place for wait in task.waits if wait.begin == step.end), None)
    if until is not None:
        if after is not None and after.file == until.file and after.line < until.line:
            return f", between lines {after.line} and {until.line} of {_file(until)}"
        return f", before line {until.line} of {_file(until)}"
    return f", after line {after.line} of {_file(after)}" if after is not None else ""


def _file(place: Place) -> str:
    relative = os.path.relpath(place.file)
    return place.file if relative.startswith("..") else relative


def _in_a_row(tasks: list[Task]) -> Iterator[str]:
    """A task that waits for the world again and again while nothing else does anything."""
    for task in tasks:
        waits = [wait for wait in task.waits if wait.outside and wait.seconds >= _LONG]
        alone = [wait for wait in waits if not _beside(wait, task, tasks)]
        if len(alone) >= 2:
            total = sum(wait.seconds for wait in alone)
            kinds = sorted({wait.what for wait in alone if wait.what})
            yield (
                f"! {_name(task)} waited {len(alone)} times in a row, {_seconds(total)}, with "
                f"nothing beside it ({', '.join(kinds[:3])}). "
                "What does not need the one before it can overlap: asyncio.gather(...), "
                "asyncio.TaskGroup, or asyncio.create_task(...) before the await."
            )


def _beside(wait: Wait, task: Task, tasks: list[Task]) -> bool:
    """Whether another task was under way during a wait, other than by waiting for tasks."""
    return any(
        other is not task and _lives(other, wait) and not _only_waits(other) for other in tasks
    )


def _seconds(seconds: float) -> str:
    if seconds >= 10:
        return f"{seconds:.1f} s"
    if seconds >= 0.1:
        return f"{seconds:.2f} s"
    if seconds >= 1e-4:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds * 1e6:.0f} µs"
