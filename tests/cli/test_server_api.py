"""The server from Python: `rondel.server.serve` and `Server`, without the command line."""

import asyncio
import signal
import sys
import textwrap
import urllib.request
from pathlib import Path

import pytest

import rondel
from rondel.server import Config, ServeError, Server
from rondel.server.config import Receive, Scope, Send

from .support import running


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"from an object"})


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as response:
        body: bytes = response.read()
        return body


def test_a_server_on_a_loop_that_runs() -> None:
    async def main() -> bytes:
        async with Server(app, Config(port=0)) as server:
            return await asyncio.to_thread(fetch, server.url)

    assert rondel.run(main()) == b"from an object"


def test_two_servers_share_a_loop() -> None:
    async def main() -> list[bytes]:
        config = Config(port=0)
        async with Server(app, config) as one, Server(app, config) as two:
            assert one.url != two.url
            found = await asyncio.gather(
                asyncio.to_thread(fetch, one.url), asyncio.to_thread(fetch, two.url)
            )
            return list(found)

    assert rondel.run(main()) == [b"from an object"] * 2


def test_its_port_is_free_after_the_stop() -> None:
    async def main() -> None:
        async with Server(app, Config(port=0)) as server:
            port = int(server.url.rpartition(":")[2])
        async with Server(app, Config(port=port)) as server:
            assert server.url.endswith(f":{port}")

    rondel.run(main())


def test_a_port_in_use_is_a_serve_error() -> None:
    async def main() -> None:
        async with Server(app, Config(port=0)) as server:
            port = int(server.url.rpartition(":")[2])
            with pytest.raises(ServeError, match="is already in use"):
                await Server(app, Config(port=port)).start()

    rondel.run(main())


def test_serve_blocks_until_a_signal(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        textwrap.dedent(
            """\
            import sys
            import rondel.server

            async def app(scope, receive, send):
                assert scope["type"] == "http"

            print("ended", rondel.server.serve(app, port=0))
            """
        )
    )
    with running([sys.executable, "program.py"], tmp_path) as process:
        process.wait_for(r"serving app on http://127\.0\.0\.1:\d+ ")
        process.signal(signal.SIGTERM)
        outcome = process.end()
    assert (outcome.status, outcome.output) == (0, "ended 0\n")
