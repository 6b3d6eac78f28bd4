"""``rondel trace PID``: a recording of a running process, as a trace file or drawn.

The process records for some seconds and is then asked for it. If this command ends before that, the
process stops by itself half a minute later.
"""

import argparse
import shutil
import sys
import time
from typing import IO

from rondel.cli.inspect import add_pid, guarded, parser_for
from rondel.cli.inspect_client import InspectError, Recorder
from rondel.inspect.recording import Recording, read_answer

__all__ = ["main"]

TEXT = """\
Record what the tasks, threads and loops of a process do, and write it as a trace, which Perfetto
(ui.perfetto.dev) and Chrome (chrome://tracing) open. Ctrl-C ends the recording early and keeps it.

examples:
  rondel trace 4711                          five seconds, into trace-4711.json
  rondel trace 4711 --seconds 60 -o slow.json
  rondel trace 4711 --draw                   on the terminal, as `rondel explain` does

It keeps a million events; what comes after them is counted. While it lasts, each step of a task
costs the process some 0.06 microseconds more.
"""

_WIDTH = 120
# Seconds for a long answer to be made and sent.
_PATIENCE = 60.0


def main(arguments: list[str]) -> int:
    """Run the command; its exit status."""
    parser = parser_for("trace", TEXT, tells=False)
    add_pid(parser)
    parser.add_argument(
        "--seconds", type=_seconds, default=5.0, metavar="N", help="how long (default: 5)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the trace (default: trace-PID.json)"
    )
    parser.add_argument(
        "--draw", action="store_true", help="draw it here; a trace is written only with -o"
    )
    options = parser.parse_args(arguments)
    return guarded("trace", lambda: _trace(options))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError("from more than 0 to 3600 seconds can be recorded")
    return seconds


def _trace(options: argparse.Namespace) -> int:
    path = options.output or (None if options.draw else f"trace-{options.pid}.json")
    if path is None:
        _draw(_recorded(options))
        return 0
    try:
        # First: a recording must not be lost because there is no place for it.
        with open(path, "w", encoding="utf-8") as file:
            recording = _recorded(options)
            _write(recording, file, options.pid)
    except OSError as error:
        raise InspectError(f"cannot write {path}: {error.strerror}") from None
    sys.stderr.write(
        f"{path}: {recording.seconds:.1f} s, {len(recording.tasks)} tasks"
        + (f"; {recording.lost} events had no room" if recording.lost else "")
        + "\n"
    )
    if options.draw:
        _draw(recording)
    return 0


def _recorded(options: argparse.Namespace) -> Recording:
    with Recorder(options.pid, options.seconds) as recorder:
        sys.stderr.write(f"recording process {options.pid} for {options.seconds:g} s\n")
        try:
            time.sleep(options.seconds)
        except KeyboardInterrupt:
            sys.stderr.write("\n")
        return read_answer(recorder.fetch(_PATIENCE))


def _write(recording: Recording, file: IO[str], pid: int) -> None:
    from rondel.inspect import trace

    trace.write(recording, file, name=f"process {pid}", pid=pid)


def _draw(recording: Recording) -> None:
    from rondel.inspect.explain import Marks, explain

    width = min(shutil.get_terminal_size((100, 24)).columns, _WIDTH)
    marks = Marks.for_encoding(sys.stdout.encoding)
    sys.stdout.write(explain(recording, width=width, marks=marks))
