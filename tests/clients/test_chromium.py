"""A headless Chromium, by HTTP/1.1 without and by HTTP/2 with TLS.

One page asks for everything (site/page.js) and writes what it saw into itself; the tests read that
by the browser's DevTools protocol, and each looks at one step.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.browser import browser
from tests.clients.support import PATIENCE, program
from tests.server.wire import Served

# For the whole page; a busy machine takes half a minute to start the browser alone.
PAGE = 4 * PATIENCE
pytestmark = [pytest.mark.rondel_server, pytest.mark.timeout(6 * PATIENCE)]


def seen_by_chromium(url: str, folder: Path) -> dict[str, Any]:
    """What the page wrote."""
    with browser(folder, "--ignore-certificate-errors") as page:
        page.open(url)
        page.until("window.finished === true", PAGE)
        seen: dict[str, Any] = json.loads(page.run("document.getElementById('seen').textContent"))
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


def test_an_early_hint_is_followed_before_the_page_has_come(
    secure: Served, key: str, tmp_path: Path
) -> None:
    program("chromium")
    with browser(tmp_path, "--ignore-certificate-errors") as page:
        page.open(f"{secure.url}/hinted?key={key}")
        page.until("document.title !== ''")
        assert page.run("document.title") == "followed"
