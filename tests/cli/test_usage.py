"""The command line itself: help, version, and one line with status 2 for a mistake."""

import sysconfig
from pathlib import Path

import pytest

import rondel

from .support import RONDEL, call

SCRIPT = [str(Path(sysconfig.get_path("scripts")) / "rondel")]


def entry() -> list[str]:
    """The console script; `python -m rondel` takes the same commands where it is not installed."""
    if not Path(SCRIPT[0]).exists():
        pytest.skip("the console script is not installed")
    return SCRIPT


def test_version(tmp_path: Path) -> None:
    expected = f"rondel {rondel.__version__}\n"
    for command in ([*entry(), "--version"], [*RONDEL, "--version"], [*entry(), "-V"]):
        assert call(command, tmp_path).output == expected


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["serve", "--help"], []])
def test_help_teaches_by_examples(tmp_path: Path, arguments: list[str]) -> None:
    got = call([*entry(), *arguments], tmp_path)
    assert (got.status, got.errors) == (0, "")
    assert "examples:" in got.output
    assert max(map(len, got.output.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "unknown command 'fly'"),
        (["srve"], "did you mean 'serve'?"),
        (["script.py"], "rondel run script.py"),
        (["mysite.asgi:application"], "rondel serve mysite.asgi:application"),
        (["run"], "no program given"),
        (["run", "-m"], "-m needs an argument"),
        (["run", "--fast", "x.py"], "unknown option --fast"),
        (["serve"], "which application? Name it as MODULE:APP"),
        (["serve", "a:b", "--port", "many"], "'many' is not a port"),
        (["serve", "a:b", "--port", "65536"], "'65536' is not a port"),
        (["serve", "a:b", "--workers", "0"], "not a positive whole number"),
        (["serve", "a:b", "--workers", "many"], "not a positive whole number, or auto"),
        (["serve", "a:b", "--preload"], "preload needs a process that watches over"),
        (["serve", "a:b", "--graceful-timeout", "-1"], "not a number of seconds"),
        (["serve", "a:b", "--lifespan", "maybe"], "maybe"),
        (["serve", "a:b", "--colour"], "unrecognized arguments: --colour"),
        (["serve", "a:b", "--app-dir", "nowhere"], "not a directory"),
        (["serve", "mysite"], "did you mean mysite:application?"),
        (["serve", "mysite:"], "did you mean mysite:application?"),
        (["serve", ":app"], "not MODULE:ATTRIBUTE"),
        (["serve", "my-site:app"], "not MODULE:ATTRIBUTE"),
        (["serve", "mysite/asgi.py"], "mysite.asgi:application"),
        (["serve", "./mysite/asgi.py:app"], "mysite.asgi:app"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    got = call([*entry(), *arguments], tmp_path)
    assert got.status == 2
    assert got.output == ""
    assert words in got.errors
    assert got.errors.startswith("rondel")
    assert got.errors.count("\n") == 1
