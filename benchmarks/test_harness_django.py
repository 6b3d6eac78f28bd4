"""The Django benchmark's own machinery: no figure of an error page, none under a wrong name.

The project is prepared with this interpreter's Django, on SQLite, and on a PostgreSQL of the test's
own where the machine has one.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import run_django
from harness.django import postgres, project, report, servers
from harness.django.cases import CASES, SITES
from harness.environment import BENCHMARKS, Environment, SetupError
from harness.figures import Figures, Run
from harness.limits import check, read


@pytest.fixture
def here() -> Environment:
    pytest.importorskip("django")
    return Environment(Path(sys.executable), sys.version_info[:3], "")


def test_each_site_is_prepared_and_a_pair_of_views_answers_alike(
    here: Environment, tmp_path: Path
) -> None:
    for name in ("minimal", "sqlite"):
        site = project.prepare(here, name, set(), folder=tmp_path, cluster=None, conn_max_age=0)
        assert list(site.requests) == [case.name for case in CASES if case.belongs_to(name)]
        for case, (asgi, wsgi) in site.requests.items():
            assert asgi.answer == wsgi.answer
            asked = site.requests_for(case, ["uvicorn", "gunicorn"])
            assert asked["uvicorn"] is asgi and asked["gunicorn"] is wsgi


def test_a_page_for_a_user_is_asked_for_with_the_cookie(here: Environment, tmp_path: Path) -> None:
    site = project.prepare(here, "sqlite", {"page"}, folder=tmp_path, cluster=None, conn_max_age=0)
    assert b"Cookie: sessionid=" in site.requests["page"][0].wire
    assert b"Signed in as reader" in site.requests["page"][0].answer


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"contains": ("no such words",)}, "answers without 'no such words'"),
        ({"wsgi_path": "three/sync"}, "answer differently"),
        ({"path": "no/such/path"}, "/no/such/path answers 404"),
    ],
)
def test_a_wrong_answer_ends_the_preparation(
    here: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    complaint: str,
) -> None:
    query = next(case for case in CASES if case.name == "query_sync")
    monkeypatch.setattr(project, "CASES", (dataclasses.replace(query, **change),))
    with pytest.raises(SetupError, match=complaint):
        project.prepare(here, "sqlite", set(), folder=tmp_path, cluster=None, conn_max_age=0)


@pytest.mark.parametrize("pool", [0, 1])
def test_a_private_cluster_serves_the_project_and_is_gone_afterwards(
    here: Environment, tmp_path: Path, pool: int
) -> None:
    pytest.importorskip("psycopg_pool" if pool else "psycopg")
    try:
        postgres.programs()
    except postgres.PostgresError as error:
        pytest.skip(str(error))
    with postgres.cluster() as cluster:
        number = int((cluster.folder / "data" / "postmaster.pid").read_text().split()[0])
        site = project.prepare(
            here, "postgres", {"page"}, folder=tmp_path, cluster=cluster, conn_max_age=0, pool=pool
        )
        assert b"20 books" in site.requests["page"][0].answer
    assert not cluster.folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_without_postgresql_the_report_says_that_it_was_not_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> Path:
        raise postgres.PostgresError("no initdb found")

    monkeypatch.setattr(postgres, "programs", missing)
    monkeypatch.setattr(sys, "argv", ["run_django.py"])
    options = run_django.parse()
    options.db = "all"
    with run_django.database(options) as found:
        assert isinstance(found, postgres.PostgresError)
    run = run_of({"rondel": 100.0})
    run.about["PostgreSQL left out"] = str(found)
    titles = [section.title for section in report.sections(run)]
    assert titles[-1] == "Default middleware, PostgreSQL: not measured"
    options.db = "postgres"
    with pytest.raises(postgres.PostgresError), run_django.database(options):
        pass


def run_of(figures: dict[str, float]) -> Run:
    run = Run({"date": "2000-01-01", "interpreter": "CPython 3.11.0"}, {})
    part = run.parts.setdefault("django-cpu/sqlite/4", Figures("median"))
    for server, figure in figures.items():
        part.add("query_async", server, [figure])
    return run


def test_an_async_view_is_held_against_the_sync_one_of_wsgi() -> None:
    run = run_of({"rondel": 140.0, "uvicorn": 500.0, "granian-wsgi": 100.0})
    words = {v.limit.against: v.word for v in check(run, BENCHMARKS / "limits.toml") if v.ratio}
    assert words == {"uvicorn": "pass", "granian-wsgi": "pass"}
    run = run_of({"rondel": 141.0, "uvicorn": 400.0, "granian-wsgi": 100.0})
    words = {v.limit.against: v.word for v in check(run, BENCHMARKS / "limits.toml") if v.ratio}
    assert words == {"uvicorn": "FAIL", "granian-wsgi": "FAIL"}


def test_each_limit_of_django_names_a_case_and_a_server_that_exist() -> None:
    known = {case.name for case in CASES} | {"growth 10000 to 100000"}
    limits = [x for x in read(BENCHMARKS / "limits.toml") if x.part.startswith("django-")]
    assert limits
    for limit in limits:
        assert limit.case in known
        assert limit.against in {*servers.SERVERS, "itself"}


def test_a_saved_run_reports_as_it_did(tmp_path: Path) -> None:
    run = run_of({"rondel": 140.0, "granian-wsgi": 100.0})
    run.save(tmp_path / "run.json")
    loaded = Run.load(tmp_path / "run.json")
    tables = [section.table for section in report.sections(loaded)]
    assert tables == [section.table for section in report.sections(run)]
    assert "| async view, one `aget` | 140 | 100 | 1.40 |" in tables[1]


@pytest.mark.parametrize("server", servers.SERVERS)
def test_servers_get_the_same_threads_and_their_own_interface(server: str) -> None:
    environment = Environment(Path("/x/bin/python"), (3, 11, 2), "")
    line = " ".join(servers.command(environment, server, 7, True, 8123))
    assert (" 7" in line) is (server in servers.THREADED)
    assert ("wsgi:application" in line) is (server in servers.WSGI)
    assert "8123" in line
    assert all(title for title in SITES.values())


@pytest.mark.parametrize(
    "words", [["--pool", "4"], ["--db", "postgres", "--pool", "4", "--conn-max-age", "60"]]
)
def test_a_pool_is_for_postgresql_and_excludes_a_maximum_age(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run_django.py", *words])
    with pytest.raises(SystemExit) as ended:
        run_django.parse()
    assert ended.value.code == 2
    assert "--pool is for --db postgres, and without --conn-max-age" in capsys.readouterr().err


def test_only_a_run_of_everything_may_be_published(monkeypatch: pytest.MonkeyPatch) -> None:
    for words, published in (
        ([], True),
        (["--rounds", "9"], True),
        (["--rss"], True),
        (["--quick"], False),
        (["--db", "sqlite"], False),
        (["--only", "page"], False),
        (["--peers", "uvicorn"], False),
        (["--threads", "4"], False),
        (["--conn-max-age", "60"], False),
        (["--db", "postgres", "--pool", "4"], False),
        (["--no-rondel"], False),
    ):
        monkeypatch.setattr(sys, "argv", ["run_django.py", *words])
        assert run_django.complete(run_django.parse()) is published, words
