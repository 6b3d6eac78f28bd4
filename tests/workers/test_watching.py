"""`--reload`: what is changed is served, what fails is told and waits for the next change."""

import signal
from pathlib import Path

import pytest

from rondel.server.errors import UsageError
from rondel.server.supervisor.watcher import Selection
from tests.cli.support import RONDEL, call, running
from tests.workers.site import APPLICATION, Site, serving


def test_a_changed_file_is_served(tmp_path: Path) -> None:
    with serving(tmp_path, "--reload", count=1) as site:
        assert site.ask().generation == "first"
        site.rewrite("second")
        site.wait_for(r"changed: site_app\.py")
        site.wait_for("reloaded")
        site.until("second")
        site.signal(signal.SIGTERM)
        assert site.process.end().status == 0


def test_a_new_directory_is_watched_as_well(tmp_path: Path) -> None:
    with serving(tmp_path, "--reload", count=1) as site:
        (tmp_path / "package").mkdir()
        (tmp_path / "package" / "part.py").write_text("x = 1\n")
        # Whether or not the directory was watched by then.
        site.wait_for(r"changed: .*package/part\.py")
        site.wait_for("reloaded")
        (tmp_path / "package" / "deep").mkdir()
        (tmp_path / "package" / "deep" / "other.py").write_text("x = 1\n")
        site.wait_for(r"changed: .*package/deep/other\.py")


def test_one_process_is_enough_and_an_error_waits_for_a_change(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text("import nothing_here\n")
    command = [*RONDEL, "serve", "site_app:app", "--port", "0", "--reload"]
    with running(command, tmp_path, PYTHONDONTWRITEBYTECODE="1") as process:
        process.wait_for("No module named 'nothing_here'")
        process.wait_for("waiting for a change")
        (tmp_path / "site_app.py").write_text(APPLICATION)
        url = process.wait_for(r"serving site_app:app on (\S+) \(pid \d+\) with 1 worker,")[1]
        site = Site(process, url, tmp_path)
        assert site.ask().generation == "first"
        # And what breaks later leaves the old one serving.
        (tmp_path / "site_app.py").write_text("def broken(:\n")
        process.wait_for("SyntaxError")
        process.wait_for("waiting for a change")
        assert site.ask().generation == "first"
        site.rewrite("mended")
        process.wait_for("reloaded")
        site.until("mended")


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(APPLICATION)
    command = [*RONDEL, "serve", "site_app:app", "--port", "0", "--reload", "--reload-dir", "no"]
    got = call(command, tmp_path)
    assert got.status == 2
    assert f"rondel serve: reload_dir: {tmp_path / 'no'} is not a directory\n" in got.errors


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for directory in ("app/inner", ".git", "node_modules/x", "env/lib", "data"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    return tmp_path


def test_directories_in_which_nobody_edits_are_left_out(tree: Path) -> None:
    selection = Selection((str(tree),), ("*.py",), ("data/",))
    walked = [str(Path(found).relative_to(tree)) for found in selection.walk(str(tree))]
    assert sorted(walked) == [".", "app", "app/inner"]


@pytest.mark.parametrize(
    ("include", "exclude", "path", "counts"),
    [
        (["*.py"], [], "a.py", True),
        (["*.py"], [], "app/a.py", True),
        (["*.py"], [], "a.html", False),
        (["*.py", "*.html"], [], "a.html", True),
        (["templates/*"], [], "templates/a.txt", True),
        (["*.py"], ["test_*"], "test_a.py", False),
        (["*.py"], ["app/*"], "app/a.py", False),
    ],
)
def test_which_files_count(
    tree: Path, include: list[str], exclude: list[str], path: str, counts: bool
) -> None:
    selection = Selection((str(tree),), tuple(include), tuple(exclude))
    assert selection.counts(str(tree / path)) is counts


def test_a_selection_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a directory"):
        Selection((str(tmp_path / "no"),), (), ())


def test_a_change_while_a_worker_starts_starts_another(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(
        "import sys, time\nprint('half', file=sys.stderr, flush=True)\ntime.sleep(600)\n"
    )
    command = [*RONDEL, "serve", "site_app:app", "--port", "0", "--reload"]
    with running(command, tmp_path, PYTHONDONTWRITEBYTECODE="1") as process:
        process.wait_for("half")
        (tmp_path / "site_app.py").write_text(APPLICATION)
        process.wait_for(r"changed: site_app\.py")
        process.wait_for(r"serving site_app:app on (\S+) \(pid \d+\) with 1 worker,")
