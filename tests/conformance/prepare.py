#!/usr/bin/env python3
"""An environment and sources for anyio's suite: prepare.py DIRECTORY; run by `python -m`.

DIRECTORY/venv gets the suite's test dependencies, DIRECTORY/src anyio's source distribution of
the version installed there, both from the package index by pip. They are made once; a change of
the interpreter or of REQUIREMENTS makes them anew.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # as a script, too

from tests.conformance.suites import SuiteError, output

REQUIREMENTS = [
    "anyio",
    "pytest",
    "pytest-mock",
    "pytest-timeout",
    "coverage",
    "trustme",
    "psutil",
    "hypothesis",
    "exceptiongroup",
    "truststore",
    "uvloop",
    "setuptools",
]
# What tells one interpreter from another, in a virtual environment or out of it.
IDENTITY = "import sys; print(sys.base_prefix, sys.version)"


def prepare(interpreter: str, directory: Path) -> tuple[str, Path]:
    """(python, sources) in `directory`, made if they are not there yet.

    Raises:
        SuiteError: pip failed.
    """
    python, sources = directory / "venv/bin/python", directory / "src"
    ready = directory / "ready"
    stamp = "\n".join([output(interpreter, IDENTITY), *REQUIREMENTS])
    if ready.exists() and ready.read_text() == stamp:
        return str(python), sources
    print("setting up anyio's test suite (once)", flush=True)
    ready.unlink(missing_ok=True)
    for made in (directory / "venv", sources):
        shutil.rmtree(made, ignore_errors=True)
    sources.mkdir(parents=True)
    _run(interpreter, "-m", "venv", str(directory / "venv"))
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    _run(*pip, "install", "--quiet", *REQUIREMENTS)
    version = output(str(python), "import importlib.metadata as m; print(m.version('anyio'))")
    with tempfile.TemporaryDirectory() as temporary:
        download = [*pip, "download", "--quiet", "--no-deps", "--no-binary", "anyio"]
        _run(*download, "--dest", temporary, f"anyio=={version}")
        (archive,) = Path(temporary).glob("*.tar.gz")
        with tarfile.open(archive) as opened:
            if hasattr(tarfile, "data_filter"):  # 3.11.4 on; Debian 12 has 3.11.2
                opened.extraction_filter = tarfile.data_filter
            opened.extractall(sources)
    ready.write_text(stamp)
    return str(python), sources


def _run(*command: str) -> None:
    found = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if found.returncode != 0:
        raise SuiteError(f"anyio's suite cannot be set up: {' '.join(command)}\n{found.stdout}")


if __name__ == "__main__":
    print(*prepare(sys.executable, Path(sys.argv[1]).absolute()))
