"""The environment of a Python's programs, and the servers that they talk to.

    .cache/compat/PYTHON/venv     made once by pip from requirements.txt, without rondel
    .cache/compat/PYTHON/path     rondel alone, for PYTHONPATH

PostgreSQL and Redis are private (scripts/postgres.sh, scripts/redis.sh): one of each for the whole
run, or those that RONDEL_TEST_POSTGRES and RONDEL_TEST_REDIS name.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.prepare import IDENTITY
from tests.conformance.suites import SuiteError, output

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/compat"
REQUIREMENTS = Path(__file__).parent / "requirements.txt"


def prepare(interpreter: str, directory: Path) -> str:
    """The environment's Python, made if it is not there yet.

    Raises:
        SuiteError: pip failed.
    """
    python, ready = directory / "venv/bin/python", directory / "ready"
    stamp = "\n".join([output(interpreter, IDENTITY), REQUIREMENTS.read_text()])
    if ready.exists() and ready.read_text() == stamp:
        return str(python)
    print("installing the programs (once)", flush=True)
    ready.unlink(missing_ok=True)
    shutil.rmtree(directory / "venv", ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    _run(interpreter, "-m", "venv", str(directory / "venv"))
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run(*pip, "--only-binary", ":all:", "-r", str(REQUIREMENTS))
    ready.write_text(stamp)
    return str(python)


def versions(python: str) -> dict[str, str]:
    """What is installed: names in lower case."""
    code = (
        "import importlib.metadata as m; "
        "[print(d.metadata['Name'].lower(), d.version) for d in m.distributions()]"
    )
    pairs = (line.split(" ", 1) for line in output(python, code).splitlines())
    return dict(pairs)


@contextlib.contextmanager
def services(*, install: bool) -> Iterator[dict[str, str]]:
    """The environment variables that name PostgreSQL and Redis, where they can be had."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name in ("postgres", "redis"):
            variable = f"RONDEL_TEST_{name.upper()}"
            if os.environ.get(variable):
                found[variable] = os.environ[variable]
            elif folder := _start(name, install=install):
                stack.callback(_script, name, "stop", folder)
                found[variable] = folder
        yield found


def _start(name: str, *, install: bool) -> str | None:
    for command in ["install", "start"] if install else ["start"]:
        done = _script(name, command)
        if done.returncode != 0:
            print(f"no {name}, its programs skip: {done.stderr.strip()}", flush=True)
            return None
    return done.stdout.strip()


def _script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / f"scripts/{name}.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def _run(*command: str) -> None:
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise SuiteError(f"the programs cannot be installed: {' '.join(command)}\n{done.stdout}")
