"""What a snapshot says, as objects: made from the JSON that the native half writes.

``Snapshot`` JSON is described in ``crates/rondel/src/inspect/snapshot.rs``.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Frame",
    "LoopStats",
    "LoopWindow",
    "Request",
    "Stall",
    "StallRequest",
    "Task",
    "Tree",
    "Wait",
    "age_of",
    "lag_at",
    "read_ended",
    "read_requests",
    "read_tasks",
]


@dataclass(frozen=True, slots=True)
class Frame:
    """A place in the code: a link of an await chain, or a frame of a stack."""

    #: ``<native>`` for what Rondel runs without Python code.
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        if self.file == "<native>":
            return self.function
        return f"{self.function} ({self.file}:{self.line})"


@dataclass(frozen=True, slots=True)
class Wait:
    """What a task waits for."""

    #: ``sleep``, ``task``, ``gather``, ``thread``, ``call`` (a lock, a queue, a socket …: see
    #: ``call``), ``future``, ``nothing`` (its step is scheduled), ``other`` or ``deep`` (more links
    #: than are shown).
    kind: str
    #: What was called: ``Lock.acquire``, ``Queue.get``, ``to_thread``.
    call: str | None = None
    #: What it is about: a task's name, a thread's function, a lock's class and address.
    what: str | None = None
    #: Seconds left of a sleep.
    left: float | None = None
    #: Ids of the tasks that it waits for: one, or the first pending ones of a gather.
    tasks: tuple[int, ...] = ()
    #: How many of a gather's are done, and how many there are.
    done: int | None = None
    total: int | None = None

    def __str__(self) -> str:
        match self.kind:
            case "sleep":
                return f"sleep, {self.left:.1f} s left"
            case "task":
                return f"task {self.what!r}"
            case "gather":
                return f"gather, {self.done} of {self.total} done"
            case "thread":
                return f"thread: {self.what or self.call}"
            case "call":
                return f"{self.call} {self.what}" if self.what else str(self.call)
            case "other":
                return str(self.what)
            case _:
                return self.kind


@dataclass(frozen=True, slots=True)
class Task:
    """A task that is not done."""

    #: Its number among all tasks of the process (not that of ``Task-N``: named tasks count here).
    id: int
    name: str
    #: The number of its loop.
    loop: int
    #: ``running``, ``ready`` (its step is scheduled), ``created`` (its first), ``sleeping`` or
    #: ``waiting``.
    state: str
    #: The coroutine's qualified name.
    coro: str
    #: The await chain, outermost first.
    stack: tuple[Frame, ...]
    #: None while it runs.
    waits_for: Wait | None
    #: The id of the task that created it, None if none did.
    parent: int | None
    #: How often ``cancel()`` was called and not taken back.
    cancels: int = 0
    #: Where it was created, if ``rondel.watch_tasks()`` was on then.
    created: Frame | None = None
    #: Seconds since it was created, to within a second or so; None if that is not known.
    age: float | None = None
    #: The number of the request in whose course it was created, while that is being answered.
    request: int | None = None


@dataclass(frozen=True, slots=True)
class LoopStats:
    """What a running loop counts about itself. Counts are since it was made."""

    id: int
    #: ``threading.get_ident()`` of its thread.
    thread: int
    #: ``awake`` (it runs callbacks) or ``idle`` (it waits).
    phase: str
    #: Seconds in that phase.
    in_phase: float
    #: Seconds since the present run began, and the share of them that it was awake for.
    age: float
    busy: float
    #: Seconds that it waited.
    idle: float
    #: Steps of tasks, and callbacks.
    steps: int
    turns: int
    polls: int
    #: Callbacks that are ready, timers, tasks that are not done: as of the last poll.
    ready: int
    timers: int
    tasks: int
    #: How many times timers were late by less than 1 µs, 2 µs, 4 µs …
    lag: tuple[int, ...] = field(repr=False)

    def lag_at(self, share: float) -> float:
        """Seconds that this share of the timers (0 to 1) was late by at most."""
        return lag_at(self.lag, share)

    def since(self, earlier: "LoopStats") -> "LoopWindow":
        """What the loop has done since an earlier look at it.

        If it has ended and begun to run again in between, ``seconds`` and ``busy`` are those of the
        present run. Raises ValueError if ``earlier`` is of another loop, or the later of the two.
        """
        if earlier.id != self.id:
            raise ValueError(f"of loop {earlier.id}, not of loop {self.id}")
        if earlier.steps > self.steps or earlier.polls > self.polls:
            raise ValueError("the look that is given as the earlier one is the later one")
        seconds = self.age - earlier.age
        busy = self.busy
        if seconds < 0:
            seconds = self.age
        elif seconds > 0:
            busy = 1 - (self._waited - earlier._waited) / seconds
        else:
            busy = float(self.phase == "awake")
        lag = zip(self.lag, earlier.lag, strict=True)
        return LoopWindow(
            id=self.id,
            seconds=seconds,
            busy=min(max(busy, 0.0), 1.0),
            steps=self.steps - earlier.steps,
            turns=self.turns - earlier.turns,
            polls=self.polls - earlier.polls,
            # Each is a counter of 32 bits.
            lag=tuple((now - then) % 2**32 for now, then in lag),
        )

    @property
    def _waited(self) -> float:
        """Seconds that it waited, with the wait that is going on."""
        return self.idle + (self.in_phase if self.phase == "idle" else 0.0)


@dataclass(frozen=True, slots=True)
class LoopWindow:
    """What a loop did between two looks at its counters: ``later.since(earlier)``."""

    id: int
    #: Seconds between the two, and the share of them that it was awake for.
    seconds: float
    busy: float
    #: Steps of tasks and callbacks, turns and polls meanwhile.
    steps: int
    turns: int
    polls: int
    #: How many of the timers that came due meanwhile were late by less than 1 µs, 2 µs, 4 µs …
    lag: tuple[int, ...] = field(repr=False)

    def lag_at(self, share: float) -> float:
        """Seconds that this share of those timers (0 to 1) was late by at most; 0 without any."""
        return lag_at(self.lag, share)


def lag_at(counts: tuple[int, ...], share: float) -> float:
    """The same of any counts of late timers."""
    wanted, seen = share * sum(counts), 0
    for power, count in enumerate(counts):
        seen += count
        if count and seen >= wanted:
            return float(2**power) * 1e-6
    return 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """A request that a server of this process answers, or has answered."""

    #: Its number among all requests of the process.
    id: int
    method: str
    #: As it came, without its query string; cut at some 100 bytes, with ``…`` then.
    path: str
    #: ``queued`` (for its turn, or for a thread), ``loop`` (its task runs or is about to),
    #: ``waiting`` (its task waits), ``thread`` (a thread is at it), ``ended``.
    state: str
    #: Seconds since it came, or in all.
    seconds: float
    #: The view that it has come to: ``shelf.views.index``. Django's, Starlette's, FastAPI's and
    #: Flask's are known; of one that has ended, if it took 0.1 s or more.
    view: str | None = None
    #: The id of the task that answers it; None if a thread does.
    task: int | None = None
    #: Calls in threads made in its course: ``sync_to_async``, ``to_thread``, ``run_in_executor``,
    #: and a request that a thread answers as a whole.
    hops: int = 0
    #: Seconds that these have waited for a thread, and run there.
    hop_wait: float = 0.0
    thread_run: float = 0.0
    #: ``threading.get_ident()`` of the thread that is at it.
    thread: int | None = None
    #: The stack of that thread, innermost first, if it was asked for.
    stack: tuple[Frame, ...] = ()
    #: Of one that has ended; 499 if the client left before there was one, None if it was dropped.
    status: int | None = None
    websocket: bool = False


@dataclass(frozen=True, slots=True)
class StallRequest:
    """The request in whose course a loop has stalled."""

    id: int
    method: str
    path: str
    view: str | None = None

    def __str__(self) -> str:
        view = f" ({self.view})" if self.view is not None else ""
        return printable(f"{self.method} {self.path}{view}")


def printable(text: str) -> str:
    """With what would act on a terminal, or end a line of a log, written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@dataclass(frozen=True, slots=True)
class Stall:
    """A step that kept a loop from everything else."""

    loop: int
    thread: int
    #: Seconds since 1970, when it was noticed (the first time, if it happened more often).
    at: float
    #: Seconds so far, in all if it is ``over``; the longest, if it happened more often.
    seconds: float
    over: bool
    #: The GIL could not be had: native code held it.
    native: bool
    #: How often at this place within a minute.
    count: int
    #: The stack of the loop's thread, innermost first; empty if it could not be taken.
    stack: tuple[Frame, ...]
    #: The task that took the step; None in a callback.
    task: int | None = None
    name: str | None = None
    coro: str | None = None
    #: ``file:line`` where the task was created, if ``rondel.watch_tasks()`` was on then.
    created: str | None = None
    #: The request that the task is of.
    request: StallRequest | None = None

    def __str__(self) -> str:
        who = f"task {self.name!r} ({self.coro})" if self.name is not None else "a callback"
        lines = [f"the event loop has been in one step of {who} for {self.seconds * 1000:.0f} ms"]
        if self.over:
            lines = [f"the event loop was in one step of {who} for {self.seconds * 1000:.0f} ms"]
        if self.count > 1:
            lines[0] += f" (the longest of {self.count})"
        if self.native:
            lines.append("  the GIL is held by native code")
        if self.request is not None:
            lines.append(f"  the request: {self.request}")
        if self.created:
            lines.append(f"  the task was created at {self.created}")
        for frame in self.stack:
            if frame.function == "EventLoop.run_forever":
                # Below it is who runs the loop.
                break
            lines.append(f"  {frame}")
        return "\n".join(lines)


def age_of(number: int, ages: list[tuple[int, float]]) -> float | None:
    """Seconds since the task of this number was created, by samples of the count of tasks."""
    at = bisect_left(ages, number, key=lambda sample: sample[0])
    return ages[at][1] if at < len(ages) else (0.0 if ages else None)


def read_tasks(data: dict[str, Any]) -> list[Task]:
    """The tasks of a snapshot."""
    frames = [Frame(*frame) for frame in data["frames"]]
    chains = [tuple(frames[i] for i in chain) for chain in data["chains"]]
    ages = data["ages"]
    return [
        Task(
            id=task["id"],
            name=task["name"],
            loop=task["loop"],
            state=task["state"],
            coro=task["coro"],
            stack=chains[task["chain"]],
            waits_for=read_wait(task["on"]) if "on" in task else None,
            parent=task.get("parent"),
            cancels=task.get("cancels", 0),
            created=Frame(*task["created"]) if "created" in task else None,
            age=age_of(task["id"], ages),
            request=task.get("request"),
        )
        for task in data["tasks"]
    ]


def read_wait(on: dict[str, Any]) -> Wait:
    """What a task waits for."""
    tasks = (on["task"],) if "task" in on else tuple(on.get("tasks", ()))
    rest = {key: value for key, value in on.items() if key not in ("task", "tasks")}
    known = {
        key: rest[key] for key in ("kind", "call", "what", "left", "done", "total") if key in rest
    }
    return Wait(tasks=tasks, **known)


def read_stats(data: dict[str, Any]) -> list[LoopStats]:
    """The counters of each loop."""
    names = LoopStats.__dataclass_fields__
    found = []
    for one in data["loops"]:
        known: dict[str, Any] = {key: value for key, value in one.items() if key in names}
        known["lag"] = tuple(known["lag"])
        found.append(LoopStats(**known))
    return found


def _known(cls: type, data: dict[str, Any], *but: str) -> dict[str, Any]:
    """What a class has fields for: later versions may tell more."""
    names = cls.__dataclass_fields__  # type: ignore[attr-defined]
    return {key: value for key, value in data.items() if key in names and key not in but}


def read_stall(data: dict[str, Any]) -> Stall:
    """One stall."""
    stack = tuple(Frame(*frame) for frame in data["stack"])
    told = data.get("request")
    request = None if told is None else StallRequest(**_known(StallRequest, told))
    return Stall(stack=stack, request=request, **_known(Stall, data, "stack", "request"))


def read_requests(data: dict[str, Any]) -> list[Request]:
    """Those that are being answered."""
    return [_request(one, one["state"], one["age"]) for one in data["requests"]]


def read_ended(data: dict[str, Any]) -> list[Request]:
    """Those that have ended, the one that ended first in front; the slow ones with their views."""
    found = {one["id"]: one for kind in ("recent", "slow") for one in data[kind]}
    ended = sorted(found.values(), key=lambda one: -one["ago"])
    return [_request(one, "ended", one["seconds"]) for one in ended]


def _request(data: dict[str, Any], state: str, seconds: float) -> Request:
    known = _known(Request, data, "stack", "state", "seconds")
    stack = tuple(Frame(*frame) for frame in data.get("stack", ()))
    return Request(state=state, seconds=seconds, stack=stack, **known)


class Tree:
    """Tasks by who created whom. ``str()`` groups those that wait alike."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data
        tasks = read_tasks(data)
        known = {task.id for task in tasks}
        self.roots: list[Task] = []
        self._children: dict[int, list[Task]] = {}
        for task in sorted(tasks, key=lambda task: task.id):
            if task.parent in known and task.parent is not None:
                self._children.setdefault(task.parent, []).append(task)
            else:
                self.roots.append(task)

    def children(self, task: Task) -> list[Task]:
        """Those that this task created and that are not done."""
        return self._children.get(task.id, [])

    def __str__(self) -> str:
        from rondel.inspect._text import tree_lines

        return "\n".join(tree_lines(self._data))
