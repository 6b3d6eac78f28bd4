"""``rondel run --profile FILE``: a page of one file, whatever ends the program."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import call
from tests.clients.browser import PATIENCE, Browser, browser
from tests.inspect.busy import MARKUP

RONDEL = [sys.executable, "-m", "rondel", "run"]

PROGRAM = f"""
import asyncio, sys
async def brew(seconds):
    await asyncio.sleep(seconds)
async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(brew(0.05), name="tea")
        group.create_task(brew(0.1), name={MARKUP!r})
    await asyncio.to_thread(sum, range(1000))
asyncio.run(main())
"""


def profiled(folder: Path, code: str, *arguments: str) -> Any:
    (folder / "program.py").write_text(code)
    return call([*RONDEL, "--profile", "out.html", *arguments, "program.py"], folder)


def recording(file: Path) -> Any:
    found = re.search(
        r'<script type="application/json" id="recording">(.*?)</script>', file.read_text("utf-8")
    )
    assert found is not None
    return json.loads(found[1])


@pytest.mark.parametrize(
    ("ending", "status"),
    [("", 0), ("sys.exit(3)", 3), ("raise ValueError('mine')", 1), ("sys.exit('why')", 1)],
)
def test_it_is_written_whatever_ends_the_program(tmp_path: Path, ending: str, status: int) -> None:
    code = PROGRAM + ending
    got = profiled(tmp_path, code)
    plain = call([sys.executable, "program.py"], tmp_path)
    assert (got.status, got.output) == (status, plain.output)
    assert got.errors == plain.errors
    told = recording(tmp_path / "out.html")
    assert told["program"] == "program.py"
    assert told["lost"] == 0
    names = [task["name"] for task in told["tasks"]]
    assert names[1:] == ["tea", MARKUP]
    assert [task["parent"] for task in told["tasks"]] == [-1, 0, 0]
    assert [call["runs"] for call in told["calls"]] == ["sum"]
    assert "One after another" in " ".join(told["findings"]["summary"])


def test_it_goes_with_the_working_directory_of_the_start(tmp_path: Path) -> None:
    got = profiled(tmp_path, "import os\nos.chdir('/')\n" + PROGRAM)
    assert got.status == 0
    assert len(recording(tmp_path / "out.html")["tasks"]) == 3


def test_a_program_without_tasks_has_a_page_that_says_so(tmp_path: Path) -> None:
    assert profiled(tmp_path, "print('hello')").output == "hello\n"
    told = recording(tmp_path / "out.html")
    assert told["tasks"] == []
    assert told["findings"]["summary"] == ["No task ran on a Rondel loop."]


def test_a_fork_writes_nothing(tmp_path: Path) -> None:
    code = PROGRAM + (
        "import os\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    sys.exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), os.stat('out.html').st_size)\n"
    )
    assert profiled(tmp_path, code).output == "0 0\n"
    assert len(recording(tmp_path / "out.html")["tasks"]) == 3


def test_what_had_no_room_is_said(tmp_path: Path) -> None:
    code = (
        "import asyncio, rondel.inspect.recording\n"
        "async def main():\n"
        "    for _ in range(1_100_000):\n"
        "        await asyncio.sleep(0)\n"
        "asyncio.run(main())\n"
    )
    got = profiled(tmp_path, code)
    assert got.status == 0
    assert "events had no room" in got.errors
    told = recording(tmp_path / "out.html")
    assert told["lost"] > 0
    assert any("had no room" in remark for remark in told["findings"]["remarks"])
    # Bounded as a file, too: half a million spans would be 30 MB.
    assert told["joined"] > 0
    assert (tmp_path / "out.html").stat().st_size < 16_000_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile"], "--profile needs a file"),
        (["--profile="], "--profile needs a file"),
        (["--profile", "/nowhere/out.html", "x.py"], "cannot write /nowhere/out.html"),
        (["--profile", "out.html"], "no program given"),
        (["--inspect"], "no program given"),
        (["--inspect", "x:1:2", "y.py"], "is not [HOST:]PORT"),
        (["--inspect=x:1:2", "y.py"], "is not [HOST:]PORT"),
        (["--inspect", "99999", "y.py"], "is not [HOST:]PORT"),
    ],
)
def test_a_wrong_command_line_is_a_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    got = call([*RONDEL, *arguments], tmp_path)
    assert (got.status, got.output) == (2, "")
    assert words in got.errors


# --------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with browser(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.mark.timeout(4 * PATIENCE)
@pytest.mark.parametrize("width", [1280, 360])
def test_it_opens_from_disk_and_asks_nobody(chromium: Browser, tmp_path: Path, width: int) -> None:
    assert profiled(tmp_path, PROGRAM + "asyncio.run(asyncio.sleep(0.3))").status == 0
    url = (tmp_path / "out.html").as_uri()
    chromium.size(width, 740)
    chromium.requests.clear()
    chromium.complaints.clear()
    chromium.open(url)
    chromium.until("document.querySelectorAll('.timeline .label').length === 5")
    labels = chromium.run("[...document.querySelectorAll('.label')].map(label => label.innerText)")
    assert labels == ["main", "in a thread: sum", "tea brew", f"{MARKUP} brew", "sleep"]
    assert "One after another" in chromium.text(".findings")
    assert chromium.run("window.hacked") is None
    for _ in range(3):
        chromium.press("ArrowDown")
    chromium.until("document.querySelector('.detail h2')?.innerText === 'tea'")
    assert "sleeps: sleep" in chromium.text(".detail")
    chromium.press("t")
    assert chromium.run("document.documentElement.scrollWidth") == width
    assert chromium.complaints == []
    assert chromium.requests == [url]


def test_nothing_in_it_can_be_run_but_its_own_script(tmp_path: Path) -> None:
    hostile = PROGRAM.replace("'<img", "'</script><script>window.hacked=1</script><!--<img")
    hostile = hostile.replace('name="tea"', "name='</script><script>alert(1)</script>'")
    assert profiled(tmp_path, hostile).status == 0
    text = (tmp_path / "out.html").read_text("utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert "<!--" not in text.partition('id="recording">')[2]
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1] and "http" not in policy[1]
    assert recording(tmp_path / "out.html")["tasks"][1]["name"].startswith("</script>")
