"""The application that clients talk to: that of the server's tests, and what only they need."""

import asyncio
import email.parser
import email.policy
import hashlib
import json
from typing import Any

from tests.server import ws_apps
from tests.server.apps import gate, note, read_body, respond, start


async def app(scope: Any, receive: Any, send: Any) -> None:
    handler = None
    if scope["type"] == "http":
        handler = globals().get("do_" + scope["path"].split("/")[1])
    await (handler or ws_apps.app)(scope, receive, send)


def header(scope: Any, name: bytes) -> bytes:
    return b"".join(value for key, value in scope["headers"] if key == name)


def digest(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "digest": hashlib.sha256(data).hexdigest()}


async def do_digest(scope: Any, receive: Any, send: Any) -> None:
    """What has come, in how many parts, and by which version."""
    body, parts = hashlib.sha256(), 0
    size, more = 0, True
    while more:
        message = await receive()
        assert message["type"] == "http.request", message
        part, more = message.get("body", b""), message.get("more_body", False)
        body.update(part)
        size, parts = size + len(part), parts + bool(part)
    told = {"size": size, "digest": body.hexdigest(), "version": scope["http_version"]}
    await respond(send, json.dumps(told | {"parts": parts, "method": scope["method"]}).encode())


async def do_form(scope: Any, receive: Any, send: Any) -> None:
    """The parts of a form, by the standard library's parser."""
    head = b"content-type: " + header(scope, b"content-type") + b"\r\n\r\n"
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    message = parser.parsebytes(head + await read_body(receive))
    told = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True)
        told[str(name)] = {"file": part.get_filename(), **digest(data)}
    await respond(send, json.dumps(told).encode(), headers=[(b"content-type", b"application/json")])


async def do_ticks(scope: Any, receive: Any, send: Any) -> None:
    """Server-sent events: two per connection, numbered on from the last that the client has."""
    await start(send, headers=[(b"content-type", b"text/event-stream")])
    first = int(header(scope, b"last-event-id") or b"0") + 1
    await send({"type": "http.response.body", "body": b"retry: 1\n\n", "more_body": True})
    for number in (first, first + 1):
        text = b"id: %d\ndata: tick %d\n\n" % (number, number)
        await send({"type": "http.response.body", "body": text, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body"})


async def do_note(scope: Any, receive: Any, send: Any) -> None:
    await note(scope, (await read_body(receive)).decode())
    await respond(send, b"", 204)


async def do_redirect(scope: Any, receive: Any, send: Any) -> None:
    await read_body(receive)
    await respond(send, b"", 307, [(b"location", b"/digest")])


async def do_hinted(scope: Any, receive: Any, send: Any) -> None:
    """A page that tells whether what it hints at was asked for before it came.

    It hints more than once: Chromium passes over a head that comes within the millisecond in which
    it has sent its request (its net log has the head, and no more of it).
    """
    links = [f"</release?{scope['query_string'].decode()}>; rel=preload; as=script".encode()]
    told = "not followed"
    for _ in range(100):
        await send({"type": "http.response.early_hint", "links": links})
        try:
            await asyncio.wait_for(gate(scope).wait(), 0.1)
        except TimeoutError:
            continue
        told = "followed"
        break
    page = f"<title>{told}</title><link rel=icon href='data:,'>".encode()
    await respond(send, page, headers=[(b"content-type", b"text/html")])
