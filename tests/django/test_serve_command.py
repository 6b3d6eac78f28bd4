"""`manage.py serve`: what it refuses, what it serves, and how it ends."""

import signal
import socket
from pathlib import Path

import pytest

from .project_copy import Project, needs_rondel

pytestmark = needs_rondel

PRODUCTION = {"SITE_DEBUG": "0", "SITE_SECRET_KEY": "only-for-this-test" * 4}
SERVING = "serving site_project.asgi.application on http://127.0.0.1:"


@pytest.fixture
def project(tmp_path: Path, database: Path) -> Project:
    """The project as it would be deployed."""
    return Project(tmp_path / "project", database, **PRODUCTION)


@pytest.fixture
def development(tmp_path: Path, database: Path) -> Project:
    """The project with DEBUG on."""
    return Project(tmp_path / "project", database)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_asgi_application_until_a_signal(project: Project, number: int) -> None:
    with project.running("serve", "--port", "{port}") as server:
        server.until_logged(f"{SERVING}{server.port}")
        server.until_version("one")
        assert server.where()["loop"] == "rondel.loop.EventLoop"
        assert server.where()["thread"] == "MainThread"
        # The access log is `rondel serve`'s, the checks are Django's.
        assert '"GET /version/ HTTP/1.1" 200' in server.log
        server.signal(number)
        assert server.wait() == 0
        assert "stopped" in server.log
        server.check_log()


def test_options_are_those_of_rondel_serve(project: Project) -> None:
    uds = project.root / "s"
    with project.running("serve", "--uds", str(uds), "--no-access-log") as server:
        server.until_logged(f"serving site_project.asgi.application on unix:{uds}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(uds))
            client.sendall(b"GET /version/ HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b""
            while chunk := client.recv(4096):
                answer += chunk
        assert answer.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200"))
        assert answer.endswith(b"one")
        assert "GET /version/" not in server.log


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["afresh", "preload"])
def test_workers_serve_the_project(project: Project, preload: tuple[str, ...]) -> None:
    with project.running("serve", "--port", "{port}", "--workers", "2", *preload) as server:
        server.until_logged(f"{SERVING}{server.port}")
        server.until_version("one")
        assert server.where()["loop"] == "rondel.loop.EventLoop"
        assert len({server.where()["process"] for _ in range(8)}) == 2
        project.write("version.py", "VERSION = 'another'\n")
        server.signal(signal.SIGHUP)
        server.until_logged("reloaded")
        server.until_version("another")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        server.check_log()


def test_static_files_are_left_to_others(project: Project) -> None:
    with project.running("serve", "--port", "{port}") as server:
        server.until_version("one")
        with server.client() as client:
            assert client.get("/static/shelf/site.css").status_code == 404


def test_debug_is_refused_and_says_what_to_do(development: Project) -> None:
    status, output = development.manage("serve", "--port", "0")
    assert status == 1
    assert "CommandError: (rondel.W003) DEBUG is on" in output
    assert "Set DEBUG = False" in output
    assert "manage.py runserver" in output
    assert "--allow-debug" in output


def test_allow_debug_serves_with_a_warning(development: Project) -> None:
    with development.running("serve", "--port", "{port}", "--allow-debug") as server:
        server.until_version("one")
        assert "WARNING: (rondel.W003) DEBUG is on" in server.log


def test_silenced_debug_serves_without_a_word(development: Project) -> None:
    development.settings('SILENCED_SYSTEM_CHECKS = ["rondel.W003"]')
    with development.running("serve", "--port", "{port}") as server:
        server.until_version("one")
        assert "DEBUG" not in server.log


def test_allowed_hosts_are_asked_for(project: Project) -> None:
    project.settings("ALLOWED_HOSTS = []")
    status, output = project.manage("serve", "--port", "0")
    assert status == 1
    assert "CommandError: You must set settings.ALLOWED_HOSTS if DEBUG is False." in output


def test_a_missing_asgi_application_is_answered_with_the_line_to_add(project: Project) -> None:
    project.settings("ASGI_APPLICATION = None")
    status, output = project.manage("serve", "--port", "0")
    assert status == 1
    assert 'Add ASGI_APPLICATION = "site_project.asgi.application" to the settings.' in output


def test_a_taken_port_is_one_line(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, output = project.manage("serve", "--port", str(port))
    assert status == 1
    assert f"CommandError: 127.0.0.1:{port} is already in use" in output
    assert "Traceback" not in output


def test_an_application_that_fails_to_import_shows_its_own_traceback(project: Project) -> None:
    project.write("asgi.py", "import no_such_library\n")
    status, output = project.manage("serve", "--port", "0")
    assert status == 1
    assert "ModuleNotFoundError: No module named 'no_such_library'" in output
    assert "CommandError: importing 'site_project.asgi' failed" in output
    assert "rondel/server" not in output


def test_wrong_options_are_status_2(project: Project) -> None:
    status, output = project.manage("serve", "--port", "http")
    assert status == 2
    assert "'http' is not a port (0 to 65535)" in output


def test_errors_of_system_checks_keep_it_from_serving(project: Project) -> None:
    project.settings('ROOT_URLCONF = "site_project.bad_urls"')
    project.write("bad_urls.py", "urlpatterns = ['not a path']\n")
    status, output = project.manage("serve", "--port", "0")
    assert status == 1
    assert "urls.E004" in output


def test_deploy_runs_the_deployment_checks(project: Project) -> None:
    with project.running("serve", "--port", "{port}", "--deploy") as server:
        server.until_version("one")
        assert "security.W004" in server.log
    with project.running("serve", "--port", "{port}") as server:
        server.until_version("one")
        assert "security.W004" not in server.log
