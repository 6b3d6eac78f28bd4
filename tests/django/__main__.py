"""The Django tests on another Django and asgiref: python -m tests.django --django X.Y [...].

An environment for each pair is made under .cache/django, once: its own site-packages have that
Django and asgiref alone; everything else, Rondel's build too, is the running environment's. The
releases are those of tests/upstream/releases.py. It runs the rules on uvicorn, the oracle,
and all of tests/django on Rondel; then tests/bridge, which asgiref decides about.

examples:
  python -m tests.django --django 4.2
  python -m tests.django --django 5.2 --asgiref 3.8.1 -- -k threads
  python -m tests.django --django all             every series that this Python has
  python -m tests.django --django 6.1 --no-oracle -- tests/django/test_inline.py

The exit status is 0 if all passed, 1 if not, 2 if an environment cannot be made.
"""

import argparse
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

from tests.conformance.suites import SuiteError
from tests.upstream.releases import ASGIREF, DJANGO

CACHE = Path(__file__).parents[2] / ".cache/django"
RULES = "tests/django/rules"


def series(wanted: list[str]) -> list[str]:
    """The series to run on this Python.

    Raises:
        SuiteError: one is unknown, or not for this Python.
    """
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    there = [name for name, found in DJANGO.items() if python in found.pythons]
    if "all" in wanted:
        return there
    for name in wanted:
        if name not in there:
            raise SuiteError(
                f"Django {name!r} is not for Python {python}; there are: {', '.join(there)}"
            )
    return wanted


def asgirefs(name: str, wanted: list[str]) -> list[str]:
    """The releases of asgiref to run a series with; `oldest` and `newest` are two of them."""
    ends = {"oldest": DJANGO[name].oldest_asgiref, "newest": ASGIREF[-1]}
    return [ends.get(release, release) for release in wanted or ["newest"]]


def environment(name: str, asgiref: str) -> str:
    """The interpreter that has them.

    Raises:
        SuiteError: pip failed.
    """
    folder = CACHE / sys.version.split()[0] / f"django-{name}-asgiref-{asgiref}"
    python, ready = folder / "bin/python", folder / "ready"
    wanted = [f"Django=={DJANGO[name].release}", f"asgiref=={asgiref}"]
    # What its packages come from, and what it is: another one makes it anew.
    stamp = "\n".join([sys.executable, sys.version, *wanted])
    if ready.exists() and ready.read_text() == stamp:
        return str(python)
    print(f"setting up {' with '.join(wanted)} (once)", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    _run(*pip, "install", "--quiet", *wanted)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    # Behind its own, with what their .pth files say: the quick build's place is in one.
    lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
    (packages / "running.pth").write_text("\n".join(lines) + "\n")
    ready.write_text(stamp)
    return str(python)


def _run(*command: str) -> None:
    found = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if found.returncode != 0:
        raise SuiteError(f"cannot be set up: {' '.join(command)}\n{found.stdout}")


def check(python: str, name: str, asgiref: str) -> None:
    """Refuse an environment that has other releases than it should.

    Raises:
        SuiteError: it has.
    """
    code = (
        "import asgiref, django, rondel; print(django.__version__, asgiref.__version__, "
        "rondel.__file__)"
    )
    found = subprocess.run([python, "-c", code], text=True, capture_output=True)
    words = found.stdout.split()
    if words[:2] != [DJANGO[name].release, asgiref]:
        raise SuiteError(f"{python} has {found.stdout or found.stderr}")


def runs(python: str, options: argparse.Namespace) -> list[list[str]]:
    """The commands, in their order."""
    pytest, more = [python, "-m", "pytest", "-q"], options.pytest
    if any(not word.startswith("-") and "/" in word for word in more):
        return [[*pytest, *more]]  # files of one's own choice
    made = [[*pytest, "tests/django", "--server", "rondel", *more]]
    if not options.no_oracle:
        made.insert(0, [*pytest, RULES, "--server", "uvicorn", *more])
    if not more:
        made.append([*pytest, "tests/bridge"])
    return made


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.django",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--django", action="append", required=True, metavar="X.Y", help="a series, or all")
    add("--asgiref", action="append", default=[], metavar="X.Y.Z",
        help="oldest (that the series takes), newest (the default), or a release")  # fmt: skip
    add("--no-oracle", action="store_true", help="on Rondel alone")
    add("pytest", nargs="*", metavar="-- ARGS", help="for pytest")
    options = parser.parse_args()
    rows: list[tuple[str, str]] = []
    try:
        for name in series(options.django):
            for asgiref in asgirefs(name, options.asgiref):
                python = environment(name, asgiref)
                check(python, name, asgiref)
                title = f"Django {DJANGO[name].release} with asgiref {asgiref}"
                for command in runs(python, options):
                    print(f"\n== {title}: {' '.join(command[2:])}", flush=True)
                    rows.append((f"{title}: {' '.join(command[4:])}", _pytest(command)))
    except SuiteError as error:
        print(f"tests.django: {error}")
        return 2
    print(f"\nCPython {sys.version.split()[0]}")
    for what, ended in rows:
        print(f"  {what}: {ended}")
    return int(any("failed" in ended or "error" in ended or "status" in ended for _, ended in rows))


def _pytest(command: list[str]) -> str:
    """pytest's last line, everything shown as it comes."""
    last = ""
    with subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    # 5: nothing was chosen.
    return last if running.returncode in (0, 1) else f"status {running.returncode}: {last}"


if __name__ == "__main__":
    sys.exit(main())
