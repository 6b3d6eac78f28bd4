"""The ASGI applications under test: one router whose first path segment names a handler.

Handlers note what they see under the key in their query string; `/events?key` answers with the
notes once there are `count` of them, so that a test never sleeps to see one, and
`/release?key` lets a handler go on that waits for it.
"""

import asyncio
import contextlib
import json
from typing import Any
from urllib.parse import parse_qs

notes: dict[str, list[str]] = {}
gates: dict[str, asyncio.Event] = {}
changed: asyncio.Condition | None = None


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    assert scope["type"] == "http", scope["type"]
    path = scope["path"].removeprefix(scope["root_path"])
    await globals()["do_" + path.split("/")[1]](scope, receive, send)


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["number"] = 7
    scope["state"]["shared"] = []
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    await send({"type": "lifespan.shutdown.complete"})


# -- what handlers are made of -------------------------------------------------------------


def query(scope: Any, name: str, default: str = "") -> str:
    values = parse_qs(scope["query_string"].decode())
    return str(values.get(name, [default])[0])


async def note(scope: Any, text: object) -> None:
    global changed
    if changed is None:
        changed = asyncio.Condition()
    async with changed:
        notes.setdefault(query(scope, "key"), []).append(str(text))
        changed.notify_all()


def gate(scope: Any) -> asyncio.Event:
    return gates.setdefault(query(scope, "key"), asyncio.Event())


async def read_body(receive: Any) -> bytes:
    body, more = bytearray(), True  # a bytes object would be copied whole for each part
    while more:
        message = await receive()
        assert message["type"] == "http.request", message
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


async def start(send: Any, status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def respond(send: Any, body: bytes, status: int = 200, headers: Any = ()) -> None:
    length = (b"content-length", b"%d" % len(body))
    await start(send, status, [length, *headers])
    await send({"type": "http.response.body", "body": body})


def plain(value: Any) -> Any:
    """JSON that keeps bytes, tuples and text apart."""
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


# -- the tests' own channel ----------------------------------------------------------------


async def do_events(scope: Any, receive: Any, send: Any) -> None:
    global changed
    key, count = query(scope, "key"), int(query(scope, "count", "1"))
    if changed is None:
        changed = asyncio.Condition()
    async with changed:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await changed.wait_for(lambda: len(notes.get(key, [])) >= count)
    await respond(send, json.dumps(notes.get(key, [])).encode())


async def do_release(scope: Any, receive: Any, send: Any) -> None:
    gate(scope).set()
    await respond(send, b"")


# -- handlers ------------------------------------------------------------------------------


async def do_hello(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"hello")


async def do_scope(scope: Any, receive: Any, send: Any) -> None:
    seen = {key: plain(value) for key, value in scope.items()}
    seen["types"] = {key: type(value).__name__ for key, value in scope.items()}
    seen["header types"] = sorted(
        {type(part).__name__ for pair in scope["headers"] for part in pair}
    )
    text = json.dumps(seen, default=repr)
    scope.get("extensions", {})["left by a request"] = {}  # a copy: nobody else sees it
    await respond(send, text.encode())


async def do_state(scope: Any, receive: Any, send: Any) -> None:
    state = scope["state"]
    answer = {"number": state["number"], "shared": len(state["shared"])}
    state["number"] = 99  # a copy: nobody else sees it
    state["shared"].append("seen by all")
    await respond(send, json.dumps(answer).encode())


async def do_echo(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send(
            {"type": "http.response.body", "body": message.get("body", b""), "more_body": more}
        )


async def do_length(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"%d" % len(await read_body(receive)))


async def do_received(scope: Any, receive: Any, send: Any) -> None:
    """Notes each message as it comes, to the body's end or the client's."""
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await note(scope, f"{message['type']} {message.get('body', b'').decode()} {more}")


async def do_messages(scope: Any, receive: Any, send: Any) -> None:
    """How the body came: each message's keys, type of body and whether more comes."""
    seen, more = [], True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        seen.append([message["type"], type(message.get("body", b"")).__name__, more])
    await respond(send, json.dumps(seen).encode())


async def do_ignore(scope: Any, receive: Any, send: Any) -> None:
    """Answers without reading the body."""
    await respond(send, b"ignored")


async def do_parts(scope: Any, receive: Any, send: Any) -> None:
    await start(send, headers=[(b"content-type", b"text/plain")])
    for number in range(int(query(scope, "count", "3"))):
        await send({"type": "http.response.body", "body": b"part%d;" % number, "more_body": True})
        if query(scope, "gate"):
            await gate(scope).wait()
    await send({"type": "http.response.body"})


async def do_status(scope: Any, receive: Any, send: Any) -> None:
    await start(send, int(query(scope, "code")))
    await send({"type": "http.response.body", "body": query(scope, "body").encode()})


async def do_headers(scope: Any, receive: Any, send: Any) -> None:
    await respond(
        send,
        b"",
        headers=[
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"X-Mixed-Case", b"kept"),
            (b"x-latin", "é".encode("latin-1")),
            (b"x-empty", b""),
        ],
    )


async def do_compressible(scope: Any, receive: Any, send: Any) -> None:
    """`size` bytes of text, in `count` parts, with the request's `x-send-*` headers."""
    given = {k.removeprefix(b"x-send-"): v for k, v in scope["headers"] if k.startswith(b"x-send-")}
    headers = {b"content-type": b"text/plain", **given}
    body = (b"all work and no play " * 5000)[: int(query(scope, "size", "5000"))]
    await start(send, int(query(scope, "code", "200")), headers=list(headers.items()))
    for _ in range(int(query(scope, "count", "1")) - 1):
        await send({"type": "http.response.body", "body": body, "more_body": True})
        if query(scope, "gate"):
            await gate(scope).wait()
    await send({"type": "http.response.body", "body": body})


async def do_close(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"bye", headers=[(b"connection", b"close")])


async def do_slow_reader(scope: Any, receive: Any, send: Any) -> None:
    await note(scope, "started")
    await gate(scope).wait()
    await respond(send, b"%d" % len(await read_body(receive)))


async def do_fast_writer(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    for _ in range(int(query(scope, "count"))):
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await note(scope, "chunk")
    await send({"type": "http.response.body"})


async def do_disconnect(scope: Any, receive: Any, send: Any) -> None:
    await read_body(receive)
    await note(scope, "waiting")
    for _ in range(2):  # it stays disconnected
        await note(scope, (await receive())["type"])


async def do_disconnect_while_streaming(scope: Any, receive: Any, send: Any) -> None:
    await read_body(receive)
    await start(send)
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await note(scope, "waiting")
    await note(scope, (await receive())["type"])
    for _ in range(3):
        try:
            await send({"type": "http.response.body", "body": b"late", "more_body": True})
        except OSError:
            await note(scope, "OSError")  # the ASGI specification allows it
        else:
            await note(scope, "fine")


async def do_listener(scope: Any, receive: Any, send: Any) -> None:
    """Django's pattern: a second task listens for the disconnect and is cancelled at the end."""
    await read_body(receive)

    async def listen() -> None:
        message = await receive()
        await note(scope, message["type"])

    listener = asyncio.create_task(listen())
    working = asyncio.create_task(gate(scope).wait())
    await note(scope, "working")
    await asyncio.wait([listener, working], return_when=asyncio.FIRST_COMPLETED)
    if listener.done():
        working.cancel()
        await asyncio.wait([working])
        await note(scope, "gave up")
        return
    listener.cancel()
    await asyncio.wait([listener])
    await note(scope, "listener cancelled" if listener.cancelled() else "listener ended")
    await respond(send, b"worked")


async def do_receive_again(scope: Any, receive: Any, send: Any) -> None:
    """A cancelled receive() takes nothing with it: the next one gets the body."""
    first = asyncio.create_task(receive())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    await note(scope, "cancelled" if first.cancelled() else "was there at once")
    head = b"" if first.cancelled() else first.result()["body"]
    await respond(send, head + await read_body(receive))


async def do_after_response(scope: Any, receive: Any, send: Any) -> None:
    await read_body(receive)
    await respond(send, b"done")
    await note(scope, (await receive())["type"])


async def do_background(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"answered")
    await gate(scope).wait()
    await note(scope, "background done")


async def do_raise_before(scope: Any, receive: Any, send: Any) -> None:
    raise ZeroDivisionError("raised before the start")


async def do_raise_after(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ZeroDivisionError("raised after the start")


async def do_raise_at_the_end(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"complete")
    raise ZeroDivisionError("raised at the end")


async def do_no_response(scope: Any, receive: Any, send: Any) -> None:
    return


async def do_half_response(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    await send({"type": "http.response.body", "body": b"half", "more_body": True})


async def do_short_response(scope: Any, receive: Any, send: Any) -> None:
    await start(send, headers=[(b"content-length", b"100")])
    if query(scope, "gate"):
        await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        await gate(scope).wait()
    await send({"type": "http.response.body", "body": b"end"})


async def do_file(scope: Any, receive: Any, send: Any) -> None:
    """The extension "zero copy send": a list of messages, `file` in them by its path."""
    headers = [(b"content-length", query(scope, "length").encode())]
    await start(send, headers=headers if query(scope, "length") else [])
    messages = json.loads(query(scope, "messages"))
    with contextlib.ExitStack() as stack:
        for message in messages:
            if "body" in message:
                message["type"] = "http.response.body"
                message["body"] = message["body"].encode()
            else:
                path, skip = message.pop("file"), message.pop("skip", 0)
                opened: Any = stack.enter_context(open(path, "rb"))
                opened.read(skip)
                if message.pop("number", False):
                    opened = opened.fileno()
                message = {"type": "http.response.zerocopysend", "file": opened, **message}
            try:
                await send(message)
            except Exception as error:
                await note(scope, f"{type(error).__name__}: {error}")
                raise
    await note(scope, "closed")


async def do_say(scope: Any, receive: Any, send: Any) -> None:
    """Sends the messages of the query; text stands for bytes, but in `path` and `type`."""
    for message in json.loads(query(scope, "messages")):
        match message:
            case "gate":
                await gate(scope).wait()
            case "read":
                await note(scope, (await read_body(receive)).decode())
            case _:
                for name in ("body", "links", "headers"):
                    if name in message:
                        message[name] = encoded(message[name])
                if "fill" in message:
                    filler = b"x" * message.pop("fill")
                    message |= {"body": filler} if "body" in message else {"links": [filler]}
                try:
                    await send(message)
                except Exception as error:
                    await note(scope, f"{type(error).__name__}: {error}")
                    raise


def encoded(value: Any) -> Any:
    if isinstance(value, list):
        return [encoded(item) for item in value]
    return value.encode() if isinstance(value, str) else value


async def do_trailers(scope: Any, receive: Any, send: Any) -> None:
    assert "http.response.trailers" in scope["extensions"]
    names = [(b"trailer", b"x-sum, x-more")]
    await send({"type": "http.response.start", "status": 200, "headers": names, "trailers": True})
    for part, more in ((b"one", True), (b"two", False)):
        await send({"type": "http.response.body", "body": part, "more_body": more})
    if query(scope, "forgets"):
        return
    parts = [[(b"x-sum", b"3")], [(b"x-more", b"4")]]
    for number, headers in enumerate(parts):
        message = {"headers": headers, "more_trailers": number + 1 < len(parts)}
        await send({"type": "http.response.trailers", **message})


async def do_long_response(scope: Any, receive: Any, send: Any) -> None:
    await start(send, headers=[(b"content-length", b"4")])
    await send({"type": "http.response.body", "body": b"longer than that"})


BAD: dict[str, list[Any]] = {
    "body first": [{"type": "http.response.body", "body": b"x"}],
    "unknown type": [{"type": "http.response.nonsense"}],
    "no type": [{"status": 200}],
    "not a mapping": ["http.response.start"],
    "status missing": [{"type": "http.response.start", "headers": []}],
    "status not a number": [{"type": "http.response.start", "status": "200", "headers": []}],
    "text headers": [{"type": "http.response.start", "status": 200, "headers": [("a", "b")]}],
    "header with a newline": [
        {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\r\nx: y")]}
    ],
    "header name with a space": [
        {"type": "http.response.start", "status": 200, "headers": [(b"a b", b"c")]}
    ],
}


async def do_bad(scope: Any, receive: Any, send: Any) -> None:
    for message in BAD[query(scope, "kind")]:
        try:
            await send(message)
        except Exception as error:
            await note(scope, "raised")
            raise error
    await note(scope, "accepted")
    await send({"type": "http.response.body", "body": b"x"})


async def do_start_twice(scope: Any, receive: Any, send: Any) -> None:
    await start(send)
    try:
        await start(send)
    except Exception:
        await note(scope, "raised")
        raise
    await note(scope, "accepted")


async def do_hold(scope: Any, receive: Any, send: Any) -> None:
    await note(scope, "holding")
    await gate(scope).wait()
    await respond(send, b"held")


async def do_hold_for(scope: Any, receive: Any, send: Any) -> None:
    """In flight for a while after the stop was asked for: the gate is out of reach then."""
    await note(scope, "holding")
    await asyncio.sleep(float(query(scope, "seconds")))
    await respond(send, b"held")


async def do_crash_task(scope: Any, receive: Any, send: Any) -> None:
    """A dict subclass as message and a mapping of generated headers are fine too."""

    class Message(dict[str, Any]):
        pass

    await send(Message(type="http.response.start", status=200, headers=iter([(b"a", b"b")])))
    await send(Message(type="http.response.body", body=bytearray(b"subclass")))
