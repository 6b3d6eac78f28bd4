"""What a view is: a table of what one question was answered.

Pure. It makes items of an answer, cells of an item (only of those that are seen), and the
text of an item that is looked into. Items are any objects; ``key`` tells which is the same one in
the next answer.
"""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, NamedTuple

from rondel.cli.top.figures import Figures
from rondel.cli.top.tasks import TaskBook
from rondel.cli.top.text import Cell
from rondel.inspect._model import Stall

__all__ = ["Answer", "Choice", "Column", "Pick", "Question", "Row", "View"]


class Question(Enum):
    """What a view has a process asked, beside its counters."""

    NOTHING = ""
    TASKS = "tasks"
    #: A recording of some time, and the tasks.
    RECORDED = "recorded"
    REQUESTS = "requests"
    #: Every process, for its counters.
    PROCESSES = "processes"


class Column(NamedTuple):
    """A column of a table."""

    name: str
    #: The least goes first when there is no room.
    weight: int
    right: bool = False
    #: It takes what room is left, and gives it first.
    grows: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a process was asked for a view."""

    #: Tasks, with what was recorded where that was asked for.
    book: TaskBook | None = None
    requests: dict[str, Any] | None = None
    stalls: list[Stall] = field(default_factory=list)
    processes: list["Choice"] = field(default_factory=list)
    #: What the one who looks has to know of it.
    remark: str = ""


class Choice(NamedTuple):
    """A process that can be looked into."""

    pid: int
    program: str
    #: None if it does not answer.
    figures: Figures | None


@dataclass(frozen=True, slots=True)
class Pick:
    """What is wanted of a view: which items, in what order."""

    wanted: re.Pattern[str] | None = None
    #: The column's number; None for the view's own order.
    sort: int | None = None
    reverse: bool = False
    #: Keys that were opened, or closed, by hand.
    turned: frozenset[Hashable] = frozenset()


Row = Sequence[str | Cell]


class View:
    """A table. The class is the view: there is one object of each."""

    name: ClassVar[str]
    question: ClassVar[Question] = Question.NOTHING
    columns: ClassVar[tuple[Column, ...]]
    empty: ClassVar[str]
    #: Columns whose greatest figure comes first.
    falling: ClassVar[frozenset[str]] = frozenset()

    def items(self, answer: Answer, figures: Figures | None, pick: Pick) -> list[Any]:
        """All that match, in order."""
        found = self.all(answer, figures)
        if pick.wanted is not None:
            found = [item for item in found if pick.wanted.search(self.text(item))]
        if pick.sort is not None:
            name = self.columns[pick.sort].name
            found = sorted(
                found,
                key=lambda item: self.rank(item, name, answer),
                reverse=(name in self.falling) != pick.reverse,
            )
        elif pick.reverse:
            found = found[::-1]
        return found

    def all(self, answer: Answer, figures: Figures | None) -> list[Any]:
        """All items, in the view's own order."""
        raise NotImplementedError

    def key(self, item: Any) -> Hashable:
        """The same for the same thing in another answer."""
        raise NotImplementedError

    def text(self, item: Any) -> str:
        """What a filter is matched with."""
        raise NotImplementedError

    def rank(self, item: Any, column: str, answer: Answer) -> Any:
        """What it is sorted by."""
        raise NotImplementedError

    def row(self, item: Any, answer: Answer) -> Row:
        """A text for each column."""
        raise NotImplementedError

    def story(self, item: Any, answer: Answer) -> list[str]:
        """What is shown of it alone; nothing if the row is all there is."""
        return []

    def remark(self, answer: Answer, figures: Figures | None) -> str:
        """A line above the table."""
        return answer.remark
