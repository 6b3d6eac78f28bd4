"""Writes docs/timelines.md: what `rondel explain` draws of each program of examples/concurrency.

usage: timelines.py

The programs run one after another, some ten seconds in all. Times differ a little from run to run.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAMS = ROOT / "examples" / "concurrency"
DOCS = ROOT / "docs" / "timelines.md"
HELPER = "stopwatch.py"

HEAD = """\
# Timelines of the examples

What `rondel explain` draws of each program of
[examples/concurrency](../examples/concurrency/README.md); `scripts/timelines.py` has written this.
The pictures are of the page that `rondel run --profile out.html` makes (`scripts/pictures.py`).

A row is a task, indented below the one that made it, with how long it lived and how it ended if not
with a result. `█` runs, `▪` runs for a moment, `─` sleeps or waits for a thread or the world, `┄`
waits for other tasks. Remarks begin with `!`.
"""


def drawn(program: Path) -> str:
    """The drawing of one program."""
    got = subprocess.run(
        [sys.executable, "-m", "rondel", "explain", "--width", "96", str(program)],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"},
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    lines = got.stderr.strip("\n").splitlines()
    # The legend stands at the page's head.
    legend = next(number for number, line in enumerate(lines) if line.startswith("█ runs"))
    return "\n".join(lines[:legend] + lines[legend + 2 :])


def main() -> None:
    """Run them all."""
    parts = [HEAD]
    for program in sorted(PROGRAMS.glob("*.py")):
        if program.name == HELPER:
            continue
        print(program.name, file=sys.stderr)
        link = f"[{program.name}](../examples/concurrency/{program.name})"
        parts.append(f"## {program.stem}\n\n{link}\n\n```text\n{drawn(program)}\n```\n")
        picture = f"pictures/{program.stem}.png"
        if (DOCS.parent / picture).exists():
            parts.append(f"![The timeline of {program.name} on the page]({picture})\n")
    DOCS.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
