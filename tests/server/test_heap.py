"""What is there when a server starts is out of the garbage collector's reach while it serves."""

import gc
import json
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.support import RONDEL, Process, call, running

pytestmark = pytest.mark.rondel_server

# `/` tells of which objects collections look at; `/drop` drops one that is in a cycle.
APPLICATION = """
import gc, json, sys

class Loop:
    def __init__(self, name):
        self.name, self.me = name, self

    def __del__(self):
        print("freed", self.name, file=sys.stderr, flush=True)

kept = {"import": Loop("import")}

def seen(what):
    return any(one is what for one in gc.get_objects())

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        kept["startup"] = Loop("startup")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/drop":
        kept.clear()
        Loop("request")
        gc.collect()
    else:
        kept["request"] = Loop("kept by a request")
    told = {name: seen(one) for name, one in kept.items()}
    answer = json.dumps(told | {"full after": gc.get_threshold()[2]}).encode()
    headers = [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
"""


AS_PYTHON_HAS_IT = {
    "import": True,
    "startup": True,
    "request": True,
    "full after": gc.get_threshold()[2],
}


@contextmanager
def serving(folder: Path, *options: str, text: str = APPLICATION) -> Iterator[tuple[Process, str]]:
    (folder / "site_app.py").write_text(text)
    command = [*RONDEL, "serve", "site_app:app", "--port", "0", *options]
    with running(command, folder, PYTHONDONTWRITEBYTECODE="1") as process:
        yield process, process.wait_for(r" serving \S+ on (\S+) \(")[1]


def ask(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        told: dict[str, int] = json.load(answer)
        return told


SERVED = pytest.mark.parametrize(
    "options",
    [(), ("--workers", "1"), ("--workers", "1", "--preload")],
    ids=["one process", "worker", "preload"],
)


@SERVED
def test_collections_leave_alone_what_is_there_at_the_start(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    with serving(tmp_path, *options) as (_, url):
        told = {"import": False, "startup": False, "request": True, "full after": 2}
        assert ask(url) == told


@SERVED
def test_collections_look_at_all_of_it_if_so_told(tmp_path: Path, options: tuple[str, ...]) -> None:
    with serving(tmp_path, *options, "--no-gc-freeze") as (_, url):
        assert ask(url) == AS_PYTHON_HAS_IT


def test_nothing_is_set_aside_while_the_code_is_watched(tmp_path: Path) -> None:
    with serving(tmp_path, "--reload") as (_, url):
        assert ask(url) == AS_PYTHON_HAS_IT


def test_an_application_that_has_chosen_thresholds_keeps_them(tmp_path: Path) -> None:
    chosen = APPLICATION + "\ngc.set_threshold(900, 9, 7)\n"
    with serving(tmp_path, text=chosen) as (_, url):
        assert ask(url)["full after"] == 7


def test_what_is_dropped_meanwhile_is_freed_at_the_end(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, url):
        assert ask(f"{url}/drop") == {"full after": 2}
        process.wait_for("freed request")
        process.signal(signal.SIGTERM)
        errors = process.end().errors
    stopped = errors.index("stopped")
    for name in ("import", "startup"):
        assert errors.index(f"freed {name}\n") > stopped


def test_a_server_in_a_program_of_ones_own_leaves_its_collector_alone(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(APPLICATION)
    script = """
import rondel
from rondel.server import Config, Server
from site_app import app, kept, seen

async def main():
    async with Server(app, Config(port=0)):
        print(seen(kept["import"]), seen(kept["startup"]))

rondel.run(main())
"""
    (tmp_path / "program.py").write_text(script)
    got = call([RONDEL[0], "program.py"], tmp_path)
    assert got.output == "True True\n", got.errors


def test_after_serve_has_returned_collections_look_at_everything(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(APPLICATION)
    script = """
import gc, os, signal
import rondel.server
from site_app import app, kept, seen

async def asked_to_stop(scope, receive, send):
    async def hear():
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            print(seen(kept["import"]), seen(kept["startup"]))
        return message

    async def say(message):
        await send(message)
        os.kill(os.getpid(), signal.SIGTERM)

    await app(scope, hear, say)

thresholds = gc.get_threshold()
print(rondel.server.serve(asked_to_stop, port=0))
print(seen(kept["import"]), seen(kept["startup"]))
print(gc.get_threshold() == thresholds)
"""
    (tmp_path / "program.py").write_text(script)
    got = call([RONDEL[0], "program.py"], tmp_path)
    assert got.output == "False False\n0\nTrue True\nTrue\n", got.errors
