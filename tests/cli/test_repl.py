"""The REPL, at a terminal (a pty): what `python -m asyncio` does, on Rondel's loop.

Every test but those of our own words runs on `python -m asyncio`, too. Where the version has its
own editor (`_pyrepl`, 3.13 on), once with it and once without.
"""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support import PATIENCE, PYTHON, RONDEL, call, environment

EDITORS = ["plain", "pyrepl"] if sys.version_info >= (3, 13) else ["plain"]
PROMPT = ">>> "
CONTROL_C, CONTROL_D = "\x03", "\x04"
# What an editor draws with: colours, cursor moves, modes.
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[()][0-9A-B]|[=>])|\r")
# What a child runs before its command. Ctrl-C is ignored in what a shell starts in the background,
# as tests may be.
OWN_TERMINAL = """\
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A child at a terminal: what it shows can be awaited, keys can be pressed."""

    def __init__(self, command: list[str], cwd: Path, editor: str) -> None:
        extra = {"HOME": str(cwd), "PYTHON_HISTORY": str(cwd / "history"), "COLUMNS": "200"}
        if editor == "plain":
            extra |= {"PYTHON_BASIC_REPL": "1", "TERM": "dumb"}
        else:
            extra |= {"TERM": "xterm"}
        self._ours, theirs = pty.openpty()
        # A function between fork and exec could wait for a lock of another thread's, for ever.
        self.child = subprocess.Popen(
            [*PYTHON, "-c", OWN_TERMINAL, *command],
            cwd=cwd,
            env=environment(**extra),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = ""
        self._seen = 0

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def until(self, text: str) -> str:
        """Wait for `text` in what was not awaited yet; what came before it."""
        end = time.monotonic() + PATIENCE
        while (found := self.shown.find(text, self._seen)) < 0:
            more = self._read(end)
            assert more, f"no {text!r} in {self.shown[self._seen :]!r}"
        before = self.shown[self._seen : found]
        self._seen = found + len(text)
        return before

    def enter(self, line: str) -> str:
        """A line at the prompt, up to the next prompt: what it showed."""
        self.type(line + "\r")
        return self.until(PROMPT)

    def end(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.child.wait(PATIENCE)

    def _read(self, end: float) -> str:
        """More of what is shown, "" at the end of the child or of patience."""
        ready, _, _ = select.select([self._ours], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return ""
        try:
            text = os.read(self._ours, 65536).decode(errors="replace")
        except OSError:  # the last holder of the other side is gone
            return ""
        self.shown += ESCAPES.sub("", text)
        return text

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(PATIENCE)
        os.close(self._ours)


@contextlib.contextmanager
def repl(command: list[str], cwd: Path, editor: str) -> Iterator[Terminal]:
    terminal = Terminal(command, cwd, editor)
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.fixture(params=["python -m asyncio", "python -m rondel"])
def command(request: pytest.FixtureRequest) -> list[str]:
    return [*PYTHON, "-m", "asyncio"] if "asyncio" in request.param else [*RONDEL]


@pytest.fixture(params=EDITORS)
def terminal(
    command: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Terminal]:
    with repl(command, tmp_path, request.param) as opened:
        # The banner ends with a prompt at which `import asyncio` seems to have been typed.
        opened.until("import asyncio")
        opened.until(PROMPT)
        yield opened


def keep_awake(terminal: Terminal, command: list[str]) -> None:
    """A signal that comes just before asyncio's loop falls asleep is seen when that wakes up."""
    if "rondel" not in command:
        terminal.enter("tick = lambda: asyncio.get_running_loop().call_later(0.05, tick)")
        terminal.enter("tick() and None")


def test_await_works_at_the_prompt(terminal: Terminal) -> None:
    assert "'after'" in terminal.enter("await asyncio.sleep(0.01, 'aft' + 'er')")
    assert "42" in terminal.enter("40 + 2")
    terminal.enter("task = asyncio.create_task(asyncio.sleep(0.01, 6))")
    assert "36" in terminal.enter("(await task) ** 2")


def test_what_is_typed_is_kept_between_lines(terminal: Terminal) -> None:
    terminal.enter("x = 20")
    assert "40" in terminal.enter("x * 2")
    shown = terminal.enter("print('i' + 'n', __name__)")
    assert "in __main__" in shown


def test_an_error_is_shown_and_the_prompt_comes_back(terminal: Terminal) -> None:
    assert "ZeroDivisionError" in terminal.enter("1 / 0")
    assert "TimeoutError" in terminal.enter("await asyncio.wait_for(asyncio.sleep(9), 0.01)")
    assert "42" in terminal.enter("40 + 2")


# One statement: from 3.13 on each statement of a line is run on its own, and a Ctrl-C between two
# is lost, on asyncio as here.
@pytest.mark.parametrize(
    "what",
    [
        "await asyncio.sleep(600)",
        "await asyncio.Event().wait()",
        "await asyncio.gather(asyncio.sleep(600), asyncio.sleep(600))",
        # In short sleeps: a signal that comes between CPython's last look and the system call is
        # seen after the call.
        "[__import__('time').sleep(0.05) for _ in range(12000)]",
    ],
    ids=["sleep", "event", "gather", "blocked"],
)
def test_control_c_cancels_what_runs(terminal: Terminal, command: list[str], what: str) -> None:
    keep_awake(terminal, command)
    terminal.type(f"[print('beg' + 'un'), {what}]\r")
    terminal.until("begun")
    terminal.type(CONTROL_C)
    terminal.until("KeyboardInterrupt")
    terminal.until(PROMPT)
    terminal.type("40 + 2\r")
    terminal.until("42")


def test_control_c_runs_the_cleanup_of_what_was_awaited(
    terminal: Terminal, command: list[str], tmp_path: Path
) -> None:
    keep_awake(terminal, command)
    (tmp_path / "waiting.py").write_text(
        """\
import asyncio

async def wait():
    try:
        # Said when it waits: within its own code the interrupt would be another matter.
        asyncio.get_running_loop().call_soon(print, "begun")
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(0)
        print("cleaned")
"""
    )
    terminal.enter("import waiting")
    terminal.type("await waiting.wait()\r")
    terminal.until("begun")
    terminal.type(CONTROL_C)
    terminal.until("cleaned")
    terminal.until("KeyboardInterrupt")
    terminal.until(PROMPT)


def test_background_tasks_run_while_the_prompt_waits(terminal: Terminal) -> None:
    terminal.type("asyncio.get_running_loop().call_later(0.05, print, 'ti' + 'ck') and None\r")
    terminal.until("tick")
    terminal.type(CONTROL_D)
    assert terminal.end() == 0


def test_the_end_of_input_ends_it(terminal: Terminal) -> None:
    terminal.type(CONTROL_D)
    assert terminal.end() == 0
    assert "exiting asyncio REPL..." in terminal.shown


@pytest.mark.parametrize("line", ["exit()", "quit()", "raise SystemExit"])
def test_exit_ends_it(terminal: Terminal, line: str) -> None:
    terminal.type(line + "\r")
    assert terminal.end() == 0


def test_exit_gives_its_status(terminal: Terminal) -> None:
    terminal.type("exit(3)\r")
    assert terminal.end() == 3


def test_a_signal_of_termination_ends_it(terminal: Terminal) -> None:
    terminal.child.send_signal(signal.SIGTERM)
    assert terminal.end() == -signal.SIGTERM


@pytest.mark.skipif("pyrepl" not in EDITORS, reason="completion came with _pyrepl")
@pytest.mark.parametrize("editor", ["pyrepl"])
def test_tab_completes_and_history_is_kept(command: list[str], tmp_path: Path, editor: str) -> None:
    with repl(command, tmp_path, editor) as first:
        first.until("import asyncio")
        first.until(PROMPT)
        first.enter("a_long_name = 40")
        first.type("a_long_na\t + 2\r")
        first.until("42")
        first.until(PROMPT)
        first.type(CONTROL_D)
        assert first.end() == 0
    assert "a_long_name = 40" in (tmp_path / "history").read_text()


def test_its_loop_and_names_are_rondels(tmp_path: Path) -> None:
    with repl([*RONDEL], tmp_path, "plain") as terminal:
        terminal.until("import asyncio")
        terminal.until(PROMPT)
        assert "rondel.loop" in terminal.enter("type(asyncio.get_running_loop()).__module__")
        shown = terminal.enter("import rondel; rondel.installed()")
        assert "True" in shown
        assert "on rondel" in terminal.enter(
            "await asyncio.sleep(0, 'on ') + type(asyncio.current_task()).__module__"
        )
        terminal.type(CONTROL_D)
        assert terminal.end() == 0


def test_its_banner_tells_both_versions(tmp_path: Path) -> None:
    ended = call([*RONDEL], tmp_path)
    assert ended.status == 0
    first, second, *_ = ended.errors.splitlines()
    assert re.fullmatch(r"Rondel \d+\.\d+\.\d+: asyncio's names are the native ones", first)
    assert second.startswith(f"asyncio REPL {sys.version.splitlines()[0]}")


@pytest.mark.parametrize("arguments", [[], ["repl"]], ids=["alone", "repl"])
def test_lines_from_a_pipe_are_run(tmp_path: Path, arguments: list[str]) -> None:
    lines = "x = await asyncio.sleep(0, 42)\nprint('x is', x)\n"
    ended = call([*RONDEL, *arguments], tmp_path, stdin=lines)
    control = call([*PYTHON, "-m", "asyncio"], tmp_path, stdin=lines)
    assert (ended.status, ended.output) == (control.status, control.output)
    assert "x is 42" in ended.output


def test_unknown_arguments_are_refused_in_one_line(tmp_path: Path) -> None:
    ended = call([*RONDEL, "repl", "script.py"], tmp_path)
    assert ended.status == 2
    assert ended.errors.count("\n") == 1
    assert "rondel run" in ended.errors


def test_help(tmp_path: Path) -> None:
    ended = call([*RONDEL, "repl", "--help"], tmp_path)
    assert ended.status == 0
    assert ended.output.startswith("usage: rondel repl")


def test_unnoticed_failures_are_reported_if_asked(tmp_path: Path) -> None:
    lines = "async def f(): 1 / 0\n\nt = asyncio.create_task(f())\nawait asyncio.sleep(0.01)\n"
    ended = call([*RONDEL, "repl", "--watch-tasks"], tmp_path, stdin=lines)
    assert "ZeroDivisionError" in ended.errors
