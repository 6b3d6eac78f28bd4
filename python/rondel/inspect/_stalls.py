"""What a program is told of stalls: its own functions, and a log line where Rondel owns it.

The native half calls ``_reported`` in a thread of its own, once per place and minute. A library
must not write into the log of a program that never asked for it, so the line is logged only where
the process is Rondel's: ``rondel serve``, and ``rondel run`` at a terminal or with ``RONDEL_STALL``
set.
"""

import json
import logging
from collections.abc import Callable

from rondel import _rondel, _stall_log
from rondel.inspect._model import Stall, read_stall

__all__ = ["StallHandler", "log_stall", "on_stall"]

logger = logging.getLogger("rondel.stall")

StallHandler = Callable[[Stall], object]

_handlers: list[StallHandler] = []


def on_stall(handler: StallHandler) -> Callable[[], None]:
    """Have ``handler(stall)`` called while a loop of this process stands still in one step.

    It is called in a thread of its own, at most once a minute for each place in the code, after
    100 ms (``RONDEL_STALL`` in the environment: milliseconds, 0 for never). An exception in it is
    logged.

    Returns a function that takes the handler away again.
    """
    _handlers.append(handler)
    _rondel._inspect_reporter(_reported)

    def take_away() -> None:
        if handler in _handlers:
            _handlers.remove(handler)
        if not _handlers and not _stall_log.enabled:
            _rondel._inspect_reporter(None)

    return take_away


def log_stall(stall: Stall) -> None:
    """Log it as a warning of ``rondel.stall``."""
    logger.warning("%s", stall)


def _reported(text: str) -> None:
    stall = read_stall(json.loads(text))
    if _stall_log.enabled:
        log_stall(stall)
    for handler in tuple(_handlers):
        try:
            handler(stall)
        except Exception:
            logger.exception("a handler of on_stall failed")
