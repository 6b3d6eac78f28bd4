"""A table in a given width: which columns there is room for, and how wide each is."""

from collections.abc import Sequence

from rondel.cli.inspect import printable
from rondel.cli.top.text import Cell, Line, joined, pad, width_of
from rondel.cli.top.view import Column, Row

__all__ = ["Table"]

_GAP = 2
# A column that does not grow is no wider; one that grows is no narrower, if it has so much text.
_MOST, _LEAST = 24, 14


class Table:
    """The lines of some rows, all as wide as the screen."""

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Sequence[Row],
        width: int,
        *,
        sort: int | None = None,
        falls: bool = False,
    ) -> None:
        """``sort``: the column that is marked as sorted by; ``falls``: its greatest is first."""
        self._columns, self._width = columns, width
        self._marks = {sort: "▼" if falls else "▲"} if sort is not None else {}
        self._rows = [[_cell(cell) for cell in row] for row in rows]
        self._widths = self._layout()

    def _title(self, i: int) -> str:
        return self._columns[i].name + self._marks.get(i, "")

    def _layout(self) -> dict[int, int]:
        """The width of each column that is shown."""
        natural = {}
        for i, column in enumerate(self._columns):
            texts = [row[i].text for row in self._rows]
            widest = max(map(width_of, [self._title(i), *texts]))
            natural[i] = widest if column.grows else min(widest, _MOST)
        least = {
            i: min(wide, _LEAST) if self._columns[i].grows else wide for i, wide in natural.items()
        }
        shown = dict(least)
        while len(shown) > 1 and sum(shown.values()) + _GAP * (len(shown) - 1) > self._width:
            shown.pop(min(shown, key=lambda i: self._columns[i].weight))
        left = self._width - sum(shown.values()) - _GAP * (len(shown) - 1)
        growing = [i for i in shown if self._columns[i].grows]
        while left > 0 and (hungry := [i for i in growing if shown[i] < natural[i]]):
            for i in hungry:
                more = min(natural[i] - shown[i], max(left // len(hungry), 1), left)
                shown[i] += more
                left -= more
        return {i: min(wide, self._width) for i, wide in shown.items()}

    def head(self) -> Line:
        """The columns' names."""
        return self._line([Cell(self._title(i)) for i in range(len(self._columns))], "head")

    def lines(self) -> list[Line]:
        """A line for each row."""
        return [self._line(row, "") for row in self._rows]

    def _line(self, row: Sequence[Cell], style: str) -> Line:
        cells: Line = []
        for i, wide in self._widths.items():
            if cells:
                cells.append(Cell(" " * _GAP))
            cells.append(Cell(pad(row[i].text, wide, right=self._columns[i].right), row[i].style))
        return joined(cells, self._width, style)


def _cell(cell: str | Cell) -> Cell:
    cell = cell if isinstance(cell, Cell) else Cell(cell)
    return Cell(printable(cell.text), cell.style)
