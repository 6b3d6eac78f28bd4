"""A recording of a program: which task did what when, and what it waited for.

``record()`` begins one in this process, ``Recorder.stop()`` gives the :class:`Recording`. The
events come from the loops themselves (``crates/rondel/src/inspect/record``); here they become
tasks with their steps and waits. Times are seconds since the recording began.

Only tasks that Rondel's loops step are recorded; of a task that was there before the recording
began, neither its maker nor its place is known.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import CodeType
from typing import Any, Final

from rondel import _rondel

__all__ = [
    "Outcome",
    "Place",
    "Recorder",
    "Recording",
    "Span",
    "Task",
    "ThreadCall",
    "Usage",
    "Wait",
    "read_answer",
    "record",
]

#: Events kept, 24 bytes each.
LIMIT: Final = 1_000_000

_EVENT = struct.Struct("=QIIII")
_PLACE = 2**32 - 1


class _What(IntEnum):
    """As ``What`` in record/mod.rs."""

    CREATED = 0
    NAMED = 1
    BEGIN = 2
    END_READY = 3
    END_WAITS = 4
    END_WAITS_TASK = 5
    END_WAITS_GATHER = 6
    END_SLEEPS = 7
    END_RESULT = 8
    END_EXCEPTION = 9
    END_CANCELLED = 10
    CALLBACK = 11
    CALLBACK_END = 12
    POLL = 13
    POLLED = 14
    CALL = 15
    CALL_BEGIN = 16
    CALL_END = 17
    CANCEL = 18
    CALL_WAITS = 19


class Outcome(Enum):
    """How a task has ended."""

    RESULT = "result"
    EXCEPTION = "exception"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a program."""

    file: str
    line: int
    function: str


@dataclass(slots=True)
class Span:
    """From when to when, in seconds since the recording began."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.begin


@dataclass(slots=True)
class Wait(Span):
    """A task that does not run, from the end of a step to the beginning of the next."""

    #: ``sleep``, ``task``, ``gather``, ``thread``, ``ready`` (it could go on, others were before
    #: it), or ``future`` for all else.
    kind: str
    #: What is awaited: ``sleep``, ``Lock.acquire``, ``StreamReader.read`` ...
    what: str
    #: The innermost line of Python that waits, where it is known.
    place: Place | None
    #: The task waited for.
    task: "Task | None" = None
    #: The call in a thread that is waited for.
    call: "ThreadCall | None" = None

    @property
    def outside(self) -> bool:
        """Whether the wait is for time, a thread or the world, not for another task."""
        if self.kind in ("sleep", "thread"):
            return True
        return self.kind == "future" and self.what.split(".")[0] not in _INSIDE


# What tasks give each other.
_INSIDE = frozenset(
    {"Lock", "Semaphore", "Event", "Condition", "Barrier", "Queue", "wait", "wait_for"}
    | {"as_completed", "TaskGroup", "gather", "Task", "_wait", "_wait_for_one"}
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a task has used, as far as it was recorded; times are in seconds."""

    steps: int
    #: In its steps: the loop's thread was its own. CPU time, but for what it waited in them: for
    #: the GIL, for a processor, for blocking calls.
    running: float
    #: Between its steps.
    suspended: float
    #: The part of that in which it could have gone on and others were before it, as far as its wait
    #: was for nothing else (``sleep(0)``).
    ready: float


@dataclass(eq=False, slots=True)
class Task:
    """The life of one task."""

    #: Its place among the recording's tasks.
    number: int
    name: str
    #: The qualified name of what it runs.
    runs: str
    created: float
    parent: "Task | None" = None
    #: The line that made it.
    place: Place | None = None
    steps: list[Span] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    ended: float | None = None
    outcome: Outcome | None = None
    #: When it was asked to end, and by which task.
    cancels: "list[tuple[float, Task | None]]" = field(default_factory=list)
    #: Its number in the process: the same as :attr:`rondel.inspect.Task.id`.
    id: int = 0

    @property
    def running(self) -> float:
        """Seconds in its steps."""
        return sum(step.seconds for step in self.steps)

    @property
    def suspended(self) -> float:
        """Seconds between its steps."""
        return sum(wait.seconds for wait in self.waits)

    @property
    def usage(self) -> Usage:
        """Its counters."""
        ready = sum(wait.seconds for wait in self.waits if wait.kind == "ready")
        return Usage(len(self.steps), self.running, self.suspended, ready)


@dataclass(eq=False, slots=True)
class ThreadCall:
    """A call that a thread made for the loop (``to_thread``, ``run_in_executor``)."""

    runs: str
    made: float
    begun: float | None = None
    ended: float | None = None


@dataclass(slots=True)
class Recording:
    """What was recorded; a task that is not over has waits up to the end of it."""

    seconds: float
    tasks: list[Task]
    calls: list[ThreadCall]
    #: When loops slept.
    polls: list[Span]
    #: Events that had no room.
    lost: int

    def by_id(self) -> dict[int, Task]:
        """The tasks by their number in the process: joins them with ``rondel.inspect.tasks()``."""
        return {task.id: task for task in self.tasks}

    def usage(self) -> dict[int, Usage]:
        """Each task's counters, by its number in the process."""
        return {task.id: task.usage for task in self.tasks}


class Recorder:
    """A recording that is going on. Made by :func:`record`."""

    def stop(self) -> Recording:
        """End it. Raises RuntimeError if it has ended already."""
        events, notes, lost = _rondel._recorded()
        return _Reader(notes).read(_EVENT.iter_unpack(events), lost)


def record(*, limit: int = LIMIT, details: bool = True) -> Recorder:
    """Begin to record all Rondel loops of this process.

    ``limit`` events are kept, 24 bytes each; what comes after them is counted. ``details`` are the
    places that make tasks and wait, and the exact time at which a task is made: without them it is
    when the step began that made it. They cost some 0.1 µs a wait and 0.2 µs a task. Raises
    RuntimeError while another recording goes on.
    """
    _rondel._record(limit, details)
    return Recorder()


@dataclass(frozen=True, slots=True)
class _Code:
    """What is told of another process's code object."""

    co_filename: str
    co_qualname: str


def read_answer(answer: dict[str, Any]) -> Recording:
    """The recording in another process's answer (``tracing.rs``)."""
    events = iter(answer["events"])
    notes = [_note_of(note) for note in answer["notes"]]
    return _Reader(notes).read(zip(*[events] * 5, strict=True), answer["lost"])


def _note_of(told: Any) -> object:
    match told:
        case {"code": [file, name]}:
            return _Code(file, name)
        case {"type": name}:
            return _of_type(name)
        case {"place": [file, line, name, awaited]}:
            return _Code(file, name), line, _note_of(awaited)
        case _:
            return told


class _Reader:
    """Makes tasks of events."""

    def __init__(self, notes: list[object]) -> None:
        self._notes = notes
        self._tasks: list[Task] = []
        # By number.
        self._alive: dict[int, Task] = {}
        # The same, over or not: an eager task may get its name after its end.
        self._latest: dict[int, Task] = {}
        self._calls: dict[int, ThreadCall] = {}
        self._all_calls: list[ThreadCall] = []
        # By the address of the future that has its outcome.
        self._by_future: dict[int, ThreadCall] = {}
        self._open: dict[int, float] = {}
        self._waits: dict[int, Wait] = {}

    def read(self, events: Iterable[tuple[int, ...]], lost: int) -> Recording:
        polls: list[Span] = []
        began: int | None = None
        polling: float | None = None
        now = 0.0
        for at, subject, other, number, note in events:
            began = at if began is None else began
            now = (at - began) / 1e9
            match _What(number):
                case _What.CREATED:
                    self._created(now, subject, other, note)
                case _What.NAMED:
                    self._named(subject, other, note)
                case _What.BEGIN:
                    self._begin(now, subject)
                case (
                    _What.END_READY
                    | _What.END_WAITS
                    | _What.END_WAITS_TASK
                    | _What.END_WAITS_GATHER
                    | _What.END_SLEEPS
                ) as what:
                    self._suspended(now, subject, what, other, note)
                case _What.END_RESULT:
                    self._over(now, subject, Outcome.RESULT)
                case _What.END_EXCEPTION:
                    self._over(now, subject, Outcome.EXCEPTION)
                case _What.END_CANCELLED:
                    self._over(now, subject, Outcome.CANCELLED)
                case _What.POLL:
                    polling = now
                case _What.POLLED:
                    if polling is not None:
                        polls.append(Span(polling, now))
                    polling = None
                case _What.CALL:
                    call = ThreadCall(self._runs(note), now)
                    self._calls[subject] = self._by_future[other] = call
                    self._all_calls.append(call)
                case _What.CALL_BEGIN:
                    if subject in self._calls:
                        self._calls[subject].begun = now
                case _What.CALL_END:
                    if subject in self._calls:
                        self._calls.pop(subject).ended = now
                case _What.CALL_WAITS:
                    if subject in self._calls:
                        self._by_future[other] = self._calls[subject]
                case _What.CANCEL:
                    self._task(now, subject).cancels.append((now, self._alive.get(other)))
                case _What.CALLBACK | _What.CALLBACK_END:
                    pass
        for wait in self._waits.values():
            wait.end = now
        for subject, begin in self._open.items():
            self._alive[subject].steps.append(Span(begin, now))
        return Recording(now, self._tasks, self._all_calls, polls, lost)

    # -- what is known

    def _note(self, note: int) -> object:
        return self._notes[note - 1] if note else None

    def _runs(self, note: int) -> str:
        return name_of(self._note(note))

    def _place(self, note: int) -> tuple[Place | None, str]:
        """A line, and what is awaited there."""
        found = self._note(note)
        if not isinstance(found, tuple):
            return None, ""
        code, line, awaited = found
        place = None
        if isinstance(code, CodeType | _Code):
            place = Place(code.co_filename, line, code.co_qualname)
        return place, name_of(awaited)

    def _task(self, now: float, subject: int) -> Task:
        task = self._alive.get(subject)
        if task is None:
            task = self._alive[subject] = Task(len(self._tasks), "?", "?", now, id=subject)
            self._tasks.append(task)
        return task

    # -- events

    def _created(self, now: float, subject: int, parent: int, note: int) -> None:
        runs, maker = self._runs(note), self._alive.get(parent)
        task = Task(len(self._tasks), "?", runs, now, maker, id=subject)
        self._alive[subject] = self._latest[subject] = task
        self._open.pop(subject, None)
        self._waits.pop(subject, None)
        self._tasks.append(task)

    def _named(self, subject: int, number: int, note: int) -> None:
        task = self._latest.get(subject)
        if task is None:
            return
        if number == _PLACE:
            task.place, _ = self._place(note)
        else:
            task.name = str(self._note(note)) if note else f"Task-{number}"

    def _begin(self, now: float, subject: int) -> None:
        self._task(now, subject)
        if subject in self._open:
            return  # an eager task's first step, told twice
        wait = self._waits.pop(subject, None)
        if wait is not None:
            wait.end = now
        self._open[subject] = now

    def _step_over(self, now: float, subject: int) -> Task:
        task = self._task(now, subject)
        begin = self._open.pop(subject, None)
        if begin is not None:
            task.steps.append(Span(begin, now))
        return task

    def _suspended(self, now: float, subject: int, what: _What, other: int, note: int) -> None:
        if subject in self._waits:
            return
        task = self._step_over(now, subject)
        place, awaited = self._place(note)
        awaited = awaited or task.runs
        wait = Wait(now, now, "future", awaited, place)
        if what is _What.END_SLEEPS:
            wait.kind = "sleep"
        elif what is _What.END_READY:
            wait.kind = "ready"
        elif what is _What.END_WAITS_TASK:
            wait.kind, wait.task = "task", self._alive.get(other)
        elif what is _What.END_WAITS_GATHER:
            wait.kind = "gather"
        elif other in self._by_future:
            wait.kind, wait.call = "thread", self._by_future[other]
        self._waits[subject] = wait
        task.waits.append(wait)

    def _over(self, now: float, subject: int, outcome: Outcome) -> None:
        task = self._step_over(now, subject)
        if task.outcome is None:
            task.ended, task.outcome = now, outcome
        self._alive.pop(subject, None)


def name_of(what: object) -> str:
    """How a program would write what a note is about."""
    if isinstance(what, str):
        return what
    if isinstance(what, CodeType | _Code):
        return what.co_qualname.replace("<locals>.", "")
    return _of_type(what.__name__) if isinstance(what, type) else ""


def _of_type(name: str) -> str:
    if name == "_GatheringFuture":
        return "gather"
    name = name.removesuffix("_coroutine")
    kind, _, method = name.partition("_")
    if kind and kind[0].isupper() and method:
        return f"{kind}.{_METHODS.get(method, method)}"
    return name


_METHODS = {"aenter": "acquire", "aexit": "release", "next": "readline"}


def descendants(tasks: list[Task]) -> Iterator[tuple[int, Task]]:
    """Every task with its depth, parents before their children, each in the order of creation."""
    children: dict[Task | None, list[Task]] = {}
    for task in tasks:
        children.setdefault(task.parent, []).append(task)
    waiting = [(0, task) for task in reversed(children.get(None, []))]
    while waiting:
        depth, task = waiting.pop()
        yield depth, task
        waiting += [(depth + 1, child) for child in reversed(children.get(task, []))]
