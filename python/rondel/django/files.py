"""Which file responses the system can send by itself, and from where.

Django marks a response that is one whole file by ``file_to_stream``, for WSGI's file wrapper, and
takes the mark off when a middleware replaces the content (GZipMiddleware). The same mark is used
here. Objects that are more than a file (``rondel.server.files``) are iterated over as ever.
"""

import os
import stat
from dataclasses import dataclass
from typing import Any

from django.core.files.utils import FileProxyMixin
from django.http.response import HttpResponseBase, StreamingHttpResponse

from rondel.server.files import plain_file

__all__ = ["WholeFile", "whole_file"]


@dataclass(frozen=True)
class WholeFile:
    """A response's body: `count` bytes of an open file, from `offset` on."""

    fd: int
    offset: int
    count: int


def whole_file(response: HttpResponseBase) -> WholeFile | None:
    """The file that is all of the response's body; none if it has to be iterated over."""
    file = getattr(response, "file_to_stream", None)
    length = response.headers.get("Content-Length", "")
    if file is None or not length.isdecimal() or not _iterates_as_django(response):
        return None
    try:
        file = plain_file(file, _is_proxy)
        if file is None:
            return None
        if file.writable():
            file.flush()
        whole = WholeFile(file.fileno(), file.tell(), int(length))
        status = os.fstat(whole.fd)
    except (OSError, ValueError):
        # Closed, or it cannot say where it stands: iterating tells what is wrong.
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_size < whole.offset + whole.count:
        return None
    return whole


def _iterates_as_django(response: HttpResponseBase) -> bool:
    kind: Any = type(response)
    return (
        isinstance(response, StreamingHttpResponse)
        and kind.__iter__ is StreamingHttpResponse.__iter__
        and kind.streaming_content is StreamingHttpResponse.streaming_content
    )


def _is_proxy(kind: type[Any]) -> bool:
    return getattr(kind, "read", None) is FileProxyMixin.read
