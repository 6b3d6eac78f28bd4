"""uvicorn on Rondel's loop: its command with `--loop`, `uvicorn.run`, and a Server in our loop.

The client is httpx.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from websockets.asyncio.client import connect

from .conftest import MODE, PATIENCE, child_command

APP = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        print("lifespan ended", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"].upper()})
        return
    body = b""
    while True:
        event = await receive()
        body += event.get("body", b"")
        if not event.get("more_body"):
            break
    name = type(asyncio.get_running_loop()).__module__.encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-loop", name)]})
    for part in (body, b"", b"!"):
        await send({"type": "http.response.body", "body": part, "more_body": part != b"!"})
"""
WANTED = "asyncio" if MODE == "stdlib" else "rondel"


def app() -> Any:
    namespace: dict[str, Any] = {}
    exec(APP, namespace)
    return namespace["app"]


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[str]:
    config = uvicorn.Config(app(), port=0, log_level="warning", **options)
    server = uvicorn.Server(config)
    # `serve()` takes the signals over, which is its main program's business.
    task = asyncio.create_task(server._serve())
    while not server.started:
        assert not task.done(), task
        await asyncio.sleep(0.005)
    try:
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def check_a_server_in_our_loop(http: str) -> None:
    async with serving(http=http) as address, httpx.AsyncClient() as client:
        body = os.urandom(2 << 20)
        answer = await client.post(f"http://{address}/", content=body)
        assert answer.content == body + b"!"
        assert answer.headers["x-loop"].partition(".")[0] == WANTED
        answers = await asyncio.gather(
            *(client.post(f"http://{address}/", content=b"%d" % n) for n in range(50))
        )
        assert [each.content for each in answers] == [b"%d!" % n for n in range(50)]


@pytest.mark.parametrize("kind", ["websockets-sansio", "wsproto"])
async def check_its_websockets(kind: str) -> None:
    async with serving(ws=kind) as address, connect(f"ws://{address}/") as socket:
        await socket.send("hello")
        assert await socket.recv() == "HELLO"


async def check_its_tls(tls: Any) -> None:
    async with (
        serving(ssl_certfile=tls.cert, ssl_keyfile=tls.key) as address,
        httpx.AsyncClient(verify=tls.client) as client,
    ):
        answer = await client.post(f"https://{address}/", content=b"x" * 300_000)
        assert len(answer.content) == 300_001


def kill(child: subprocess.Popen[str]) -> None:
    """With its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


@contextlib.contextmanager
def command(folder: Path, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The server as a process of its own: its URL, once it listens."""
    (folder / "site_app.py").write_text(APP)
    child = subprocess.Popen(
        child_command(*arguments),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    guard = threading.Timer(PATIENCE, kill, [child])
    guard.start()
    try:
        assert child.stdout is not None
        said = ""
        for line in child.stdout:
            said += line
            if found := re.search(r"[Rr]unning on (http://\S+)", line):
                yield found[1], child
                break
        else:
            pytest.fail(f"it did not start: {said}")
    finally:
        guard.cancel()
        kill(child)
        child.communicate(timeout=PATIENCE)


def ask(url: str) -> str:
    with httpx.Client() as client:
        answer = client.post(url, content=b"hello")
        assert answer.content == b"hello!"
        return str(answer.headers["x-loop"].partition(".")[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def check_its_command_with_our_loop(project: Path, number: signal.Signals) -> None:
    loop = "asyncio" if MODE == "stdlib" else "rondel:new_event_loop"
    with command(project, "-m", "uvicorn", "site_app:app", "--port", "0", "--loop", loop) as (
        url,
        child,
    ):
        assert ask(url) == WANTED
        child.send_signal(number)
        assert child.stdout is not None
        assert "lifespan ended" in child.stdout.read()
        # It raises the signal again for whoever started it.
        assert child.wait(PATIENCE) in (0, -number, 128 + number)


def check_its_command_leaves_the_loop_to_asyncio(project: Path) -> None:
    """`--loop none` asks `asyncio.run`, which `rondel run` answers."""
    with command(project, "-m", "uvicorn", "site_app:app", "--port", "0", "--loop", "none") as (
        url,
        _,
    ):
        assert ask(url) == ("rondel" if MODE == "install" else "asyncio")


def check_its_default_is_our_loop(project: Path) -> None:
    """`--loop auto` names a class of asyncio's, past what `rondel run` has installed."""
    with command(project, "-m", "uvicorn", "site_app:app", "--port", "0") as (url, _):
        assert (ask(url) == "rondel") is (MODE == "install")


def check_a_loop_that_is_named_is_taken(project: Path) -> None:
    options = ["--port", "0", "--loop", "asyncio"]
    with command(project, "-m", "uvicorn", "site_app:app", *options) as (url, _):
        assert ask(url) == "asyncio"


def check_its_workers(project: Path) -> None:
    options = ["--port", "0", "--workers", "2"]
    if MODE != "install":
        options += ["--loop", "asyncio" if MODE == "stdlib" else "rondel:new_event_loop"]
    with command(project, "-m", "uvicorn", "site_app:app", *options) as (url, child):
        assert child.stdout is not None
        # The address is told when it is bound; the workers listen.
        for _ in range(2):
            while "startup complete" not in child.stdout.readline():
                assert child.poll() is None
        assert {ask(url) for _ in range(10)} == {WANTED}
        child.send_signal(signal.SIGTERM)
        assert child.stdout.read().count("lifespan ended") == 2
        child.wait(PATIENCE)


def check_uvicorn_run(project: Path) -> None:
    loop = "asyncio" if MODE == "stdlib" else "rondel:EventLoop"
    code = f"import uvicorn, site_app; uvicorn.run(site_app.app, port=0, loop={loop!r})"
    with command(project, "-c", code) as (url, _):
        assert ask(url) == WANTED
