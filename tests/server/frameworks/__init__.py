"""One small site per framework, all with the pages of `tests.server.test_frameworks`.

    /page/NAME?q=      text; /away redirects to one of them, /nowhere is not there
    /upload            a form with a title and a file: what came of it, as JSON
    /raw               a body read in parts
    /stream            a part, then two more once /go was asked for
    /file              this file
    /cookies           counts in a cookie, and sets another
    /started           whether the lifespan's startup ran in this process (ASGI)
    /error             a handler's failure

What differs between frameworks (a redirect's status, how a file's part is told) is theirs: the same
site under another server is the oracle.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__)


def described(title: str, name: str | None, kind: str | None, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    return {"title": title, "name": name, "type": kind, "size": len(data), "digest": digest}


class Sum:
    """Of a body that comes in parts."""

    def __init__(self) -> None:
        self._hash, self._size = hashlib.sha256(), 0

    def add(self, part: bytes) -> None:
        self._hash.update(part)
        self._size += len(part)

    def told(self) -> dict[str, Any]:
        return {"size": self._size, "digest": self._hash.hexdigest()}


def lines() -> Iterator[str]:
    for number in range(3):
        yield f"part {number}\n"
