"""Real programs on Rondel's loop: python -m tests.compat [PROGRAM ...].

Each program of `programs/` has a small real exchange of its own kind, on the stock loop (the
control), on Rondel's loop by `loop_factory`, and with `rondel.install()` (`python -m rondel`). All
must pass everywhere. A program that needs PostgreSQL or Redis skips where there is none. The last
line is "compat: N passed, N failed (...)". Exit status: 0 if nothing failed, 1 if something did,
2 if it could not be run.

examples:
  python -m tests.compat                          all programs, this interpreter's rondel
  python -m tests.compat aiohttp redis -v         two of them, with pytest's whole report
  python -m tests.compat --version 3.11 --version 3.13 --table docs/compat.md
"""

import argparse
import concurrent.futures
import functools
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.compat.prepare import CACHE, ROOT, prepare, services, versions
from tests.conformance import interpreters
from tests.conformance.suites import SuiteError, output, status

PROGRAMS = Path(__file__).parent / "programs"
MODES = ("stdlib", "loop", "install")
LIMIT = 600.0  # seconds that a mode may take
# The distributions that a program's row is about, where its name is not theirs.
PARTS = {
    "grpc": ["grpcio"],
    "psycopg": ["psycopg", "psycopg-pool"],
    "pytest_asyncio": ["pytest-asyncio"],
    "smtp": ["aiosmtplib", "aiosmtpd"],
    "sqlalchemy": ["sqlalchemy", "aiosqlite"],
    "uvicorn": ["uvicorn", "httptools", "wsproto"],
}
BEGIN, END = "<!-- table: python -m tests.compat --table -->", "<!-- end of the table -->"


@dataclass
class Outcome:
    """One program's tests in one mode."""

    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        told = [str(self.counts["passed"])] if self.counts["passed"] else []
        told += [f"{self.counts[w]} {w}" for w in ("failed", "skipped") if self.counts[w]]
        return ", ".join(told) or "not run"


@dataclass
class Result:
    python: str  # version
    versions: dict[str, str]
    outcomes: dict[str, dict[str, Outcome]]  # by mode, by program


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tests.compat",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("programs", nargs="*", metavar="PROGRAM", help=f"default: all of {' '.join(programs())}")
    add("--mode", action="append", default=[], choices=MODES, help="default: all three")
    add("--version", action="append", default=[], metavar="X.Y", help="that Python's environment")
    add("--python", action="append", default=[], metavar="PATH", help="a Python that has rondel")
    add("--table", type=Path, metavar="FILE", help="put the table there, between its marks")
    add("--install", action="store_true", help="Debian's PostgreSQL and Redis, if missing (root)")
    add("-v", "--verbose", action="store_true", help="pytest's whole report of each mode")
    return made


def programs() -> list[str]:
    return sorted(path.stem.removeprefix("check_") for path in PROGRAMS.glob("check_*.py"))


def measure(python: str, path: Path, chosen: list[str], environ: dict[str, str], mode: str) -> str:
    """Run one mode; the text of pytest's report. Its outcomes are in `report(path, mode)`."""
    report(path, mode).unlink(missing_ok=True)
    command = [python, "-X", "faulthandler"]
    if mode == "install":
        command += ["-m", "rondel"]
    command += ["-m", "pytest", "-c", str(PROGRAMS / "pytest.ini"), "--rootdir", str(PROGRAMS)]
    command += ["-q", "--tb=short", f"--junitxml={report(path, mode)}"]
    command += [str(PROGRAMS / f"check_{name}.py") for name in chosen]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ = {**kept, **environ, "COMPAT_MODE": mode, "PYTHONPATH": str(path)}
    try:
        done = subprocess.run(
            command,
            env=environ,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired as late:
        shown = late.stdout or b""
        text = shown if isinstance(shown, str) else shown.decode(errors="replace")
        return f"{text}\nno end within {LIMIT:.0f} s\n"
    return done.stdout


def report(path: Path, mode: str) -> Path:
    return path.parent / f"{mode}.xml"


def outcomes(path: Path, mode: str, chosen: list[str]) -> dict[str, Outcome]:
    """By program; one without any outcome has failed: it, or the whole run, broke down."""
    found = {name: Outcome() for name in chosen}
    with_report = report(path, mode)
    cases: list[ElementTree.Element] = []
    if with_report.exists():
        cases = list(ElementTree.parse(with_report).getroot().iter("testcase"))
    for case in cases:
        where = f"{case.get('classname')}.{case.get('name')}"
        name = next((each for each in chosen if f"check_{each}." in f"{where}."), None)
        if name is None:
            continue
        kinds = {child.tag for child in case}
        bad = kinds & {"failure", "error"}
        found[name].counts["failed" if bad else "skipped" if "skipped" in kinds else "passed"] += 1
    for each in found.values():
        if not each.counts:
            each.counts["failed"] += 1
    return found


def table(results: list[Result]) -> Iterator[str]:
    heads = ["program", "versions", "CPython", "asyncio", "Rondel's loop", "`rondel.install()`"]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    names = list(dict.fromkeys(name for r in results for name in next(iter(r.outcomes.values()))))
    for name in names:
        for result in results:
            parts = [(p, result.versions.get(p, "?")) for p in PARTS.get(name, [name])]
            told = ", ".join(f"{p} {v}" for p, v in parts)
            cells = [
                str(result.outcomes[mode][name]) if mode in result.outcomes else "–"
                for mode in MODES
            ]
            yield f"| {name.replace('_', '-')} | {told} | {result.python} | {' | '.join(cells)} |"


def write_table(file: Path, lines: list[str]) -> None:
    """Between the marks of the file.

    Raises:
        SuiteError: it has no marks.
    """
    before, begin, rest = file.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SuiteError(f"{file} has no place for a table: {BEGIN} ... {END}")
    text = "\n".join(lines)
    file.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def run(options: argparse.Namespace) -> bool:
    """Measure and report; true if nothing failed.

    Raises:
        SuiteError: it cannot be run.
    """
    unknown = set(options.programs) - set(programs())
    if unknown:
        raise SuiteError(f"no program {', '.join(sorted(unknown))}; there are: {programs()}")
    chosen = options.programs or programs()
    modes = [mode for mode in MODES if mode in (options.mode or MODES)]
    pythons = [os.path.abspath(path) for path in options.python]
    pythons += [interpreters.by_version(version) for version in options.version]
    begin, results, totals = time.monotonic(), list[Result](), Counter[str]()
    with services(install=options.install) as environ:
        for python in pythons or [sys.executable]:
            package = interpreters.package(python)
            version = output(python, "import platform; print(platform.python_version())")
            directory = CACHE / version
            runner = prepare(python, directory)
            path = interpreters.alone(package, directory)
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                measured = functools.partial(measure, runner, path, chosen, environ)
                texts = pool.map(measured, modes)
                for mode, text in zip(modes, texts, strict=True):
                    found = outcomes(path, mode, chosen)
                    failed = any(each.counts["failed"] for each in found.values())
                    if failed or options.verbose:
                        print(f"\n== {mode}, CPython {version}\n{text}", flush=True)
                    for each in found.values():
                        totals += each.counts
                    if mode == modes[0]:
                        results.append(Result(version, versions(runner), {}))
                    results[-1].outcomes[mode] = found
    lines = list(table(results))
    print("\n" + "\n".join(lines))
    if options.table:
        write_table(options.table, lines)
    print(
        f"\ncompat: {totals['passed']} passed, {totals['failed']} failed "
        f"({totals['skipped']} skipped; CPython {', '.join(r.python for r in results)}; "
        f"{time.monotonic() - begin:.0f} s)"
    )
    return totals["failed"] == 0


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    os.chdir(ROOT)
    # A `kill` ends the servers, too.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    return status("compat", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
