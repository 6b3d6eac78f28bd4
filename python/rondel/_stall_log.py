"""The log line of a stall, for processes that are Rondel's own. Imports nothing until there is one.

See ``rondel.inspect.on_stall`` for what a program is told.
"""

import os
import sys

from rondel import _rondel

__all__ = ["enable", "enabled", "suits_a_program"]

enabled = False


def enable() -> None:
    """Log stalls in this process from now on, as warnings of ``rondel.stall``."""
    global enabled
    enabled = True
    _rondel._inspect_reporter(_first)


def suits_a_program() -> bool:
    """Whether ``rondel run`` may log: somebody looks at the terminal, or has set ``RONDEL_STALL``.

    A script's stderr is its own, as under ``python``.
    """
    if "RONDEL_STALL" in os.environ:
        return True
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, ValueError):
        return False


def _first(text: str) -> None:
    from rondel.inspect import _stalls

    _rondel._inspect_reporter(_stalls._reported)
    _stalls._reported(text)
