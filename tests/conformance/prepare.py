#!/usr/bin/env python3
"""An environment and sources for anyio's suite: prepare.py DIRECTORY; run by `python -m`.

DIRECTORY/venv gets the suite's test dependencies, DIRECTORY/src anyio's source distribution of
the version installed there. Both are made once.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

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


def prepare(directory: Path) -> tuple[Path, Path]:
    """(python, sources), made if they are not there yet."""
    python, sources = directory / "venv/bin/python", directory / "src"
    ready = directory / ".ready"
    if ready.exists():
        return python, sources
    print("setting up anyio's test suite (once)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", *REQUIREMENTS], check=True)
    version = subprocess.check_output(
        [python, "-c", "import importlib.metadata as m; print(m.version('anyio'))"], text=True
    ).strip()
    sources.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        download = [*pip, "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*download, "--dest", temporary, f"anyio=={version}"], check=True)
        (archive,) = Path(temporary).glob("*.tar.gz")
        with tarfile.open(archive) as opened:
            opened.extractall(sources, filter="data")
    ready.touch()
    return python, sources


if __name__ == "__main__":
    print(*prepare(Path(sys.argv[1])))
