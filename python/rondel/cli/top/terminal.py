"""The full screen: keys in, lines out, and the terminal as it was whatever happens.

Everything runs in the main thread but the questions (``asking.py``), whose news come through a
queue. Who waits is ``select``: for a key, for news (a byte in a pipe), for a signal (Python's
wake-up descriptor is that pipe). SIGTERM and SIGHUP end it as ``q`` does, and then the process as
they would have; Ctrl-C is ``q``.
"""

import contextlib
import curses
import locale
import os
import queue
import select
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from rondel.cli.inspect import program
from rondel.cli.inspect_client import InspectError
from rondel.cli.top.asking import News, Watcher
from rondel.cli.top.render import draw
from rondel.cli.top.state import State
from rondel.cli.top.text import PLAIN, Line

__all__ = ["can_draw", "show"]

_NAMES = {
    curses.KEY_UP: "up",
    curses.KEY_DOWN: "down",
    curses.KEY_LEFT: "left",
    curses.KEY_RIGHT: "right",
    curses.KEY_PPAGE: "pgup",
    curses.KEY_NPAGE: "pgdn",
    curses.KEY_HOME: "home",
    curses.KEY_END: "end",
    curses.KEY_ENTER: "enter",
    curses.KEY_BACKSPACE: "backspace",
    curses.KEY_BTAB: "backtab",
    curses.KEY_F1: "f1",
}
_CHARACTERS = {
    "\n": "enter",
    "\r": "enter",
    "\x1b": "esc",
    "\x7f": "backspace",
    "\b": "backspace",
    "\t": "tab",
    # Ctrl-F, Ctrl-B, as `less` has them.
    "\x06": "pgdn",
    "\x02": "pgup",
}
# Milliseconds that belong to one key: a terminal sends the rest of an arrow at once.
_ESCAPE = 40
# How often `select` may tell of a key that is none: then the terminal has gone.
_EMPTY = 20


def can_draw() -> str | None:
    """Why there can be no full screen here; None if there can."""
    if not sys.stdout.isatty() or not sys.stdin.isatty():
        return "stdin and stdout are not both a terminal"
    try:
        curses.setupterm()
    except curses.error:
        return f"the terminal {os.environ.get('TERM', '')!r} is not known here"
    if curses.tigetstr("cup") is None:
        return f"the terminal {os.environ.get('TERM', '')!r} has no full screen"
    return None


def show(state: State) -> None:
    """Until ``q``, or the process has ended. Raises InspectError if the terminal cannot be used."""
    locale.setlocale(locale.LC_ALL, "")
    news: queue.SimpleQueue[News] = queue.SimpleQueue()
    # Never closed: a thread that waits for an answer writes to it whenever that comes.
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)

    def post(found: News) -> None:
        news.put(found)
        # A full pipe wakes as well.
        with contextlib.suppress(BlockingIOError):
            os.write(writer, b"\0")

    watcher = Watcher(state.want, state.interval, post)
    try:
        with _signals(writer) as caught, _Screen() as screen:
            watcher.start()
            _loop(state, screen, watcher, news, reader, caught)
    finally:
        watcher.stop()
    for number in caught:
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _loop(
    state: State,
    screen: "_Screen",
    watcher: Watcher,
    news: "queue.SimpleQueue[News]",
    reader: int,
    caught: list[int],
) -> None:
    named: tuple[int | None, str] = (None, "")
    while not (state.quit or state.ended or any(map(_ends, caught))):
        if state.pid != named[0]:
            named = state.pid, "" if state.pid is None else program(state.pid)
        screen.show(state, named[1])
        ready, _, _ = select.select([sys.stdin.fileno(), reader], [], [])
        if reader in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(reader, 4096)
        while not news.empty():
            state.tell(news.get())
        if state.figures is not None:
            watcher.steps = state.figures.steps
        if sys.stdin.fileno() in ready:
            for key in screen.pressed():
                state.press(key)
        while signal.SIGWINCH in caught:
            caught.remove(signal.SIGWINCH)
            screen.resize()
        state.quit = state.quit or screen.gone
        watcher.look_at(state.want)


def _ends(number: int) -> bool:
    return number != signal.SIGWINCH


@contextlib.contextmanager
def _signals(writer: int) -> Iterator[list[int]]:
    """Signals are noted, and wake who waits for the pipe."""
    caught: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)

    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGWINCH)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        # Who is ignored by wish (`nohup`) stays so.
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, note)
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield caught
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)


class _Screen:
    """curses, from its beginning to its end."""

    def __init__(self) -> None:
        #: There is nobody at the terminal any more.
        self.gone = False
        self._empty = 0
        # The terminal's by the C library, which draws; Python's may be UTF-8 whatever that is.
        self._encoding = locale.getencoding()
        self._plain = not self._encodes("▸▾→│└…▁█")

    def __enter__(self) -> "_Screen":
        try:
            self._window = curses.initscr()
        except curses.error as error:
            raise InspectError(f"the terminal cannot be used: {error}") from None
        try:
            curses.noecho()
            curses.cbreak()
            curses.set_escdelay(_ESCAPE)
            with contextlib.suppress(curses.error):
                curses.curs_set(0)
            self._window.keypad(True)
            self._window.nodelay(True)
            self._styles = _styles()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._window.keypad(False)
        with contextlib.suppress(curses.error):
            curses.curs_set(1)
        with contextlib.suppress(curses.error):
            curses.nocbreak()
            curses.echo()
            curses.endwin()

    def resize(self) -> None:
        """The terminal has another size."""
        with contextlib.suppress(OSError, curses.error):
            size = os.get_terminal_size(sys.stdout.fileno())
            curses.resizeterm(size.lines, size.columns)

    def pressed(self) -> Iterator[str]:
        """Those that were pressed."""
        met = False
        while True:
            try:
                key = self._window.get_wch()
            except curses.error:
                break
            met = True
            if isinstance(key, int):
                name = _NAMES.get(key)
            else:
                name = _CHARACTERS.get(key, key if key.isprintable() else None)
            if name is not None:
                yield name
        self._empty = 0 if met else self._empty + 1
        self.gone = self._empty > _EMPTY

    def show(self, state: State, name: str) -> None:
        """Draws what has changed."""
        height, width = self._window.getmaxyx()
        self._window.erase()
        for y, line in enumerate(draw(state, name, width, height)):
            self._line(y, line)
        self._window.refresh()

    def _line(self, y: int, line: Line) -> None:
        # curses counts a character that takes two columns, or none, by itself.
        with contextlib.suppress(curses.error):
            self._window.move(y, 0)
        for cell in line:
            text = cell.text.translate(PLAIN) if self._plain else cell.text
            text = text.encode(self._encoding, "replace").decode(self._encoding)
            # The last column of the last line cannot be written without an error.
            with contextlib.suppress(curses.error):
                self._window.addstr(text, self._attribute(cell.style))

    def _encodes(self, text: str) -> bool:
        try:
            text.encode(self._encoding)
        except UnicodeEncodeError:
            return False
        return True

    def _attribute(self, style: str) -> int:
        found = 0
        for name in style.split():
            found |= self._styles.get(name, 0)
        return found


def _styles() -> dict[str, int]:
    """Attributes by style; without colours where they are not wanted."""
    styles = {
        "title": curses.A_REVERSE,
        "head": curses.A_UNDERLINE,
        "tab": curses.A_REVERSE,
        "dim": curses.A_DIM,
        "strong": curses.A_BOLD,
        "selected": curses.A_REVERSE,
        "good": curses.A_NORMAL,
        "warn": curses.A_BOLD,
        "bad": curses.A_BOLD,
    }
    if os.environ.get("NO_COLOR") or not curses.has_colors():
        return styles
    with contextlib.suppress(curses.error):
        curses.start_color()
        curses.use_default_colors()
        colours = {
            "good": curses.COLOR_GREEN,
            "warn": curses.COLOR_YELLOW,
            "bad": curses.COLOR_RED,
            "head": curses.COLOR_CYAN,
        }
        for number, (name, colour) in enumerate(colours.items(), 1):
            curses.init_pair(number, colour, -1)
            styles[name] |= curses.color_pair(number)
    return styles
