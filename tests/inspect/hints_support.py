"""Programs run with `--hints`, and the hints read out of what they wrote."""

import re
from dataclasses import dataclass

from ..cli.support import RONDEL

HINTED = [*RONDEL, "run", "--hints", "program.py"]
# English, whoever runs the tests.
ENGLISH = {"LC_ALL": "C.UTF-8", "RONDEL_INSPECT": "0"}


@dataclass(frozen=True)
class Hint:
    """What was printed of one mistake."""

    line: int
    #: Behind `program.py:N, in main`.
    what: str
    source: str
    fixes: tuple[str, ...]


_HINT = re.compile(
    r"^(?:hint|提示): program\.py:(\d+)(?:, in \w+)?: (.*)\n    (.*)\n((?:  (?:→|->) .*\n?)*)",
    re.MULTILINE,
)


def hints(errors: str) -> list[Hint]:
    return [
        Hint(int(line), what, source, tuple(re.findall(r"(?:→|->) (.*)", fixes)))
        for line, what, source, fixes in _HINT.findall(errors)
    ]


def without_hints(errors: str) -> str:
    return _HINT.sub("", errors)


def marked(program: str) -> list[int]:
    """The lines that end in `# !`."""
    return [number for number, line in enumerate(program.splitlines(), 1) if line.endswith("# !")]
