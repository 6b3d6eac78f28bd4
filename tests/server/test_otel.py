"""`--otel`: a server span for each request, metrics, spans of stalls: by OpenTelemetry, as the
conventions want them.
"""

import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import call, running
from tests.server.h2wire import H2Wire
from tests.server.wire import PATIENCE, ROOT, SERVER, Served, command, serving

pytestmark = pytest.mark.skipif(SERVER != "rondel", reason="an option of Rondel's")

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture(scope="module")
def asgi() -> Iterator[Served]:
    yield from traced("asgi")


@pytest.fixture(scope="module")
def wsgi() -> Iterator[Served]:
    yield from traced("wsgi")


@pytest.fixture(scope="module")
def flask() -> Iterator[Served]:
    yield from traced("mounted")


@pytest.fixture(scope="module")
def falcon_wsgi() -> Iterator[Served]:
    yield from traced("falcon_mounted")


@pytest.fixture(scope="module")
def falcon_asgi() -> Iterator[Served]:
    yield from traced("falcon_asgi")


@pytest.fixture(scope="module")
def alone() -> Iterator[Served]:
    """WSGI on the loop's own thread."""
    yield from traced("wsgi", "--threads", "1")


@pytest.fixture(params=["asgi", "wsgi", "alone"])
def either(request: pytest.FixtureRequest) -> Served:
    served: Served = request.getfixturevalue(request.param)
    return served


def traced(name: str, *options: str) -> Iterator[Served]:
    with serving(f"tests.server.otel_apps:{name}", "--otel", *options) as served:
        yield served
        served.process.signal(signal.SIGTERM)
        assert served.process.end().status == 0


def spans(served: Served, key: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The request's own, and those of the application."""
    every = served.json(f"/spans?of={key}")
    own = [span for span in every if span["kind"] == "SERVER"]
    assert len(own) == 1, every
    return own[0], [span for span in every if span["kind"] != "SERVER"]


def ask(served: Served, target: str, headers: str = "", method: str = "GET") -> int:
    with served.connect() as wire:
        return wire.request(target, method, headers=headers).status


def test_a_span_says_what_the_conventions_ask_for(
    request: pytest.FixtureRequest, either: Served, key: str
) -> None:
    headers = "user-agent: tests/1\r\nhost: example.org:8080\r\n"
    with either.connect() as wire:
        target = f"GET /items/%41?key={key}&sig=secret&a=b HTTP/1.1\r\n{headers}\r\n"
        wire.send(target.encode())
        assert wire.response().status == 200
        address, port = wire.socket.getsockname()
    own, (work,) = spans(either, key)
    is_asgi = "asgi" in request.node.callspec.params.values()
    route = {"http.route": "/items/{id}"} if is_asgi else {}
    assert own["attributes"] == route | {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/items/A",
        "url.query": f"key={key}&sig=REDACTED&a=b",
        "network.protocol.version": "1.1",
        "server.address": "example.org",
        "server.port": 8080,
        "client.address": address,
        "client.port": port,
        "user_agent.original": "tests/1",
    }
    assert own["name"] == ("GET /items/{id}" if route else "GET")
    assert (own["parent"], own["status"], own["events"]) == (None, "UNSET", [])
    assert own["nanoseconds"] > 0
    assert (work["name"], work["parent"], work["trace"]) == ("work", own["id"], own["trace"])


def test_the_clients_trace_goes_on(either: Served, key: str) -> None:
    headers = f"traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=1,b=2\r\n"
    ask(either, f"/items/1?key={key}", headers)
    own, (work,) = spans(either, key)
    assert (own["trace"], own["parent"], own["state"]) == (TRACE, PARENT, "a=1,b=2")
    assert (work["trace"], work["parent"]) == (TRACE, own["id"])


def test_a_client_that_is_not_sampled_is_not(either: Served, key: str) -> None:
    ask(either, f"/items/1?key={key}", f"traceparent: 00-{TRACE}-{PARENT}-00\r\n")
    ask(either, f"/items/1?key={key}-sampled")
    assert spans(either, f"{key}-sampled")
    every = json.dumps(either.json("/spans?of="))
    assert f"key={key}-sampled" in every
    assert f'key={key}"' not in every


@pytest.mark.parametrize(
    ("target", "method", "name", "code", "error", "events"),
    [
        ("/items/1?code=404&", "GET", "GET /items/{id}", 404, None, []),
        ("/items/1?code=503&", "GET", "GET /items/{id}", 503, "503", []),
        ("/items/1?", "BREW", "HTTP /items/{id}", 405, None, []),
        ("/under/1?", "GET", "GET /under/{id}", 200, None, []),
        ("/of/me/1?", "GET", "GET", 200, None, []),
        ("/nowhere?", "GET", "GET", 404, None, []),
        ("/fails?", "GET", "GET /fails", 500, "ZeroDivisionError", ["exception"]),
        ("/lingers?", "GET", "GET /lingers", 200, "ZeroDivisionError", ["exception"]),
    ],
)
def test_names_and_outcomes(
    asgi: Served,
    key: str,
    target: str,
    method: str,
    name: str,
    code: int,
    error: str | None,
    events: list[str],
) -> None:
    assert ask(asgi, f"{target}key={key}", method=method) == code
    own, _ = spans(asgi, key)
    told = own["attributes"]
    assert (own["name"], told["http.response.status_code"]) == (name, code)
    assert (told.get("error.type"), own["events"]) == (error, events)
    assert own["status"] == ("ERROR" if error else "UNSET")
    assert told["http.request.method"] == ("GET" if method == "GET" else "_OTHER")
    assert told.get("http.request.method_original") == (None if method == "GET" else method)


@pytest.mark.parametrize(
    ("target", "code", "error"),
    [("/fails", 500, "ZeroDivisionError"), ("/later", 503, "503")],
)
@pytest.mark.parametrize("which", ["wsgi", "alone"])
def test_outcomes_of_wsgi(
    request: pytest.FixtureRequest, which: str, key: str, target: str, code: int, error: str
) -> None:
    wsgi: Served = request.getfixturevalue(which)
    assert ask(wsgi, f"{target}?key={key}") == code
    own, _ = spans(wsgi, key)
    assert own["attributes"]["http.response.status_code"] == code
    assert (own["attributes"]["error.type"], own["status"]) == (error, "ERROR")


def test_http2(asgi: Served, key: str) -> None:
    with H2Wire(asgi.address) as wire2:
        assert wire2.get(f"/items/1?key={key}").status == 200
    assert spans(asgi, key)[0]["attributes"]["network.protocol.version"] == "2"


@pytest.mark.parametrize(("deny", "code"), [("", 101), ("&deny=yes", 403)])
def test_a_websocket_connection_is_one_span(asgi: Served, key: str, deny: str, code: int) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    url = asgi.url.replace("http", "ws") + f"/socket?key={key}{deny}"
    try:
        with connect(url, proxy=None) as socket:
            assert socket.recv(timeout=10) == "hello"
    except InvalidStatus as error:
        assert error.response.status_code == 403
    own, inner = spans(asgi, key)
    assert own["attributes"]["http.response.status_code"] == code
    assert own["attributes"]["url.scheme"] == "ws"
    assert [(span["name"], span["parent"]) for span in inner] == (
        [] if deny else [("message", own["id"])]
    )


def test_without_a_provider_the_environment_says_where_to_and_django_tells_routes() -> None:
    words = command(
        "tests.server.django_asgi:application", "--port", "0", "--workers", "1", "--otel"
    )
    with running(words, ROOT, OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="named") as process:
        port = int(process.wait_for(r"serving .*on http://127\.0\.0\.1:(\d+)")[1])
        for target in ("/page/x", "/page/y", "/waits", "/error"):  # by thread, by loop, 500
            Served(process, ("127.0.0.1", port)).get(target)
        process.signal(signal.SIGTERM)
        ended = process.end()
    assert ended.status == 0, ended.errors
    names = sorted(re.findall(r'"name": "(.*)"', ended.output))
    assert names == ["GET /error", "GET /page/<name>", "GET /page/<name>", "GET /waits"]
    assert '"error.type": "500"' in ended.output
    assert '"service.name": "named"' in ended.output


# ----------------------------------------------------------------------------------- metrics


Points = list[tuple[dict[str, Any], Any]]


def points(served: Served, name: str, wanted: dict[str, Any] | None = None) -> Points:
    """An instrument's points with these attributes."""
    told = served.json("/counted").get(name, {"points": []})["points"]
    return [
        (attributes, value)
        for attributes, value in told
        if (wanted or {}).items() <= attributes.items()
    ]


def test_requests_are_measured_as_the_conventions_want_it(asgi: Served) -> None:
    def count(**wanted: str) -> int:
        found = points(asgi, name, {key.replace("_", "."): of for key, of in wanted.items()})
        return sum(value["count"] for _, value in found)

    name = "http.server.request.duration"
    asgi.get("/items/1")  # there is one at least
    assert asgi.json("/counted")[name]["unit"] == "s"
    before = count(http_route="/items/{id}", error_type="503")
    asgi.get("/items/2?code=503")
    asgi.get("/items/3?code=503")
    assert count(http_route="/items/{id}", error_type="503") == before + 2
    late = {"http.route": "/items/{id}", "error.type": "503"}
    [(attributes, value)] = points(asgi, name, late)
    assert attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "http.route": "/items/{id}",
        "http.response.status_code": 503,
        "error.type": "503",
        "network.protocol.version": "1.1",
    }
    assert 0 < value["sum"] < 60
    assert value["bounds"][:3] == [0.005, 0.01, 0.025]
    asgi.get("/fails")
    assert count(error_type="ZeroDivisionError") >= 1
    ask(asgi, "/items/4", method="BREW")
    [(attributes, _)] = points(
        asgi, name, {"http.request.method": "_OTHER", "http.route": "/items/{id}"}
    )
    assert attributes["http.response.status_code"] == 405
    # The one that asks.
    active = points(asgi, "http.server.active_requests", {"http.request.method": "GET"})
    assert active == [({"http.request.method": "GET", "url.scheme": "http"}, 1)]


def test_threads_requests_are_measured_as_well(wsgi: Served) -> None:
    wsgi.get("/later")
    until = time.monotonic() + PATIENCE
    # A thread is done with a request after its client has the answer.
    while True:
        found = points(wsgi, "http.server.request.duration", {"http.response.status_code": 503})
        [(_, active)] = points(wsgi, "http.server.active_requests")
        if found and active == 1:
            break
        assert time.monotonic() < until, (found, active)
    [(attributes, value)] = found
    assert attributes["error.type"] == "503"
    assert value["count"] >= 1


def test_loops_and_threads_are_observed(asgi: Served) -> None:
    def value(name: str) -> Any:
        [(attributes, found)] = points(asgi, f"rondel.{name}")
        assert list(attributes) == (["rondel.loop"] if name.startswith("loop") else [])
        return found

    calls, ran = value("pool.calls"), value("pool.run_time")
    asgi.get("/threaded")
    # Collections within a tenth of a second share what they see.
    until = time.monotonic() + PATIENCE
    while value("pool.calls") < calls + 1:
        assert time.monotonic() < until
    assert value("pool.threads") >= 1
    assert value("pool.run_time") >= ran
    assert value("pool.wait_time") > 0
    assert value("pool.queued") == 0
    assert 0 <= value("loop.busy") <= 1
    assert 0 <= value("loop.lag") < 60
    assert value("loop.tasks") >= 1
    assert value("loop.steps") > 10


def test_metrics_go_where_the_environment_says() -> None:
    words = command("tests.server.apps:app", "--port", "0", "--otel")
    env = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "console"}
    with running(words, ROOT, **env) as process:
        port = int(process.wait_for(r"serving .*on http://127\.0\.0\.1:(\d+)")[1])
        Served(process, ("127.0.0.1", port)).get("/hello")
        process.signal(signal.SIGTERM)
        ended = process.end()
    assert ended.status == 0, ended.errors
    assert '"name": "http.server.request.duration"' in ended.output
    assert '"name": "rondel.pool.calls"' in ended.output


def test_a_metrics_exporter_that_is_not_there_is_told() -> None:
    words = command("tests.server.apps:app", "--port", "0", "--otel")
    env = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "nonsense"}
    ended = call(words, ROOT, env=env)
    assert ended.status == 2
    assert "no exporter 'nonsense' is installed (OTEL_METRICS_EXPORTER)" in ended.errors


# ------------------------------------------------------------------------- stalls, routes


@pytest.mark.parametrize("late", [False, True], ids=["while it lasts", "when all is over"])
def test_a_stall_is_a_span_within_its_request_s(tmp_path: Path, key: str, late: bool) -> None:
    """Also if its request has ended by the time that the telemetry hears of it."""
    go_on = tmp_path / "go-on"
    path = "/stalls-late" if late else "/stalls"
    words = command("tests.server.otel_apps:asgi", "--port", "0", "--otel")
    env = {"RONDEL_INSPECT": "1", "XDG_RUNTIME_DIR": str(tmp_path)}
    with running(words, ROOT, **env) as process:
        port = int(process.wait_for(r"serving .*on http://127\.0\.0\.1:(\d+)")[1])
        served = Served(process, ("127.0.0.1", port))
        with served.connect() as wire:
            wire.send(f"GET {path}?key={key}&file={go_on} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            # It was told while it lasts.
            process.wait_for(rf"the request: GET {path} ")
            go_on.touch()
            assert wire.response().body == b"stalled"
        spans(served, key)  # once the request is over
        go_on.with_suffix(".on").touch()
        until = time.monotonic() + PATIENCE
        while not (inner := spans(served, key)[1]):
            assert time.monotonic() < until
            time.sleep(0.01)
        own, [stall] = spans(served, key)[0], inner
        [(_, count)] = points(served, "rondel.loop.stalls")
        process.signal(signal.SIGTERM)
        assert process.end().status == 0
    assert (stall["name"], stall["parent"], stall["trace"]) == (
        "rondel.stall",
        own["id"],
        own["trace"],
    )
    told = stall["attributes"]
    assert (told["http.request.method"], told["url.path"]) == ("GET", path)
    view = path[1:].replace("-", "_")
    assert told["rondel.view"] == f"tests.server.otel_apps.{view}"
    assert "blocks (" in told["code.stacktrace"]
    assert told["code.line.number"] > 0
    # It ends with the stall, within the request.
    assert 100_000_000 <= stall["nanoseconds"] <= own["nanoseconds"] + 100_000_000
    assert count == 1


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("/items/1", "GET /items/<int:number>"),
        ("/under/items/1", "GET /under/items/<int:number>"),
        ("/nowhere", "GET"),
    ],
)
def test_flask_tells_routes(flask: Served, key: str, target: str, name: str) -> None:
    flask.get(f"{target}?key={key}")
    own, _ = spans(flask, key)
    assert own["name"] == name
    assert own["attributes"].get("http.route") == (name.partition(" ")[2] or None)


@pytest.mark.parametrize(
    ("which", "target", "code", "name"),
    [
        ("wsgi", "/items/1?", 200, "GET /items/{number:int}"),
        ("wsgi", "/under/items/1?", 200, "GET /under/items/{number:int}"),
        ("wsgi", "/items/no-number?", 404, "GET"),
        ("wsgi", "/sink?", 200, "GET"),
        ("asgi", "/items/1?", 200, "GET /items/{number:int}"),
        ("asgi", "/items/1?early=yes&", 200, "GET /items/{number:int}"),
        ("asgi", "/nowhere?", 404, "GET"),
    ],
)
def test_falcon_tells_routes(
    request: pytest.FixtureRequest, key: str, which: str, target: str, code: int, name: str
) -> None:
    served: Served = request.getfixturevalue(f"falcon_{which}")
    assert ask(served, f"{target}key={key}") == code
    own, _ = spans(served, key)
    assert own["name"] == name
    assert own["attributes"].get("http.route") == (name.partition(" ")[2] or None)


def test_falcon_tells_the_route_of_a_method_that_it_refuses(falcon_asgi: Served, key: str) -> None:
    assert ask(falcon_asgi, f"/items/1?key={key}", method="DELETE") == 405
    assert spans(falcon_asgi, key)[0]["name"] == "DELETE /items/{number:int}"


def test_falcon_tells_the_route_of_a_websocket(falcon_asgi: Served, key: str) -> None:
    from websockets.sync.client import connect

    url = falcon_asgi.url.replace("http", "ws") + f"/items/1?key={key}"
    with connect(url, proxy=None) as socket:
        assert socket.recv(timeout=PATIENCE) == "hello"
    assert spans(falcon_asgi, key)[0]["name"] == "GET /items/{number:int}"


def test_falcon_is_as_it_was_when_the_server_has_ended() -> None:
    import falcon.app

    from rondel.server.otel_routes import listen

    before = falcon.app.App._get_responder
    first, second = listen(), listen()
    assert falcon.app.App._get_responder is not before
    second()
    first()
    assert falcon.app.App._get_responder is before


def test_an_exporter_that_is_not_there_is_told() -> None:
    words = command("tests.server.apps:app", "--port", "0", "--otel")
    ended = call(words, ROOT, env={"OTEL_TRACES_EXPORTER": "nonsense"})
    assert ended.status == 2
    assert "no exporter 'nonsense' is installed (OTEL_TRACES_EXPORTER)" in ended.errors
    assert "Traceback" not in ended.errors


def test_what_is_missing_is_told_in_one_line() -> None:
    program = """if True:
        import sys
        sys.modules["opentelemetry"] = None
        from rondel.cli import main
        sys.exit(main(["serve", "tests.server.apps:app", "--otel"]))
    """
    ended = call([sys.executable, "-c", program], ROOT)
    assert ended.status == 2
    assert ended.errors == (
        "rondel serve: otel: OpenTelemetry is not installed: pip install 'rondel[otel]'\n"
    )
