"""Fixtures: a seeded database, the demo site's server on it, and clients of that server.

The server is Rondel's. `--server NAME`, or RONDEL_TEST_SERVER=NAME where this file is not the one
pytest starts with, runs the same tests against another one of `KINDS`:

    uvicorn            the oracle: a test that fails there asks for what ASGI does not promise;
                       RONDEL_TEST_ONLY_ASYNCIO=1 (no build) implies it
    uvicorn-on-rondel  uvicorn on Rondel's loop: tells a fault of the loop from one of the server
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from .site_server import KINDS, Kind, SiteServer, environment, manage, running

REDIS = Path(__file__).resolve().parents[2] / "scripts" / "redis.sh"


def pytest_addoption(parser: pytest.Parser) -> None:
    # Another suite may offer the same option; then its value serves both.
    with contextlib.suppress(ValueError):
        parser.addoption("--server", choices=sorted(KINDS), help="server under the Django tests")


def chosen_kind(config: pytest.Config) -> Kind:
    """The server program that this run is about."""
    default = "uvicorn" if os.environ.get("RONDEL_TEST_ONLY_ASYNCIO") == "1" else "rondel"
    name = (
        config.getoption("--server", default=None)
        or os.environ.get("RONDEL_TEST_SERVER")
        or default
    )
    if name not in KINDS:
        raise pytest.UsageError(f"no server {name!r}: choose one of {', '.join(sorted(KINDS))}")
    return KINDS[name]


@pytest.fixture(scope="session")
def kind(pytestconfig: pytest.Config) -> Kind:
    """The server program under test."""
    return chosen_kind(pytestconfig)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated and seeded database, made with the commands of the README."""
    path = tmp_path_factory.mktemp("site") / "site.sqlite3"
    env = environment(path)
    manage(env, "migrate", "--noinput")
    assert "14 books on the shelf" in manage(env, "seed")
    return path


@pytest.fixture(scope="session")
def server(
    kind: Kind, database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SiteServer]:
    """The demo as a newcomer runs it, with DEBUG on: one process for the whole session."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with running(SiteServer(kind, environment(database), log)) as started:
        yield started


@pytest.fixture
def client(server: SiteServer) -> Iterator[httpx.Client]:
    """One browser's worth of cookies and connections."""
    with server.client() as client:
        yield client


@pytest.fixture
def own_server(kind: Kind, database: Path, tmp_path: Path) -> Iterator[SiteServer]:
    """A server, not yet started, for a test that stops it or needs other settings."""
    server = SiteServer(kind, environment(database), tmp_path / "server.log")
    yield server
    server.kill()


@pytest.fixture(scope="session")
def redis() -> Iterator[Path]:
    """A server's socket: RONDEL_TEST_REDIS's, or one of the tests' own."""
    if find_spec("channels_redis") is None:
        pytest.skip("channels_redis is not installed")
    if given := os.environ.get("RONDEL_TEST_REDIS"):
        yield Path(given) / "redis.sock"
        return
    made = subprocess.run([REDIS, "start"], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no Redis: {made.stderr.strip()}")
    folder = made.stdout.strip()
    try:
        yield Path(folder) / "redis.sock"
    finally:
        subprocess.run([REDIS, "stop", folder], check=True, capture_output=True)
