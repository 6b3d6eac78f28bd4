"""``rondel top PID``: a live view of a process's tasks, loops, requests, threads and stalls.

```text
 asking ── threads: one question at a time ──► news ──► state ◄── keys ── terminal (curses)
   │  figures: the difference of two looks      │        │                    ▲
   └─ tasks:   the snapshot, grouped            └────────┴── render: lines ───┘
```

Only ``asking`` and ``proc`` touch the process, only ``terminal`` the terminal; the rest is pure.
Without a screen (``--json``, ``--once``, ``--iterations``) the same figures and lines are printed.
"""

import argparse
import json
import sys
import time
from typing import Any

from rondel.cli.inspect import guarded, parser_for, pattern, program
from rondel.cli.inspect_client import InspectError, processes
from rondel.cli.top.asking import FIRST, Ended, Failed, Found, News, answer, enough, pulse, requests
from rondel.cli.top.proc import look
from rondel.cli.top.state import State
from rondel.cli.top.view import Question
from rondel.cli.top.views import VIEWS

__all__ = ["main"]

TEXT = """\
Watch a process: a full screen that is drawn anew every second. Without a PID it takes the only
process there is, or lists them to choose from.

  tree      tasks by who created whom; those that wait alike are one line. Enter: the stack, what
            it waits for, who created it
  tasks     each task by itself, the busiest first: its share of the time, steps, longest step
  requests  those that are being answered, and the last ones
  threads   the system's threads, and their share of a processor
  stalls    steps that kept a loop for too long, with their stacks

keys:
  1 to 5, tab   another view         enter, esc   look into a line, back
  arrows, j, k  up and down          /            filter by a regular expression
  right, left   open, close          s, <, >, r   sort by another column, reverse
  space         freeze               p            choose another process
  ?             help                 q            quit

examples:
  rondel top 4711
  rondel top 4711 --view tasks --interval 5
  rondel top 4711 --once               one look, as text
  rondel top 4711 --json | jq -c '{busy: .loops[0].busy, lag: .loops[0].lag}'

Counters need no GIL: they are shown even while native code blocks the process. Tasks are asked for
no more often than leaves the process nine tenths of its time, however many they are. The view
`tasks` records, while it is shown, as `rondel trace` does: some 0.3 microseconds a step.
"""

# Characters of a frame where there is no terminal.
_WIDTH = 100


def main(arguments: list[str]) -> int:
    """Run the command; its exit status."""
    parser = parser_for("top", TEXT, tells=False)
    parser.add_argument(
        "pid", metavar="PID", type=int, nargs="?", help="the process; see `rondel ps`"
    )
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="from one look to the next (default: 1)",
    )
    parser.add_argument("--view", choices=[view.name for view in VIEWS], default=VIEWS[0].name)
    parser.add_argument(
        "--filter", type=pattern, metavar="REGEX", help="what is shown, as / does on the screen"
    )
    parser.add_argument("--json", action="store_true", help="no screen: an object per interval")
    parser.add_argument(
        "--iterations", type=_count, metavar="N", help="no screen: N intervals, as text or --json"
    )
    parser.add_argument("--once", action="store_true", help="the same as --iterations 1")
    options = parser.parse_args(arguments)
    if options.once:
        options.iterations = 1
    return guarded("top", lambda: _top(options))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("an interval has from 0.1 to 3600 seconds")
    return seconds


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if count < 1:
        raise argparse.ArgumentTypeError("there is at least one interval")
    return count


def _top(options: argparse.Namespace) -> int:
    screen = not options.json and options.iterations is None
    pid = options.pid if options.pid is not None else _only(screen)
    if pid is not None:
        # Whoever cannot be asked at all is told of on a line, not on a screen.
        pulse(pid)
    state = State(options.interval, pid, filter=options.filter.pattern if options.filter else "")
    if pid is not None:
        state.view = next(view for view in VIEWS if view.name == options.view)
    try:
        if screen:
            _show(state)
        else:
            _print(state, options.json, options.iterations)
    except KeyboardInterrupt:
        return 0
    if state.ended:
        sys.stderr.write(f"rondel top: process {state.pid} has ended{_last(state)}\n")
    return 0


def _only(screen: bool) -> int | None:
    """The only process there is; None if one is to be chosen."""
    found = [pid for pid, _ in processes()]
    if not found:
        raise InspectError("no process of this user runs a Rondel loop")
    if len(found) == 1:
        return found[0]
    if screen:
        return None
    raise InspectError(f"which process? {', '.join(map(str, found))} run a Rondel loop")


def _last(state: State) -> str:
    found = state.figures
    if found is None or not found.loops:
        return ""
    return f"; it had {found.tasks} tasks when it was last seen"


def _show(state: State) -> None:
    try:
        from rondel.cli.top import terminal
    except ImportError:
        raise InspectError(
            "this Python has no curses: use --once or --json, or another Python's `rondel`"
        ) from None
    problem = terminal.can_draw()
    if problem is not None:
        raise InspectError(f"{problem}: use --once or --json")
    terminal.show(state)


# -- without a screen


def _print(state: State, as_json: bool, iterations: int | None) -> None:
    """A look per interval, each over the time since the one before."""
    _look(state)
    if not as_json:
        time.sleep(min(FIRST, state.interval))
        _look(state)
    due = time.monotonic()
    number = 0
    while not state.ended and (iterations is None or number < iterations):
        number += 1
        due += state.interval
        # A recording is of that time.
        begun = [] if as_json else _view(state)
        time.sleep(max(due - time.monotonic(), 0))
        _look(state)
        if state.ended:
            return
        for news in begun:
            state.tell(news)
        if state.figures is None or state.problems.get(None):
            raise InspectError(state.problems.get(None, "it does not answer"))
        if as_json:
            sys.stdout.write(json.dumps(_object(state)) + "\n")
        else:
            _frame(state)
        sys.stdout.flush()


def _look(state: State) -> None:
    assert state.pid is not None
    try:
        news: News = pulse(state.pid)
    except InspectError as error:
        gone = look(state.pid) is None
        news = Ended(state.pid) if gone else Failed(state.pid, None, error)
    state.tell(news)


def _view(state: State) -> list[News]:
    """What is asked for the view, told later: with the counters of the same time."""
    want = state.want
    if want.question is Question.NOTHING:
        return []
    try:
        steps = state.figures.steps if state.figures else 0.0
        found, _ = answer(want, seconds=enough(steps, state.interval))
    except InspectError as error:
        return [Failed(want.pid, want.question, error)]
    return [Found(want, found, time.monotonic())]


def _object(state: State) -> dict[str, Any]:
    assert state.figures is not None and state.pid is not None
    now = requests(state.pid)
    return {
        "v": 1,
        "pid": state.pid,
        "time": round(time.time(), 3),
        **state.figures.as_json(),
        "stalls": state.stalls,
        **({"requests": now["requests"]} if now is not None else {}),
    }


def _frame(state: State) -> None:
    from rondel.cli.inspect import write
    from rondel.cli.top.render import frame
    from rondel.cli.top.text import plain

    assert state.pid is not None
    lines = frame(state, program(state.pid), _width())
    write([*(plain(line) for line in lines), ""])


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((_WIDTH, 24)).columns if sys.stdout.isatty() else _WIDTH
