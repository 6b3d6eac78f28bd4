"""Starlette, with a middleware of the kind that wraps `receive` and `send`."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from tests.server.frameworks import FILE, Sum, described, lines

go = asyncio.Event()
done: list[str] = []


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    yield {"started": True}


async def page(request: Request) -> Response:
    return PlainTextResponse(f"{request.path_params['name']} {request.query_params.get('q')}")


async def away(request: Request) -> Response:
    return RedirectResponse("/page/x?q=redirected")


async def upload(request: Request) -> Response:
    async with request.form() as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            return PlainTextResponse("no file", 400)
        title = str(form["title"])
        return JSONResponse(described(title, file.filename, file.content_type, await file.read()))


async def raw(request: Request) -> Response:
    got = Sum()
    async for part in request.stream():
        got.add(part)
    return JSONResponse(got.told())


async def stream(request: Request) -> Response:
    async def parts() -> AsyncIterator[str]:
        for part in lines():
            yield part
            await go.wait()

    return StreamingResponse(parts(), media_type="text/plain")


async def release(request: Request) -> Response:
    go.set()
    return Response(status_code=204)


async def file(request: Request) -> Response:
    return FileResponse(FILE, filename="né.py")


async def cookies(request: Request) -> Response:
    response = PlainTextResponse(request.cookies.get("count", "0"))
    response.set_cookie("count", str(int(request.cookies.get("count", "0")) + 1))
    response.set_cookie("other", "b", max_age=60, httponly=True)
    return response


async def started(request: Request) -> Response:
    return PlainTextResponse(str(request.state.started))


async def error(request: Request) -> Response:
    raise RuntimeError("a handler's failure")


async def background(request: Request) -> Response:
    return PlainTextResponse("answered", background=BackgroundTask(later, "background"))


async def later(what: str) -> None:
    await asyncio.sleep(0)
    done.append(what)


async def finished(request: Request) -> Response:
    gc.collect()  # a generator that was left suspended ends with its last reference
    return JSONResponse(done)


async def shout(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text.upper())


async def endless() -> AsyncIterator[bytes]:
    try:
        while True:
            yield b"more" * 1000
            await asyncio.sleep(0.001)
    finally:
        done.append("stream ended")


async def endlessly(request: Request) -> Response:
    return StreamingResponse(endless())


class Marked(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["x-marked"] = request.method
        return response


app = Starlette(
    lifespan=lifespan,
    middleware=[Middleware(Marked)],
    routes=[
        Route("/page/{name}", page),
        Route("/away", away),
        Route("/upload", upload, methods=["POST"]),
        Route("/raw", raw, methods=["POST"]),
        Route("/stream", stream),
        Route("/go", release),
        Route("/file", file),
        Route("/cookies", cookies),
        Route("/started", started),
        Route("/error", error),
        Route("/background", background),
        Route("/finished", finished),
        Route("/endless", endlessly),
        Mount("/static", StaticFiles(directory=FILE.parent)),
        WebSocketRoute("/shout", shout),
    ],
)
