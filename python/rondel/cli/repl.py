"""``rondel repl``, and ``python -m rondel`` without a program: an interactive Python on Rondel.

It is the running version's own ``python -m asyncio``, run with Rondel installed: its editor
(``_pyrepl`` from 3.13 on, readline before), history, completion, banner and exit statuses are
those of that version, and its loop, tasks and names are Rondel's. ``await`` works at the prompt; a
Ctrl-C cancels what is awaited and gives the prompt back.

Invariant: what is typed runs in a fresh ``__main__``, as under ``python -m asyncio``.
"""

import sys

from rondel.cli.run import Program, run

__all__ = ["main"]

HELP = """\
usage: rondel repl [-h] [--hints] [--watch-tasks]

An interactive Python, as `python -m asyncio` gives, on Rondel's loop: `await` works at the prompt,
Ctrl-C cancels what is awaited, Ctrl-D or exit() ends.

options:
  -h, --help       this text
  --hints          explain coroutines that are never awaited, lost tasks, and their like
  --watch-tasks    report tasks that fail while nobody waits for them
"""


def main(arguments: list[str]) -> int:
    """Read, evaluate and print until the end of the input; the exit status."""
    if arguments and arguments[0] in ("-h", "--help"):
        sys.stdout.write(HELP)
        return 0
    given = set(arguments)
    unknown = sorted(given - {"--watch-tasks", "--hints"})
    if unknown:
        sys.stderr.write(
            f"rondel repl: unexpected argument {unknown[0]!r}; "
            "to run a program: rondel run PROGRAM (see rondel repl --help)\n"
        )
        return 2
    import rondel

    sys.stderr.write(f"Rondel {rondel.__version__}: asyncio's names are the native ones\n")
    watched, hinted = "--watch-tasks" in given, "--hints" in given
    return run(Program("module", "asyncio", watched=watched, hinted=hinted))
