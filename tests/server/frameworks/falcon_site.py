"""Falcon's ASGI application."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import falcon
import falcon.asgi
from falcon.asgi import Request, Response, SSEvent, WebSocket

from tests.server.frameworks import FILE, Sum, described, lines

go = asyncio.Event()
state: dict[str, bool] = {}


class Lifespan:
    async def process_startup(self, scope: Any, event: Any) -> None:
        state["started"] = True

    async def process_shutdown(self, scope: Any, event: Any) -> None:
        state.clear()


class Page:
    async def on_get(self, request: Request, response: Response, name: str) -> None:
        response.content_type = falcon.MEDIA_TEXT
        response.text = f"{name} {request.get_param('q')}"

    on_head = on_get


class Away:
    async def on_get(self, request: Request, response: Response) -> None:
        raise falcon.HTTPTemporaryRedirect("/page/x?q=redirected")


class Upload:
    async def on_post(self, request: Request, response: Response) -> None:
        title, file = "", None
        async for part in await request.get_media():
            if part.name == "title":
                title = await part.text
            elif part.name == "file":
                data = await part.stream.read()
                file = described(title, part.filename, part.content_type, data)
        response.media = file


class Raw:
    async def on_post(self, request: Request, response: Response) -> None:
        got = Sum()
        async for part in request.stream:
            got.add(part)
        response.media = got.told()


class Stream:
    async def on_get(self, request: Request, response: Response) -> None:
        async def parts() -> AsyncIterator[bytes]:
            for part in lines():
                yield part.encode()
                await go.wait()

        response.content_type = falcon.MEDIA_TEXT
        response.stream = parts()


class Go:
    async def on_get(self, request: Request, response: Response) -> None:
        go.set()
        response.status = falcon.HTTP_204


async def parts_of_file() -> AsyncIterator[bytes]:
    with FILE.open("rb") as file:
        while part := file.read(1000):
            yield part


class File:
    async def on_get(self, request: Request, response: Response) -> None:
        response.content_type = "text/x-python"
        response.set_stream(parts_of_file(), FILE.stat().st_size)


class Cookies:
    async def on_get(self, request: Request, response: Response) -> None:
        count = request.cookies.get("count", "0")
        response.set_cookie("count", str(int(count) + 1), secure=False)
        response.set_cookie("other", "b", max_age=60, secure=False)
        response.content_type = falcon.MEDIA_TEXT
        response.text = count


class Started:
    async def on_get(self, request: Request, response: Response) -> None:
        response.content_type = falcon.MEDIA_TEXT
        response.text = str(state.get("started"))


class Error:
    async def on_get(self, request: Request, response: Response) -> None:
        raise RuntimeError("a handler's failure")


class Events:
    async def on_get(self, request: Request, response: Response) -> None:
        async def emit() -> AsyncIterator[SSEvent]:
            for number in range(3):
                yield SSEvent(event="tick", event_id=str(number), json={"number": number})

        response.sse = emit()


class Shout:
    async def on_websocket(self, request: Request, websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text((await websocket.receive_text()).upper())
        except falcon.WebSocketDisconnected:
            pass


app = falcon.asgi.App(middleware=[Lifespan()])
app.add_route("/page/{name}", Page())
app.add_route("/away", Away())
app.add_route("/upload", Upload())
app.add_route("/raw", Raw())
app.add_route("/stream", Stream())
app.add_route("/go", Go())
app.add_route("/file", File())
app.add_route("/cookies", Cookies())
app.add_route("/started", Started())
app.add_route("/error", Error())
app.add_route("/events", Events())
app.add_route("/shout", Shout())
app.add_static_route("/static", str(FILE.parent))
# A part of a form may be as large as the tests' file.
handler = app.req_options.media_handlers[falcon.MEDIA_MULTIPART]
handler.parse_options.max_body_part_buffer_size = 10 << 20  # type: ignore[attr-defined]
