"""Fixtures of the rules: servers by profile, gates, PostgreSQL; and what the marks mean.

`stock_breaks(reason)`   Django's own handler under uvicorn breaks this rule: not run there.
`not_yet(reason)`        Rondel's server breaks it so far: an expected failure, strict, so that
                         the test that begins to pass asks for the mark's removal; with
                         `sometimes=True` it is a race that the rule loses now and then.
`bounded_threads`        about servers that can be told how many threads they may use.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.django.conftest import chosen_kind
from tests.django.site_server import Kind, SiteServer

from .cluster import Postgres
from .ground import Gate, Ground, Profile, bounds_threads, make_tables, new_server

Serve = Callable[[Profile], Ground]

# Errors that views provoke, whose tracebacks Django logs.
ON_PURPOSE = (
    "didn't return an HttpResponse",
    "RequestDataTooBig: ",
    "TooManyFieldsSent: ",
    "Max number of fields exceeded",
    "You cannot use ATOMIC_REQUESTS with async views",
    "OperationalError: ",
    "AdminShutdown: ",
    "MultiPartParserError: ",
)

CLUSTER = Path(__file__).resolve().parents[3] / "scripts" / "postgres.sh"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "stock_breaks(reason): a rule that stock Django breaks")
    config.addinivalue_line(
        "markers", "not_yet(reason, sometimes=False): a rule that Rondel's server breaks so far"
    )
    config.addinivalue_line("markers", "bounded_threads: a rule for servers that have --threads")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here not in item.path.parents:
            continue
        rondel = chosen_kind(config).name == "rondel"
        if not rondel and (mark := item.get_closest_marker("stock_breaks")):
            item.add_marker(pytest.mark.skip(reason=f"stock Django: {mark.args[0]}"))
        if rondel and (mark := item.get_closest_marker("not_yet")):
            strict = not mark.kwargs.get("sometimes", False)
            item.add_marker(pytest.mark.xfail(reason=f"not yet: {mark.args[0]}", strict=strict))
        if item.get_closest_marker("bounded_threads") and not bounds_threads(chosen_kind(config)):
            reason = "Rondel's --threads alone bounds them, and this server has no such option"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """An expected failure must not hide what a server left behind, found at its end."""
    report = yield
    if call.when == "teardown" and call.excinfo is not None and hasattr(report, "wasxfail"):
        del report.wasxfail
        report.outcome = "failed"
    return report


class Servers:
    """Servers of the project, one per profile, all ended together."""

    def __init__(self, kind: Kind, tables: Path, folders: Callable[[], Path]) -> None:
        self._kind = kind
        self._tables = tables
        self._folders = folders
        self._running: dict[str, Ground] = {}

    def __call__(self, profile: Profile) -> Ground:
        """The quiet server of that profile."""
        if profile.key not in self._running:
            folder = self._folders()
            shutil.copy(self._tables, folder)
            server = new_server(self._kind, profile, folder, *ON_PURPOSE)
            self._running[profile.key] = Ground(server, folder)
            server.start()
        ground = self._running[profile.key]
        ground.quiet()
        return ground

    def stop(self) -> None:
        """End them all at once, then look at what each leaves behind."""
        try:
            for ground in self._running.values():
                ground.quiet()
                ground.close()
                ground.server.terminate()
            for ground in self._running.values():
                ground.server.check_end()
        finally:
            for ground in self._running.values():
                ground.server.kill()


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with the project's tables, to be copied."""
    folder = tmp_path_factory.mktemp("tables")
    make_tables(Profile(), folder)
    return folder / "rules.sqlite3"


@pytest.fixture(scope="module")
def serve(kind: Kind, tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A server with a profile of its own, for this module's tests."""
    servers = Servers(kind, tables, lambda: tmp_path_factory.mktemp("rules"))
    yield servers
    servers.stop()


@pytest.fixture(scope="session")
def plain_server(
    kind: Kind, tables: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    """The server without middleware, for all tests."""
    servers = Servers(kind, tables, lambda: tmp_path_factory.mktemp("plain"))
    yield servers
    servers.stop()


@pytest.fixture
def plain(plain_server: Servers) -> Ground:
    """A quiet server without middleware: views and Django's handler alone."""
    return plain_server(Profile())


@pytest.fixture
def own(kind: Kind, tmp_path: Path) -> Iterator[Callable[..., SiteServer]]:
    """A server, not yet started, for a test that breaks it; nobody looks at what it leaves."""
    made: list[SiteServer] = []

    def make(profile: Profile, *on_purpose: str) -> SiteServer:
        made.append(new_server(kind, profile, tmp_path, *on_purpose))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def alone(
    own: Callable[..., SiteServer], tables: Path, tmp_path: Path
) -> Iterator[Callable[..., Ground]]:
    """A running server in which a test may leave requests open: no other test meets it."""
    made: list[Ground] = []

    def make(profile: Profile) -> Ground:
        shutil.copy(tables, tmp_path)
        server = own(profile)
        server.start()
        made.append(Ground(server, tmp_path))
        return made[-1]

    yield make
    for ground in made:
        ground.close()


@pytest.fixture
def doomed(alone: Callable[..., Ground]) -> Ground:
    """The same without middleware."""
    return alone(Profile())


@pytest.fixture(scope="session")
def all_gates() -> Iterator[list[Gate]]:
    """Every gate so far: they stay while servers run that may come to them late."""
    gates: list[Gate] = []
    yield gates
    for gate in gates:
        gate.close()


@pytest.fixture
def gates(all_gates: list[Gate], tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    """Gates that let everybody through when the test is over."""
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate(tmp_path / f"gate-{len(made)}"))
        all_gates.append(made[-1])
        return made[-1]

    yield make
    for gate in made:
        gate.release()


@pytest.fixture
def gate(gates: Callable[[], Gate]) -> Gate:
    """One gate."""
    return gates()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A database with the project's tables, in RONDEL_TEST_POSTGRES's cluster or a private one."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    given = os.environ.get("RONDEL_TEST_POSTGRES")
    folder = given
    if folder is None:
        made = subprocess.run([CLUSTER, "start"], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            pytest.skip(f"no PostgreSQL: {made.stderr.strip()}")
        folder = made.stdout.strip()
    database = Postgres(folder, f"rules_{os.getpid()}")
    try:
        database.create()
        make_tables(Profile(database=database.settings), tmp_path_factory.mktemp("postgres"))
        yield database
        database.drop()
    finally:
        if given is None:
            subprocess.run([CLUSTER, "stop", folder], check=True, capture_output=True)
