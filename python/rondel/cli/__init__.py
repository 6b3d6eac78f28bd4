"""The ``rondel`` command: dispatch to its subcommands.

Invariants: bad usage is one line on stderr and exit status 2; no traceback of Rondel's own reaches
a user. Start-up counts, as `rondel run` stands before every program: argparse, the server and
logging are imported by the commands that need them.
"""

import sys
from collections.abc import Callable, Sequence

__all__ = ["COMMANDS", "main"]

HELP = """\
usage: rondel COMMAND ...

asyncio end to end in Rust, and an ASGI server in the same loop.

commands:
  run      run a Python program on Rondel, as `python` would
  serve    serve an ASGI application (Django, Starlette, ...)

examples:
  rondel run script.py --its-own options
  rondel run -m package.module
  rondel serve mysite.asgi:application
  rondel serve mysite.asgi:application --host 0.0.0.0 --port 80

  python -m rondel script.py is rondel run script.py.

options:
  -h, --help       this text; `rondel COMMAND --help` tells more
  -V, --version    the version
"""


def _run(arguments: list[str]) -> int:
    from rondel.cli.run import main as run_main

    return run_main(arguments)


def _serve(arguments: list[str]) -> int:
    from rondel.cli.serve import main as serve_main

    return serve_main(arguments)


COMMANDS: dict[str, Callable[[list[str]], int]] = {"run": _run, "serve": _serve}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status (a program run may raise SystemExit)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(HELP)
        return 0
    command, *rest = arguments
    if command in ("-V", "--version"):
        import rondel

        sys.stdout.write(f"rondel {rondel.__version__}\n")
        return 0
    if command in COMMANDS:
        return COMMANDS[command](rest)
    sys.stderr.write(f"rondel: {_unknown(command)}\n")
    return 2


def _unknown(command: str) -> str:
    """What the user probably meant by a word that is no command."""
    import difflib

    if command.endswith(".py") or command in ("-m", "-c"):
        return f"unknown command {command!r}; to run a program: rondel run {command} ..."
    if ":" in command:
        return f"unknown command {command!r}; to serve an application: rondel serve {command}"
    close = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "commands are run and serve"
    return f"unknown command {command!r}; {hint} (see rondel --help)"
