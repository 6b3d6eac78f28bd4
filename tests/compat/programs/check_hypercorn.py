"""Hypercorn in our loop, over HTTP/1.1 and TLS, and by its command; the client is httpx."""

import asyncio
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from .check_uvicorn import command
from .conftest import MODE, PATIENCE


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": f"{event['type']}.complete"})
            if event["type"] == "lifespan.shutdown":
                return
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def exchange(scheme: str, config: Config, verify: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))
    async with httpx.AsyncClient(verify=verify) as client:
        body = b"x" * 500_000
        answer = await client.post(f"{scheme}://localhost:{port}/", content=body)
        assert answer.content == body
        many = await asyncio.gather(
            *(client.post(f"{scheme}://localhost:{port}/", content=b"%d" % n) for n in range(30))
        )
        assert [each.content for each in many] == [b"%d" % n for n in range(30)]
    stop.set()
    await serving


async def check_a_server_in_our_loop() -> None:
    await exchange("http", Config(), True)


async def check_its_tls(tls: Any) -> None:
    config = Config()
    config.certfile, config.keyfile = tls.cert, tls.key
    await exchange("https", config, tls.client)


@pytest.mark.parametrize("workers", ["0", "1", "2"])
def check_its_command(project: Path, workers: str) -> None:
    """It serves from fresh interpreters, unless told to have no workers."""
    options = ["--bind", "127.0.0.1:0", "--workers", workers]
    with command(project, "-m", "hypercorn", "site_app:app", *options) as (url, child):
        with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:
            answer = client.post(url, content=b"hello")
        assert answer.content == b"hello!"
        loop = answer.headers["x-loop"].partition(".")[0]
        assert loop == ("rondel" if MODE == "install" else "asyncio")
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE) == 0
