"""`rondel top` on a terminal: its screen, its keys, and the terminal as it was afterwards."""

import os
import re
import select
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import PATIENCE
from tests.inspect.test_attach import RONDEL, ROOT, Child, running
from tests.inspect.tmux import Terminal, terminal


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with running(tmp_path_factory.mktemp("run"), "mixed", "30") as child:
        child.connect().close()
        yield child


def runtime(child: Child, **env: str) -> dict[str, str]:
    """The environment of a shell whose `rondel` finds the child."""
    return {"XDG_RUNTIME_DIR": child.env["XDG_RUNTIME_DIR"], **env}


def top(shown: Terminal, *arguments: object, before: str = "") -> None:
    words = [*RONDEL, "top", *map(str, arguments)]
    shown.command(f"cd {shlex.quote(str(ROOT))}; {before} {shlex.join(words)}")


def telling(file: Path) -> str:
    """What goes before a command to have its number in a file."""
    return f"""sh -c 'echo $$ > {shlex.quote(str(file))}; exec "$0" "$@"'"""


def test_a_task_is_found_and_looked_into_by_keys(child: Child, tmp_path: Path) -> None:
    with terminal(tmp_path, **runtime(child)) as shown:
        top(shown, child.pid)
        screen = shown.until(r"(?s)▸ 30 × worker.*^q quit")
        assert re.search(rf"^ rondel top  {child.pid}  ", screen)
        assert re.search(r"^CPU \S+  memory \d+ MB", screen, re.MULTILINE)
        # Figures of a window come with the second look.
        shown.until(r"^ +1 +\d\S*% .* [▁▂▃▄▅▆▇█]+$")
        assert shown.value("alternate_on") == "1"
        shown.keys("/")
        shown.types("queue")
        shown.until(r"/queue_")
        shown.keys("Enter", "Right")
        shown.until(r"├   worker-1 ")
        shown.keys("G", "Enter")
        screen = shown.until(r"(?s)^worker-29  worker  \[waiting\].*^esc back")
        assert re.search(r"^  worker  .*/tests/inspect/child\.py:\d+", screen, re.MULTILINE)
        assert re.search(r"^  → Queue\.get <Queue at 0x", screen, re.MULTILINE)
        assert "Created by creator  creates" in screen
        shown.keys("Escape")
        shown.until(r"WAITS FOR")
        shown.keys("Escape", "2")
        screen = shown.until(r"^ticker +\d\S*% +\d")
        shown.keys("q")
        assert shown.status() == 0
        shown.is_as_before()


def test_each_view_is_a_key_away(child: Child, tmp_path: Path) -> None:
    with terminal(tmp_path, **runtime(child)) as shown:
        top(shown, child.pid, "--view", "threads")
        shown.until(r"^ *\d+  rondel-inspect +(sleeps|runs)")
        shown.keys("Tab")
        shown.until(r"no step has kept a loop for too long")
        shown.keys("BTab", "BTab")
        shown.until(r"REQUEST +STATE")
        shown.keys("?")
        shown.until(r"freeze: nothing is asked")
        shown.keys("x", "1")
        shown.until(r"▸ 30 × worker")
        shown.keys("s")
        shown.until(r"TASK▲")
        shown.keys("r")
        shown.until(r"TASK▼")
        shown.keys("Space")
        shown.until(r"FROZEN$")
        shown.keys("Space")
        shown.until(r"every 1 s")
        shown.keys("C-c")
        assert shown.status() == 0
        shown.is_as_before()


def test_it_fits_whatever_size_the_terminal_has(child: Child, tmp_path: Path) -> None:
    with terminal(tmp_path, 60, 15, **runtime(child)) as shown:
        top(shown, child.pid)
        screen = shown.until(r"(?s)▸ 30 × worker.*^q quit")
        assert len(screen.splitlines()) == 15
        assert re.search(r"^q quit  \? help", screen.splitlines()[-1])
        shown.resize(150, 40)
        # The last line is the last of the new size.
        screen = shown.until(
            lambda screen: (
                len(screen.splitlines()) == 40 and screen.splitlines()[-1].startswith("q quit")
            )
        )
        assert re.search(r"every 1 s$", screen.splitlines()[0])
        shown.until(r"POLLS/S +TASKS")
        shown.resize(30, 6)
        shown.until(lambda screen: screen.splitlines()[5].startswith("q quit"))
        shown.keys("q")
        assert shown.status() == 0


def test_it_ends_with_the_process_and_says_so(tmp_path: Path) -> None:
    with (
        running(tmp_path, "mixed", "3") as child,
        terminal(tmp_path, **runtime(child)) as shown,
    ):
        child.connect().close()
        top(shown, child.pid)
        shown.until(r"▸ 3 × worker")
        child.process.send_signal(signal.SIGKILL)
        assert shown.status() == 0
        screen = shown.screen()
        assert f"rondel top: process {child.pid} has ended; it had " in screen.replace("\n", "")
        shown.is_as_before()
        child.process.wait()
        child.expected = -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_the_terminal_is_as_it_was_after_a_signal(
    child: Child, tmp_path: Path, number: signal.Signals
) -> None:
    with terminal(tmp_path, **runtime(child)) as shown:
        top(
            shown,
            child.pid,
            before="sh -c 'echo $$ > " + str(tmp_path / "pid") + '; exec "$0" "$@"\'',
        )
        shown.until(r"▸ 30 × worker")
        os.kill(int((tmp_path / "pid").read_text()), number)
        assert shown.status() == 128 + number
        shown.is_as_before()


def test_a_process_is_chosen_from_a_list(child: Child, tmp_path: Path) -> None:
    with (
        running(Path(child.env["XDG_RUNTIME_DIR"]), "tasks", "5") as other,
        terminal(tmp_path, 140, 30, **runtime(child)) as shown,
    ):
        other.connect().close()
        top(shown)
        shown.until(rf"(?s)choose a process.*{other.pid} ")
        shown.keys("/")
        shown.types(f"{other.pid} ")
        shown.keys("Enter", "Enter")
        shown.until(r"▸ 5 × worker")
        shown.keys("p")
        shown.until(r"^ *PID ")
        shown.keys("Escape", "/")
        shown.types(f"{child.pid} ")
        shown.keys("Enter", "Enter")
        shown.until(r"▸ 30 × worker")
        shown.keys("q")
        assert shown.status() == 0


def colours(screen: str) -> list[str]:
    return re.findall(r"\x1b\[(?:\d+;)*(3[1-7])m", screen)


def test_colours_are_left_out_where_they_are_not_wanted(child: Child, tmp_path: Path) -> None:
    with terminal(tmp_path, **runtime(child)) as shown:
        top(shown, child.pid, "--filter", "ticker|main")
        shown.until(r"ticker")
        assert colours(shown.screen(escapes=True))
        shown.keys("q")
        assert shown.status() == 0
        top(shown, child.pid, before="NO_COLOR=1")
        shown.until(r"(?s)▸ 30 × worker.*^q quit")
        assert not colours(shown.screen(escapes=True))
        # What is selected is seen all the same.
        assert "\x1b[7m" in shown.screen(escapes=True)
        shown.keys("q")
        assert shown.status() == 0


@pytest.mark.parametrize("kind", ["dumb", "no-such-terminal"])
def test_a_terminal_without_a_screen_is_told_what_to_do(
    child: Child, tmp_path: Path, kind: str
) -> None:
    with terminal(tmp_path, **runtime(child)) as shown:
        top(shown, child.pid, before=f"TERM={kind}")
        assert shown.status() == 1
        screen = shown.screen()
        assert "use --once or --json" in screen.replace("\n", "")
        assert f"'{kind}'" in screen


@pytest.mark.parametrize("mode", ["PYTHONUTF8=0", "PYTHONUTF8=1"])
def test_a_terminal_that_knows_no_unicode_gets_plain_characters(
    child: Child, tmp_path: Path, mode: str
) -> None:
    with terminal(tmp_path, **runtime(child)) as shown:
        top(shown, child.pid, before=f"LC_ALL=C {mode} PYTHONCOERCECLOCALE=0")
        screen = shown.until(r"(?s)\+ 30 x worker.*^q quit")
        assert screen.isascii()
        shown.keys("q")
        assert shown.status() == 0


def test_it_ends_when_the_terminal_goes_away(child: Child, tmp_path: Path) -> None:
    with terminal(tmp_path, **runtime(child)) as shown:
        file = tmp_path / "pid"
        top(shown, child.pid, before=f'sh -c \'echo $$ > {file}; exec "$0" "$@"\'')
        shown.until(r"▸ 30 × worker")
        pid = int(file.read_text())
        watched = os.pidfd_open(pid)
    try:
        # It is ready as soon as the process has ended.
        ready, _, _ = select.select([watched], [], [], PATIENCE)
        assert ready
    finally:
        os.close(watched)
