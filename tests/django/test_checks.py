"""The system checks of `rondel.django`: when each speaks, what it advises, how to silence it."""

from pathlib import Path

import pytest

from .project_copy import Project, needs_rondel

pytestmark = needs_rondel

MIDDLEWARE = """
from django.utils.decorators import sync_and_async_middleware, sync_only_middleware
from django.utils.deprecation import MiddlewareMixin


class Old:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)


@sync_only_middleware
def marked(get_response):
    return Old(get_response)


class Both(MiddlewareMixin):
    pass


class OnlyAsync(Old):
    sync_capable = False
    async_capable = True


@sync_and_async_middleware
def either(get_response):
    return get_response
"""


@pytest.fixture
def project(tmp_path: Path, database: Path) -> Project:
    project = Project(tmp_path / "project", database)
    project.write("own_middleware.py", MIDDLEWARE)
    return project


def report(project: Project, settings: str) -> str:
    """What `manage.py check` says of these settings."""
    project.settings(settings)
    _, output = project.manage("check")
    return output


def add_middleware(*names: str) -> str:
    return "MIDDLEWARE += " + repr([f"site_project.own_middleware.{name}" for name in names])


def test_an_ordinary_project_gets_no_warning(project: Project) -> None:
    assert "System check identified no issues (0 silenced)." in report(project, "")


def test_w001_names_each_middleware_that_is_only_sync(project: Project) -> None:
    output = report(project, add_middleware("Old", "Both", "marked", "OnlyAsync", "either"))
    assert (
        "(rondel.W001) Middleware that only runs synchronously: "
        "site_project.own_middleware.Old, site_project.own_middleware.marked.\n"
    ) in output
    assert "HINT: " in output
    assert "async_capable = True" in output


def test_w001_leaves_a_middleware_that_cannot_be_imported_to_django(project: Project) -> None:
    assert "no issues" in report(project, add_middleware("Missing"))


def test_w001_is_no_matter_without_asgi(project: Project) -> None:
    output = report(project, add_middleware("Old") + "\nASGI_APPLICATION = None")
    assert "W001" not in output


KEPT_CONNECTIONS = """
DATABASES["reports"] = {{"ENGINE": "{engine}", "NAME": "x", "CONN_MAX_AGE": {age}}}
"""
# A backend that needs no driver, and that the check knows no more of than of PostgreSQL's.
BACKEND = "site_project.own_backend"


def kept_connections(project: Project, *, engine: str, age: str) -> str:
    """What `serve --no-bridge` says, which ends as it has no application to serve."""
    project.settings(
        KEPT_CONNECTIONS.format(engine=engine, age=age)
        + 'DEBUG = False\nALLOWED_HOSTS = ["*"]\n'
        + 'ASGI_APPLICATION = "site_project.missing.application"'
    )
    status, output = project.manage("serve", "--no-bridge", "--skip-checks", "--port", "0")
    assert status == 1
    return output


@pytest.mark.parametrize(("age", "warned"), [("600", True), ("None", True), ("0", False)])
def test_w002_warns_of_connections_that_are_kept(project: Project, age: str, warned: bool) -> None:
    backend = project.root / "site_project" / "own_backend"
    backend.mkdir()
    (backend / "__init__.py").touch()
    (backend / "base.py").write_text(
        "from django.db.backends.sqlite3.base import DatabaseWrapper\n", encoding="utf-8"
    )
    output = kept_connections(project, engine=BACKEND, age=age)
    said = f"(rondel.W002) DATABASES['reports'] keeps its connections (CONN_MAX_AGE is {age})"
    assert (said in output) is warned


def test_w002_does_not_mind_sqlite(project: Project) -> None:
    output = kept_connections(project, engine="django.db.backends.sqlite3", age="600")
    assert "W002" not in output


def test_w002_is_no_matter_with_the_bridge(project: Project) -> None:
    backend = "django.db.backends.postgresql"
    assert "no issues" in report(project, KEPT_CONNECTIONS.format(engine=backend, age=600))


def test_w003_is_asked_by_serve_only(project: Project) -> None:
    assert "W003" not in report(project, "DEBUG = True")
    _, output = project.manage("serve", "--port", "0")
    assert "(rondel.W003)" in output


def test_w004_says_which_runserver_comes_first(project: Project) -> None:
    output = report(
        project, 'INSTALLED_APPS.remove("rondel.django")\nINSTALLED_APPS.append("rondel.django")'
    )
    assert "(rondel.W004) manage.py runserver is django.contrib.staticfiles's" in output
    assert 'Put "rondel.django" before "django.contrib.staticfiles" in INSTALLED_APPS.' in output


def test_w004_is_told_by_the_runserver_that_won(project: Project) -> None:
    project.settings(
        'INSTALLED_APPS.remove("rondel.django")\nINSTALLED_APPS.append("rondel.django")'
    )
    with project.running("runserver", "{port}", "--noreload") as server:
        server.until_logged("(rondel.W004)")
        server.until_version("one")
        assert "ASGI: Rondel" not in server.log


def test_w005_gives_the_line_to_add(project: Project) -> None:
    output = report(project, "ASGI_APPLICATION = None")
    assert "(rondel.W005) ASGI_APPLICATION is not set" in output
    assert 'Add ASGI_APPLICATION = "site_project.asgi.application" to the settings.' in output


def test_w005_gives_an_example_where_there_is_no_asgi_module(project: Project) -> None:
    (project.root / "site_project" / "asgi.py").unlink()
    output = report(project, "ASGI_APPLICATION = None")
    assert 'Add ASGI_APPLICATION = "mysite.asgi.application"' in output


def test_each_can_be_silenced(project: Project) -> None:
    ids = ["rondel.W001", "rondel.W004", "rondel.W005"]
    output = report(
        project,
        add_middleware("Old")
        + "\nINSTALLED_APPS.remove('rondel.django')\nINSTALLED_APPS.append('rondel.django')"
        + f"\nSILENCED_SYSTEM_CHECKS = {ids}",
    )
    assert "no issues (2 silenced)" in output
    output = report(project, f"ASGI_APPLICATION = None\nSILENCED_SYSTEM_CHECKS = {ids}")
    assert "no issues (1 silenced)" in output
