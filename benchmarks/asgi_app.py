"""The measured application: plain ASGI 3, no framework, one route per case.

`GET /` hello; `GET /100k` a 100 KB body; `POST /echo` the request's body back; `GET /sleep` hello
after 10 ms; all with a Content-Length.  The bare Rust server answers the first three, byte for byte
but for the order of headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HELLO = b"Hello, World!"
LARGE = b"x" * (100 * 1024)
PLAIN = (b"content-type", b"text/plain")


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        path = scope["path"]
        if path == "/":
            await respond(send, 200, HELLO)
        elif path == "/100k":
            await respond(send, 200, LARGE)
        elif path == "/echo":
            await respond(send, 200, await read_body(receive))
        elif path == "/sleep":
            await asyncio.sleep(0.01)
            await respond(send, 200, HELLO)
        else:
            await respond(send, 404, b"no such page")
    elif scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        raise ValueError(f"no handler for {scope['type']!r}")


async def respond(send: Send, status: int, body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [PLAIN, length]})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Receive) -> bytes:
    message = await receive()
    if not message.get("more_body", False):
        return bytes(message.get("body", b""))
    parts = [message.get("body", b"")]
    while message.get("more_body", False):
        message = await receive()
        parts.append(message.get("body", b""))
    return b"".join(parts)


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
