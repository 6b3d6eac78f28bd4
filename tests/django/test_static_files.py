"""Static files behind Django's ASGIStaticFilesHandler: `runserver`, and a project's asgi.py."""

import hashlib
import http.client
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from .project_copy import Project, Running, needs_rondel
from .site_server import PATIENCE, until

pytestmark = needs_rondel

MEGA = 1 << 20
LARGE = 8 * MEGA
SPARSE = 400 * MEGA

# What a project writes itself, and a word for each signal.
_WRAPPED = """
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core import signals
from django.core.asgi import get_asgi_application

application = ASGIStaticFilesHandler(get_asgi_application())


def started(sender, **_):
    print("started by", sender.__name__, flush=True)


def finished(sender, **_):
    print("finished by", sender.__name__, flush=True)


if SIGNALS:
    signals.request_started.connect(started)
    signals.request_finished.connect(finished)
"""
# The application behind is none of Django's.
_ROUTER = """
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

django = get_asgi_application()


async def router(scope, receive, send):
    await django(scope, receive, send)


application = ASGIStaticFilesHandler(router)
"""


# A stream whose second part waits for a file to appear.
_URLS = """
import time
from pathlib import Path

from django.http import StreamingHttpResponse
from django.urls import include, path


def parts():
    yield "one\\n"
    while not Path("go").exists():
        time.sleep(0.01)
    yield "two\\n"


def stream(request):
    return StreamingHttpResponse(parts())


urlpatterns = [path("parts/", stream), path("", include("site_project.own_urls"))]
"""


@dataclass
class Site:
    """A running project, and where its static files are."""

    kind: str
    running: Running
    folder: Path
    root: Path

    def file(self, name: str, size: int) -> bytes:
        """A file of that size, and its SHA-256."""
        block = os.urandom(MEGA)
        content = (block * (size // MEGA + 1))[:size]
        (self.folder / name).write_bytes(content)
        return hashlib.sha256(content).digest()

    @property
    def process(self) -> Path:
        return Path(f"/proc/{self.running.pid}")

    def open_files(self, name: str) -> int:
        """How many descriptors the server has of that file."""
        path = str(self.folder / name)
        count = 0
        for each in (self.process / "fd").iterdir():
            try:
                count += os.readlink(each) == path
            except FileNotFoundError:
                continue  # closed meanwhile
        return count

    def begun(self, name: str) -> socket.socket:
        """A client that has the response's head, and takes no more than fits on the way."""
        sock = socket.socket()
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", self.running.port))
        sock.sendall(f"GET /static/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += sock.recv(256)
        assert received.startswith(b"HTTP/1.1 200 ")
        return sock


def project(root: Path, database: Path, static: Path, **env: str) -> Project:
    made = Project(root, database, **env)
    made.write("static_urls.py", _URLS)
    made.settings(f'STATICFILES_DIRS = ["{static}"]\nROOT_URLCONF = "site_project.static_urls"')
    return made


@pytest.fixture(scope="module", params=["runserver", "runserver-wrapped", "serve", "router"])
def site(
    request: pytest.FixtureRequest, database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """`runserver` with DEBUG; `serve` with the handler around Django's; around another."""
    folder = tmp_path_factory.mktemp("static-site")
    static = folder / "static"
    static.mkdir()
    wrapped = _WRAPPED.replace("SIGNALS", "False")
    if request.param.startswith("runserver"):
        made = project(folder / "project", database, static)
        if request.param == "runserver-wrapped":
            made.write("asgi.py", wrapped)
        command, up = ("runserver", "{port}", "--noreload"), "Quit the server"
    else:
        made = project(
            folder / "project",
            database,
            static,
            SITE_DEBUG="0",
            SITE_SECRET_KEY="only-for-this-test" * 4,
        )
        made.write("asgi.py", wrapped if request.param == "serve" else _ROUTER)
        command = ("serve", "--tax", "--threads", "2", "--port", "{port}")  # type: ignore[assignment]
        up = "serving site_project.asgi"
    with made.running(*command) as running:
        running.until_logged(up)
        yield Site(request.param, running, static, made.root)
        running.check_log()


@pytest.fixture
def client(site: Site) -> Iterator[httpx.Client]:
    with site.running.client() as client:
        yield client


def test_a_file_of_megabytes_arrives_to_the_byte(site: Site, client: httpx.Client) -> None:
    digest = site.file("large.bin", LARGE + 1)
    for _ in range(3):  # what the server has learned is answered otherwise than what is new
        hasher = hashlib.sha256()
        with client.stream("GET", "/static/large.bin") as response:
            assert response.headers["content-length"] == str(LARGE + 1)
            assert response.headers["content-type"] == "application/octet-stream"
            for chunk in response.iter_raw():
                hasher.update(chunk)
        assert hasher.digest() == digest
    until(lambda: site.open_files("large.bin") == 0, "the file is closed")


def test_a_file_is_never_in_memory_as_a_whole(site: Site, client: httpx.Client) -> None:
    site.file("small.bin", 10)
    for _ in range(3):
        assert client.get("/static/small.bin").status_code == 200
    (site.folder / "sparse.bin").touch()
    os.truncate(site.folder / "sparse.bin", SPARSE)
    (site.process / "clear_refs").write_text("5")  # the peak is from now on
    before = peak(site.process)
    length = 0
    with client.stream("GET", "/static/sparse.bin") as response:
        for chunk in response.iter_raw():
            length += len(chunk)
    assert length == SPARSE
    assert peak(site.process) - before < 32 * 1024


def peak(process: Path) -> int:
    """The most KiB that the process has had in memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
    assert found is not None
    return int(found[1])


def test_slow_clients_hold_no_thread(site: Site, client: httpx.Client) -> None:
    site.file("slow.bin", LARGE)
    socks = [site.begun("slow.bin") for _ in range(5)]  # `serve` has two threads
    try:
        assert client.get("/version/").text == "one"
        assert client.get("/static/small.bin").status_code in (200, 404)
    finally:
        for sock in socks:
            sock.close()
    until(lambda: site.open_files("slow.bin") == 0, "the files are closed")


@pytest.mark.parametrize("farewell", ["close", "reset"])
def test_a_client_that_leaves_in_the_middle_has_the_file_closed(
    site: Site, client: httpx.Client, farewell: str
) -> None:
    site.file("left.bin", LARGE)
    sock = site.begun("left.bin")
    assert site.open_files("left.bin") >= 1, "it is being sent"
    if farewell == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    until(lambda: site.open_files("left.bin") == 0, "the file is closed")
    assert client.get("/version/").text == "one"


def test_head_has_the_headers_alone(site: Site) -> None:
    site.file("head.bin", LARGE)
    connection = http.client.HTTPConnection("127.0.0.1", site.running.port, timeout=PATIENCE)
    for _ in range(2):  # kept alive: nothing of a body lies between two answers
        connection.request("HEAD", "/static/head.bin")
        response = connection.getresponse()
        assert (response.status, response.headers["content-length"]) == (200, str(LARGE))
        assert response.read() == b""
    connection.close()
    until(lambda: site.open_files("head.bin") == 0, "the file is closed")


def test_not_modified_since(site: Site, client: httpx.Client) -> None:
    site.file("dated.bin", 10)
    modified = client.get("/static/dated.bin").headers["last-modified"]
    response = client.get("/static/dated.bin", headers={"If-Modified-Since": modified})
    assert (response.status_code, response.content) == (304, b"")
    assert "content-length" not in response.headers or response.headers["content-length"] == "0"
    earlier = "Sat, 01 Jan 2000 00:00:00 GMT"
    response = client.get("/static/dated.bin", headers={"If-Modified-Since": earlier})
    assert (response.status_code, len(response.content)) == (200, 10)


def test_range_is_not_djangos(site: Site, client: httpx.Client) -> None:
    (site.folder / "range.txt").write_text("0123456789")
    response = client.get("/static/range.txt", headers={"Range": "bytes=2-4"})
    assert (response.status_code, response.text) == (200, "0123456789")


def test_an_empty_file(site: Site, client: httpx.Client) -> None:
    site.file("empty.bin", 0)
    response = client.get("/static/empty.bin")
    assert (response.status_code, response.content) == (200, b"")


def test_a_file_with_a_name_that_is_encoded(site: Site, client: httpx.Client) -> None:
    (site.folder / "größe 1.txt").write_text("5 ells")
    assert client.get("/static/größe 1.txt").text == "5 ells"


def test_what_is_not_there_is_a_404(site: Site, client: httpx.Client) -> None:
    for path in ("/static/nothing.bin", "/static/no/thing.bin", "/static/", "/static/../secret"):
        for _ in range(2):
            assert client.get(path).status_code == 404
    assert client.post("/static/nothing.bin", content=b"x" * 100).status_code == 404


def test_a_file_is_one_hop(site: Site, client: httpx.Client) -> None:
    site.file("hop.bin", LARGE)
    for _ in range(3):  # on the loop at first, at a thread from then on
        response = client.get("/static/hop.bin", headers={"Rondel-Tax": "1"})
        assert "1 hop on 1 thread" in response.headers["server-timing"]
    # What comes after the head is in the log alone.
    site.running.until_logged("tax of GET /static/hop.bin", 3)
    assert (
        len(re.findall(r"tax of GET /static/hop.bin .*: 1 hop on 1 thread", site.running.log)) == 3
    )


def test_a_sync_iterator_behind_it_streams(site: Site, client: httpx.Client) -> None:
    if site.kind == "router":
        pytest.skip("Django's own handler is behind it, which collects")
    for _ in range(3):  # on the loop at first, at a thread from then on
        with client.stream("GET", "/parts/") as response:
            lines = response.iter_lines()
            assert next(lines) == "one"
            (site.root / "go").touch()
            assert list(lines) == ["two"]
        (site.root / "go").unlink()


def test_signals_are_sent_once_and_name_the_handler(database: Path, tmp_path: Path) -> None:
    static = tmp_path / "static"
    static.mkdir()
    (static / "a.txt").write_text("a")
    made = project(
        tmp_path / "project",
        database,
        static,
        SITE_DEBUG="0",
        SITE_SECRET_KEY="only-for-this-test" * 4,
    )
    made.write("asgi.py", _WRAPPED.replace("SIGNALS", "True"))
    with made.running("serve", "--port", "{port}") as running:
        running.until_logged("serving site_project.asgi")
        with running.client() as client:
            for number in range(1, 4):
                assert client.get("/static/a.txt").text == "a"
                running.until_logged("finished by ASGIStaticFilesHandler", number)
            assert client.get("/version/").text == "one"
        running.until_logged("finished by ASGIHandler")
        assert running.log.count("started by ASGIStaticFilesHandler") == 3
        assert running.log.count("finished by") == 4
        running.check_log()


def test_the_development_server_logs_a_files_size(database: Path, tmp_path: Path) -> None:
    static = tmp_path / "static"
    static.mkdir()
    (static / "a.bin").write_bytes(bytes(LARGE))
    made = project(tmp_path / "project", database, static)
    with made.running("runserver", "{port}", "--noreload") as running:
        running.until_logged("Quit the server")
        with running.client() as client:
            client.get("/static/a.bin")
            client.head("/static/a.bin")
        running.until_logged(f'"GET /static/a.bin HTTP/1.1" 200 {LARGE}\n')
        running.until_logged('"HEAD /static/a.bin HTTP/1.1" 200 0\n')
