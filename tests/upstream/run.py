"""Both sides of targets: each unit (file or label) in processes of its own, watched.

The watching is conformance's (`process.py`): a test over its time ends with its stack, a crash is
booked on the test that was running, and the unit goes on without the finished tests.

Threads: as there; results belong to a unit's thread until its future is done.
"""

import fnmatch
import hashlib
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance import interpreters
from tests.conformance.process import Patience, Results, run_unit
from tests.conformance.suites import CHILD as CONFORMANCE_CHILD
from tests.conformance.suites import OUTCOMES, Exclusion, SuiteError, Unit
from tests.upstream.prepare import CACHE, Prepared
from tests.upstream.redis import Redis, redis
from tests.upstream.releases import LABELS

HERE = Path(__file__).parent
CHILD = HERE / "child"
SIDES = ("stock", "rondel")

# anyio's plugin, where it is installed, imports anyio's backend before any test is collected.
PYTEST = [
    "-q",
    "--no-header",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:anyio",
    "--tb=short",
    "--timeout=0",
]

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of a target is run, and how long it may take."""

    units: Sequence[str] = ()  # globs; none: all
    exclude: bool = True
    tests: Path | None = None  # a checkout of the project, where its distribution has no tests
    jobs: int = 1
    patience: Patience = field(default_factory=Patience)


@dataclass
class Side:
    """The outcomes of one side. `seconds` are its units' own, added up."""

    prepared: Prepared
    name: str
    results: Results = field(default_factory=dict)
    seconds: float = 0
    empty: list[str] = field(default_factory=list)  # units in which nothing was found

    def write(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        target = self.prepared.target
        path = directory / f"{target.slug}-py{self.prepared.version}-{self.name}.json"
        found = {
            "suite": target.suite,
            "release": target.release,
            "asgiref": target.asgiref,
            "python": self.prepared.version,
            "side": self.name,
            "seconds": round(self.seconds, 1),
            "tests": self.results,
        }
        path.write_text(json.dumps(found, indent=1))
        return path


def measure(
    prepared: Prepared, package: Path, choice: Choice, log: Log, sides: Sequence[str] = SIDES
) -> list[Side]:
    """Run the target's units on stock asyncio and with Rondel, `jobs` at a time.

    Raises:
        SuiteError: the target cannot be run.
    """
    made = [Side(prepared, name) for name in sides]
    stop = threading.Event()

    def work(side: Side, unit: Unit) -> tuple[Results, float]:
        variables = environment(side, package, exclude=choice.exclude)
        found, took = run_unit(unit, variables, choice.patience, log, stop)
        counts = Counter(result["outcome"] for result in found.values())
        told = " ".join(f"{kind}={counts[kind]}" for kind in OUTCOMES if counts[kind])
        log(f"{side.name:7} {unit.name:34} {took:6.1f}s {told}")
        return found, took

    with ExitStack() as stack:
        plans = []
        for side in made:
            server = None
            if prepared.target.suite == "channels-redis":
                server = stack.enter_context(redis())
            found = units(side, server, choice)
            # The sides take turns: what makes the machine slow meets both.
            plans += [(number, side, unit) for number, unit in enumerate(found)]
        plans.sort(key=lambda plan: plan[0])
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=choice.jobs))
        futures: list[Future[tuple[Results, float]]] = []
        try:
            futures += [pool.submit(work, side, unit) for _, side, unit in plans]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # Ctrl-C, or a bug: the children must not outlive us
            if not all(future.done() and not future.exception() for future in futures):
                stop.set()
                pool.shutdown(cancel_futures=True)
    for (_, side, unit), future in zip(plans, futures, strict=True):
        results, took = future.result()
        side.results.update(results)
        side.seconds += took
        if not results:
            side.empty.append(f"{unit.name} ({side.name})")
    return made


def environment(side: Side, package: Path, *, exclude: bool) -> dict[str, str]:
    prepared = side.prepared
    rows = listed("exclude.txt", prepared.target.suite, prepared.version) if exclude else []
    path = [str(CHILD), str(CONFORMANCE_CHILD)]
    if side.name == "rondel":
        # A directory for each package: runs of two builds may go on side by side.
        name = hashlib.sha256(os.fsencode(package)).hexdigest()[:12]
        path.append(str(interpreters.alone(package, CACHE / "packages" / name)))
    made = {
        **os.environ,
        "UPSTREAM_SIDE": side.name,
        "CONF_EXCLUDE": json.dumps([row.pattern for row in rows]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(path),
    }
    for name in ("VIRTUAL_ENV", "DJANGO_SETTINGS_MODULE", "PYTHONSAFEPATH", "PYTEST_ADDOPTS"):
        made.pop(name, None)
    return made


def units(side: Side, server: Redis | None, choice: Choice) -> list[Unit]:
    """The units of one side.

    Raises:
        SuiteError: none is left.
    """
    prepared = side.prepared
    match prepared.target.suite:
        case "django":
            found = _django(prepared)
        case "channels":
            found = _channels(prepared, choice.tests)
        case "channels-redis":
            assert prepared.sources and server
            found = _pytest(
                prepared, _redirected(side, prepared.sources, server), ["-p", "no:django"]
            )
        case _:
            assert prepared.sources
            found = _pytest(prepared, prepared.sources, [])
    rows = listed("exclude.txt", prepared.target.suite, prepared.version) if choice.exclude else []
    kept = [
        unit
        for unit in found
        if not any(fnmatch.fnmatchcase(unit.name, row.pattern) for row in rows)
        and (not choice.units or any(fnmatch.fnmatch(unit.name, glob) for glob in choice.units))
    ]
    if not kept:
        names = ", ".join(unit.name for unit in found)
        raise SuiteError(f"no such unit in {prepared.target.title}; there are: {names}")
    return kept


def _command(prepared: Prepared, program: str) -> list[str]:
    return [prepared.python, "-X", "faulthandler", str(CHILD / program)]


def _pytest(prepared: Prepared, directory: Path, options: list[str]) -> list[Unit]:
    command = [*_command(prepared, "run_pytest.py"), *PYTEST, *options]
    files = sorted(path.relative_to(directory) for path in directory.glob("tests/**/test_*.py"))
    return [Unit(str(file), [*command, str(file)], directory) for file in files]


def _django(prepared: Prepared) -> list[Unit]:
    assert prepared.sources
    directory = prepared.sources / "tests"
    command = [*_command(prepared, "run_django.py"), "--parallel=1", "--noinput", "--verbosity=0"]
    return [
        Unit(label, [*command, label], directory)
        for label in LABELS
        if (directory / label).is_dir()
    ]


def _channels(prepared: Prepared, checkout: Path | None) -> list[Unit]:
    """Ours, and the project's own where there is a checkout."""
    command = [*_command(prepared, "run_pytest.py"), *PYTEST]
    ours = HERE / "channels_checks"
    options = ["-p", "no:django", "-o", "asyncio_mode=auto", "-c", str(ours / "pytest.ini")]
    found = [
        Unit(f"channels_checks/{file.name}", [*command, *options, str(file)], ours)
        for file in sorted(ours.glob("check_*.py"))
    ]
    if checkout is not None:
        if not (checkout / "tests").is_dir():
            raise SuiteError(
                f"no tests of Channels in {checkout}: give a checkout of its repository"
            )
        found += _pytest(prepared, checkout, [])
    return found


def _redirected(side: Side, sources: Path, server: Redis) -> Path:
    """A copy of channels_redis' tests that asks our servers instead of those on the usual ports."""
    directory = CACHE / side.prepared.version / side.prepared.target.slug / side.name
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(sources / "tests", directory / "tests")
    shutil.copy(sources / "setup.cfg", directory)
    for path in (directory / "tests").glob("*.py"):
        text = path.read_text().replace("26379", str(server.sentinel))
        text = text.replace("localhost:6379", f"127.0.0.1:{server.port}")
        # Three tests rely on the layer's default, which is the usual port.
        path.write_text(
            text.replace("ChannelLayer(expiry=", "ChannelLayer(hosts=TEST_HOSTS, expiry=")
        )
    return directory


def listed(name: str, suite: str, version: str) -> list[Exclusion]:
    """The lines of exclude.txt or timing.txt that apply to this suite under this Python."""
    found = []
    for line in (HERE / name).read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        where, pattern, reason = (part.strip() for part in line.split("|", 2))
        suites, _, prefix = where.partition("@")
        if fnmatch.fnmatchcase(suite, suites) and version.startswith(prefix):
            found.append(Exclusion(pattern, reason))
    return found
