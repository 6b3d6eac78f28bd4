"""A hint's shape and its way to stderr: each place once, never an exception.

    hint: program.py:9, in main: the coroutine fetch() was never awaited: nothing of it has run
        fetch("a")
      → await fetch("a")

Any thread may tell. The lock is held while a hint is written, and nothing of the program runs then
but ``sys.stderr``, which may be its own object.
"""

import contextlib
import sys
import threading
from collections.abc import Sequence

from rondel.hints.source import Place
from rondel.hints.texts import say

__all__ = ["covered", "tell", "text"]

#: Places that are told of in all: who makes mistakes in ever new code has been told enough.
_LIMIT = 200

# Re-entrant: a collection in here may end in a hint about what was collected.
_lock = threading.RLock()
_told: set[tuple[str, str, int]] = set()


def text(place: Place, what: str, fixes: Sequence[str]) -> str:
    """A hint, of several lines, without the last line's end."""
    lines = [f"{say('hint')}: {place}: {what}"]
    if place.source:
        lines.append(f"    {place.source}")
    lines += [f"  → {fix}" for fix in fixes]
    return "\n".join(lines)


def tell(kind: str, place: Place, what: str, fixes: Sequence[str]) -> None:
    """Write a hint, if there was none of this kind at this place."""
    with _lock:
        if not _is_news(kind, place):
            return
        written = text(place, what, fixes) + "\n"
        # A program may have closed or replaced it.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
            with contextlib.suppress(LookupError):
                written = written.replace("→", _arrow(encoding))
                written = written.encode(encoding, "backslashreplace").decode(encoding)
            sys.stderr.write(written)
            sys.stderr.flush()


def covered(kind: str, place: Place) -> None:
    """Have nothing more told of this kind at this place."""
    with _lock:
        _is_news(kind, place)


def _is_news(kind: str, place: Place) -> bool:
    key = (kind, place.file, place.line)
    if key in _told or len(_told) >= _LIMIT:
        return False
    _told.add(key)
    return True


def _arrow(encoding: str) -> str:
    try:
        "→".encode(encoding)
    except UnicodeEncodeError:
        return "->"
    return "→"
