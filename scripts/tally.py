"""Sums what the test runners of a log directory reported: ``N passed, N failed``.

usage: tally.py LOG...            each log is one `make` call whose exit status stands in LOG.status
       tally.py --few N LOG       exits 0 if 1 to N tests failed in it

What failed in NAME.log may have been run again: NAME.again.log. If all of it passed then, it
counts as passed, and is named.

Reads the closing lines of pytest, cargo-nextest, `cargo test`, the harnesses of tests/
(conformance, upstream, compat, soak) and `make fuzz`. A call that failed without any failed test
(a build error, a lint) counts as one failure, so that the sum never hides it. What a failed call
said of its failed tests, or its last words, comes before the sum: a log is long. Exits 1 if
anything failed or nothing passed.
"""

import re
import sys
from pathlib import Path

ANSI = re.compile(r"\x1b\[[0-9;]*m")
PYTEST = re.compile(r"^=+ (?P<counts>.*\b(?:passed|failed|errors?)\b.*) in [\d.]+s.* =+$")
NEXTEST = re.compile(r"^\s*Summary \[.*\] .*tests? run: (?P<counts>.*)$")
CARGO = re.compile(r"^test result: \w+\. (?P<counts>.*)$")
HARNESS = re.compile(
    r"^(?:conformance|upstream|compat|soak|fuzz): (?P<counts>\d+ passed, \d+ failed) \(.*\)$"
)
TOLD = re.compile(r"^\s*(?:FAILED|ERROR|FAIL)\b")
SHOWN = 20  # lines of a failed call
COUNT = re.compile(r"(\d+) (passed|failed|errors?|timed out)\b")


def tally(text: str) -> tuple[int, int]:
    """Passed and failed tests of one log."""
    passed = failed = 0
    for line in ANSI.sub("", text).splitlines():
        for pattern in (PYTEST, NEXTEST, CARGO, HARNESS):
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


def account(text: str) -> list[str]:
    """What a failed call's log says of it: its failed tests, else its end. At most SHOWN lines."""
    lines = [line.rstrip() for line in ANSI.sub("", text).splitlines() if line.strip()]
    told = [line for line in lines if TOLD.match(line)]
    return told[:SHOWN] if told else lines[-SHOWN:]


def read(log: Path) -> tuple[str, str, int, int]:
    """A call's output, its exit status, and its passed and failed tests."""
    text = log.read_text(errors="replace") if log.exists() else ""
    good, bad = tally(text)
    ended = Path(f"{log}.status")
    status = ended.read_text().strip() if ended.exists() else "unknown"
    return text, status, good, max(bad, int(status != "0"))


def main(logs: list[str]) -> int:
    """Print the sum over all logs; the exit status."""
    if logs[:1] == ["--few"]:
        *_, bad = read(Path(logs[2]))
        return 0 if 0 < bad <= int(logs[1]) else 1
    passed = failed = 0
    for name in logs:
        log = Path(name)
        text, status, good, bad = read(log)
        if bad:
            second, ended, once_more, still = read(log.with_suffix(".again.log"))
            mended = not still and once_more
            how = "passed when run again" if mended else "failed"
            print(f"{how}: {log.stem} (exit status {status}, {bad} failed)")
            told = account(text)
            if second and not mended:
                told += [f"run again (exit status {ended}):", *account(second)]
            print("\n".join(f"    {line}" for line in told))
            if mended:
                good, bad = good + bad, 0
        passed += good
        failed += bad
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
