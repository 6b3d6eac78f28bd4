"""A recording as a trace file that Perfetto and Chrome (``chrome://tracing``) open.

The format is Chrome's *Trace Event Format*, JSON: a track for the loop with what it ran, one for
each task with its steps and waits, one for each call in a thread. Times are microseconds.
"""

import json
import os
from collections.abc import Iterator
from typing import IO, Any

from rondel.inspect.recording import Outcome, Recording, Task

__all__ = ["write"]

_LOOP, _FIRST = 1, 10


def write(
    recording: Recording, file: IO[str], *, name: str = "rondel", pid: int | None = None
) -> None:
    """Write ``recording`` to a text file, an event a line; ``name`` is the process's.

    ``pid`` is its number if it is another one than this.
    """
    file.write('{"displayTimeUnit":"ms","traceEvents":[\n')
    for number, event in enumerate(_events(recording, name, pid or os.getpid())):
        file.write(",\n" if number else "")
        json.dump(event, file, ensure_ascii=False, separators=(",", ":"))
    file.write("\n]}\n")


def _events(recording: Recording, name: str, pid: int) -> Iterator[dict[str, Any]]:
    def slice_(tid: int, what: str, begin: float, end: float, **args: Any) -> dict[str, Any]:
        return {
            "ph": "X",
            "pid": pid,
            "tid": tid,
            "name": what,
            "ts": begin * 1e6,
            "dur": max(end - begin, 0.0) * 1e6,
            **({"args": args} if args else {}),
        }

    def named(kind: str, tid: int, value: str) -> dict[str, Any]:
        return {"ph": "M", "pid": pid, "tid": tid, "name": kind, "args": {"name": value}}

    yield named("process_name", _LOOP, name)
    yield named("thread_name", _LOOP, "loop")
    for poll in recording.polls:
        yield slice_(_LOOP, "sleeps", poll.begin, poll.end)
    for task in recording.tasks:
        tid = _FIRST + task.number
        yield named("thread_name", tid, f"{task.name}: {task.runs}")
        yield {
            "ph": "M",
            "pid": pid,
            "tid": tid,
            "name": "thread_sort_index",
            "args": {"sort_index": tid},
        }
        for step in task.steps:
            yield slice_(_LOOP, task.name, step.begin, step.end, runs=task.runs)
            yield slice_(tid, "runs", step.begin, step.end)
        for wait in task.waits:
            what = wait.what if wait.task is None else f"{wait.task.name}: {wait.task.runs}"
            place = {} if wait.place is None else {"at": f"{wait.place.file}:{wait.place.line}"}
            yield slice_(tid, f"waits: {what}", wait.begin, wait.end, kind=wait.kind, **place)
        yield from _marks(task, pid, tid)
    after = _FIRST + len(recording.tasks)
    for number, call in enumerate(recording.calls):
        tid = after + number
        yield named("thread_name", tid, f"in a thread: {call.runs}")
        begun = recording.seconds if call.begun is None else call.begun
        yield slice_(tid, "queued", call.made, begun)
        if call.begun is not None:
            ended = recording.seconds if call.ended is None else call.ended
            yield slice_(tid, "runs", call.begun, ended)


def _marks(task: Task, pid: int, tid: int) -> Iterator[dict[str, Any]]:
    """What happened at one moment."""

    def mark(what: str, at: float) -> dict[str, Any]:
        return {"ph": "i", "s": "t", "pid": pid, "tid": tid, "name": what, "ts": at * 1e6}

    place = "" if task.place is None else f" at {task.place.file}:{task.place.line}"
    yield mark(f"created{place}", task.created)
    for at, by in task.cancels:
        yield mark("cancel" if by is None else f"cancel by {by.name}", at)
    if task.ended is not None and task.outcome is not Outcome.RESULT:
        yield mark("failed" if task.outcome is Outcome.EXCEPTION else "cancelled", task.ended)
