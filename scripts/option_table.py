"""Writes what docs/cli.md has of `rondel serve`: its `--help`, and the table of options.

usage: option_table.py

Run it on CPython 3.13: how argparse breaks lines differs between versions.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from rondel.server.options import markdown

DOCS = Path(__file__).parents[1] / "docs" / "cli.md"
BEGIN, END = "<!-- options -->\n", "<!-- end of options -->\n"
USAGE = re.compile(r"(?<=```text\n)usage: rondel serve .*?(?=```\n)", re.DOTALL)


def usage() -> str:
    """`rondel serve --help`."""
    return subprocess.run(
        [sys.executable, "-m", "rondel", "serve", "--help"],
        env={**os.environ, "COLUMNS": "98", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def main() -> None:
    before, _, rest = DOCS.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    told = usage()
    before = USAGE.sub(lambda _: told, before)
    DOCS.write_text(f"{before}{BEGIN}\n{markdown()}\n{END}{after}")


if __name__ == "__main__":
    main()
