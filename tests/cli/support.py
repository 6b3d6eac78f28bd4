"""Child processes for the command's tests: `python` and `rondel run` side by side, servers.

Each child gets a clean environment: nothing of the test run's own (coverage, PYTHON*) leaks in but
what makes `rondel` importable.
"""

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 30.0

PYTHON = [sys.executable]
RONDEL = [sys.executable, "-m", "rondel"]


@dataclass(frozen=True)
class Outcome:
    """How a child ended; `errors` and `output` are whole texts."""

    status: int
    output: str
    errors: str


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    # A development overlay may be on PYTHONPATH; everything else of PYTHON* would blur comparisons.
    if "PYTHONPATH" in os.environ:
        kept["PYTHONPATH"] = os.environ["PYTHONPATH"]
    return {**kept, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", **extra}


def call(
    command: Sequence[str], cwd: Path, *, stdin: str = "", env: dict[str, str] | None = None
) -> Outcome:
    """Run to the end."""
    ended = subprocess.run(
        command,
        cwd=cwd,
        input=stdin,
        env=environment(**(env or {})),
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    return Outcome(ended.returncode, ended.stdout, ended.stderr)


def both(arguments: Sequence[str], cwd: Path, *, stdin: str = "") -> tuple[Outcome, Outcome]:
    """The same program under `python` and under Rondel."""
    return call([*PYTHON, *arguments], cwd, stdin=stdin), call(
        [*RONDEL, *arguments], cwd, stdin=stdin
    )


def without_loop_frames(errors: str) -> str:
    """A traceback's text without the frames of asyncio's runners and loops.

    Which functions lie between `asyncio.run` and the user's coroutine is an implementation's own
    matter: Rondel's are native and have no frames.
    """
    frame = r'  File "[^"\n]*(?:/asyncio/[a-z_]+\.py|/rondel/loop\.py)", line \d+, in \S+\n'
    rest = r"(?:    [^\n]*\n)*"
    return re.sub(frame + rest, "", errors)


class Process:
    """A running child whose lines of stderr can be awaited."""

    def __init__(
        self, command: Sequence[str], cwd: Path, *, pass_fds: Sequence[int] = (), **env: str
    ) -> None:
        self._child = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            pass_fds=pass_fds,
        )
        self.pid = self._child.pid
        self.errors: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._output: list[str] = []
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        self._readers = [
            threading.Thread(target=self._read_errors, args=(self._child.stderr,), daemon=True),
            threading.Thread(target=self._output.extend, args=(self._child.stdout,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_errors(self, stream: Iterator[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first further line of stderr that matches."""
        while True:
            line = self._lines.get(timeout=PATIENCE)
            assert line is not None, f"ended before {pattern!r}: {''.join(self.errors)}"
            self.errors.append(line)
            if match := re.search(pattern, line):
                return match

    def signal(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def end(self) -> Outcome:
        """Wait for its end."""
        status = self._child.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        while not self._lines.empty():
            line = self._lines.get()
            if line is not None:
                self.errors.append(line)
        return Outcome(status, "".join(self._output), "".join(self.errors))

    def kill(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait(PATIENCE)
        for reader, stream in zip(
            self._readers, (self._child.stderr, self._child.stdout), strict=True
        ):
            # Its own children may hold the pipes, and closing one waits for whoever reads it.
            reader.join(5)
            if stream is not None and not reader.is_alive():
                stream.close()


@contextlib.contextmanager
def running(
    command: Sequence[str], cwd: Path, *, pass_fds: Sequence[int] = (), **env: str
) -> Iterator[Process]:
    process = Process(command, cwd, pass_fds=pass_fds, **env)
    try:
        yield process
    finally:
        process.kill()


@contextlib.contextmanager
def serving(target: str, cwd: Path, *options: str) -> Iterator[tuple[Process, str]]:
    """`rondel serve` on a free port; yields the process and its URL once it listens."""
    command = [*RONDEL, "serve", target, "--port", "0", *options]
    with running(command, cwd) as process:
        banner = process.wait_for(r" serving \S+ on (\S+) \(pid (\d+)\)")
        assert int(banner[2]) == process.pid
        yield process, banner[1]
