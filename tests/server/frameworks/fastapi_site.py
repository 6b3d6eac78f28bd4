"""FastAPI: async handlers, and sync ones, which run on its threads."""

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import (
    BackgroundTasks,
    Cookie,
    Depends,
    FastAPI,
    File,
    Form,
    Request,
    Response,
    UploadFile,
    WebSocket,
)
from fastapi.responses import (
    FileResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from tests.server.frameworks import FILE, Sum, described, lines

state: dict[str, bool] = {}
go = threading.Event()
done: list[str] = []


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    state["started"] = True
    yield
    state.clear()


app = FastAPI(lifespan=lifespan)
app.mount("/static", StaticFiles(directory=FILE.parent))


@app.api_route("/page/{name}", methods=["GET", "HEAD"], response_class=PlainTextResponse)
def page(name: str, q: str | None = None) -> str:
    return f"{name} {q}"


@app.get("/away")
async def away() -> Response:
    return RedirectResponse("/page/x?q=redirected")


@app.post("/upload")
async def upload(
    title: Annotated[str, Form()], file: Annotated[UploadFile, File()]
) -> dict[str, Any]:
    return described(title, file.filename, file.content_type, await file.read())


@app.post("/raw")
async def raw(request: Request) -> dict[str, Any]:
    got = Sum()
    async for part in request.stream():
        got.add(part)
    return got.told()


@app.get("/stream")
def stream() -> Response:
    """A sync generator: each part is made on a thread."""

    def parts() -> Iterator[str]:
        for part in lines():
            yield part
            assert go.wait(60)

    return StreamingResponse(parts(), media_type="text/plain")


@app.get("/go", status_code=204)
def release() -> None:
    go.set()


@app.get("/file")
async def file() -> Response:
    return FileResponse(FILE, filename="né.py")


@app.get("/cookies", response_class=PlainTextResponse)
def cookies(response: Response, count: Annotated[int, Cookie()] = 0) -> str:
    response.set_cookie("count", str(count + 1))
    response.set_cookie("other", "b", max_age=60, httponly=True)
    return str(count)


@app.get("/started", response_class=PlainTextResponse)
async def started() -> str:
    return str(state.get("started"))


@app.get("/error")
async def error() -> None:
    raise RuntimeError("a handler's failure")


@app.get("/background", response_class=PlainTextResponse)
def background(tasks: BackgroundTasks) -> str:
    tasks.add_task(done.append, "background")
    return "answered"


@app.get("/finished")
async def finished() -> list[str]:
    gc.collect()  # a generator that was left suspended ends with its last reference
    return done


async def endless() -> AsyncIterator[bytes]:
    try:
        while True:
            yield b"more" * 1000
            await asyncio.sleep(0.001)
    finally:
        done.append("stream ended")


@app.get("/endless")
async def endlessly() -> Response:
    return StreamingResponse(endless())


class Item(BaseModel):
    name: str
    price: float


def on_a_thread() -> Iterator[bool]:
    yield threading.current_thread() is not threading.main_thread()
    done.append("dependency closed")


@app.post("/items")
async def items(item: Item, threaded: Annotated[bool, Depends(on_a_thread)]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"item": item.model_dump(), "threaded": threaded}


@app.websocket("/shout")
async def shout(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text.upper())
