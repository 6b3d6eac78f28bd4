"""A difference once more, alone: the machine, or Rondel?

A few tests have limits of their own (asgiref's `receive_nothing` gives a thread 100 ms), which a
busy machine misses on either side. `timing.txt` lists them, each with what was measured. One that
failed with Rondel, and then passes three times in a row, one unit at a time, is unstable instead of
different; it is told either way. Anything else counts at once: a failure that goes away may be a
race of Rondel's. (Rejected: a second chance for every failure. It hid a race that showed in 2 of 11
runs.)
"""

import fnmatch
from dataclasses import replace
from pathlib import Path

from tests.upstream.compare import Comparison
from tests.upstream.prepare import Prepared
from tests.upstream.run import Choice, Log, listed, measure

TIMES = 3
EXCUSABLE = ("failed", "error")
LISTED = "timing.txt"


def settle(
    found: Comparison, prepared: Prepared, package: Path, choice: Choice, log: Log
) -> Comparison:
    """The comparison with what passes alone moved from `regressions` to `unstable`."""
    patterns = [row.pattern for row in listed(LISTED, prepared.target.suite, prepared.version)]
    doubtful = [
        row
        for row in found.regressions
        if row.what in EXCUSABLE
        and any(fnmatch.fnmatchcase(row.test, pattern) for pattern in patterns)
    ]
    passing = {row.test for row in doubtful}
    for _ in range(TIMES):
        units = sorted({row.unit for row in doubtful if row.test in passing})
        if not units:
            break
        alone = replace(choice, units=units, jobs=1)
        (again,) = measure(prepared, package, alone, log, sides=("rondel",))
        passing = {
            name
            for name in passing
            if name in again.results and again.results[name]["outcome"] == "passed"
        }
    unstable = [row for row in doubtful if row.test in passing]
    return replace(
        found,
        passed=found.passed + len(unstable),
        regressions=[row for row in found.regressions if row not in unstable],
        unstable=unstable,
    )
