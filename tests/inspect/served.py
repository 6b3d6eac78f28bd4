"""Applications whose requests are looked at: each stays where it is until its gate is opened.

`/open?gate=KEY` opens one; what blocks the loop goes on when a file is there.
"""

import asyncio
import ctypes
import dataclasses
import json
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from flask import Flask
from flask import request as flask_request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import rondel.inspect

PATIENCE = 60.0

# For threads, and for the loop.
gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)
loop_gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
stalls: list[rondel.inspect.Stall] = []
rondel.inspect.on_stall(stalls.append)


def held(key: str) -> str:
    assert gates[key].wait(PATIENCE)
    return "held"


def outer(key: str) -> str:
    return str(async_to_sync(inner)(key))


async def inner(key: str) -> str:
    return await sync_to_async(held)(key)


def blocks(go_on: Path) -> None:
    while not go_on.exists():
        time.sleep(0.005)


def blocks_natively(go_on: Path) -> None:
    usleep = ctypes.PyDLL(None).usleep
    while not go_on.exists():
        usleep(800_000)


async def stalling(go_on: Path) -> None:
    blocks(go_on)


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def open_gate(request: Request) -> PlainTextResponse:
    key = request.query_params["gate"]
    gates[key].set()
    loop_gates[key].set()
    return PlainTextResponse("open")


async def waits(request: Request) -> PlainTextResponse:
    """Waits for a task of its own."""

    async def child() -> None:
        await loop_gates[request.query_params["gate"]].wait()

    await asyncio.create_task(child(), name="child")
    return PlainTextResponse("waited", 202)


async def by_thread(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await asyncio.to_thread(held, request.query_params["gate"]))


async def by_bridge(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await sync_to_async(held)(request.query_params["gate"]))


async def by_executor(request: Request) -> PlainTextResponse:
    loop = asyncio.get_running_loop()
    return PlainTextResponse(await loop.run_in_executor(None, held, request.query_params["gate"]))


async def there_and_back(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await sync_to_async(outer)(request.query_params["gate"]))


async def stall(request: Request) -> PlainTextResponse:
    """Its task's child keeps the loop."""
    go_on = Path(request.query_params["file"])
    await asyncio.create_task(stalling(go_on), name="staller")
    return PlainTextResponse("stalled")


async def native_stall(request: Request) -> PlainTextResponse:
    blocks_natively(Path(request.query_params["file"]))
    return PlainTextResponse("stalled")


async def told(request: Request) -> PlainTextResponse:
    """Of stalls, to the program."""
    return PlainTextResponse(json.dumps([dataclasses.asdict(stall) for stall in stalls]))


async def oneself(request: Request) -> PlainTextResponse:
    mine = [one for one in rondel.inspect.requests() if one.path == "/oneself"]
    ended = [one.path for one in rondel.inspect.ended_requests()]
    return PlainTextResponse(json.dumps([[dataclasses.asdict(one) for one in mine], ended]))


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.receive_text()


asgi = Starlette(
    routes=[
        Route("/hello", hello),
        Route("/open", open_gate),
        Route("/waits/{name}", waits),
        Route("/by-thread", by_thread),
        Route("/by-bridge", by_bridge),
        Route("/by-executor", by_executor),
        Route("/there-and-back", there_and_back),
        Route("/stall/{name}", stall),
        Route("/native-stall", native_stall),
        Route("/told", told),
        Route("/oneself", oneself),
        WebSocketRoute("/socket", socket),
    ]
)

flask = Flask(__name__)


@flask.get("/held/<key>")
def page(key: str) -> str:
    # Opened by a file: all threads may be taken.
    blocks(Path(flask_request.args["folder"], key))
    return "held"


def wsgi(environ: Any, start_response: Any) -> Any:
    return flask(environ, start_response)
