"""The child's side of the protocol: one JSON line per plan, start, result and end.

`process.py` reads them. Where CONF_EVENTS is not set (a child run by hand) they go to stderr.
"""

import fnmatch
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import inject

_path = os.environ.get("CONF_EVENTS")
_file = open(_path, "a", buffering=1) if _path else sys.stderr  # noqa: SIM115 (lives as we do)
# Loops made before the running test began.
_before = 0
KEPT_OF_MESSAGE = 1500


def _write(**event: Any) -> None:
    _file.write(json.dumps(event) + "\n")
    _file.flush()


def start(test: str) -> None:
    global _before
    _before = inject.created
    inject.virtual = False
    _write(ev="start", id=test)


def result(test: str, outcome: str, message: str = "", *, outside: bool = False) -> None:
    """`outside`: a set-up or collection failed, which counts though no loop was made yet."""
    touched = outside or (inject.created > _before and not inject.virtual)
    _write(ev="res", id=test, outcome=outcome, msg=message[-KEPT_OF_MESSAGE:], touched=touched)


def end() -> None:
    _write(ev="end")


def filtered(tests: Iterable[str]) -> set[str]:
    """The tests to run: not finished in an earlier attempt, not excluded."""
    finished, kept = _finished(), set()
    patterns = json.loads(os.environ.get("CONF_EXCLUDE", "[]"))
    excluded = re.compile("|".join(map(fnmatch.translate, patterns))) if patterns else None
    for test in tests:
        if test in finished:
            continue
        if excluded and excluded.match(test):
            _write(ev="excluded", id=test)
        else:
            kept.add(test)
    _write(ev="plan", ids=sorted(kept))
    return kept


def _finished() -> set[str]:
    path = os.environ.get("CONF_SKIP")
    if not path or not os.path.exists(path):
        return set()
    return set(Path(path).read_text().split("\n"))
