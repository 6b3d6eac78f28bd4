#!/usr/bin/env python3
"""One table of run.py's JSON files: report.py [--list] A.json [B.json ...].

exclude.txt is applied anew. Several files of one suite, loop and Python are merged, later ones
replacing earlier ones test by test.
"""

import fnmatch
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # as a script, too

from tests.conformance.process import Results
from tests.conformance.run import counted, last_line
from tests.conformance.suites import OUTCOMES, exclusions

Key = tuple[str, str, str, str]


def load(paths: list[str]) -> dict[Key, dict[str, Any]]:
    runs: dict[Key, dict[str, Any]] = {}
    for path in paths:
        found = json.loads(Path(path).read_text())
        key = (found["suite"], found["python"], found["loop"], found["primitives"] or "")
        if key in runs:
            runs[key]["tests"].update(found["tests"])
        else:
            runs[key] = found
    return runs


def kept(key: Key, results: Results, control: set[str] | None) -> Results:
    """What counts; a test that was not run counts if the control shows that it makes a loop."""
    suite, version, *_ = key
    patterns = [row.pattern for row in exclusions(suite, version)]
    return {
        name: result
        for name, result in counted(results, suite).items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        and (result["outcome"] != "notrun" or control is None or name in control)
    }


def main(arguments: list[str]) -> int:
    runs = load([argument for argument in arguments if not argument.startswith("-")])
    controls = {
        key[:2]: {name for name, result in run["tests"].items() if result["touched"]}
        for key, run in runs.items()
        if key[2:] == ("stdlib", "")
    }
    print("| suite | Python | loop | " + " | ".join(OUTCOMES) + " | pass rate | s |")
    print("|---" * (5 + len(OUTCOMES)) + "|")
    for key, run in sorted(runs.items()):
        suite, version, loop, primitives = key
        results = kept(key, run["tests"], controls.get(key[:2]))
        counts = Counter(result["outcome"] for result in results.values())
        ran = sum(counts.values()) - counts["skipped"]
        name = f"{loop}+{primitives}" if primitives else loop
        cells = [suite, version, name, *(str(counts[kind]) for kind in OUTCOMES)]
        cells += [f"{100 * counts['passed'] / max(ran, 1):.1f}%", f"{run['seconds']:.0f}"]
        print("| " + " | ".join(cells) + " |")
        if "--list" in arguments:
            for test, result in sorted(results.items()):
                if result["outcome"] not in ("passed", "skipped"):
                    kind = result["outcome"].upper()
                    print(f"    {kind:8} {test}{last_line(result['msg'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
