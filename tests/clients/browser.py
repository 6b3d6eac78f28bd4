"""A headless Chromium with one page, driven by its DevTools protocol.

Every request that the page makes is noted (`requests`), as is what goes wrong in it (`complaints`):
a test may say that there was none.
"""

import base64
import contextlib
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

from tests.clients.support import program, started
from tests.support import SLOWNESS

# For what takes a moment; only a failing test waits for it. A busy machine takes half a minute to
# start a browser.
PATIENCE = 60.0 * SLOWNESS

FLAGS = [
    *("--headless", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-default-apps", "--disable-extensions", "--no-proxy-server"),
    *("--disable-breakpad", "--no-pings", "--password-store=basic", "--hide-scrollbars"),
    "--host-resolver-rules=MAP localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

KEYS = {
    "ArrowDown": 40,
    "ArrowUp": 38,
    "ArrowLeft": 37,
    "ArrowRight": 39,
    "Enter": 13,
    "Escape": 27,
    "Tab": 9,
    "Home": 36,
    "End": 35,
}


class Browser:
    """One page."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        command: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            command["sessionId"] = self._session
        self._connection.send(json.dumps(command))
        while (message := json.loads(self._connection.recv(PATIENCE))).get("id") != number:
            self._note(message)
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    def _note(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Runtime.exceptionThrown":
                details = told["exceptionDetails"]
                shown = details.get("exception", {}).get("description", details["text"])
                self.complaints.append(shown)
            case "Log.entryAdded" if told["entry"]["level"] == "error":
                self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")

    def open(self, url: str) -> None:
        """Begins to load a page."""
        navigated = self("Page.navigate", url=url)
        assert "errorText" not in navigated, navigated

    def size(self, width: int, height: int) -> None:
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )

    def scheme(self, scheme: str) -> None:
        """Whether the system likes it ``light`` or ``dark``."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self("Emulation.setEmulatedMedia", features=[feature])

    def run(self, expression: str) -> Any:
        """The value of an expression of JavaScript, in JSON's terms."""
        got = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def until(self, expression: str, patience: float = PATIENCE) -> Any:
        """Waits until an expression is true, for so many seconds at most; its value."""
        end = time.monotonic() + patience
        while not (value := self.run(expression)):
            if time.monotonic() > end:
                text = self.run("document.body.innerText")
                raise AssertionError(f"never: {expression}\n{self.complaints}\n{text[:3000]}")
            time.sleep(0.05)
        return value

    def text(self, selector: str) -> str:
        shown = self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        assert isinstance(shown, str)
        return shown

    def press(self, key: str) -> None:
        told: dict[str, Any] = {"key": key, "code": key}
        if key in KEYS:
            told["windowsVirtualKeyCode"] = KEYS[key]
            if key == "Enter":
                # What presses a button.
                told["text"] = "\r"
        else:
            told["text"] = key
        self("Input.dispatchKeyEvent", type="keyDown", **told)
        self("Input.dispatchKeyEvent", type="keyUp", **told)

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, selector: str, text: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self("Input.insertText", text=text)

    def picture(self, file: Path) -> None:
        """A screenshot."""
        got = self("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(got["data"]))


@contextlib.contextmanager
def browser(folder: Path, *flags: str) -> Iterator[Browser]:
    """A Chromium whose files are in ``folder``; the test is skipped where there is none."""
    words = [program("chromium"), *FLAGS, *flags, f"--user-data-dir={folder}/profile"]
    if os.geteuid() == 0:
        words.append("--no-sandbox")
    errors = folder / "errors"
    with started([*words, "about:blank"], errors, HOME=str(folder)):
        limits = {"open_timeout": PATIENCE, "close_timeout": PATIENCE, "max_size": None}
        address = _address(errors)
        with connect(address, proxy=None, ping_interval=None, **limits) as connection:
            yield Browser(connection)


def _address(errors: Path) -> str:
    end = time.monotonic() + PATIENCE
    while True:
        text = errors.read_text(errors="replace")
        found = re.search(r"^DevTools listening on (\S+)$", text, re.M)
        if found is not None:
            return found[1]
        assert time.monotonic() < end, f"Chromium did not start: {text[-2000:]}"
        time.sleep(0.05)
