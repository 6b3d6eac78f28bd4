"""The benchmark of the example project: every view has a case, and every case its right answer.

The cases are asked of a real server, Rondel's, if this environment has it.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import run_django
from harness.django import example, report
from harness.environment import BENCHMARKS, Environment, SetupError, build_load
from harness.figures import Figures, Run
from harness.limits import check
from harness.process import ServerError
from harness.traffic import TURNS, verify

LISTS = """
import json, django
django.setup()
from shelf.urls import urlpatterns
from shelf.ways import WAYS
print(json.dumps([[each.name for each in urlpatterns], list(WAYS)]))
"""


@pytest.fixture(scope="module")
def here() -> Environment:
    pytest.importorskip("django")
    return Environment(Path(sys.executable), sys.version_info[:3], "")


@pytest.fixture(scope="module")
def site(here: Environment, tmp_path_factory: pytest.TempPathFactory) -> example.Example:
    return example.prepare(here, tmp_path_factory.mktemp("example"))


def rows(database: Path, table: str) -> int:
    with sqlite3.connect(database) as connection:
        found: int = connection.execute(f"select count(*) from {table}").fetchone()[0]
    connection.close()
    return found


def test_each_view_and_each_way_has_a_case(site: example.Example) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTS],
        cwd=site.folder,
        env=site.variables | {"DJANGO_SETTINGS_MODULE": "site_project.settings"},
        capture_output=True,
        check=True,
    )
    views, ways = json.loads(done.stdout)
    names = [case.name for case in example.CASES]
    assert {*views} - {"way"} | {*ways} <= {*names}
    assert len({*names}) == len(names)
    assert [case.name for case in example.CASES if case.sleeps] == ways


def test_the_copy_is_in_production_and_leaves_the_checkout_alone(site: example.Example) -> None:
    assert site.variables["SITE_DEBUG"] == "0"
    assert site.folder != example.SOURCE and (site.folder / "manage.py").is_file()
    assert rows(site.database, "shelf_book") == 14
    assert rows(site.database, "auth_user") == 1
    assert site.cookie.startswith("sessionid=")


def test_a_project_that_cannot_be_prepared_says_why(
    here: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "SIGN_IN", tmp_path / "gone.py")
    with pytest.raises(SetupError, match=r"cannot be prepared: .*gone\.py"):
        example.prepare(here, tmp_path)


def test_each_case_is_answered_rightly_by_a_server_with_its_own_database(
    here: Environment, site: example.Example
) -> None:
    if not (here.bin / "rondel").exists():
        pytest.skip("Rondel's command is not installed here")
    before = site.database.read_bytes()
    with site.served(here, "rondel") as (_, port), ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(verify, c.request(site.cookie), port) for c in example.CASES]
        for answer in asked:
            answer.result()
        for case in example.CASES[:3]:
            for change in ({"contains": "no such words"}, {"status": 418}):
                wrong = dataclasses.replace(case, **change)
                with pytest.raises(ServerError, match="expected"):
                    verify(wrong.request(site.cookie), port)
    own = site.folder.parent / "rondel.sqlite3"
    for table in ("shelf_note", "shelf_greeting"):
        assert rows(own, table) == rows(site.database, table) + 1
    assert site.database.read_bytes() == before


def test_the_slowest_answers_are_those_of_requests_at_a_pace(
    here: Environment, site: example.Example, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not (here.bin / "rondel").exists():
        pytest.skip("Rondel's command is not installed here")
    monkeypatch.setattr(Environment, "helpers", tmp_path)
    build_load(here)
    run = Run({"date": "2000-01-01", "interpreter": "CPython 3.11.0"}, {})
    example.latency(here, ["rondel"], site, {"api-books"}, rounds=1, fewer=50, results=run)
    titles = [section.title for section in report.sections(run)]
    assert [title for title in titles if "99.9th percentile" in title]
    parts = (run.parts[part].values["api-books"]["rondel"] for part in (example.P99, example.P999))
    p99, p999 = parts
    assert len(p99) == len(p999) == TURNS
    assert all(0 < early <= late for early, late in zip(p99, p999, strict=True))


def run_of(cpu: float, rate: float, wall: float) -> Run:
    """Rondel's figures, of a case each; uvicorn's are 100."""
    run = Run({"date": "2000-01-01", "interpreter": "CPython 3.11.0"}, {})
    for part, case, figure in (
        (example.CPU, "books", cpu),
        (example.RATE, "books", rate),
        (example.WALL, "gather", wall),
    ):
        figures = run.parts.setdefault(part, Figures("median"))
        figures.add(case, "rondel", [figure])
        figures.add(case, "uvicorn", [100.0])
    return run


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ((99, 101, 99), ["pass", "pass", "pass"]),
        ((102, 98, 102), ["FAIL", "FAIL", "FAIL"]),
    ],
)
def test_no_view_may_be_slower_than_under_uvicorn(
    figures: tuple[float, float, float], words: list[str]
) -> None:
    verdicts = check(run_of(*figures), BENCHMARKS / "limits.toml")
    assert [verdict.word for verdict in verdicts] == words


def test_the_report_has_a_table_for_each_figure(tmp_path: Path) -> None:
    run_of(50, 200, 90).save(tmp_path / "run.json")
    how, *tables = report.sections(Run.load(tmp_path / "run.json"))
    assert "time that a client waits" in how.note.replace("\n", " ")
    assert [table.table[-1] for table in tables] == [
        "| `/books/` (sync) | 50 | 100 | 0.50 |",
        "| `/books/` (sync) | 200 | 100 | 2.00 |",
        "| `/ways/gather/` (async, sleeps) | 90 | 100 | 0.90 |",
    ]


@pytest.mark.parametrize(
    ("words", "published"),
    [
        ("--example", True),
        ("--example --rounds 9", True),
        ("--example --quick", False),
        ("--example --only books", False),
        ("--example --peers uvicorn", False),
    ],
)
def test_only_a_run_of_all_pages_may_be_published(
    monkeypatch: pytest.MonkeyPatch, words: str, published: bool
) -> None:
    monkeypatch.setattr(sys, "argv", ["run_django.py", *words.split()])
    options = run_django.parse()
    assert run_django.complete(options) is published
    assert run_django.prefix(options) == "django-example-"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--example --threads 4", "--example takes no"),
        ("--example --rss --threads 4", "--example takes no"),
        ("--example --peers gunicorn", "--example needs ASGI: gunicorn"),
        ("--example --only query_sync", "no case of --example: query_sync"),
        ("--only books", "only a case of --example: books"),
        ("--latency", "--latency is about the pages of --example"),
        ("--example --rss --latency", "not with --rss"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, complaint: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["run_django.py", *words.split()])
    with pytest.raises(SystemExit):
        run_django.parse()
    assert complaint in capsys.readouterr().err
