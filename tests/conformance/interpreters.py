"""Which Python is measured: one in which rondel is installed, by path or by version.

A version stands for the virtual environments that this project's make targets keep, and for the
interpreter that is running.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conformance.suites import SuiteError, output

ROOT = Path(__file__).parents[2]
LOCATE = (
    "import importlib.util as u; spec = u.find_spec('rondel'); "
    "print(spec.origin if spec and spec.origin else '')"
)


def by_version(version: str) -> str:
    """The path of a Python X.Y that has rondel.

    Raises:
        SuiteError: there is none.
    """
    places = [ROOT / name / "bin/python" for name in (f".venv-{version}", ".venv")]
    places += [ROOT / f".venv-ci-{version}" / "bin/python", Path(sys.executable)]
    for path in places:
        if path.exists() and _is(path, version) and output(str(path), LOCATE):
            return str(path)
    raise SuiteError(
        f"no Python {version} with rondel here: make one with "
        f"`make dev PYTHON=python{version} VENV=.venv-{version}`, or give --python PATH"
    )


def _is(path: Path, version: str) -> bool:
    found = subprocess.run(
        [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
    )
    return found.stdout.strip() == version


def package(python: str) -> Path:
    """The directory of the package `rondel` that this interpreter imports.

    Raises:
        SuiteError: it has none.
    """
    origin = output(python, LOCATE)
    if not origin:
        raise SuiteError(f"rondel is not installed in {python}: run `make dev`")
    return Path(origin).parent


def alone(package: Path, directory: Path) -> Path:
    """A directory to import the package from, and nothing else that is installed beside it."""
    path = directory / "path"
    path.mkdir(parents=True, exist_ok=True)
    link = path / package.name
    if not link.is_symlink() or link.resolve() != package.resolve():
        with tempfile.TemporaryDirectory(dir=directory) as made:
            new = Path(made) / "link"
            new.symlink_to(package.resolve())
            os.replace(new, link)
    return path
