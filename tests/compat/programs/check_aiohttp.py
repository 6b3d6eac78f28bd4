"""aiohttp: its server and its client, on one loop, over TCP, TLS and a Unix socket."""

import asyncio
import contextlib
import io
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from .conftest import PATIENCE, child_command


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), headers={"X-Seen": request.method})


async def parts(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(50):
        await response.write(b"%d\n" % number)
    await response.write_eof()
    return response


async def chat(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_str(message.data.upper())
        else:
            await socket.send_bytes(message.data)
    return socket


async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(PATIENCE)
    return web.Response()


async def broken(request: web.Request) -> web.Response:
    raise web.HTTPConflict


@contextlib.asynccontextmanager
async def serving(make_site: Any) -> AsyncIterator[web.AppRunner]:
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/echo", echo)
    app.router.add_get("/parts", parts)
    app.router.add_get("/chat", chat)
    app.router.add_get("/slow", slow)
    app.router.add_get("/broken", broken)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    try:
        await make_site(runner).start()
        yield runner
    finally:
        await runner.cleanup()


async def exchange(session: aiohttp.ClientSession, base: str) -> None:
    body = os.urandom(3 << 20)
    async with session.post(f"{base}/echo", data=io.BytesIO(body)) as answer:
        assert answer.headers["X-Seen"] == "POST"
        assert await answer.read() == body
    async with session.get(f"{base}/parts") as answer:
        assert [line async for line in answer.content] == [b"%d\n" % n for n in range(50)]
    async with session.get(f"{base}/broken") as answer:
        assert answer.status == 409
    async with session.ws_connect(f"{base}/chat") as socket:
        await socket.send_str("hello")
        assert (await socket.receive(PATIENCE)).data == "HELLO"
        await socket.send_bytes(b"x" * 200_000)
        assert (await socket.receive(PATIENCE)).data == b"x" * 200_000

    async def one(number: int) -> None:
        async with session.put(f"{base}/echo", json={"number": number}) as answer:
            assert await answer.json(content_type=None) == {"number": number}

    await asyncio.gather(*(one(number) for number in range(60)))


async def check_an_exchange_over_tcp() -> None:
    async with (
        serving(lambda runner: web.TCPSite(runner, "127.0.0.1", 0)) as runner,
        aiohttp.ClientSession() as session,
    ):
        host, port = runner.addresses[0]
        await exchange(session, f"http://{host}:{port}")


async def check_an_exchange_over_tls(tls: Any) -> None:
    connector = aiohttp.TCPConnector(ssl=tls.client)
    async with (
        serving(lambda runner: web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.server)) as run,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        await exchange(session, f"https://localhost:{run.addresses[0][1]}")
        # Its end is sent in the turns after close().
    await asyncio.sleep(0.05)


async def check_an_exchange_over_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    connector = aiohttp.UnixConnector(path)
    async with (
        serving(lambda runner: web.UnixSite(runner, path)),
        aiohttp.ClientSession(connector=connector) as session,
    ):
        await exchange(session, "http://server")


async def check_a_request_can_time_out_and_the_next_goes_through() -> None:
    async with (
        serving(lambda runner: web.TCPSite(runner, "127.0.0.1", 0)) as runner,
        aiohttp.ClientSession() as session,
    ):
        host, port = runner.addresses[0]
        limit = aiohttp.ClientTimeout(total=0.1)
        with pytest.raises(TimeoutError):
            await session.get(f"http://{host}:{port}/slow", timeout=limit)
        async with session.get(f"http://{host}:{port}/echo") as answer:
            assert answer.status == 200


PROGRAM = """
import os, socket, sys
from aiohttp import web
if os.environ["COMPAT_MODE"] == "loop":
    import rondel
    loop = rondel.new_event_loop()
else:
    loop = None

async def started(app):
    import asyncio
    print(type(asyncio.get_running_loop()).__module__, flush=True)

async def stopped(app):
    print("stopped", flush=True)

listener = socket.create_server(("127.0.0.1", 0))
app = web.Application()
app.on_startup.append(started)
app.on_cleanup.append(stopped)
web.run_app(app, sock=listener, loop=loop, print=None)
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def check_run_app_ends_on_a_signal(number: signal.Signals) -> None:
    child = subprocess.Popen(child_command("-c", PROGRAM), stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        module = child.stdout.readline().strip()
        expected = "asyncio" if os.environ["COMPAT_MODE"] == "stdlib" else "rondel"
        assert module.partition(".")[0] == expected
        child.send_signal(number)
        assert child.stdout.read() == "stopped\nended\n"
        assert child.wait(PATIENCE) == 0
