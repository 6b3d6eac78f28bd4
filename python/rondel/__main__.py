"""``python -m rondel``: ``rondel run`` for programs, ``rondel repl`` without one, and the other
commands by their names.

``python -m rondel script.py``, ``python -m rondel -m module`` and ``python -m rondel -c code`` do
what ``rondel run`` does. A first argument that is a command (``python -m rondel serve app:app``)
is that command, unless a file of this name lies in the working directory.
"""

import os
import sys

from rondel.cli import COMMANDS, main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not arguments:
        sys.exit(main(["repl"]))
    first = arguments[0]
    is_program = first not in COMMANDS or os.path.exists(first)
    if is_program and first not in ("-h", "--help", "-V", "--version"):
        arguments.insert(0, "run")
    sys.exit(main(arguments))
