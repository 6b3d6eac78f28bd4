"""Which file objects are files and nothing more, so that the system can send their bytes by itself.

What is sent is the file's own bytes, so reading the object must give exactly those: an object that
decodes what it reads (``gzip.open``) has a ``fileno()`` too.
"""

import io
import tempfile
from collections.abc import Callable
from typing import Any

__all__ = ["plain_file"]

_PLAIN: tuple[type[Any], ...] = (io.FileIO, io.BufferedReader, io.BufferedRandom)
# What decides which bytes are read.
_READING = ("read", "readinto", "tell", "seek", "fileno")


def plain_file(file: Any, is_proxy: Callable[[type[Any]], bool] = lambda kind: False) -> Any:
    """The plain file in tempfile's wrappers, and those that ``is_proxy`` knows; None if there is
    something else.
    """
    while True:
        kind = type(file)
        if is_proxy(kind) or (
            isinstance(file, tempfile._TemporaryFileWrapper) and not hasattr(kind, "read")
        ):
            file = file.file
        elif isinstance(file, io.BufferedReader | io.BufferedRandom):
            return file if _is_plain(file) and _is_plain(file.raw) else None
        else:
            return file if _is_plain(file) else None


def _is_plain(file: Any) -> bool:
    """Whether nothing stands between the object's reads and the file's bytes."""
    kind = type(file)
    base: Any = next((base for base in _PLAIN if isinstance(file, base)), None)
    if base is None or any(getattr(kind, name) is not getattr(base, name) for name in _READING):
        return False
    own: dict[str, object] = vars(file)
    return own.keys().isdisjoint(_READING)
