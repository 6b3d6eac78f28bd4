"""Asking a process, in threads of their own: a screen must answer keys while a process does not.

One thread asks for the counters, which need no GIL, another for what the view shows. Each asks
again only when its last answer came, and no sooner than what that cost the process allows: at most
a tenth of its time. What they find goes to ``post``, in the order in which it came.

A thread that waits for an answer cannot be ended; they are daemons.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rondel.cli.inspect import program
from rondel.cli.inspect_client import InspectError, Recorder, ask, ask_requests, processes
from rondel.cli.top.figures import Sample, figures
from rondel.cli.top.proc import look
from rondel.cli.top.tasks import TaskBook
from rondel.cli.top.view import Answer, Choice, Question
from rondel.inspect._model import Stall, read_stall
from rondel.inspect.recording import Recording, read_answer

__all__ = [
    "FIRST",
    "Ended",
    "Failed",
    "Found",
    "News",
    "Pulse",
    "Want",
    "Watcher",
    "answer",
    "enough",
    "pulse",
    "requests",
]

# Seconds for the counters: they are told at once, unless the process is stopped.
_SHORT = 2.0
#: Seconds from the first look to the second, so that there are figures soon.
FIRST = 0.25
# How many times what an answer took of the process's time is left to it before the next.
_SPARED = 9
# Events of a recording that are worth their while; a step makes one.
_EVENTS = 100_000
# Seconds at the end for a recording to be ended.
_LAST = 1.0
# Seconds that a process goes on recording if nobody ends it.
_LATE = 5.0


@dataclass(frozen=True, slots=True)
class Want:
    """What is looked at."""

    #: None if one is to be chosen.
    pid: int | None
    question: Question
    #: One item is looked into: its tasks are wanted too.
    deep: bool = False
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a process always tells."""

    pid: int
    sample: Sample
    stalls: list[Stall]


@dataclass(frozen=True, slots=True)
class Found:
    """The answer for a view."""

    want: Want
    answer: Answer
    #: Seconds, of the clock of ``Sample.at``.
    at: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Who was asked for what and did not answer: ``question`` is None for the counters."""

    pid: int | None
    question: Question | None
    error: InspectError


@dataclass(frozen=True, slots=True)
class Ended:
    """The process is no more."""

    pid: int


News = Pulse | Found | Failed | Ended


def pulse(pid: int) -> Pulse:
    """Its counters and stalls. Raises InspectError."""
    # Before it is asked: the thread that answers would be seen to run each time.
    at, process = time.monotonic(), look(pid, threads=True)
    sample = Sample(at, ask(pid, "stats", patience=_SHORT), process)
    stalls = ask(pid, "stalls", patience=_SHORT)["stalls"]
    return Pulse(pid, sample, [read_stall(one) for one in stalls])


def enough(steps: float, interval: float) -> float:
    """Seconds of a recording, at so many steps a second: many events tell no more than some."""
    return min(interval, max(_EVENTS / max(steps, 1.0), 0.02))


def answer(
    want: Want, *, seconds: float, pause: Callable[[float], object] = time.sleep
) -> tuple[Answer, float]:
    """What a view is answered, and how many seconds of its time that cost the process.

    ``seconds``: how long a recording may be; ``pause`` waits for it, and may return early. Raises
    InspectError.
    """
    pid = want.pid
    if pid is None or want.question is Question.NOTHING:
        return Answer(), 0.0
    match want.question:
        case Question.TASKS:
            data = ask(pid, "tasks")
            return Answer(book=TaskBook(data)), float(data["took"])
        case Question.RECORDED:
            recorded, remark, cost = _record(pid, seconds, pause)
            data = ask(pid, "tasks")
            return Answer(book=TaskBook(data, recorded), remark=remark), data["took"] + cost
        case _:
            return _requests(pid, want.deep)


def requests(pid: int, *, stacks: bool = False) -> dict[str, Any] | None:
    """The requests, as of ``ask_requests``; None if the process's Rondel tells of none.

    Raises InspectError.
    """
    try:
        return ask_requests(pid, stacks=stacks)
    except InspectError as error:
        if error.kind != "unknown":
            raise
        return None


def _requests(pid: int, deep: bool) -> tuple[Answer, float]:
    began = time.monotonic()
    told = requests(pid, stacks=deep)
    if told is None:
        return Answer(remark="the process's Rondel does not tell of requests"), 0.0
    cost = time.monotonic() - began
    if not deep:
        return Answer(requests=told), cost
    data = ask(pid, "tasks")
    return Answer(requests=told, book=TaskBook(data)), cost + float(data["took"])


def _record(
    pid: int, seconds: float, pause: Callable[[float], object]
) -> tuple[Recording | None, str, float]:
    """A recording, what there is to say of it, and what it cost the process."""
    began = time.monotonic()
    try:
        recorder = Recorder(pid, seconds + _LATE)
    except InspectError as error:
        if error.kind != "busy":
            raise
        return None, "somebody else records the process: what tasks do is not known", 0.0
    cost = time.monotonic() - began
    with recorder:
        pause(seconds)
        began = time.monotonic()
        recorded = read_answer(recorder.fetch())
        cost += time.monotonic() - began
    remark = f"{recorded.seconds * 1000:.0f} ms were recorded"
    if recorded.lost:
        remark += f"; {recorded.lost} events had no room, it does more than is shown"
    return recorded, remark, cost


def _told(error: Exception) -> InspectError:
    """The error, or that an answer was none of those that are known: another version's, say."""
    if isinstance(error, InspectError):
        return error
    return InspectError(f"its answer is not understood: {type(error).__name__}: {error}")


class _Thread(threading.Thread):
    """Does something again and again, until it is told not to."""

    def __init__(self, work: Callable[[], float]) -> None:
        super().__init__(name="rondel-top", daemon=True)
        self._work = work
        self._again = threading.Event()
        self.over = False

    def run(self) -> None:
        while True:
            # First: what is wanted from here on wakes the pause below.
            self._again.clear()
            if self.over:
                return
            self.pause(self._work())

    def pause(self, seconds: float) -> None:
        """Until so many seconds are over, or something else is wanted."""
        self._again.wait(max(seconds, 0.0))

    def wake(self) -> None:
        """Something else is wanted."""
        self._again.set()


class Watcher:
    """Asks for what is wanted, again and again."""

    def __init__(self, want: Want, interval: float, post: Callable[[News], None]) -> None:
        self._interval, self._post = interval, post
        self.want = want
        #: Entries of the ready queue a second, as the last figures have it: how much is recorded.
        self.steps = 0.0
        self._first = True
        self._records = False
        self._earlier: dict[int, Sample] = {}
        self._threads = [_Thread(self._pulse), _Thread(self._view)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No more questions. A recording is ended, or ends itself if that takes too long."""
        for thread in self._threads:
            thread.over = True
            thread.wake()
        if self._records:
            self._threads[1].join(_LAST)

    def look_at(self, want: Want) -> None:
        """From now on, this is wanted."""
        if want == self.want:
            return
        self._first = self._first or want.pid != self.want.pid
        self.want = want
        for thread in self._threads:
            thread.wake()

    def _pulse(self) -> float:
        want = self.want
        if want.frozen or want.pid is None:
            return self._interval
        began = time.monotonic()
        try:
            found: News = pulse(want.pid)
        except Exception as error:
            gone = look(want.pid) is None
            found = Ended(want.pid) if gone else Failed(want.pid, None, _told(error))
        self._post(found)
        wait, self._first = (FIRST if self._first else self._interval), False
        return min(wait, self._interval) - (time.monotonic() - began)

    def _view(self) -> float:
        want = self.want
        if want.frozen or want.question is Question.NOTHING:
            return self._interval
        began, cost, recorded = time.monotonic(), 0.0, False
        first = not self._earlier
        try:
            if want.question is Question.PROCESSES:
                found = Answer(processes=self._processes())
            else:
                seconds = enough(self.steps, self._interval)
                self._records = want.question is Question.RECORDED
                found, cost = answer(want, seconds=seconds, pause=self._threads[1].pause)
                recorded = found.book is not None and found.book.recorded is not None
            self._post(Found(want, found, time.monotonic()))
        except Exception as error:
            self._post(Failed(want.pid, want.question, _told(error)))
        finally:
            self._records = False
        if want.question is Question.PROCESSES and first:
            return min(FIRST, self._interval)
        took = time.monotonic() - began
        if recorded:
            # The recording was the wait.
            return max(_SPARED * cost, self._interval / 10)
        # A large answer is work here as well.
        return max(self._interval - took, _SPARED * cost, min(took, self._interval * 4))

    def _processes(self) -> list[Choice]:
        earlier, self._earlier = self._earlier, {}
        found = []
        for pid, path in processes():
            try:
                told: dict[str, Any] = ask(pid, "stats", path, _SHORT)
            except InspectError:
                found.append(Choice(pid, program(pid), None))
                continue
            sample = Sample(time.monotonic(), told, look(pid))
            self._earlier[pid] = sample
            found.append(Choice(pid, program(pid), figures(earlier.get(pid), sample)))
        return found
