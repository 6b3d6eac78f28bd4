"""Sums what the test runners of a log directory reported: ``N passed, N failed``.

usage: tally.py LOG... ; each log is one `make` call whose exit status stands in LOG.status.

Reads the closing lines of pytest, cargo-nextest, `cargo test` and the conformance harness. A call
that failed without any failed test (a build error, a lint) counts as one failure, so that the sum
never hides it. Exits 1 if anything failed or nothing passed.
"""

import re
import sys
from pathlib import Path

ANSI = re.compile(r"\x1b\[[0-9;]*m")
PYTEST = re.compile(r"^=+ (?P<counts>.*\b(?:passed|failed|errors?)\b.*) in [\d.]+s.* =+$")
NEXTEST = re.compile(r"^\s*Summary \[.*\] .*tests? run: (?P<counts>.*)$")
CARGO = re.compile(r"^test result: \w+\. (?P<counts>.*)$")
CONFORMANCE = re.compile(r"^conformance: (?P<counts>\d+ passed, \d+ failed) \(.*\)$")
COUNT = re.compile(r"(\d+) (passed|failed|errors?|timed out)\b")


def tally(text: str) -> tuple[int, int]:
    """Passed and failed tests of one log."""
    passed = failed = 0
    for line in ANSI.sub("", text).splitlines():
        for pattern in (PYTEST, NEXTEST, CARGO, CONFORMANCE):
            if match := pattern.match(line):
                break
        else:
            continue
        for number, what in COUNT.findall(match["counts"]):
            if what == "passed":
                passed += int(number)
            else:
                failed += int(number)
    return passed, failed


def main(logs: list[str]) -> int:
    """Print the sum over all logs; the exit status."""
    passed = failed = 0
    for name in logs:
        log = Path(name)
        good, bad = tally(log.read_text(errors="replace"))
        ended = Path(f"{name}.status")
        status = ended.read_text().strip() if ended.exists() else "unknown"
        if status != "0" and bad == 0:
            bad = 1
        if bad:
            print(f"failed: {log.stem} (exit status {status}, {bad} failed)")
        passed += good
        failed += bad
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
