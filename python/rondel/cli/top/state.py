"""What is being looked at: news come in, keys change it. Pure; ``render.py`` draws it.

Keys are names (``up``, ``enter``, ``esc`` …) or characters. What was answered is kept as it came,
until the next answer: moving, sorting, filtering and freezing ask nobody.
"""

import re
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from rondel.cli.top.asking import Ended, Failed, Found, News, Pulse, Want
from rondel.cli.top.figures import Figures, Sample, figures
from rondel.cli.top.tasks import Node
from rondel.cli.top.view import Answer, Choice, Pick, View
from rondel.cli.top.views import PROCESSES, VIEWS

__all__ = ["State"]

# Shares of time that are kept for a loop.
_HISTORY = 120


@dataclass(slots=True)
class _Place:
    """Where one is in a view."""

    key: Hashable = None
    at: int = 0
    #: The first line that is shown.
    top: int = 0
    sort: int | None = None
    reverse: bool = False


@dataclass(slots=True)
class State:
    """All there is to draw."""

    interval: float
    #: None: one is to be chosen.
    pid: int | None = None
    view: View = VIEWS[0]
    #: What is shown of a process; the list of processes has one of its own.
    filter: str = ""
    filter_processes: str = ""
    #: The filter as it is being typed; None if it is not.
    typing: str | None = None
    frozen: bool = False
    help: bool = False
    #: The item that is looked into, its text, and the first line of that.
    inside: Any = None
    story: list[str] = field(default_factory=list)
    scroll: int = 0
    #: How many lines of a table or text are on the screen, as of the last drawing.
    page: int = 10
    #: How many lines the text has, as of the last drawing.
    length: int = 0
    quit: bool = False
    #: The process has ended.
    ended: bool = False
    figures: Figures | None = None
    history: dict[int, deque[float]] = field(default_factory=dict)
    #: What went wrong, by what was asked.
    problems: dict[object, str] = field(default_factory=dict)
    #: A word about the last key.
    message: str = ""
    _sample: Sample | None = None
    _answers: dict[View, Answer] = field(default_factory=dict)
    _places: dict[View, _Place] = field(default_factory=dict)
    _turned: set[Hashable] = field(default_factory=set)
    _items: list[Any] | None = None
    _stalls: Answer = field(default_factory=Answer)

    def __post_init__(self) -> None:
        if self.pid is None:
            self.view = PROCESSES

    # -- what is shown

    @property
    def want(self) -> Want:
        """What is to be asked."""
        return Want(self.pid, self.view.question, self.inside is not None, self.frozen)

    @property
    def answer(self) -> Answer:
        """What the view was answered last."""
        if self.view.name == "stalls":
            return self._stalls
        return self._answers.get(self.view, Answer())

    @property
    def answered(self) -> bool:
        """Whether there has been an answer for the view."""
        if self.view.name in ("stalls", "threads"):
            return self.figures is not None
        return self.view in self._answers

    @property
    def stalls(self) -> int:
        """Places that have kept a loop for too long."""
        return len(self._stalls.stalls)

    @property
    def place(self) -> _Place:
        """Where one is in the view."""
        return self._places.setdefault(self.view, _Place())

    @property
    def kept(self) -> str:
        """The filter of the view."""
        return self.filter_processes if self.view is PROCESSES else self.filter

    @kept.setter
    def kept(self, text: str) -> None:
        if self.view is PROCESSES:
            self.filter_processes = text
        else:
            self.filter = text

    @property
    def wanted(self) -> re.Pattern[str] | None:
        """The filter; what is no regular expression stands for itself."""
        text = self.kept if self.typing is None else self.typing
        if not text:
            return None
        try:
            return re.compile(text, re.IGNORECASE)
        except (re.error, OverflowError, RecursionError):
            return re.compile(re.escape(text), re.IGNORECASE)

    @property
    def items(self) -> list[Any]:
        """The lines of the view."""
        if self._items is None:
            place = self.place
            pick = Pick(self.wanted, place.sort, place.reverse, frozenset(self._turned))
            self._items = self.view.items(self.answer, self.figures, pick)
            self._follow()
        return self._items

    def _follow(self) -> None:
        """The same item stays selected, wherever it is now."""
        place, items = self.place, self._items or []
        last = max(len(items) - 1, 0)
        if place.key is not None:
            near = min(place.at, last)
            if items and self.view.key(items[near]) == place.key:
                place.at = near
                return
            for at, item in enumerate(items):
                if self.view.key(item) == place.key:
                    place.at = at
                    return
        place.at = min(place.at, last)
        # At the top one stays at the top, until one has moved.
        place.key = self.view.key(items[place.at]) if items and place.at else None

    @property
    def selected(self) -> Any:
        """The item that is selected; None without any."""
        items = self.items
        return items[self.place.at] if items else None

    def inside_now(self) -> Any:
        """The item that is looked into, as of the last answer; None if it is no more."""
        key = self.view.key(self.inside)
        at = self.place.at
        items = self.items
        if at < len(items) and self.view.key(items[at]) == key:
            return items[at]
        return next((item for item in items if self.view.key(item) == key), None)

    # -- news

    def tell(self, news: News) -> None:
        """Takes in what was found."""
        if self.frozen and not isinstance(news, Ended):
            return
        match news:
            case Pulse():
                if news.pid == self.pid:
                    self.problems.pop(None, None)
                    self._take(news)
            case Found():
                if news.want.pid == self.pid:
                    self._found(news)
            case Failed():
                if news.pid == self.pid:
                    self.problems[news.question] = str(news.error)
            case Ended():
                self.ended = self.ended or news.pid == self.pid

    def _take(self, news: Pulse) -> None:
        if self._sample is not None and news.sample.at <= self._sample.at:
            return
        if self._is_another(news.sample):
            self.ended = True
            return
        self.figures = figures(self._sample, news.sample)
        self._sample = news.sample
        self._stalls = Answer(stalls=news.stalls)
        for loop in self.figures.loops:
            if loop.window is not None:
                past = self.history.setdefault(loop.now.id, deque(maxlen=_HISTORY))
                past.append(loop.window.busy)
        if self.view.name in ("stalls", "threads"):
            self._items = None

    def _is_another(self, sample: Sample) -> bool:
        """Whether the process has ended and its number is another one's."""
        before = self._sample.process if self._sample else None
        now = sample.process
        return before is not None and now is not None and before.started != now.started

    def _found(self, news: Found) -> None:
        for view in (*VIEWS, PROCESSES):
            if view.question is news.want.question:
                self.problems.pop(view.question, None)
                self._answers[view] = news.answer
        if self.view.question is news.want.question:
            self._items = None

    # -- keys

    def press(self, key: str) -> None:
        """Does what a key stands for."""
        self.message = ""
        if self.typing is not None:
            self._type(key)
        elif self.help:
            self._press_help(key)
        elif self.inside is not None:
            self._press_inside(key)
        else:
            self._press(key)

    def _type(self, key: str) -> None:
        assert self.typing is not None
        match key:
            case "enter":
                self.kept, self.typing = self.typing, None
            case "esc":
                self.typing = None
            case "backspace":
                self.typing = self.typing[:-1]
            case _ if len(key) == 1 and key.isprintable():
                self.typing += key
            case _:
                return
        self._items = None

    def _press_help(self, key: str) -> None:
        moved = self._moved(key, self.scroll, self.length - self.page)
        if moved is None:
            self.help, self.scroll = False, 0
            self.quit = key == "q"
        else:
            self.scroll = moved

    def _press_inside(self, key: str) -> None:
        match key:
            case "q":
                self.quit = True
            case "?" | "f1":
                self.help, self.scroll = True, 0
            case "esc" | "left" | "backspace" | "enter" | "h":
                self.inside, self.scroll = None, 0
            case " ":
                self._freeze()
            case _:
                moved = self._moved(key, self.scroll, self.length - self.page)
                if moved is not None:
                    self.scroll = moved

    def _press(self, key: str) -> None:
        match key:
            case "q":
                self.quit = True
            case "?" | "f1":
                self.help, self.scroll = True, 0
            case "esc":
                self._back()
            case " ":
                self._freeze()
            case "/":
                self.typing = self.kept
            case "s" | ">":
                self._sort(1)
            case "<":
                self._sort(-1)
            case "r":
                self.place.reverse = not self.place.reverse
                self._items = None
            case "p":
                self._show(PROCESSES)
            case "tab" | "backtab":
                self._turn(1 if key == "tab" else -1)
            case "enter":
                self._enter()
            case "right" | "l" | "+":
                self._open(True)
            case "left" | "h" | "-":
                self._open(False)
            case _ if key in "12345" and self.pid is not None:
                self._show(VIEWS[int(key) - 1])
            case _:
                moved = self._moved(key, self.place.at, len(self.items) - 1)
                if moved is not None:
                    self._move(moved)

    def _moved(self, key: str, at: int, last: int) -> int | None:
        steps = {
            "up": -1,
            "k": -1,
            "down": 1,
            "j": 1,
            "pgup": -self.page,
            "pgdn": self.page,
            "home": -at,
            "g": -at,
            "end": last,
            "G": last,
        }
        if key not in steps:
            return None
        return max(0, min(at + steps[key], last))

    def _move(self, at: int) -> None:
        place, items = self.place, self.items
        place.at = at
        place.key = self.view.key(items[at]) if items else None

    def _back(self) -> None:
        """Out of what one is in: the filter, then the choice of a process."""
        if self.kept:
            self.kept = ""
            self._items = None
        elif self.view is PROCESSES and self.pid is not None:
            self._show(VIEWS[0])

    def _freeze(self) -> None:
        self.frozen = not self.frozen

    def _sort(self, step: int) -> None:
        """By the next column; behind the last comes the view's own order."""
        place = self.place
        count = len(self.view.columns)
        at = (count if place.sort is None else place.sort) + step
        at %= count + 1
        place.sort = None if at == count else at
        self._items = None
        name = None if place.sort is None else self.view.columns[place.sort].name
        self.message = "in its own order" if name is None else f"sorted by {name}"

    def _show(self, view: View) -> None:
        self.view, self.inside, self.scroll = view, None, 0
        self._items = None

    def _turn(self, step: int) -> None:
        if self.view in VIEWS:
            self._show(VIEWS[(VIEWS.index(self.view) + step) % len(VIEWS)])

    def _enter(self) -> None:
        item = self.selected
        if item is None:
            return
        if isinstance(item, Choice):
            self.choose(item.pid)
        elif self.view.story(item, self.answer):
            self._move(self.place.at)
            self.inside, self.story, self.scroll = item, [], 0

    def choose(self, pid: int) -> None:
        """Look into that process."""
        if pid != self.pid:
            self.pid, self.figures, self._sample = pid, None, None
            self._answers = {view: it for view, it in self._answers.items() if view is PROCESSES}
            self._places = {view: it for view, it in self._places.items() if view is PROCESSES}
            self._stalls, self.frozen, self.filter = Answer(), False, ""
            self.history.clear()
            self.problems.clear()
            self._turned.clear()
        self._show(VIEWS[0])

    def _open(self, wanted: bool) -> None:
        item = self.selected
        if isinstance(item, Node) and item.open is not None and item.open is not wanted:
            self._turned ^= {item.key}
            self._move(self.place.at)
            self._items = None
        elif not wanted and isinstance(item, Node):
            # To the one that it stands below.
            for at in range(self.place.at - 1, -1, -1):
                if self.items[at].depth < item.depth:
                    self._move(at)
                    break
