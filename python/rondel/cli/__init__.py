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
  serve    serve an ASGI or WSGI application (Django, Flask, ...)
  explain  run a program, then draw what its tasks did beside each other
  repl     an interactive Python in which `await` works at the prompt
  ps       list the Rondel processes that run
  tree     show what each task of a process waits for
  top      watch a process: its loops, tasks, requests, threads, stalls
  stalls   show what has kept a process's loops from running
  requests show what a process's server is answering, and has answered
  trace    record a process for some seconds, for Perfetto or as a drawing
  web      a web page that shows a process: tasks, timeline, loops, requests

examples:
  rondel run script.py --its-own options
  rondel run -m package.module
  rondel serve mysite.asgi:application
  rondel serve mysite.asgi:application --host 0.0.0.0 --port 80

  python -m rondel script.py is rondel run script.py, python -m rondel alone is rondel repl.

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


def _explain(arguments: list[str]) -> int:
    from rondel.cli.explain import main as explain_main

    return explain_main(arguments)


def _repl(arguments: list[str]) -> int:
    from rondel.cli.repl import main as repl_main

    return repl_main(arguments)


def _ps(arguments: list[str]) -> int:
    from rondel.cli.inspect import ps

    return ps(arguments)


def _tree(arguments: list[str]) -> int:
    from rondel.cli.inspect import tree

    return tree(arguments)


def _top(arguments: list[str]) -> int:
    from rondel.cli.top import main as top_main

    return top_main(arguments)


def _stalls(arguments: list[str]) -> int:
    from rondel.cli.inspect import stalls

    return stalls(arguments)


def _requests(arguments: list[str]) -> int:
    from rondel.cli.requests import requests

    return requests(arguments)


def _trace(arguments: list[str]) -> int:
    from rondel.cli.trace import main as trace_main

    return trace_main(arguments)


def _web(arguments: list[str]) -> int:
    from rondel.cli.web import main as web_main

    return web_main(arguments)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "serve": _serve,
    "explain": _explain,
    "repl": _repl,
    "ps": _ps,
    "tree": _tree,
    "top": _top,
    "stalls": _stalls,
    "requests": _requests,
    "trace": _trace,
    "web": _web,
}


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
    hint = f"did you mean {close[0]!r}?" if close else f"commands are {', '.join(COMMANDS)}"
    return f"unknown command {command!r}; {hint} (see rondel --help)"
