"""`make conformance`: CPython's own asyncio tests and anyio's, on Rondel, one after the other.

python -m tests.conformance [SUITE ...]; without a suite all of them. Exit status 1 if any test
fails. The package `rondel` of this interpreter is measured; what anyio needs is installed once
into .cache/conformance.
"""

import importlib.util
import os
import sys
from pathlib import Path

from tests.conformance.prepare import prepare
from tests.conformance.run import main as run_suite

SUITES = ("cpython", "cpython-primitives", "anyio")


def main(suites: list[str]) -> int:
    spec = importlib.util.find_spec("rondel")
    if spec is None or spec.origin is None:
        print("conformance: rondel is not installed here: run `make conformance`", file=sys.stderr)
        return 2
    # anyio's environment has no rondel: it sees ours through PYTHONPATH.
    os.environ["PYTHONPATH"] = str(Path(spec.origin).parents[1])
    failed = []
    for suite in suites or SUITES:
        options = ["--loop", "rondel"]
        if suite == "cpython-primitives":
            options += ["--primitives", "rondel"]
        if suite.startswith("anyio"):
            version = f"{sys.version_info[0]}.{sys.version_info[1]}"
            root = Path(__file__).parents[2]
            python, sources = prepare(root / ".cache/conformance" / version)
            options += ["--python", str(python), "--src", str(sources)]
        if run_suite([suite, *options]) != 0:
            failed.append(suite)
    print(f"\nconformance: {'failed: ' + ', '.join(failed) if failed else 'all passed'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
