"""`rondel run --hints`: what blocks the loop is told while it does, with what to write instead."""

import re
from pathlib import Path

import pytest

from ..cli.support import running
from .hints_support import ENGLISH, HINTED

BLOCKING = """\
import asyncio, concurrent.futures, os, queue, socket, sqlite3, subprocess, threading, time
from time import sleep

def helper(seconds):
    time.sleep(seconds)

def crunch(limit):
    number = 0
    while number < limit: number += 1

class Shop:
    def __init__(self):
        self.waiting = queue.Queue()
        self.db = sqlite3.connect(":memory:")

async def main():
    loop = asyncio.get_running_loop()
    shop, done, lock = Shop(), threading.Event(), threading.Lock()
    here, there = socket.socketpair()
    listening = socket.create_server(("127.0.0.1", 0))
    os.mkfifo("pipe")
    lock.acquire()
    await asyncio.sleep(0)
    BODY

asyncio.run(main())
"""

# What stands in `main`; the line that is named, if not that; what is said; fixes.
BLOCKED = {
    "sleep": ("time.sleep(60)", None, "time.sleep()", "await asyncio.sleep(60)"),
    "sleep, imported": ("sleep(60)", None, "sleep()", "await asyncio.sleep(60)"),
    "in a function": (
        "helper(60)",
        5,
        "time.sleep()",
        "at program.py:24, in main: await asyncio.to_thread(helper, 60)",
        "or make helper() a coroutine, and in it: await asyncio.sleep(seconds)",
    ),
    "in a callback": (
        "loop.call_soon(helper, 60); await asyncio.sleep(60)",
        5,
        "time.sleep()",
        "helper() is a callback, which can't await; in a thread: "
        "asyncio.get_running_loop().run_in_executor(None, helper, ...)",
    ),
    "process": (
        'subprocess.run(["sleep", "5"], check=True)',
        None,
        "subprocess.run()",
        'process = await asyncio.create_subprocess_exec("sleep", "5"); await process.wait()',
        'or: await asyncio.to_thread(subprocess.run, ["sleep", "5"], check=True)',
    ),
    "shell": (
        'os.system("sleep 5")',
        None,
        "os.system()",
        'process = await asyncio.create_subprocess_shell("sleep 5"); await process.wait()',
        'or: await asyncio.to_thread(os.system, "sleep 5")',
    ),
    "socket": (
        "here.recv(100)",
        None,
        "here.recv()",
        "await asyncio.to_thread(here.recv, 100)",
    ),
    "http": (
        'import urllib.request as u; u.urlopen("http://127.0.0.1:%d" % listening.getsockname()[1])',
        None,
        "u.urlopen()",
        'await asyncio.to_thread(u.urlopen, "http://127.0.0.1:%d" % listening.getsockname()[1])',
    ),
    "file": (
        'with open("pipe") as file: file.read()',
        None,
        "open()",
        'await asyncio.to_thread(open, "pipe")',
    ),
    "queue": (
        "shop.waiting.get()",
        None,
        "shop.waiting.get()",
        "await shop.waiting.get()   # shop.waiting = asyncio.Queue()",
        "or: await asyncio.to_thread(shop.waiting.get)",
    ),
    "lock": (
        "lock.acquire()",
        None,
        "lock.acquire()",
        "async with lock:   # lock = asyncio.Lock()",
        "or: await asyncio.to_thread(lock.acquire)",
    ),
    "event": (
        "done.wait()",
        None,
        "done.wait()",
        "await done.wait()   # done = asyncio.Event()",
        "or: await asyncio.to_thread(done.wait)",
    ),
    "future": (
        "concurrent.futures.Future().result()",
        None,
        "concurrent.futures.Future().result()",
        "await asyncio.wrap_future(concurrent.futures.Future())",
    ),
    "database": (
        'shop.db.execute("with recursive n(i) as (values(1) union all select i+1 from n) '
        'select count(*) from n")',
        None,
        "shop.db.execute()",
        "put all that uses the database into one function, and: "
        "await asyncio.to_thread(that_function)",
    ),
}


@pytest.mark.parametrize("name", BLOCKED)
def test_a_call_that_blocks_the_loop(tmp_path: Path, name: str) -> None:
    body, line, call_, *fixes = BLOCKED[name]
    program = BLOCKING.replace("BODY", body)
    (tmp_path / "program.py").write_text(program)
    line = line or 24
    assert _told_during(tmp_path, line, program.splitlines()[line - 1].strip(), fixes) == (
        f"{call_} has kept the loop for N s so far: no other task can run"
    )


def test_a_library_that_blocks_is_given_to_a_thread(tmp_path: Path) -> None:
    """The line is the user's, not that of the package which sleeps."""
    library = tmp_path / "site-packages" / "slowlib.py"
    library.parent.mkdir()
    library.write_text("import time\n\ndef fetch(url):\n    time.sleep(60)\n")
    body = 'import sys; sys.path.append("site-packages"); import slowlib\n    slowlib.fetch("a")'
    (tmp_path / "program.py").write_text(BLOCKING.replace("BODY", body))
    fixes = ['await asyncio.to_thread(slowlib.fetch, "a")']
    what = _told_during(tmp_path, 25, 'slowlib.fetch("a")', fixes)
    assert what == "slowlib.fetch() has kept the loop for N s so far: no other task can run"


def test_a_function_that_computes(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(BLOCKING.replace("BODY", "crunch(10**12)"))
    fixes = [
        "at program.py:24, in main: await asyncio.to_thread(crunch, 10**12)",
        "or on another core: await rondel.to_process(crunch, 10**12)",
    ]
    what = _told_during(tmp_path, 9, "while number < limit: number += 1", fixes)
    assert what == ("crunch() has kept the loop for N s so far, computing: no other task can run")


@pytest.mark.parametrize("inner", [False, True])
def test_a_coroutine_that_computes(tmp_path: Path, inner: bool) -> None:
    computes = "while True: pass"
    call_ = f"async def grind():\n        {computes}\n    await grind()"
    (tmp_path / "program.py").write_text(BLOCKING.replace("BODY", call_ if inner else computes))
    fix = (
        "put the computing into a function, and: await asyncio.to_thread(that_function) "
        "(or await rondel.to_process(that_function), for another core)"
    )
    what = _told_during(tmp_path, 25 if inner else 24, computes, [fix])
    name = "grind" if inner else "main"
    assert what == f"{name}() has kept the loop for N s so far, computing: no other task can run"


def _told_during(folder: Path, line: int, source: str, fixes: list[str]) -> str:
    """What is said of a program that would block for a minute and more; it is killed then."""
    env = {**ENGLISH, "RONDEL_INSPECT": "1", "XDG_RUNTIME_DIR": str(folder)}
    with running(HINTED, folder, **env) as process:
        what = process.wait_for(rf"^hint: program\.py:{line}, in \w+: (.*)$")[1]
        process.wait_for(f"^    {re.escape(source)}$")
        for fix in fixes:
            process.wait_for(f"^  → {re.escape(fix)}$")
    return re.sub(r"\d+\.\d+", "N", what)
