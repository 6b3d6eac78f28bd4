"""Writes docs/pictures: the timeline of each program of examples/concurrency, as the page draws it.

usage: pictures.py [NAME ...]

Needs chromium. The programs run one after another, some ten seconds in all; times differ a little
from run to run. docs/timelines.md (scripts/timelines.py) shows the pictures that are there.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAMS = ROOT / "examples" / "concurrency"
PICTURES = ROOT / "docs" / "pictures"
HELPER = "stopwatch.py"
WIDTH = 960
LARGEST = 60_000

FLAGS = [
    *("--headless", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--no-first-run", "--disable-background-networking", "--disable-extensions"),
    *("--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=3000"),
    "--force-device-scale-factor=1",
]


def height(page: Path) -> int:
    """Pixels that the page needs, so that no row is hidden."""
    found = re.search(r'id="recording">(.*?)</script>', page.read_text("utf-8"))
    assert found is not None
    told = json.loads(found[1])
    rows = len(told["tasks"]) + len(told["calls"])
    findings = told["findings"]
    lines = math.ceil(len(" ".join(findings["summary"])) / 125)
    boxes = sum(26 + 19 * math.ceil(len(remark) / 120) for remark in findings["remarks"])
    return 252 + 20 * lines + boxes + 24 * max(rows, 5)


def draw(program: Path, folder: Path, chromium: str) -> None:
    """One program's picture."""
    page = folder / f"{program.stem}.html"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "rondel",
            "run",
            "--profile",
            str(page),
            str(program.relative_to(ROOT)),
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
    picture = PICTURES / f"{program.stem}.png"
    size = f"--window-size={WIDTH},{height(page)}"
    words = [chromium, *FLAGS, size, f"--user-data-dir={folder}/browser"]
    if os.geteuid() == 0:
        words.append("--no-sandbox")
    subprocess.run(
        [*words, f"--screenshot={picture}", page.as_uri()],
        env={**os.environ, "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=120,
        check=True,
    )
    if picture.stat().st_size > LARGEST:
        sys.exit(f"{picture} has {picture.stat().st_size} bytes")


def main() -> None:
    """Draw them all, or those that are named."""
    chromium = shutil.which("chromium") or sys.exit("chromium is not installed")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for program in sorted(PROGRAMS.glob("*.py")):
            if program.name != HELPER and (program.stem in sys.argv[1:] or not sys.argv[1:]):
                print(program.name, file=sys.stderr)
                draw(program, Path(folder), chromium)


if __name__ == "__main__":
    main()
