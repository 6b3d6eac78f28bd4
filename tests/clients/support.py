"""Running other people's programs: each in a process group, which ends with the block."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.cli.support import environment

# For what takes a moment; only a failing test waits for it.
PATIENCE = 60.0


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: scripts/clients.sh install")
    return found


@contextlib.contextmanager
def started(
    command: Sequence[str], errors: Path, **env: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """The program, whose stderr goes to a file and whose stdin and stdout are pipes."""
    with errors.open("wb") as file:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            env=environment(**env),
            start_new_session=True,
        )
    try:
        yield child
    finally:
        # What it started itself is in its group, also when it has ended.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(PATIENCE)
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def output(command: Sequence[str], given: bytes = b"") -> bytes:
    """What it wrote to stdout; it must end with 0."""
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "errors"
        with started(command, errors) as child:
            written, _ = child.communicate(given, PATIENCE)
        text = errors.read_text(errors="replace")
        assert child.returncode == 0, f"{command[0]} ended with {child.returncode}: {text}"
        return written
