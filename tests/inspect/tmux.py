"""A terminal that can be looked at: a tmux of the test's own, with a shell in it."""

import contextlib
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.support import PATIENCE, environment

__all__ = ["Terminal", "terminal"]

# What the shell shows when it waits for a command.
_PROMPT = "ready> "


class Terminal:
    """A shell in a terminal of some size."""

    def __init__(self, folder: Path, width: int, height: int, env: dict[str, str]) -> None:
        found = shutil.which("tmux")
        if found is None:
            pytest.skip("tmux is not installed: scripts/clients.sh install")
        # Whatever is set for the user's own is not for this one.
        self._tmux = [found, "-u", "-f", "/dev/null", "-S", str(folder / "tmux")]
        # `environment` has NO_COLOR, and tmux hands down what it is started with.
        words = ["env", "-u", "NO_COLOR", *(f"{name}={value}" for name, value in env.items())]
        shell = shlex.join([*words, f"PS1={_PROMPT}", "sh", "-i"])
        size = ["-x", str(width), "-y", str(height)]
        self._commands = 0
        self._run("new-session", "-d", "-s", "it", *size, shell, LC_ALL="C.UTF-8")
        self.until(lambda shown: shown.startswith(_PROMPT.strip()))

    def _run(self, *words: str, **env: str) -> str:
        done = subprocess.run(
            [*self._tmux, *words],
            env=environment(**env),
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
            check=True,
        )
        return done.stdout

    def screen(self, *, escapes: bool = False) -> str:
        """What it shows now; with its colours if ``escapes``."""
        return self._run("capture-pane", "-p", "-t", "it", *(["-e"] if escapes else []))

    def value(self, name: str) -> str:
        """What tmux knows of it: ``alternate_on``, ``pane_height`` ..."""
        return self._run("display-message", "-p", "-t", "it", f"#{{{name}}}").strip()

    def keys(self, *keys: str) -> None:
        """Presses keys, by tmux's names."""
        self._run("send-keys", "-t", "it", *keys)

    def types(self, text: str) -> None:
        """Types characters."""
        self._run("send-keys", "-l", "-t", "it", text)

    def resize(self, width: int, height: int) -> None:
        """Has it another size."""
        self._run("resize-window", "-t", "it", "-x", str(width), "-y", str(height))

    def until(self, wanted: "str | Callable[[str], object]") -> str:
        """The screen as soon as it shows that: a regular expression, or what is true of it."""
        end = time.monotonic() + PATIENCE
        before = ""
        while True:
            shown = self.screen()
            good = wanted(shown) if callable(wanted) else re.search(wanted, shown, re.MULTILINE)
            # The same twice: not in the midst of being drawn.
            if good and shown == before:
                return shown
            before = shown
            assert time.monotonic() < end, f"never {wanted!r}:\n{shown}"
            time.sleep(0.03)

    def command(self, text: str) -> None:
        """Has the shell run something, on a screen that is empty but for it."""
        self._commands += 1
        self.types(f"clear; {text}; echo command {self._commands} ended: $?")
        self.keys("Enter")

    def status(self) -> int:
        """How the last command has ended, as soon as it has."""
        ended = rf"^command {self._commands} ended: (\d+)$"
        found = re.search(ended, self.until(ended), re.MULTILINE)
        assert found is not None
        return int(found[1])

    def is_as_before(self) -> None:
        """The shell is back, on its own screen, and shows what is typed."""
        assert self.value("alternate_on") == "0"
        assert self.value("cursor_flag") == "1"
        self.command("stty -a")
        assert self.status() == 0
        words = self.screen().split()
        assert {"icanon", "echo", "isig", "opost"} <= set(words)

    def end(self) -> None:
        """Ends it and all that runs in it."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run("kill-server")


@contextlib.contextmanager
def terminal(folder: Path, width: int = 100, height: int = 24, **env: str) -> Iterator[Terminal]:
    """A terminal, until the block ends."""
    found = Terminal(folder, width, height, env)
    try:
        yield found
    finally:
        found.end()
