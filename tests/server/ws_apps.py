"""The WebSocket applications under test: the first segment of the path names one.

Plain HTTP is that of ``tests.server.apps``, with its notes: what a connection's handler noted under
its key is at ``/events?key``.
"""

import asyncio
import contextlib
from typing import Any

from tests.server import apps
from tests.server.apps import gate, note, plain, query


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        await apps.app(scope, receive, send)
        return
    path = scope["path"].removeprefix(scope["root_path"])
    await globals()["ws_" + path.split("/")[1]](scope, receive, send)


async def accept(receive: Any, send: Any, **more: Any) -> None:
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **more})


async def noted_disconnect(scope: Any, message: Any) -> None:
    assert message["type"] == "websocket.disconnect", message
    await note(scope, f"disconnect {message['code']} {message.get('reason') or ''}".strip())


async def ws_echo(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        assert message.keys() in ({"type", "text"}, {"type", "bytes"})
        await send(message | {"type": "websocket.send"})
    await noted_disconnect(scope, message)
    if query(scope, "again"):
        await noted_disconnect(scope, await receive())


async def ws_collect(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await note(scope, message["text"])
    await noted_disconnect(scope, message)


async def ws_scope(scope: Any, receive: Any, send: Any) -> None:
    import json

    await accept(receive, send)
    await send({"type": "websocket.send", "text": json.dumps(plain(scope))})
    await receive()


async def ws_accept(scope: Any, receive: Any, send: Any) -> None:
    """Chooses the subprotocol that the query says, and sends headers of its own."""
    headers = [(b"X-One", b"1"), (b"x-two", b"2"), (b"set-cookie", b"a=b")]
    await accept(receive, send, subprotocol=query(scope, "choose") or None, headers=headers)
    await receive()


async def ws_refuse(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.close", "code": 4321})
    await noted_disconnect(scope, await receive())


async def ws_deny(scope: Any, receive: Any, send: Any) -> None:
    assert "websocket.http.response" in scope["extensions"]
    assert (await receive())["type"] == "websocket.connect"
    start = {"type": "websocket.http.response.start", "status": 401}
    await send(start | {"headers": [(b"x-why", b"no ticket"), (b"content-length", b"9")]})
    await send({"type": "websocket.http.response.body", "body": b"no ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"ticket"})
    await noted_disconnect(scope, await receive())


async def ws_close(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send)
    await send({"type": "websocket.send", "text": "last"})
    close = {"type": "websocket.close"}
    if query(scope, "code"):
        close["code"] = int(query(scope, "code"))
    if query(scope, "reason"):
        close["reason"] = query(scope, "reason")
    await send(close)
    await noted_disconnect(scope, await receive())
    try:
        await send({"type": "websocket.send", "text": "too late"})
    except RuntimeError:
        await note(scope, "RuntimeError")


async def ws_return(scope: Any, receive: Any, send: Any) -> None:
    if query(scope, "when") == "accepted":
        await accept(receive, send)


async def ws_crash(scope: Any, receive: Any, send: Any) -> None:
    if query(scope, "when") == "accepted":
        await accept(receive, send)
    raise ZeroDivisionError("on purpose")


async def ws_crash_denying(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.http.response.start", "status": 401})
    await send({"type": "websocket.http.response.body", "body": b"x" * 10, "more_body": True})
    raise ZeroDivisionError("on purpose")


async def ws_send_after_end(scope: Any, receive: Any, send: Any) -> None:
    """Leaves by the error that `send()` raises once the client has gone."""
    await accept(receive, send)
    while (await receive())["type"] == "websocket.receive":
        pass
    try:
        await send({"type": "websocket.send", "text": "nobody hears"})
    except OSError:
        await note(scope, "OSError")
        raise


async def ws_wrong(scope: Any, receive: Any, send: Any) -> None:
    """Messages that are errors of the application; it goes on after each."""
    assert (await receive())["type"] == "websocket.connect"

    async def wrong(message: Any) -> None:
        try:
            await send(message)
        except Exception as error:
            await note(scope, type(error).__name__)
        else:
            await note(scope, "nothing")

    await wrong({"type": "websocket.send", "text": "before"})
    await wrong({"type": "http.response.start", "status": 200})
    await wrong({})
    await send({"type": "websocket.accept"})
    await wrong({"type": "websocket.accept"})
    await wrong({"type": "websocket.send", "text": 5})
    await send({"type": "websocket.send", "text": "still there"})
    await receive()


async def ws_slow(scope: Any, receive: Any, send: Any) -> None:
    """Receives nothing until it is released; then says how many messages there were."""
    await accept(receive, send)
    await note(scope, "accepted")
    await gate(scope).wait()
    count = 0
    while (message := await receive()).get("text") != "end":
        assert message["type"] == "websocket.receive", message
        count += 1
    with contextlib.suppress(OSError):  # closed right behind the end
        await send({"type": "websocket.send", "text": str(count)})
    await noted_disconnect(scope, await receive())


async def ws_flood(scope: Any, receive: Any, send: Any) -> None:
    """Sends until it is held back for good, and says how much it could send."""
    await accept(receive, send)
    part, sent = b"x" * 16384, 0
    with contextlib.suppress(TimeoutError):
        while sent < 1 << 30:
            async with asyncio.timeout(1):
                await send({"type": "websocket.send", "bytes": part})
            sent += len(part)
    await note(scope, sent)
    await gate(scope).wait()
    await send({"type": "websocket.send", "text": "over"})
    await noted_disconnect(scope, await receive())


async def ws_wait(scope: Any, receive: Any, send: Any) -> None:
    """Waits before it accepts."""
    assert (await receive())["type"] == "websocket.connect"
    await note(scope, "asked")
    event = await receive()
    await noted_disconnect(scope, event)
    with contextlib.suppress(OSError):
        await send({"type": "websocket.accept"})
        await note(scope, "accepted a client that has gone")


async def ws_gated(scope: Any, receive: Any, send: Any) -> None:
    """Accepts once it is released, and echoes."""
    assert (await receive())["type"] == "websocket.connect"
    await note(scope, "asked")
    await gate(scope).wait()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send(message | {"type": "websocket.send"})
    await noted_disconnect(scope, message)


async def ws_push(scope: Any, receive: Any, send: Any) -> None:
    """Sends as many messages as it is told to, of the size it is told."""
    await accept(receive, send)
    count, size = int(query(scope, "count")), int(query(scope, "size"))
    for number in range(count):
        await send({"type": "websocket.send", "bytes": number.to_bytes(4) + b"." * (size - 4)})
    await noted_disconnect(scope, await receive())


async def ws_cancelled_receive(scope: Any, receive: Any, send: Any) -> None:
    await accept(receive, send)
    for _ in range(3):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(receive(), 0.01)
    await note(scope, "cancelled")
    while (message := await receive())["type"] == "websocket.receive":
        await send(message | {"type": "websocket.send"})


async def ws_stopping(scope: Any, receive: Any, send: Any) -> None:
    """Accepts when the server is being stopped: it accepts no connections then."""
    assert (await receive())["type"] == "websocket.connect"
    await note(scope, "asked")
    while True:
        try:
            _, writer = await asyncio.open_connection(*scope["server"])
        except ConnectionRefusedError:
            break
        writer.close()
        await asyncio.sleep(0.01)
    await send({"type": "websocket.accept"})
    assert (await receive()) == {"type": "websocket.disconnect", "code": 1012, "reason": ""}


async def ws_deny_with_200(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    try:
        await send({"type": "websocket.http.response.start", "status": 200, "headers": []})
    except RuntimeError as error:
        await note(scope, f"RuntimeError: {error}")
        raise
    await send({"type": "websocket.http.response.body", "body": b"welcome"})


async def ws_behind(scope: Any, receive: Any, send: Any) -> None:
    """Receives nothing, and tries to send now and then until that fails."""
    await accept(receive, send)
    await note(scope, "accepted")
    try:
        while True:
            await send({"type": "websocket.send", "text": "now and then"})
            await asyncio.sleep(0.01)
    except OSError:
        await note(scope, "OSError")
        raise


async def ws_pushed(scope: Any, receive: Any, send: Any) -> None:
    """Sends until the client has gone."""
    await accept(receive, send)
    try:
        while True:
            await send({"type": "websocket.send", "bytes": bytes(10_000)})
    except OSError:
        await note(scope, "OSError")
        raise
