"""An application whose handlers take their time; each says on stderr how far it is."""

import asyncio
import sys
from typing import Any


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def start(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def respond(send: Any) -> None:
    await start(send)
    await send({"type": "http.response.body", "body": b"hello"})


async def inner() -> None:
    await asyncio.Event().wait()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    if path not in ("/hello", "/say", "/read"):
        say(f"{path} has begun")
    if path == "/until-gone":
        while (await receive())["type"] != "http.disconnect":
            pass
    elif path == "/say":
        say(f"{path}?{scope['query_string'].decode()}")
        await respond(send)
    elif path == "/wait":
        try:
            await inner()
        except asyncio.CancelledError:
            say("/wait was cancelled")
            raise
    elif path == "/stay":
        while True:
            try:
                await inner()
            except asyncio.CancelledError:
                if scope.get("over"):
                    raise
                scope["over"] = True
    elif path == "/endless":
        await start(send)
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                if await gone(receive):
                    break
        except OSError:
            pass
        say("the client of /endless is gone")
    elif path == "/drip":
        await start(send)
        for number in range(10):
            await asyncio.sleep(0.05)
            more = number < 9
            await send({"type": "http.response.body", "body": b"drop", "more_body": more})
    elif path == "/read":
        while (await receive()).get("more_body"):
            pass
        await respond(send)
    else:
        await respond(send)


async def gone(receive: Any) -> bool:
    """Whether the client has gone, as of now."""
    try:
        async with asyncio.timeout(0):
            while (await receive())["type"] != "http.disconnect":
                pass
            return True
    except TimeoutError:
        return False
