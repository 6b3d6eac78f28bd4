"""From ASGI to Django and back: the body as a file, the script prefix, the response's head."""

import io
import tempfile
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import IO, Any

from django.conf import settings
from django.core.exceptions import RequestAborted
from django.http.response import HttpResponseBase

__all__ = ["asgi_headers", "read_body", "script_prefix"]


def script_prefix(scope: MutableMapping[str, Any]) -> str:
    """The prefix that URLs get: FORCE_SCRIPT_NAME, or what the server strips."""
    forced: str | None = settings.FORCE_SCRIPT_NAME
    return forced or scope.get("root_path", "") or ""


async def read_body(receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> IO[bytes]:
    """All of a request's body; past FILE_UPLOAD_MAX_MEMORY_SIZE bytes it is kept in a file.

    Raises RequestAborted if the client leaves before its end.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        raise RequestAborted
    first: bytes = message.get("body", b"")
    limit: int = settings.FILE_UPLOAD_MAX_MEMORY_SIZE
    if not message.get("more_body", False) and len(first) <= limit:
        return io.BytesIO(first)
    spooled = tempfile.SpooledTemporaryFile(max_size=limit, mode="w+b")  # noqa: SIM115
    try:
        spooled.write(first)
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestAborted
            spooled.write(message.get("body", b""))
    except BaseException:
        spooled.close()
        raise
    spooled.seek(0)
    return spooled


def asgi_headers(response: HttpResponseBase) -> list[tuple[bytes, bytes]]:
    """The response's headers and cookies as ASGI has them, in Django's order and case."""
    headers = [
        (
            name.encode("ascii") if isinstance(name, str) else bytes(name),
            value.encode("latin1") if isinstance(value, str) else bytes(value),
        )
        for name, value in response.items()
    ]
    headers += [
        (b"Set-Cookie", cookie.OutputString().encode("ascii"))
        for cookie in response.cookies.values()
    ]
    return headers
