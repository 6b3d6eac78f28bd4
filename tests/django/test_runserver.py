"""`manage.py runserver` on Rondel: what a developer sees, edits and interrupts; real processes."""

import asyncio
import logging
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
import httpx
import pytest

from .project_copy import Project, Running, needs_rondel
from .site_server import PATIENCE, TRACEBACK, SiteError, until

pytestmark = needs_rondel

BANNER_END = "Quit the server with CONTROL-C."


@pytest.fixture
def project(tmp_path: Path, database: Path) -> Project:
    return Project(tmp_path / "project", database)


@pytest.fixture(params=["reload", "noreload"])
def mode(request: pytest.FixtureRequest) -> list[str]:
    """With Django's autoreloader (the server is on a thread of a child) and without."""
    return [] if request.param == "reload" else ["--noreload"]


@pytest.fixture
def server(project: Project) -> Iterator[Running]:
    """The command as everybody types it, up."""
    with project.running("runserver", "{port}") as running:
        running.until_logged(BANNER_END)
        yield running


def test_pages_and_static_files_come_from_rondel_on_asgi(server: Running) -> None:
    with server.client() as client:
        assert client.get("/books/").status_code == 200
        static = client.get("/static/shelf/site.css")
        assert (static.status_code, static.headers["content-type"]) == (200, "text/css")
        assert client.get("/static/admin/css/base.css").status_code == 200
    assert server.where()["loop"] == "rondel.loop.EventLoop"
    server.check_log()


def test_the_log_reads_as_djangos_own(server: Running) -> None:
    with server.client() as client:
        size = len(client.get("/books/?sort=title").content)
        missing = len(client.get("/nowhere/").content)
        client.head("/books/")
    stamp = r"^\[\d\d/[A-Z][a-z]{2}/\d{4} \d\d:\d\d:\d\d\] "
    for line in (
        rf'"GET /books/\?sort=title HTTP/1\.1" 200 {size}$',
        rf'"GET /nowhere/ HTTP/1\.1" 404 {missing}$',
        r'"HEAD /books/ HTTP/1\.1" 200 0$',
    ):
        pattern = re.compile(stamp + line, re.MULTILINE)
        until(lambda p=pattern: p.search(server.log) is not None, f"{line} in {server.log}")


def test_the_banner_is_djangos(server: Running) -> None:
    server.until_logged("ASGI: Rondel ")
    assert "Performing system checks..." in server.log
    assert "System check identified no issues (0 silenced)." in server.log
    # From 6.1 on the banner names the interface.
    which = "ASGI development" if django.VERSION >= (6, 1) else "development"
    assert f"Starting {which} server at http://127.0.0.1:{server.port}/" in server.log
    assert "using settings 'site_project.own'" in server.log


def test_port_0_is_told(project: Project) -> None:
    with project.running("runserver", "0", "--noreload") as server:
        server.until_logged(BANNER_END)
        found = re.search(r"server at http://127\.0\.0\.1:(\d+)/", server.log)
        assert found is not None
        server.port = int(found[1])
        server.until_version("one")


def test_a_changed_file_is_served_while_a_stream_was_open(
    project: Project, server: Running
) -> None:
    server.until_version("one")
    server.until_watched("version.py")
    with server.client() as client, client.stream("GET", "/events/feed/") as stream:
        lines = stream.iter_lines()
        next(lines)
        project.write("version.py", "VERSION = 'two'\n")
        server.until_version("two")
        with pytest.raises(httpx.TransportError):
            for _ in lines:
                pass  # what had arrived; then the cut
    server.until_watched("version.py", starts=2)
    project.write("version.py", "VERSION = 'three'\n")
    server.until_version("three")
    # The cut stream's handler is cancelled before it closes its temporary file, so not `check_log`.
    for sign in ("already in use", TRACEBACK, "never retrieved", "pending", "Broken pipe"):
        assert sign not in server.log


@pytest.mark.parametrize("where", ["thread", "loop"])
def test_a_view_that_never_returns_does_not_hold_a_reload(
    project: Project, server: Running, where: str
) -> None:
    path, said = {
        "thread": ("/stuck/", "stuck in a thread"),
        "loop": ("/stuck-loop/", "stuck in the loop"),
    }[where]
    ended = threading.Event()

    def ask() -> None:
        with server.client() as client, pytest.raises(httpx.TransportError):
            client.get(path)
        ended.set()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        server.until_logged(said)
        server.until_watched("version.py")
        project.write("version.py", "VERSION = 'two'\n")
        server.until_version("two")
        assert ended.wait(PATIENCE), "the stuck request's connection was not closed"
    finally:
        server.kill()
        asking.join()


def test_a_module_that_fails_is_reported_and_watched(project: Project, server: Running) -> None:
    server.until_watched("version.py")
    project.write("version.py", "VERSION = \n")
    server.until_logged("SyntaxError: invalid syntax")
    server.until_watched("version.py", starts=2)
    project.write("version.py", "VERSION = 'mended'\n")
    server.until_version("mended")


def test_a_failing_startup_is_one_line_and_is_watched(project: Project) -> None:
    fails = """
async def application(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no redis"})
"""
    works = (project.root / "site_project" / "asgi.py").read_text()
    project.write("asgi.py", fails)
    status, output = project.manage("runserver", "0", "--noreload")
    assert status == 1
    assert "Error: the application's startup failed: no redis" in output
    assert "Traceback" not in output
    with project.running("runserver", "{port}") as server:
        server.until_logged("Error: the application's startup failed: no redis")
        server.until_watched("asgi.py")
        project.write("asgi.py", works)
        server.until_version("one")


def test_a_taken_port_is_djangos_familiar_error(project: Project, mode: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, output = project.manage("runserver", str(port), *mode)
    assert status == 1
    assert "Error: That port is already in use." in output
    assert "Traceback" not in output


def test_a_foreign_address_is_djangos_familiar_error(project: Project) -> None:
    status, output = project.manage("runserver", "192.0.2.1:0", "--noreload")
    assert status == 1
    assert "Error: That IP address can't be assigned to." in output


def test_ctrl_c_ends_it_quietly(project: Project, mode: list[str]) -> None:
    with project.running("runserver", "{port}", *mode) as server:
        server.until_version("one")
        server.interrupt()
        assert server.wait() == 0
        until_free(server.port)
        assert "KeyboardInterrupt" not in server.log
        server.check_log()


def test_sigterm_ends_it_quietly(project: Project, mode: list[str]) -> None:
    with project.running("runserver", "{port}", *mode) as server:
        server.until_version("one")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        until_free(server.port)
        server.check_log()


def test_ctrl_c_ends_a_server_whose_thread_is_stuck(project: Project, mode: list[str]) -> None:
    with project.running("runserver", "{port}", *mode) as server:
        server.until_version("one")
        with server.client() as client, pytest.raises(httpx.ReadTimeout):
            client.get("/stuck/", timeout=0.2)
        server.until_logged("stuck in a thread")
        server.interrupt()
        assert server.wait() == 0


def test_the_applications_shutdown_runs_on_ctrl_c(project: Project, mode: list[str]) -> None:
    project.write(
        "asgi.py",
        """
import asyncio

from django.core.asgi import get_asgi_application

django = get_asgi_application()


async def application(scope, receive, send):
    if scope["type"] != "lifespan":
        return await django(scope, receive, send)
    while True:
        event = (await receive())["type"]
        if event == "lifespan.shutdown":
            await asyncio.sleep(0.5)  # Django's parent gives a quarter of a second
        print("application:", event, flush=True)
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return
""",
    )
    with project.running("runserver", "{port}", *mode) as server:
        server.until_version("one")
        assert "application: lifespan.startup" in server.log
        server.interrupt()
        assert server.wait() == 0
        assert "application: lifespan.shutdown" in server.log


def test_nostatic_leaves_static_files_out(project: Project) -> None:
    with project.running("runserver", "{port}", "--noreload", "--nostatic") as server:
        server.until_version("one")
        with server.client() as client:
            assert client.get("/static/shelf/site.css").status_code == 404


@pytest.mark.parametrize("insecure", [False, True])
def test_without_debug_static_files_need_insecure(project: Project, insecure: bool) -> None:
    project.settings("DEBUG = False")
    option = ["--insecure"] if insecure else []
    with project.running("runserver", "{port}", "--noreload", *option) as server:
        server.until_version("one")
        with server.client() as client:
            status = client.get("/static/shelf/site.css").status_code
    assert status == (200 if insecure else 404)


@pytest.mark.parametrize("switch", ["--wsgi", "--noasgi"])
def test_wsgi_is_served_by_djangos_own_server(project: Project, switch: str) -> None:
    with project.running("runserver", "{port}", "--noreload", switch) as server:
        server.until_version("one")
        with server.client() as client:
            assert client.get("/version/").headers["server"].startswith("WSGIServer/")
        assert "WSGI: Django's own development server." in server.log


def test_without_asgi_application_djangos_own_server_is_used_and_said(project: Project) -> None:
    project.settings("ASGI_APPLICATION = None")
    with project.running("runserver", "{port}", "--noreload") as server:
        server.until_version("one")
        server.until_logged("(rondel.W005) ASGI_APPLICATION is not set")
        assert "WSGI: Django's own development server." in server.log


def test_ipv6(project: Project) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("no IPv6 here")
    with project.running("runserver", "-6", "{port}", "--noreload") as server:
        server.until_logged(f"http://[::1]:{server.port}/")
        with server.client("[::1]") as client:
            assert client.get("/version/").text == "one"


def test_without_staticfiles_it_is_cores_command(project: Project) -> None:
    project.settings('INSTALLED_APPS.remove("django.contrib.staticfiles")')
    status, output = project.manage("help", "runserver")
    assert status == 0
    assert "--wsgi" in output
    assert "--nostatic" not in output
    with project.running("runserver", "{port}", "--noreload") as server:
        server.until_version("one")
        server.check_log()


def test_a_missing_application_is_named(project: Project) -> None:
    project.settings('ASGI_APPLICATION = "site_project.asgi.app"')
    status, output = project.manage("runserver", "0", "--noreload")
    assert status == 1
    assert "ASGI_APPLICATION 'site_project.asgi.app'" in output
    assert "'site_project.asgi' has no attribute 'app'; did you mean 'application'?" in output


@pytest.mark.parametrize(
    ("status", "level"),
    [(200, "INFO"), (304, "INFO"), (404, "WARNING"), (503, "ERROR")],
)
def test_log_records_carry_what_djangos_formatter_colours_by(
    status: int, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"12345"})

    record = logged(app, caplog)
    assert (record.levelname, record.__dict__["status_code"]) == (level, status)
    size = 0 if status == 304 else 5
    assert record.getMessage() == f'"GET /%E4%B9%A6?q=1 HTTP/1.1" {status} {size}'


def test_an_application_that_fails_is_logged_as_500(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("on purpose")

    record = logged(app, caplog)
    assert record.getMessage() == '"GET /%E4%B9%A6?q=1 HTTP/1.1" 500 -'


def test_a_client_that_went_away_is_a_broken_pipe(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    record = logged(app, caplog)
    assert record.getMessage() == "- Broken pipe from ('127.0.0.1', 5)"


def logged(app: Any, caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    """The one record that a request to `app` leaves."""
    from rondel.django.management.development import RequestLog

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/书",
        "raw_path": b"/%E4%B9%A6",
        "query_string": b"q=1",
        "http_version": "1.1",
        "client": ["127.0.0.1", 5],
    }

    async def receive() -> Any:
        raise AssertionError("nothing is received")

    async def send(message: Any) -> None:
        pass

    async def call() -> None:
        try:
            await RequestLog(app)(scope, receive, send)
        except ValueError as error:
            assert str(error) == "on purpose"

    caplog.set_level(logging.INFO, "django.server")
    asyncio.run(call())
    (record,) = [record for record in caplog.records if record.name == "django.server"]
    return record


def until_free(port: int) -> None:
    """Wait until nobody listens there: the reloader's child may end a moment after its parent."""

    def free() -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
            return True

    try:
        until(free, "the port is free")
    except SiteError:
        pytest.fail(f"port {port} is still busy")
