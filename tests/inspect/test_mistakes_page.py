"""The programs of docs/mistakes.md and its Chinese twin print what the pages say."""

import re
import sys
from pathlib import Path

import pytest

from ..cli.support import RONDEL, call
from .test_hints import hints

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"en": DOCS / "mistakes.md", "zh": DOCS / "mistakes.zh.md"}
LOCALES = {"en": "C.UTF-8", "zh": "zh_CN.UTF-8"}
# Where the pages' programs lie.
HOME = "/home/ada/"
_EXAMPLE = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)


def examples(page: Path) -> list[tuple[str, str]]:
    """The programs, and what they print."""
    return _EXAMPLE.findall(page.read_text(encoding="utf-8"))


def printed(program: str, folder: Path, language: str) -> str:
    """What a program prints with hints on, as the pages have it: stderr behind stdout."""
    (folder / "program.py").write_text(program, encoding="utf-8")
    env = {"LC_ALL": LOCALES[language], "RONDEL_INSPECT": "1", "XDG_RUNTIME_DIR": str(folder)}
    got = call([*RONDEL, "run", "--hints", "program.py"], folder, env=env)
    text = got.output + got.errors.replace(f"{folder}/", HOME)
    # What lies between `asyncio.run` and the program's coroutine; and times.
    text = re.sub(r'(?:  File "/(?!home).*\n(?:    .*\n)*)+', "  ...\n", text)
    return re.sub(r"\b\d+\.\d (?=s |秒)", "0.1 ", text)


@pytest.mark.parametrize("language", PAGES)
@pytest.mark.parametrize("number", range(6))
def test_a_mistake_is_explained_as_the_page_says(
    tmp_path: Path, language: str, number: int
) -> None:
    program, expected = examples(PAGES[language])[number]
    got = printed(program, tmp_path, language)
    assert hints(expected)
    assert hints(got) == hints(expected)
    if sys.version_info >= (3, 13):  # earlier tracebacks point at less
        assert got == expected


def test_the_pages_have_the_same_programs() -> None:
    english, chinese = (examples(page) for page in PAGES.values())
    assert len(english) == 6
    assert [program for program, _ in english] == [program for program, _ in chinese]
