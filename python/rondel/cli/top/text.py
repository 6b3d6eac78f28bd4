"""Pieces of a screen: text of a known width on a terminal, with the name of a style.

Nothing here knows a terminal. A ``Line`` is what fills one line; styles are names, which
``terminal.py`` turns into attributes and plain output ignores.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from rondel.cli.inspect import printable, short

__all__ = [
    "PLAIN",
    "Cell",
    "Line",
    "amount",
    "brief",
    "clip",
    "duration",
    "heat",
    "joined",
    "memory",
    "pad",
    "percent",
    "plain",
    "spark",
    "width_of",
]


class Cell(NamedTuple):
    """Some text in one style: ``""``, ``dim``, ``head``, ``title``, ``good``, ``warn``, ``bad``,
    ``selected``."""

    text: str
    style: str = ""


Line = list[Cell]

#: What stands for characters that a terminal's encoding lacks.
PLAIN = str.maketrans("▸▾→×…│├└─▁▂▃▄▅▆▇█·▲▼↑↓←", "+->x.||`-.._-==##.^vudl")

_SPARKS = "▁▂▃▄▅▆▇█"
_ANY = re.compile(r"[^\x20-\x7e]")


def plain(line: Line) -> str:
    """The text alone."""
    return "".join(cell.text for cell in line).rstrip()


def width_of(text: str) -> int:
    """How many columns it takes."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def _width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def clip(text: str, width: int) -> str:
    """The text in at most so many columns; an ellipsis tells that there is more."""
    text = printable(text) if _ANY.search(text) else text
    if width_of(text) <= width:
        return text
    if width <= 1:
        return "…"[: max(width, 0)]
    if text.isascii():
        return text[: width - 1] + "…"
    kept, used = [], 0
    for char in text:
        used += _width(char)
        if used > width - 1:
            break
        kept.append(char)
    return "".join(kept) + "…"


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Exactly so many columns."""
    text = clip(text, width)
    space = " " * (width - width_of(text))
    return space + text if right else text + space


def joined(cells: Iterable[Cell], width: int, style: str = "") -> Line:
    """One line of exactly so many columns. ``style``: of all of it, instead of the cells' own."""
    line, left = [], width
    for cell in cells:
        if left <= 0:
            break
        text = clip(cell.text, left)
        left -= width_of(text)
        line.append(Cell(text, style or cell.style))
    if left > 0:
        line.append(Cell(" " * left, style))
    return line


def spark(shares: Iterable[float]) -> str:
    """A character for each share of 1."""
    return "".join(_SPARKS[min(max(int(share * 8), 0), 7)] for share in shares)


def percent(share: float | None) -> str:
    """A share of 1, a small one in tenths."""
    if share is None:
        return "-"
    if 0 < share < 0.0005:
        return "<0.1%"
    return f"{share:.1%}" if 0 < share < 0.0995 else f"{share:.0%}"


def amount(number: float | None) -> str:
    """A count or a rate, in three figures or so."""
    if number is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if number >= size:
            scaled = number / (1e3 if unit == "k" else size)
            return f"{scaled:.3g}{unit}" if scaled < 1000 else f"{scaled:.0f}{unit}"
    return f"{number:.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"


def memory(size: int | None) -> str:
    """Bytes."""
    if size is None:
        return "-"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            scaled = size / scale
            return f"{scaled:.0f} {unit}" if scaled >= 10 else f"{scaled:.1f} {unit}"
    return f"{size} B"


def brief(function: str) -> str:
    """A qualified name without the functions around it."""
    return function.rpartition("<locals>.")[2]


def heat(figure: float | None, warm: float, hot: float) -> str:
    """The style of a figure that is better small."""
    if figure is None or figure < warm:
        return ""
    return "bad" if figure >= hot else "warn"


def duration(seconds: float | None, *, fine: bool = False) -> str:
    """A time in two or three figures and a unit; ``fine``: some seconds with their tenths."""
    if seconds is None:
        return "-"
    if fine and 0.9995 <= seconds < 9.95:
        return f"{seconds:.1f}s"
    return "0" if seconds <= 0 else short(seconds)
