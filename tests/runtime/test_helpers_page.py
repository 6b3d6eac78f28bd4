"""The examples of docs/helpers.md print what the page says, but for times."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ONLY_ASYNCIO

if ONLY_ASYNCIO:
    pytest.skip("Rondel's own names", allow_module_level=True)

PAGE = Path(__file__).parents[2] / "docs" / "helpers.md"
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```\n\n^```text\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
)


def test_every_example_says_what_it_prints() -> None:
    assert len(EXAMPLES) == PAGE.read_text().count("```python") == 5


@pytest.mark.parametrize(
    ("code", "output"), EXAMPLES, ids=["background", "watch", "timed", "to", "process"]
)
def test_an_example_prints_what_the_page_says(code: str, output: str, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(code)
    got = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDEVMODE": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=True,
    )
    printed = got.stdout.replace(f"{tmp_path}/", "")
    # 3.13 marks the failing part of a line where earlier ones did not.
    printed = re.sub(r"^ +[~^]+\n", "", printed, flags=re.MULTILINE)
    assert _settled(printed) == _settled(output)


def _settled(text: str) -> str:
    return re.sub(r"\d\.\d{4}", "T", text)
