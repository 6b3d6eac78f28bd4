"""Which suites there are, the units (files) they consist of, and what is excluded from them."""

import fnmatch
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
CHILD = HERE / "child"
SUITES = ("cpython", "cpython-primitives", "anyio", "anyio-eager")
OUTCOMES = ("passed", "failed", "error", "skipped", "timeout", "crashed", "notrun")

CPYTHON_LOOP = [
    "events",
    "sendfile",
    "sock_lowlevel",
    "server",
    "buffered_proto",
    "context",
    "ssl",
    "sslproto",
    "streams",
    "subprocess",
    "runners",
    "threads",
    "unix_events",
    "futures2",
    "taskgroups",
    "timeouts",
    "waitfor",
    "locks",
    "queues",
    "staggered",
    "eager_task_factory",
    "pep492",
    "tasks",
    "futures",
    "base_events",
]
CPYTHON_PRIMITIVES = [
    "tasks",
    "futures",
    "futures2",
    "taskgroups",
    "timeouts",
    "waitfor",
    "locks",
    "queues",
    "staggered",
    "streams",
    "eager_task_factory",
    "pep492",
    "threads",
    "runners",
]
# What Rondel replaces outright: the units that `--task-layer` runs, in both cpython suites.
TASK_LAYER = [
    "tasks",
    "futures",
    "futures2",
    "taskgroups",
    "timeouts",
    "waitfor",
    "locks",
    "queues",
    "eager_task_factory",
    "runners",
    "threads",
]
CPYTHON_OTHERS = [
    "test.test_asyncgen",
    "test.test_contextlib_async",
    "test.test_coroutines",
    "test.test_unittest.test_async_case",
    "unittest.test.test_async_case",
]


class SuiteError(Exception):
    """The suite cannot be run; one line says why and what to do."""


@dataclass(frozen=True)
class Unit:
    """One process: a module or file of tests."""

    name: str
    arguments: list[str]
    directory: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Exclusion:
    pattern: str
    reason: str


def output(python: str, code: str) -> str:
    """What `code` prints under the interpreter `python`.

    Raises:
        SuiteError: it cannot be run, or the code failed.
    """
    try:
        return subprocess.check_output(
            [python, "-c", code], text=True, stderr=subprocess.STDOUT
        ).strip()
    except OSError as error:
        raise SuiteError(f"{python} cannot be run: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise SuiteError(f"{python}: {error.output.strip().rpartition(chr(10))[2]}") from error


def status(command: str, run: Callable[[], bool]) -> int:
    """What a command ends with: 1 if something has failed, 2 if a suite cannot be run, which is
    told, 130 if it was interrupted.
    """
    try:
        return 0 if run() else 1
    except SuiteError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{command}: interrupted", file=sys.stderr)
        return 130


def cpython_tests(python: str) -> Path:
    """The directory of the interpreter's own test.test_asyncio.

    Raises:
        SuiteError: the interpreter comes without it.
    """
    code = "import test.support, test.test_asyncio as t; print(t.__path__[0])"
    try:
        return Path(output(python, code))
    except SuiteError:
        version = output(python, "import sys; print('%d.%d' % sys.version_info[:2])")
    raise SuiteError(
        f"{python} (CPython {version}) comes without its own tests, the package `test`. "
        f"Debian and Ubuntu have them as libpython{version}-testsuite (apt-get install it); "
        "an interpreter built by pyenv or from source has them; Docker's python images do not."
    )


def units(suite: str, python: str, sources: Path | None, *, ignore_leaks: bool) -> list[Unit]:
    if suite.startswith("cpython"):
        return _cpython(suite, python)
    return _anyio(suite, python, sources, ignore_leaks=ignore_leaks)


def _cpython(suite: str, python: str) -> list[Unit]:
    command = [python, "-X", "faulthandler", str(CHILD / "run_unittest.py")]
    environment = {"CONF_MODE": "cpython"}
    directory = cpython_tests(python)
    names = CPYTHON_LOOP if suite == "cpython" else CPYTHON_PRIMITIVES
    found = [
        Unit(name, [*command, f"test.test_asyncio.test_{name}"], None, environment)
        for name in names
        if (directory / f"test_{name}.py").exists()
    ]
    if suite == "cpython":
        for module in CPYTHON_OTHERS:
            known = subprocess.run([python, "-c", f"import {module}"], capture_output=True)
            if known.returncode == 0:
                name = module.rpartition(".")[2]
                found.append(Unit(name, [*command, module], None, environment))
    return found


def _anyio(suite: str, python: str, sources: Path | None, *, ignore_leaks: bool) -> list[Unit]:
    version = output(python, "import importlib.metadata as m; print(m.version('anyio'))")
    if sources is None or not (sources / f"anyio-{version}").is_dir():
        raise SuiteError(f"no anyio-{version} under {sources}: give --src DIR, made by prepare.py")
    directory = sources / f"anyio-{version}"
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "--tb=short", "--timeout=0"]
    options += ["-o", "addopts="]
    for plugin in ("asyncio", "aiohttp"):  # other projects', which this suite does not use
        options += ["-p", f"no:{plugin}"]
    if ignore_leaks:
        options += ["-W", "ignore::ResourceWarning"]
        options += ["-W", "ignore::pytest.PytestUnraisableExceptionWarning"]
    environment = {"CONF_MODE": "anyio", "CONF_EAGER": str(int(suite == "anyio-eager"))}
    command = [python, "-X", "faulthandler", str(CHILD / "run_pytest.py"), *options]
    files = sorted(path.relative_to(directory) for path in directory.glob("tests/**/test_*.py"))
    return [Unit(str(file), [*command, str(file)], directory, environment) for file in files]


def exclusions(suite: str, version: str) -> list[Exclusion]:
    """The lines of exclude.txt that apply to this suite under this Python."""
    found = []
    for line in (HERE / "exclude.txt").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        where, pattern, reason = (part.strip() for part in line.split("|", 2))
        suites, _, prefix = where.partition("@")
        if fnmatch.fnmatchcase(suite, suites) and version.startswith(prefix):
            found.append(Exclusion(pattern, reason))
    return found
