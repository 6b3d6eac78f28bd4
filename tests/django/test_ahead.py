"""What Django leaves to its first requests is there before them, where workers are forks."""

import json
import subprocess
import sys
from pathlib import Path

from .project_copy import needs_rondel
from .site_server import PATIENCE, SITE, environment

pytestmark = needs_rondel

# A page with a query, a template and a date, and a form that leaves a message for the next one.
_FIRST_REQUESTS = """
import json
import sys

import django

django.setup()
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client

WSGIHandler()  # the middleware is imported, as by the project's application
client = Client(SERVER_NAME="localhost")
if sys.argv[1] == "ahead":
    from rondel.django.ahead import prepare

    prepare()
before = set(sys.modules)
statuses = [
    client.get("/books/").status_code,
    client.post("/guestbook/", {"name": "Ada", "text": "Hello."}).status_code,
]
print(json.dumps([statuses, sorted(set(sys.modules) - before)]))
"""


def _first_requests(database: Path, how: str) -> tuple[list[int], list[str]]:
    """The statuses of a process's first requests, and the modules that these imported."""
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_REQUESTS, how],
        cwd=SITE,
        env=environment(database, DJANGO_SETTINGS_MODULE="site_project.settings"),
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
    )
    assert done.returncode == 0, done.stderr
    statuses, imported = json.loads(done.stdout.splitlines()[-1])
    return statuses, imported


def test_the_first_requests_import_nothing_more_of_the_project_or_of_what_settings_name(
    database: Path,
) -> None:
    statuses, imported = _first_requests(database, "ahead")
    assert statuses == [200, 302]
    assert imported == []
    statuses, imported = _first_requests(database, "as Django does it")
    assert statuses == [200, 302]
    assert {"shelf.urls", "django.db.models.sql.compiler"} <= {*imported}


_BROKEN_URLS = """
import sys

import django
from django.conf import settings

settings.configure(ROOT_URLCONF="broken", SECRET_KEY="x")
django.setup()
from rondel.django.ahead import prepare

prepare()
print("prepared", "broken" in sys.modules)
"""


def test_a_urlconf_that_cannot_be_imported_is_told_and_left_to_the_requests(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    (tmp_path / "program.py").write_text(_BROKEN_URLS)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout == "prepared False\n", done.stderr
    assert "the URLconf broken can't be imported" in done.stderr
    assert "No module named 'no_such_module'" in done.stderr
