"""Two servers per file of tests, one with TLS; both must be alive, and stop cleanly, at its end."""

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.net.certificates import client_context, identity
from tests.server.wire import Served, serving

FILES = Path(__file__).parent / "site"
LARGE = bytes(range(1, 251)) * 16_000  # 4 MB
OPTIONS = ["--compression", "zstd,br,gzip", "--limit-body-bytes", "50MB"]
numbers = itertools.count()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What --static serves: the browser's page, and a large file."""
    folder = tmp_path_factory.mktemp("static")
    for file in FILES.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "large.bin").write_bytes(LARGE)
    return folder


def served_to_its_end(server: Served) -> Iterator[Served]:
    yield server
    assert server.get("/hello").body == b"hello"
    server.process.signal(signal.SIGTERM)
    outcome = server.process.end()
    assert outcome.status == 0, outcome.errors
    assert "Traceback" not in outcome.errors, outcome.errors


@pytest.fixture(scope="module")
def plain(files: Path) -> Iterator[Served]:
    with serving("tests.clients.app:app", "--static", f"/static={files}", *OPTIONS) as server:
        yield from served_to_its_end(server)


@pytest.fixture(scope="module")
def secure(files: Path) -> Iterator[Served]:
    one = identity("localhost")
    options = ["--ssl-certfile", one.certificate, "--ssl-keyfile", one.key, *OPTIONS]
    options += ["--static", f"/static={files}"]
    with serving("tests.clients.app:app", *options, context=client_context()) as server:
        yield from served_to_its_end(server)


@pytest.fixture
def key() -> str:
    """A name for this test's notes and gates in the server."""
    return f"key{next(numbers)}"
