"""Applications with OpenTelemetry's SDK, which keeps the spans that are finished for `/spans`, and
counts for `/counted`.
"""

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import falcon
import falcon.asgi
from flask import Flask, request
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from rondel.inspect import Stall, on_stall

PATIENCE = 10.0
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer(__name__)
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
held: list[Path] = []


def spans(key: str) -> bytes:
    """Spans of the traces in which a request of this key was, once the request's own is over."""
    until = time.monotonic() + PATIENCE
    every = exporter.get_finished_spans()
    while not any(is_of(span, key) for span in every):
        assert time.monotonic() < until, f"no span of {key}: {every}"
        time.sleep(0.005)  # on a thread
        every = exporter.get_finished_spans()
    traces = {span.context.trace_id for span in every if is_of(span, key)}
    return json.dumps([told(span) for span in every if span.context.trace_id in traces]).encode()


def is_of(span: Any, key: str) -> bool:
    """Of that key, or of any for none."""
    query = f"&{(span.attributes or {}).get('url.query')}&"
    return f"&key={key}&" in query if key else "&key=" in query


def told(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": f"{span.context.trace_id:032x}",
        "state": span.context.trace_state.to_header(),
        "id": f"{span.context.span_id:016x}",
        "parent": span.parent and f"{span.parent.span_id:016x}",
        "attributes": dict(span.attributes),
        "status": span.status.status_code.name,
        "events": [event.name for event in span.events],
        "nanoseconds": span.end_time - span.start_time,
    }


def counted() -> bytes:
    """All that is measured: each instrument's unit, and attributes and value of its points."""
    data = reader.get_metrics_data()
    told: dict[str, Any] = {}
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points = [
                    (dict(point.attributes or {}), read(point)) for point in metric.data.data_points
                ]
                told[metric.name] = {"unit": metric.unit, "points": points}
    return json.dumps(told).encode()


def read(point: Any) -> Any:
    if not hasattr(point, "bucket_counts"):
        return point.value
    return {"count": point.count, "sum": point.sum, "bounds": list(point.explicit_bounds)}


async def told_counted(request: Request) -> PlainTextResponse:
    return PlainTextResponse(counted())


async def stalls(request: Request) -> PlainTextResponse:
    """Keeps the loop until a file is there."""
    blocks(Path(request.query_params["file"]))
    return PlainTextResponse("stalled")


async def stalls_late(request: Request) -> PlainTextResponse:
    """The same; others are told of the stall only when there is a file ``on`` beside it."""
    held.append(Path(request.query_params["file"]))
    return await stalls(request)


def hold(stall: Stall) -> None:
    """Before the server's own handler of stalls, as this was there first."""
    if held:
        blocks(held.pop().with_suffix(".on"))


on_stall(hold)


def blocks(go_on: Path) -> None:
    until = time.monotonic() + 3 * PATIENCE
    while not go_on.exists() and time.monotonic() < until:
        time.sleep(0.005)


async def threaded(request: Request) -> PlainTextResponse:
    await asyncio.to_thread(time.sleep, 0)
    return PlainTextResponse("by a thread")


async def told_spans(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await asyncio.to_thread(spans, request.query_params["of"]))


async def item(request: Request) -> PlainTextResponse:
    with tracer.start_as_current_span("work"):
        code = int(request.query_params.get("code", "200"))
    return PlainTextResponse("item", code)


async def fails(request: Request) -> PlainTextResponse:
    raise ZeroDivisionError("the application's")


async def lingers(request: Request) -> PlainTextResponse:
    """Answers, and fails afterwards."""

    async def fail() -> None:
        raise ZeroDivisionError("behind the response")

    return PlainTextResponse("answered", background=BackgroundTask(fail))


async def socket(websocket: WebSocket) -> None:
    if "deny" in websocket.query_params:
        await websocket.close()
        return
    await websocket.accept()
    with tracer.start_as_current_span("message"):
        await websocket.send_text("hello")
    with contextlib.suppress(Exception):
        await websocket.receive_text()


asgi = Starlette(
    routes=[
        Route("/spans", told_spans),
        Route("/items/{id}", item, methods=["GET", "POST"]),
        Route("/counted", told_counted),
        Route("/stalls", stalls),
        Route("/stalls-late", stalls_late),
        Route("/threaded", threaded),
        Route("/fails", fails),
        Route("/lingers", lingers),
        Mount("/under", routes=[Route("/{id}", item)]),
        Mount("/of/{whom}", routes=[Route("/{id}", item)]),
        WebSocketRoute("/socket", socket),
    ]
)


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    path = environ["PATH_INFO"]
    if path == "/spans":
        start_response("200 OK", [("content-type", "text/plain")])
        return [spans(environ["QUERY_STRING"].removeprefix("of="))]
    if path == "/counted":
        start_response("200 OK", [("content-type", "application/json")])
        return [counted()]
    if path == "/fails":
        raise ZeroDivisionError("the application's")
    with tracer.start_as_current_span("work"):
        start_response("503 Later" if path == "/later" else "200 OK", [])
    return [b"item"]


flask = Flask(__name__)


@flask.get("/spans")
def spans_of_flask() -> bytes:
    return spans(request.args["of"])


@flask.get("/items/<int:number>")
def item_of_flask(number: int) -> str:
    return f"item {number}"


mounted = DispatcherMiddleware(flask, {"/under": flask})


class FalconSpans:
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.data = spans(request.get_param("of", required=True))


class FalconItem:
    def on_get(self, request: falcon.Request, response: falcon.Response, number: int) -> None:
        response.text = f"item {number}"


class AsyncFalconSpans:
    async def on_get(self, request: falcon.asgi.Request, response: falcon.asgi.Response) -> None:
        of = request.get_param("of", required=True)
        response.data = await asyncio.to_thread(spans, of)


class AsyncFalconItem:
    async def on_get(
        self, request: falcon.asgi.Request, response: falcon.asgi.Response, number: int
    ) -> None:
        response.text = f"item {number}"

    async def on_websocket(
        self, request: falcon.asgi.Request, socket: falcon.asgi.WebSocket, number: int
    ) -> None:
        await socket.accept()
        await socket.send_text("hello")


class FirstAnswers:
    """Answers in a middleware, before any resource."""

    async def process_resource(
        self, request: Any, response: Any, resource: Any, params: Any
    ) -> None:
        if request.get_param("early"):
            response.complete = True


def sink(request: falcon.Request, response: falcon.Response) -> None:
    response.text = "sunk"


falcon_wsgi = falcon.App()
falcon_wsgi.add_route("/spans", FalconSpans())
falcon_wsgi.add_route("/items/{number:int}", FalconItem())
falcon_wsgi.add_sink(sink, "/sink")
falcon_mounted = DispatcherMiddleware(falcon_wsgi, {"/under": falcon_wsgi})

falcon_inner = falcon.asgi.App(middleware=[FirstAnswers()])
falcon_inner.add_route("/spans", AsyncFalconSpans())
falcon_inner.add_route("/items/{number:int}", AsyncFalconItem())


async def falcon_asgi(scope: Any, receive: Any, send: Any) -> None:
    """Behind a middleware of ASGI, which hands on a scope of its own."""
    await falcon_inner(dict(scope), receive, send)
