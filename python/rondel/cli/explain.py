"""``rondel explain``: run a program, then draw what its tasks did beside each other.

The program runs as under ``rondel run``. The drawing goes to stderr, or into a file, when all else
is over: after the program's own exit handlers and after a traceback.
"""

import atexit
import os
import shutil
import sys
from dataclasses import replace

from rondel.cli.profile import writable
from rondel.cli.run import UsageError, parse, run

__all__ = ["main"]

HELP = """\
usage: rondel explain [options] SCRIPT [argument ...]
       rondel explain [options] -m MODULE [argument ...]
       rondel explain [options] -c CODE [argument ...]

Run a Python program as `rondel run` does, then draw its concurrency: a line for each task, with
when it ran, when it slept, and when it waited for others; how long the same would have taken one
after another; and what blocked the loop. Mistakes are explained as `rondel run --hints` does.

examples:
  rondel explain script.py
  rondel explain --rows 0 -o timeline.txt script.py --option-of-the-script
  rondel explain --trace trace.json script.py      then open it at ui.perfetto.dev

options:
  -h, --help           this text
  --rows N             tasks to draw, 0 for all (default: 40)
  --width N            characters of a line (default: the terminal's, at most 120)
  -o, --output FILE    where to write it (default: stderr)
  --trace FILE         write a trace as well, which Perfetto and Chrome open
"""

_MOST = 120


def main(arguments: list[str]) -> int:
    """Run the program named by ``arguments``; returns 0 or raises what ended the program."""
    if arguments and arguments[0] in ("-h", "--help"):
        sys.stdout.write(HELP)
        return 0
    try:
        options, rest = _options(arguments)
        program = parse(rest)
        if program.inspect is not None or program.profile is not None:
            raise UsageError("--inspect and --profile are options of rondel run")
    except UsageError as error:
        sys.stderr.write(f"rondel explain: {error} (see rondel explain --help)\n")
        return 2
    from rondel.inspect.recording import record

    try:
        # Now, not when the work of the program would be lost; and where the paths stand now.
        options.output = options.output and writable(options.output)
        options.trace = options.trace and writable(options.trace)
    except OSError as error:
        sys.stderr.write(f"rondel explain: cannot write {error.filename}: {error.strerror}\n")
        return 2
    recorder = record()
    pid = os.getpid()

    def draw() -> None:
        if os.getpid() != pid:
            return  # a fork of the program
        from rondel.inspect.explain import Marks, explain

        recording = recorder.stop()
        if options.trace is not None:
            from rondel.inspect import trace

            with open(options.trace, "w", encoding="utf-8") as file:
                trace.write(recording, file, name=program.target)
        if options.output is None:
            marks = Marks.for_encoding(sys.stderr.encoding)
            text = explain(recording, width=options.width, rows=options.rows, marks=marks)
            sys.stdout.flush()
            sys.stderr.write("\n" + text)
            sys.stderr.flush()
        else:
            text = explain(recording, width=options.width, rows=options.rows)
            with open(options.output, "w", encoding="utf-8") as file:
                file.write(text)

    atexit.register(draw)  # the first registered is the last called
    return run(replace(program, hinted=True))


class _Options:
    def __init__(self) -> None:
        self.rows = 40
        self.width = min(shutil.get_terminal_size((100, 24)).columns, _MOST)
        self.output: str | None = None
        self.trace: str | None = None


def _options(arguments: list[str]) -> tuple[_Options, list[str]]:
    """Our options, and what is left: the program and its own."""
    options = _Options()
    rest = list(arguments)
    while rest and rest[0] in ("--rows", "--width", "-o", "--output", "--trace"):
        name = rest.pop(0)
        if not rest:
            raise UsageError(f"{name} needs a value")
        given = rest.pop(0)
        if name in ("-o", "--output"):
            options.output = given
            continue
        if name == "--trace":
            options.trace = given
            continue
        if not given.isdecimal():
            raise UsageError(f"{name} takes a number, not {given!r}")
        if name == "--rows":
            options.rows = int(given)
        else:
            options.width = max(int(given), 50)
    return options, rest
