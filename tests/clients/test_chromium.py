"""A headless Chromium, by HTTP/1.1 without and by HTTP/2 with TLS.

One page asks for everything (site/page.js) and writes what it saw into itself; the tests read that
by the browser's DevTools protocol, and each looks at one step.
"""

import itertools
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("websockets")

from websockets.sync.client import ClientConnection, connect

from tests.clients.support import PATIENCE, program, started
from tests.server.wire import Served

# For the whole page; a busy machine takes half a minute to start the browser alone.
PAGE = 4 * PATIENCE
pytestmark = [pytest.mark.rondel_server, pytest.mark.timeout(6 * PATIENCE)]

FLAGS = [
    *("--headless", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"),
    # It talks to the server and to nobody else.
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-default-apps", "--disable-extensions", "--no-proxy-server"),
    *("--disable-breakpad", "--no-pings", "--password-store=basic"),
    "--host-resolver-rules=MAP localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--ignore-certificate-errors",
]


class DevTools:
    """Commands and their results; events are passed over."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)

    def __call__(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        command: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        self._connection.send(json.dumps(command))
        while (message := json.loads(self._connection.recv(PATIENCE))).get("id") != number:
            pass
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result


def devtools_address(errors: Path, end: float) -> str:
    while (found := re.search(r"^DevTools listening on (\S+)$", text(errors), re.M)) is None:
        assert time.monotonic() < end, f"Chromium did not start: {text(errors)[-2000:]}"
        time.sleep(0.05)
    return found[1]


def text(file: Path) -> str:
    return file.read_text(errors="replace")


def seen_by_chromium(url: str, folder: Path) -> dict[str, Any]:
    """What the page wrote."""
    words = [program("chromium"), *FLAGS, f"--user-data-dir={folder}/profile"]
    if os.geteuid() == 0:
        words.append("--no-sandbox")
    end = time.monotonic() + PAGE
    with started([*words, "about:blank"], folder / "errors", HOME=str(folder)):
        address = devtools_address(folder / "errors", end)
        limits = {"open_timeout": PATIENCE, "close_timeout": PATIENCE, "max_size": None}
        with connect(address, proxy=None, ping_interval=None, **limits) as connection:
            ask = DevTools(connection)
            target = ask("Target.createTarget", url="about:blank")["targetId"]
            session = ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

            def evaluate(expression: str) -> Any:
                return ask("Runtime.evaluate", session, expression=expression)["result"]["value"]

            navigated = ask("Page.navigate", session, url=url)
            assert "errorText" not in navigated, navigated
            while not evaluate("window.finished === true"):
                assert time.monotonic() < end, evaluate("JSON.stringify(window.seen)")
                time.sleep(0.1)
            seen: dict[str, Any] = json.loads(
                evaluate("document.getElementById('seen').textContent")
            )
            ask("Browser.close")
            return seen


@pytest.fixture(scope="module", params=["plain", "secure"])
def browsed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, Any], bool]]:
    """What the page saw, and whether by TLS."""
    program("chromium")
    served: Served = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("chromium")
    secure = served.context is not None
    url = f"{served.url}/static/page.html?key={request.param}"
    yield seen_by_chromium(url, folder), secure


STEPS: dict[str, Any] = {
    "module": 42,
    "style": "rgb(1, 2, 3)",
    "hello": "hello",
    "methods": ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
    "statuses": [200, 201, 204, 404, 418, 503],
    "head": "5",
    "upload": [3_000_000, True],
    "form": [3, "näme.bin", 3_000_000, True],
    "upload progress": [2_000_000, 2_000_000],
    "not read": "ignored",
    "too large": 413,
    "after it": "hello",
    "stream": ["part0;", "part1;part2;"],
    "events": ["tick 1", "tick 2", "tick 3", "tick 4", "tick 5"],
    "abort": ["AbortError", "waiting", "http.disconnect"],
    "abort of a stream": ["waiting", "http.disconnect"],
    "cookies": ["a=1; b=2", ["a=1; b=2"], ""],
    "many": [5, 5, 90],
    "range": [206, "bytes 10-29/4000000", 11, 12, 13],
    "revalidated": ["export const answer = 42;"] * 3,
    "redirect": [True, 100_000],
    "beacon": ["from a beacon"],
    "websocket": ["permessage-deflate", "text é", "", True, 4001, "enough", True],
    "websocket closed by the server": [4000, "over", True, "last"],
    "websocket of a subprotocol": ["chat", True],
    "websocket refused": [1006, "", False],
    "websockets": 30,
}


@pytest.mark.parametrize("step", STEPS)
def test_a_page_sees(browsed: tuple[dict[str, Any], bool], step: str) -> None:
    seen, _ = browsed
    assert seen[step] == STEPS[step]


def test_every_step_is_looked_at(browsed: tuple[dict[str, Any], bool]) -> None:
    others = {"protocol", "protocols", "compressed", "upload stream", "clients"}
    assert browsed[0].keys() == STEPS.keys() | others


def test_the_protocol_is_http2_by_tls(browsed: tuple[dict[str, Any], bool]) -> None:
    seen, secure = browsed
    assert seen["protocol"] == ("h2" if secure else "http/1.1")
    assert seen["protocols"] == [seen["protocol"]]


def test_one_connection_carries_all_with_http2(browsed: tuple[dict[str, Any], bool]) -> None:
    seen, secure = browsed
    if secure:
        assert seen["clients"] == 1
    else:
        assert seen["clients"] <= 6


def test_a_response_is_compressed(browsed: tuple[dict[str, Any], bool]) -> None:
    coding, size = browsed[0]["compressed"]
    assert coding in ("zstd", "br", "gzip")
    assert size == 150_000


def test_a_request_is_streamed_by_http2(browsed: tuple[dict[str, Any], bool]) -> None:
    seen, secure = browsed
    # Chromium streams nothing by HTTP/1.1.
    assert seen["upload stream"] == (3_000_000 if secure else "TypeError: Failed to fetch")
