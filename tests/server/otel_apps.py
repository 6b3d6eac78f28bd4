"""Applications with OpenTelemetry's SDK, which keeps the spans that are finished for `/spans`."""

import asyncio
import contextlib
import json
import time
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

PATIENCE = 10.0
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer(__name__)


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
    if path == "/fails":
        raise ZeroDivisionError("the application's")
    with tracer.start_as_current_span("work"):
        start_response("503 Later" if path == "/later" else "200 OK", [])
    return [b"item"]
