"""Other people's clients and frameworks: `websockets`, Starlette."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("websockets")

from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.cli.support import running
from tests.net.certificates import client_context, identity
from tests.server.wire import PATIENCE, Served, command, serving

_STARLETTE = """
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


class Echo(WebSocketEndpoint):
    encoding = "json"

    async def on_connect(self, websocket):
        await websocket.accept(subprotocol="json", headers=[(b"x-greeting", b"hello")])

    async def on_receive(self, websocket, data):
        await websocket.send_json({"got": data})

    async def on_disconnect(self, websocket, close_code):
        codes.append(close_code)


codes = []


async def iterate(websocket: WebSocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text.upper())


async def chatty(websocket: WebSocket):
    # Sends until the client has gone: Starlette makes its own error of the server's.
    await websocket.accept()
    try:
        while True:
            await websocket.send_bytes(b"x" * 1000)
    except WebSocketDisconnect:
        codes.append("disconnected")


async def deny(websocket: WebSocket):
    await websocket.send_denial_response(PlainTextResponse("no entry", status_code=418))


async def forbid(websocket: WebSocket):
    raise HTTPException(status_code=401, detail="who are you?")


async def seen(request):
    return PlainTextResponse(" ".join(map(str, codes)))


app = Starlette(routes=[
    WebSocketRoute("/echo", Echo),
    WebSocketRoute("/iterate", iterate),
    WebSocketRoute("/chatty", chatty),
    WebSocketRoute("/deny", deny),
    WebSocketRoute("/forbid", forbid),
    Route("/seen", seen),
])
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving("tests.server.ws_apps:app") as served:
        yield served


@pytest.fixture(scope="module")
def starlette(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("starlette")
    folder: Path = tmp_path_factory.mktemp("starlette")
    (folder / "star.py").write_text(_STARLETTE)
    words = command("star:app", "--port", "0")
    words[words.index("--app-dir") + 1] = str(folder)
    with running(words, folder) as process:
        port = process.wait_for(r"(?:serving|running) .*on http://127\.0\.0\.1:(\d+)")[1]
        yield Served(process, ("127.0.0.1", int(port)))
        assert "Traceback" not in "".join(process.errors), process.errors


def client(served: Served, path: str, **more: object) -> ClientConnection:
    options = {"open_timeout": PATIENCE, "close_timeout": PATIENCE, "max_size": None, **more}
    return connect(served.url.replace("http", "ws") + path, **options)  # type: ignore[arg-type]


# -- websockets ----------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["deflate", None])
def test_websockets_echoes_of_all_kinds(server: Served, compression: str | None) -> None:
    with client(server, "/echo", compression=compression) as one:
        deflates = "permessage-deflate" in one.response.headers.get("Sec-WebSocket-Extensions", "")
        assert deflates == (compression is not None)
        for message in ["", "text", "\u00e9\u20ac\U0001f40d" * 1000, b"", b"bytes" * 100_000]:
            one.send(message)
            assert one.recv(timeout=PATIENCE) == message
        one.send(["in ", "three ", "fragments"])
        assert one.recv(timeout=PATIENCE) == "in three fragments"
        assert one.ping().wait(PATIENCE)
    assert (one.close_code, one.close_reason) == (1000, "")


def test_websockets_hears_a_close(server: Served, key: str) -> None:
    with client(server, f"/close?key={key}&code=4000&reason=over") as one:
        assert one.recv(timeout=PATIENCE) == "last"
        with pytest.raises(ConnectionClosed):
            one.recv(timeout=PATIENCE)
    assert (one.close_code, one.close_reason) == (4000, "over")


def test_websockets_hears_a_denial(server: Served, key: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        client(server, f"/deny?key={key}")
    assert refused.value.response.status_code == 401
    assert refused.value.response.body == b"no ticket"


# -- Starlette -----------------------------------------------------------------------------


def seen(starlette: Served, what: str) -> bool:
    import time

    end = time.monotonic() + PATIENCE
    while what not in starlette.get("/seen").body.decode().split():
        assert time.monotonic() < end, f"{what} is not seen"
        time.sleep(0.01)
    return True


def test_a_starlette_endpoint(starlette: Served) -> None:
    with client(starlette, "/echo", subprotocols=["json"]) as one:
        assert one.subprotocol == "json"
        assert one.response.headers["x-greeting"] == "hello"
        one.send('{"a": [1, 2]}')
        assert one.recv(timeout=PATIENCE) == '{"got":{"a":[1,2]}}'
        one.close(3003)
    assert seen(starlette, "3003")


def test_a_starlette_function_iterates_and_returns(starlette: Served) -> None:
    with client(starlette, "/iterate") as one:
        one.send("loud")
        assert one.recv(timeout=PATIENCE) == "LOUD"
    assert one.close_code == 1000


def test_starlette_understands_that_its_client_has_gone(starlette: Served) -> None:
    with client(starlette, "/chatty") as one:
        one.recv(timeout=PATIENCE)
        one.socket.close()
    assert seen(starlette, "disconnected")


@pytest.mark.parametrize(
    ("path", "status", "body"), [("/deny", 418, b"no entry"), ("/forbid", 401, b"who are you?")]
)
def test_starlette_denies(starlette: Served, path: str, status: int, body: bytes) -> None:
    with pytest.raises(InvalidStatus) as refused:
        client(starlette, path)
    assert refused.value.response.status_code == status
    assert refused.value.response.body == body


# -- over TLS ------------------------------------------------------------------------------


@pytest.mark.rondel_server
@pytest.mark.parametrize("compression", ["deflate", None])
def test_websockets_over_tls(compression: str | None, key: str) -> None:
    own = identity("localhost")
    context = client_context()
    options = ["--ssl-certfile", own.certificate, "--ssl-keyfile", own.key]
    with serving("tests.server.ws_apps:app", *options, context=context) as served:
        port = served.address[1]
        url = f"wss://localhost:{port}"
        limits = {"open_timeout": PATIENCE, "close_timeout": PATIENCE, "max_size": None}
        more: Any = {"ssl": context, "compression": compression, **limits}

        # Not by the library's threads: its reader and its writer use one SSL object at once, and
        # once in a thousand times OpenSSL keeps the request to itself: the socket never gets it.
        async def play() -> None:
            async with connect_async(f"{url}/echo", **more) as one:
                for message in ["", "text", b"bytes" * 500_000, "\u20ac" * 100_000]:
                    await one.send(message)
                    assert await one.recv() == message
                # Many at once: the records of what is not taken yet wait for the socket.
                for number in range(300):
                    await one.send(f"{number}" * 500)
                for number in range(300):
                    assert await one.recv() == f"{number}" * 500
            assert one.close_code == 1000
            async with connect_async(f"{url}/scope", **more) as one:
                seen = json.loads(await one.recv())
                assert seen["scheme"] == "wss"
            async with connect_async(f"{url}/close?key={key}&code=4000&reason=over", **more) as one:
                assert await one.recv() == "last"
                with pytest.raises(ConnectionClosed):
                    await one.recv()
            assert (one.close_code, one.close_reason) == (4000, "over")

        asyncio.run(asyncio.wait_for(play(), 3 * PATIENCE))
