"""The measured WSGI application: `asgi_app` by PEP 3333, with the same three answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from asgi_app import HELLO, LARGE


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    path, status = environ["PATH_INFO"], "200 OK"
    if path == "/":
        body = HELLO
    elif path == "/100k":
        body = LARGE
    elif path == "/echo":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    else:
        body, status = b"no such page", "404 Not Found"
    length = str(len(body))
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", length)])
    return [body]
