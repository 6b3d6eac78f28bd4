"""Servers of `wsgi_apps`, and what they are asked."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from tests.cli.support import running
from tests.server.wire import ROOT, Response, Served

APPS = "tests.server.wsgi_apps"


@contextlib.contextmanager
def reference() -> Iterator[Served]:
    command = [sys.executable, "-m", "tests.server.wsgi_reference"]
    with running(command, ROOT) as process:
        port = process.wait_for(r"serving on http://127\.0\.0\.1:(\d+)")[1]
        yield Served(process, ("127.0.0.1", int(port)))


def ask(server: Served, target: str, method: str = "GET", **options: Any) -> Response:
    with server.connect() as wire:
        return wire.request(target, method, **options)


def environ(server: Served, target: str = "/environ", **options: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(ask(server, target, **options).body)
    return told


def framed(got: Response, size: int) -> bool:
    """In chunks, or with a length where all pieces came before the first was sent."""
    length, coding = got.get("content-length"), got.get("transfer-encoding")
    return (length, coding) in ((None, "chunked"), (str(size), None))
