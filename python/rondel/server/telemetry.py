"""OpenTelemetry: a server span for each request, by the library (`--otel`); its metrics are
`otel_metrics`, spans of stalls `otel_stalls`, routes `otel_routes`, where it all goes
`otel_exporters`.

    traceparent ─► propagator ─► span, current while the application runs ─► status, error, end

The span is the parent of those that the application makes, by contextvars: on the loop those of the
request's task, on a pool's thread those of the call. Names and attributes are the stable semantic
conventions for HTTP. Requests that the application has no part in (health, metrics, static files)
have no spans.

Invariants: nothing here is imported or called unless it was asked for. A span has its end when the
response was complete, though it is told of at the application's return, so that work after the
response counts for nothing and its exceptions are seen all the same.
"""

import importlib.util
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rondel import _rondel
from rondel.server.config import ASGIApp, Message, Receive, Scope, Send
from rondel.server.errors import UsageError
from rondel.server.otel_exporters import INSTALL, tracer_provider
from rondel.server.otel_metrics import Meters, meters
from rondel.server.otel_routes import at, listen, route_in
from rondel.server.otel_stalls import StallSpans
from rondel.server.sends import PassesFiles

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["Telemetry", "check"]

# Others are `_OTHER`: who makes methods up would make up names of spans.
_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
# What the conventions have taken out of queries: signatures that let their holder in.
_SECRETS = re.compile(r"(^|&)(AWSAccessKeyId|Signature|sig|X-Goog-Signature)=[^&]*")

# So many requests that are over are remembered for a stall of theirs that is told late.
_GONE = 256


def check() -> None:
    """Raises UsageError if the library is not installed."""
    try:
        found = importlib.util.find_spec("opentelemetry.trace")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise UsageError(f"otel: OpenTelemetry is not installed: {INSTALL}")


class Telemetry:
    """What makes the spans of one server.

    The provider of the program counts, if it has set one by the end of its startup (by itself, or
    under `opentelemetry-instrument`); else one is made as the `OTEL_*` environment says. Raises
    UsageError if that names what is not installed.
    """

    def __init__(self) -> None:
        check()
        from opentelemetry import context, propagate, trace

        import rondel

        provider = trace.get_tracer_provider()
        ours = isinstance(provider, trace.ProxyTracerProvider)
        if ours:
            provider = tracer_provider()
            trace.set_tracer_provider(provider)
        self._tracer = provider.get_tracer(
            "rondel", rondel.__version__, schema_url="https://opentelemetry.io/schemas/1.37.0"
        )
        self._attach, self._detach = context.attach, context.detach
        self._extract = propagate.extract
        self._current = trace.set_span_in_context
        self._trace = trace
        # A `Getter` by its looks: the class of that name would have to be imported.
        self._headers: Any = _Headers()
        self._meters = meters(ours=ours)
        # Those whose application runs, by the inspector's numbers.
        self._here: dict[int, _Request] = {}
        # Contexts of those that returned last: a stall is told in a thread of its own,
        # when its request may be over.
        self._gone: deque[tuple[int, Any]] = deque(maxlen=_GONE)
        self._deaf = listen()
        count = (lambda: None) if self._meters is None else self._meters.stalled
        self._stalls = StallSpans(self._tracer, self._context_of, count)

    def close(self) -> None:
        """The server has stopped."""
        self._stalls.close()
        self._deaf()

    def _context_of(self, number: int) -> Any:
        request = self._here.get(number)
        if request is not None:
            return request.context
        return next((context for gone, context in self._gone.copy() if gone == number), None)

    # ------------------------------------------------------------------------------ the two ways

    def application(self, app: ASGIApp) -> ASGIApp:
        """An ASGI application whose requests and WebSocket connections have spans."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] not in ("http", "websocket"):
                await app(scope, receive, send)
                return
            request = self._begin(scope, 0.0)
            number = _rondel._request()
            self._here[number] = request
            token = self._attach(request.context)
            here = at.set(request)
            try:
                await app(scope, receive, _Sending(request, send).send)
            except BaseException as error:
                request.failed(error)
                raise
            finally:
                at.reset(here)
                self._detach(token)
                self._gone.append((number, request.context))
                self._here.pop(number, None)
                request.end(scope)

        return traced

    def on_threads(
        self, handler: Callable[[Scope, Any, _rondel.Reply], object]
    ) -> Callable[[Scope, Any, _rondel.Reply], Any]:
        """What the server calls on threads for whole requests, likewise."""

        def traced(scope: Scope, body: Any, reply: Any) -> Any:
            request = self._begin(scope, reply.waited)
            replying = _Reply(reply, request)
            token = self._attach(request.context)
            here = at.set(request)
            left: Any = None
            try:
                left = handler(scope, body, replying)  # type: ignore[arg-type]
            except BaseException as error:
                request.failed(error)
                raise
            finally:
                at.reset(here)
                if left is None:
                    self._detach(token)
                    # One that goes to the loop instead has its span there.
                    if replying.bounced:
                        request.bounced()
                    else:
                        request.end(scope)
            return None if left is None else self._rest(left, request, token, scope)

        return traced

    def _rest(
        self, left: Generator[None], request: "_Request", token: Any, scope: Scope
    ) -> Generator[None]:
        """The pieces of a response that are left, in the span and in the context of the request."""
        try:
            yield from left
        except GeneratorExit:
            raise  # its client has gone
        except BaseException as error:
            request.failed(error)
            raise
        finally:
            self._detach(token)
            request.end(scope)

    # ------------------------------------------------------------------------------- one request

    def _begin(self, scope: Scope, waited: float) -> "_Request":
        """``waited``: seconds since the request came."""
        parent = self._extract(scope["headers"], getter=self._headers)
        method = _method(scope)
        attributes = _attributes(scope, method)
        began = time.time_ns() - int(waited * 1e9)
        span = self._tracer.start_span(
            method if method in _METHODS else "HTTP",
            context=parent,
            kind=self._trace.SpanKind.SERVER,
            attributes=attributes,
            start_time=began,
        )
        request = _Request(span, self._current(span, parent), scope, self._trace)
        if self._meters is not None and scope["type"] == "http":
            request.measured = _Measured(self._meters, attributes, began)
        return request


class _Request:
    """A request's span, and what becomes of the request."""

    __slots__ = (
        "_error",
        "_span",
        "_trace",
        "context",
        "ended",
        "measured",
        "prefix",
        "route",
        "status",
    )

    def __init__(self, span: "Span", context: Any, scope: Scope, trace: Any) -> None:
        self._span = span
        self._trace = trace
        self._error: BaseException | None = None
        # Routers add to it, in the same scope.
        self.prefix: str = scope.get("root_path", "")
        # What a framework has told that does not note it in the scope.
        self.route: str | None = None
        self.context = context
        self.status = 0
        # When the response was complete, in nanoseconds.
        self.ended: int | None = None
        self.measured: _Measured | None = None

    def failed(self, error: BaseException) -> None:
        """The application has raised."""
        self._error = error
        if not self.status:
            # What the server answers in that case.
            self.status = 500 if isinstance(error, Exception) else 0

    def bounced(self) -> None:
        """It is the loop's."""
        if self.measured is not None:
            self.measured.end(None, {})

    def end(self, scope: Scope) -> None:
        span, measured = self._span, self.measured
        recording = span.is_recording()
        if recording or measured is not None:
            outcome = self._outcome(scope)
            if measured is not None:
                measured.end(self.ended or time.time_ns(), outcome)
            if recording:
                self._tell(span, scope, outcome)
        span.end(self.ended)

    def _outcome(self, scope: Scope) -> dict[str, Any]:
        """The attributes that are known at the end."""
        known: dict[str, Any] = {}
        if route := self.route or route_in(scope, self.prefix):
            known["http.route"] = route
        if self.status:
            known["http.response.status_code"] = self.status
        if self._error is not None:
            kind = type(self._error)
            name = f"{kind.__module__}.{kind.__qualname__}"
            known["error.type"] = name.removeprefix("builtins.")
        elif self.status >= 500:
            known["error.type"] = str(self.status)
        return known

    def _tell(self, span: "Span", scope: Scope, outcome: dict[str, Any]) -> None:
        span.set_attributes(outcome)
        if route := outcome.get("http.route"):
            method = _method(scope)
            span.update_name(f"{method if method in _METHODS else 'HTTP'} {route}")
        if self._error is not None:
            span.record_exception(self._error)
        if "error.type" in outcome:
            span.set_status(self._trace.StatusCode.ERROR)


class _Measured:
    """What metrics are told of a request."""

    __slots__ = ("_began", "_kept", "_meters", "_protocol")

    def __init__(self, meters: Meters, attributes: Mapping[str, Any], began: int) -> None:
        self._meters = meters
        self._kept = meters.begins(attributes)
        self._protocol = attributes["network.protocol.version"]
        self._began = began

    def end(self, at: int | None, outcome: Mapping[str, Any]) -> None:
        """``at``: nanoseconds since 1970; None: it is answered elsewhere."""
        seconds = None if at is None else max(at - self._began, 0) * 1e-9
        more = {**outcome, "network.protocol.version": self._protocol}
        self._meters.ends(self._kept, seconds, more)


class _Sending(PassesFiles):
    """The application's `send`, which tells the status and the end."""

    def __init__(self, request: _Request, send: Send) -> None:
        super().__init__(send)
        self._request = request

    async def send(self, message: Message) -> None:
        await self.inner(message)
        request = self._request
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start":
                request.status = message["status"]
            case "websocket.accept":
                request.status = 101
            case "websocket.close" if not request.status:
                request.status = 403
            case (
                "http.response.body"
                | "http.response.zerocopysend"
                | "http.response.pathsend"
                | "websocket.http.response.body"
            ) if not message.get("more_body"):
                request.ended = time.time_ns()


class _Reply:
    """A thread's reply, likewise."""

    __slots__ = ("_reply", "_request", "bounced", "send")

    def __init__(self, reply: Any, request: _Request) -> None:
        self._reply = reply
        self._request = request
        self.send: Callable[[bytes], bool] = reply.send
        self.bounced = False

    def respond(self, status: Any, headers: Any, *body: Any) -> bool:
        self._begin(status)
        return bool(self._reply.respond(status, headers, *body))

    def respond_file(self, status: Any, headers: Any, *file: Any) -> bool:
        self._begin(status)
        return bool(self._reply.respond_file(status, headers, *file))

    def start(self, status: Any, headers: Any) -> bool:
        self._begin(status)
        return bool(self._reply.start(status, headers))

    def finish(self) -> bool:
        return bool(self._reply.finish())

    def bounce(self) -> None:
        self.bounced = True
        self._reply.bounce()

    @property
    def gone(self) -> bool:
        return bool(self._reply.gone)

    @property
    def waited(self) -> float:
        return float(self._reply.waited)

    def _begin(self, status: Any) -> None:
        self._request.status = status if isinstance(status, int) else status[0]


class _Headers:
    """How propagators read a scope's headers (`opentelemetry.propagators.textmap.Getter`)."""

    def get(self, carrier: Iterable[tuple[bytes, bytes]], key: str) -> list[str] | None:
        wanted = key.lower().encode("latin-1")
        found = [value.decode("latin-1") for name, value in carrier if name == wanted]
        return found or None

    def keys(self, carrier: Iterable[tuple[bytes, bytes]]) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


# ------------------------------------------------------------------------------------ attributes


def _method(scope: Scope) -> str:
    method: str = scope.get("method", "GET")  # WebSocket's is always GET
    return method


def _attributes(scope: Scope, method: str) -> dict[str, Any]:
    known = method in _METHODS
    attributes: dict[str, Any] = {
        "http.request.method": method if known else "_OTHER",
        "url.scheme": scope["scheme"],
        "url.path": scope["path"],
        "network.protocol.version": scope["http_version"],
    }
    if not known:
        attributes["http.request.method_original"] = method
    if query := scope["query_string"]:
        text = query.decode("latin-1")
        attributes["url.query"] = _SECRETS.sub(r"\1\2=REDACTED", text)
    host = None
    for name, value in scope["headers"]:
        if name == b"user-agent":
            attributes["user_agent.original"] = value.decode("latin-1")
        elif name == b"host":
            host = value.decode("latin-1")
    address, port = _server(host, scope)
    if address:
        attributes["server.address"] = address
    if port is not None:
        attributes["server.port"] = port
    client = scope.get("client")
    if client is not None:
        attributes["client.address"] = client[0]
        if client[1]:
            attributes["client.port"] = client[1]
    return attributes


def _server(host: str | None, scope: Scope) -> tuple[str, int | None]:
    """Name and port that the client asked for; else the socket's."""
    if not host:
        address, port = scope.get("server") or ("", None)
        return address, port
    name, colon, digits = host.rpartition(":")
    if colon and digits.isdecimal() and not name.endswith(":"):
        return name.strip("[]"), int(digits)
    usual = {"http": 80, "ws": 80, "https": 443, "wss": 443}
    return host.strip("[]"), usual.get(scope["scheme"])
