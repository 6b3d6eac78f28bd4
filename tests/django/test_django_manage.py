"""The project's own checks and tests, and the commands of its README."""

from pathlib import Path

from .site_server import environment, manage


def test_system_check_finds_nothing(tmp_path: Path) -> None:
    env = environment(tmp_path / "site.sqlite3")
    assert "no issues" in manage(env, "check", "--fail-level", "WARNING")


def test_migrations_match_the_models(tmp_path: Path) -> None:
    env = environment(tmp_path / "site.sqlite3")
    assert "No changes detected" in manage(env, "makemigrations", "--check", "--dry-run")


def test_the_apps_own_tests_pass(tmp_path: Path) -> None:
    output = manage(environment(tmp_path / "site.sqlite3"), "test")
    assert "\nOK\n" in output
    assert "Ran 7 tests" in output


def test_seeding_twice_adds_nothing(tmp_path: Path) -> None:
    env = environment(tmp_path / "site.sqlite3")
    manage(env, "migrate", "--noinput")
    first = manage(env, "seed")
    assert "14 books and 6 notes and greetings added" in first
    assert "administrator 'admin' created" in first
    second = manage(env, "seed")
    assert "0 books and 0 notes and greetings added, 14 books on the shelf" in second
    assert "administrator" not in second


def test_seed_creates_no_demo_administrator_without_debug(tmp_path: Path) -> None:
    env = environment(tmp_path / "site.sqlite3", SITE_DEBUG="0", SITE_SECRET_KEY="k" * 60)
    manage(env, "migrate", "--noinput")
    assert "administrator" not in manage(env, "seed")
