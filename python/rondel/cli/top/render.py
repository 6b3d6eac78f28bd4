"""Draws a ``State``: exactly so many lines of exactly so many columns.

Pure, but for what it notes in the state: how long a page is, and where the table begins.
"""

import textwrap

from rondel.cli.inspect import printable
from rondel.cli.top.figures import Figures, LoopFigures
from rondel.cli.top.state import State
from rondel.cli.top.table import Table
from rondel.cli.top.text import (
    Cell,
    Line,
    amount,
    clip,
    duration,
    heat,
    joined,
    memory,
    pad,
    percent,
    spark,
    width_of,
)
from rondel.cli.top.view import Column, Row
from rondel.cli.top.views import PROCESSES, VIEWS

__all__ = ["HELP", "draw", "frame"]

# Lines that a frame has at least, however many loops there are.
_BODY = 6
# Columns below which there is less said.
_NARROW = 88
# Lines of a table in a frame that is not a screen.
_ROWS = 200

_LOOPS = (
    Column("LOOP", 9, right=True),
    Column("BUSY", 8, right=True),
    Column("LAG 50%", 6, right=True),
    Column("99%", 7, right=True),
    Column("MAX", 5, right=True),
    Column("STEPS/S", 6, right=True),
    Column("READY", 4, right=True),
    Column("TIMERS", 3, right=True),
    Column("POLLS/S", 2, right=True),
    Column("TASKS", 4, right=True),
    Column("", 1, grows=True),
)

HELP = """\
1 2 3 4 5       tree, tasks, requests, threads, stalls
tab, backtab    the next view, the one before
↑ ↓ j k         up and down; also page up and down, home (g), end (G)
enter           look into it: a task's stack, what it waits for, its creators
esc             back; takes the filter away
→ ←             in the tree: open and close what is below, or tasks that wait alike
/               filter by a regular expression: name, coroutine, place, wait ...
s or >, <       sort by the next column, by the one before
r               the other way round
space           freeze: nothing is asked until space is pressed again
p               choose another process
q               quit

BUSY: the share of the time that a loop was awake, or a task in its steps.
LAG: how late timers were: half of them, 99 %, all of them by less than this.
The tree is of tasks and who created them; tasks that wait alike are one line (▸).
The tasks view records what the tasks do, some 0.06 µs a step, while it is shown.
In a request, HOPS go to threads: HOP WAIT is the wait for one, THREAD the time in it."""

_KEYS = "q quit  ? help  enter look into  / filter  s sort  space freeze  tab view  p process"
_KEYS_NARROW = "q quit  ? help  enter look  / filter  s sort  tab view"
_KEYS_INSIDE = "esc back  ↑↓ scroll  space freeze  q quit"
_KEYS_CHOICE = "enter look into  / filter  s sort  q quit"
_KEYS_TYPING = "enter keep  esc leave it"


def draw(state: State, program: str, width: int, height: int) -> list[Line]:
    """The screen."""
    lines = _top(state, program, width, height)
    tabs = 0 if state.view is PROCESSES else 1
    room = max(height - len(lines) - tabs - 1, 0)
    if state.help:
        body = _text([Cell(line) for line in HELP.split("\n")], state, width, room)
    elif state.inside is not None:
        body = _inside(state, width, room)
    else:
        body = _table(state, width, room)
    body += [joined([], width)] * (room - len(body))
    # Last, as it tells which lines of the table are seen.
    lines += [_tabs(state, width)] * tabs
    return [*lines, *body[:room], _foot(state, width)][:height]


def frame(state: State, program: str, width: int) -> list[Line]:
    """The same as text to be printed: as many lines as there are, within reason."""
    lines = _top(state, program, width, 10_000)
    items = state.items
    lines.append([])
    lines += _table(state, width, min(len(items), _ROWS) + 2, selects=False)
    if len(items) > _ROWS:
        lines.append([Cell(f"… {len(items) - _ROWS} more")])
    lines += [[Cell(problem)] for problem in state.problems.values()]
    return lines


# -- above the table


def _top(state: State, program: str, width: int, height: int) -> list[Line]:
    lines = [_title(state, program, width)]
    found = state.figures
    if state.pid is not None and state.view is not PROCESSES and height >= _BODY + 3:
        lines.append(joined(_process(found, state.stalls), width))
        room = min(max(height - _BODY - 6, 0), max(height // 3, 1))
        if found is not None and room:
            lines += _loops(state, found, width, room)
    return lines


def _title(state: State, program: str, width: int) -> Line:
    who = "choose a process" if state.pid is None else f"{state.pid}  {_brief(program)}"
    right = "FROZEN " if state.frozen else f"every {state.interval:g} s "
    room = width - len(right) - 1
    left = pad(f" rondel top  {who}", max(room, 0))
    style = "warn" if state.frozen else ""
    line = [Cell(left + " ", "title"), Cell(right, f"title {style}".strip())]
    return joined(line, width)


def _brief(program: str) -> str:
    """A command line without what it always begins with: the folders, Python before `rondel`."""
    words = program.split(" ")
    if len(words) > 1 and words[1].rpartition("/")[2] == "rondel":
        del words[0]
    return " ".join([words[0].rpartition("/")[2], *words[1:]])


def _process(found: Figures | None, stalls: int) -> Line:
    if found is None:
        return [Cell("asking …", "dim")]
    cells = [
        ("CPU ", percent(found.cpu), heat(found.cpu, 0.7, 0.95)),
        ("  memory ", memory(found.rss), ""),
        ("  threads ", amount(found.threads), ""),
        ("  tasks ", amount(found.tasks), ""),
    ]
    if found.created is not None:
        cells.append(("  created ", f"{amount(found.created)}/s", ""))
    if found.pool is not None:
        pool = found.pool
        queued = f", {pool.queued} queued" if pool.queued else ""
        cells.append(("  pool ", f"{pool.busy}/{pool.threads}{queued}", "warn" if queued else ""))
    if stalls:
        cells.append(("  stalls ", str(stalls), "bad"))
    cells.append(("  up ", duration(found.age), ""))
    line: Line = []
    for name, value, style in cells:
        line += [Cell(name, "dim"), Cell(value, style or "strong")]
    return line


def _loops(state: State, found: Figures, width: int, room: int) -> list[Line]:
    if not found.loops:
        return [joined([Cell("no loop runs now", "warn")], width)]
    shown = found.loops[: max(room - 1, 1)]
    table = Table(_LOOPS, [_loop(state, loop, width) for loop in shown], width)
    lines = [table.head(), *table.lines()]
    if len(found.loops) > len(shown):
        lines[-1] = joined([Cell(f"{len(found.loops) - len(shown) + 1} more loops", "dim")], width)
    return lines


def _loop(state: State, loop: LoopFigures, width: int) -> Row:
    busy = loop.window.busy if loop.window else None
    lag = loop.lag() or {}
    past = list(state.history.get(loop.now.id, ()))
    return (
        str(loop.now.id),
        Cell(percent(busy), heat(busy, 0.7, 0.95) or "strong"),
        *(
            Cell(duration(lag.get(name)), heat(lag.get(name), 0.05, 0.25))
            for name in ("p50", "p99", "max")
        ),
        amount(loop.per_second("steps")),
        amount(loop.now.ready),
        amount(loop.now.timers),
        amount(loop.per_second("polls")),
        amount(loop.now.tasks),
        Cell(spark(past[-max(width - 90, 8) :]), "dim"),
    )


def _tabs(state: State, width: int) -> Line:
    line: Line = []
    for number, view in enumerate(VIEWS, 1):
        count = f" ({state.stalls})" if view.name == "stalls" and state.stalls else ""
        here = view is state.view
        line.append(Cell(f" {number} {view.name}{count} ", "tab" if here else "dim"))
    items = len(state.items)
    told = ""
    if state.inside is None and items > state.page:
        top = state.place.top
        told = f"{top + 1}-{min(top + state.page, items)} of {items} "
        if width < _NARROW:
            told = f"{top + 1}/{items}"
    text = state.kept if state.typing is None else state.typing
    if text or state.typing is not None:
        told = f"/{text}{'_' if state.typing is not None else ''}  {told}"
    used = sum(width_of(cell.text) for cell in line)
    told = clip(told, max(width - used - 1, 0))
    line.append(Cell(" " * max(width - used - width_of(told), 0)))
    line.append(Cell(told, "strong" if text or state.typing is not None else "dim"))
    return joined(line, width)


# -- the table


def _table(state: State, width: int, room: int, *, selects: bool = True) -> list[Line]:
    items, place = state.items, state.place
    lines = []
    remark = state.view.remark(state.answer, state.figures)
    if remark and room > 3:
        lines.append(joined([Cell(remark, "dim")], width))
    state.page = page = max(room - len(lines) - 1, 1)
    # No further than is needed to see what is selected, and no room is left below the end.
    place.top = max(min(place.top, place.at), place.at - page + 1)
    place.top = max(min(place.top, len(items) - page), 0)
    seen = items[place.top : place.top + page]
    view = state.view
    rows = [view.row(item, state.answer) for item in seen]
    sort = place.sort
    falls = sort is not None and (view.columns[sort].name in view.falling) != place.reverse
    table = Table(view.columns, rows, width, sort=sort, falls=falls)
    lines.append(table.head())
    for at, line in enumerate(table.lines(), place.top):
        if selects and at == place.at:
            line = [Cell(cell.text, "selected") for cell in line]
        lines.append(line)
    if not items:
        lines.append(joined([Cell(_nothing(state), "dim")], width))
    return lines


def _nothing(state: State) -> str:
    if state.wanted is not None and state.answered:
        return "nothing matches the filter"
    if state.answered:
        return "" if state.answer.remark else state.view.empty
    if state.frozen:
        return "frozen before this was asked for: space goes on"
    return "" if state.view.question in state.problems else "asking …"


# -- one thing


def _inside(state: State, width: int, room: int) -> list[Line]:
    item = state.inside_now()
    parts = []
    if item is not None:
        state.inside, state.story = item, state.view.story(item, state.answer)
    else:
        parts.append(Cell("It is over. This is as it was last seen:", "warn"))
    for number, part in enumerate(state.story):
        parts.append(Cell(printable(part), "strong" if number == 0 else ""))
    return _text(parts, state, width, room)


def _text(parts: list[Cell], state: State, width: int, room: int) -> list[Line]:
    """What is seen of a text, from where it is scrolled to."""
    lines = [
        joined([Cell(line, part.style)], width)
        for part in parts
        for line in _wrap(part.text, width)
    ]
    state.page, state.length = max(room, 1), len(lines)
    state.scroll = max(0, min(state.scroll, len(lines) - room))
    return lines[state.scroll : state.scroll + room]


def _wrap(text: str, width: int) -> list[str]:
    if width_of(text) <= width:
        return [text]
    indent = " " * min(len(text) - len(text.lstrip()) + 4, width // 2)
    return textwrap.wrap(text, max(width, 8), subsequent_indent=indent, break_on_hyphens=False) or [
        text
    ]


# -- below it


def _foot(state: State, width: int) -> Line:
    problem = state.problems.get(None) or state.problems.get(state.view.question)
    if problem:
        return joined([Cell(problem, "bad")], width)
    if state.typing is not None:
        return joined([Cell(_KEYS_TYPING, "dim")], width)
    if state.message:
        return joined([Cell(state.message, "strong")], width)
    if state.help:
        return joined([Cell("↑↓ scroll  any other key: back", "dim")], width)
    if state.inside is not None:
        return joined([Cell(_KEYS_INSIDE, "dim")], width)
    keys = _KEYS_NARROW if width < _NARROW else _KEYS
    return joined([Cell(_KEYS_CHOICE if state.view is PROCESSES else keys, "dim")], width)
