"""Responses that live longer than their view: streams, files, closers."""

import asyncio
import gzip
import io
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from django.core.files import File
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from rules_site.events import apass_gate, mark, pass_gate, record


class Closing(HttpResponse):
    """Reports each close."""

    mark = ""

    def close(self) -> None:
        record("closed", mark=self.mark)
        super().close()


class ClosingStream(StreamingHttpResponse):
    """Reports each close."""

    mark = ""

    def close(self) -> None:
        record("closed", mark=self.mark)
        super().close()


def closing_sync(request: HttpRequest) -> HttpResponseBase:
    """A response of `?size=` bytes; waits at `?gate=` first."""
    response = Closing(b"x" * int(request.GET.get("size", "4")))
    response.mark = mark(request)
    if "gate" in request.GET:
        record("entered", mark=mark(request))
        pass_gate(request.GET["gate"])
        record("left", mark=mark(request))
    return response


async def closing_async(request: HttpRequest) -> HttpResponseBase:
    """The same on the loop; reports its cancellation and does some cleaning."""
    response = Closing(b"x" * int(request.GET.get("size", "4")))
    response.mark = mark(request)
    if "gate" in request.GET:
        record("entered", mark=mark(request))
        try:
            await apass_gate(request.GET["gate"])
        except BaseException as error:
            record("cancelled", mark=mark(request), error=type(error).__name__)
            raise
        finally:
            await apass_gate(request.GET["cleaning"])
            record("left", mark=mark(request))
    return response


def _stream(request: HttpRequest, content: Iterator[bytes] | AsyncIterator[bytes]) -> ClosingStream:
    response = ClosingStream(content, content_type="text/plain")
    response.mark = mark(request)
    return response


def stream_sync(request: HttpRequest) -> HttpResponseBase:
    """`?pieces=` pieces of `?size=` bytes; a byte of `?gate=` for each but the first."""
    name, gate = mark(request), request.GET.get("gate")
    size = int(request.GET.get("size", "6"))

    def pieces() -> Iterator[bytes]:
        try:
            for number in range(int(request.GET.get("pieces", "3"))):
                if number and gate is not None:
                    pass_gate(gate)
                if request.GET.get("fail") == str(number):
                    raise ConnectionError("DeliberateError: in the iterator")
                record("piece", mark=name, number=number)
                yield (b"piece%d" % number).ljust(size, b".")
        finally:
            record("ended", mark=name)

    return _stream(request, pieces())


async def stream_async(request: HttpRequest) -> HttpResponseBase:
    """The same on the loop; `?breathe` gives way after each piece."""
    name, gate = mark(request), request.GET.get("gate")
    size = int(request.GET.get("size", "6"))

    async def pieces() -> AsyncIterator[bytes]:
        try:
            for number in range(int(request.GET.get("pieces", "3"))):
                if number and gate is not None:
                    await apass_gate(gate)
                if request.GET.get("fail") == str(number):
                    raise ConnectionError("DeliberateError: in the iterator")
                record("piece", mark=name, number=number)
                yield (b"piece%d" % number).ljust(size, b".")
                if "breathe" in request.GET:
                    await asyncio.sleep(0)
        except BaseException as error:
            record("interrupted", mark=name, error=type(error).__name__)
            raise
        finally:
            record("ended", mark=name)

    return _stream(request, pieces())


async def stream_sync_from_async_view(request: HttpRequest) -> HttpResponseBase:
    """An async view with a sync iterator."""
    return stream_sync(request)


def stream_async_from_sync_view(request: HttpRequest) -> HttpResponseBase:
    """A sync view with an async iterator."""
    name = mark(request)

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            record("piece", mark=name, number=number)
            yield b"piece%d" % number

    return _stream(request, pieces())


class ReportingFile(io.FileIO):
    """Reports its closing, once."""

    mark = ""

    def close(self) -> None:
        if not self.closed:
            record("file-closed", mark=self.mark)
        super().close()


def _open(request: HttpRequest) -> ReportingFile:
    file = ReportingFile(request.GET["path"], "rb")
    file.mark = mark(request)
    if "offset" in request.GET:
        file.seek(int(request.GET["offset"]))
    return file


def file_sync(request: HttpRequest) -> HttpResponseBase:
    """The file `?path=`, from `?offset=` on, `?name=` as an attachment."""
    name = request.GET.get("name", "")
    return FileResponse(_open(request), as_attachment=bool(name), filename=name)


async def file_async(request: HttpRequest) -> HttpResponseBase:
    """The same on the loop."""
    return file_sync(request)


def file_temporary(request: HttpRequest) -> HttpResponseBase:
    """A file that is gone once it is closed."""
    file = tempfile.NamedTemporaryFile(dir=request.GET["directory"])  # noqa: SIM115
    file.write(b"for a moment")
    file.flush()
    file.seek(0)
    return FileResponse(file)


def file_buffer(request: HttpRequest) -> HttpResponseBase:
    """A file that is none."""
    return FileResponse(io.BytesIO(b"from memory"), filename="memory.txt")


class Upper(io.FileIO):
    """A file object that is not what its descriptor is."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size).upper()


def _in_the_middle(path: str) -> BinaryIO:
    # The buffer has read on: the descriptor stands at the file's end.
    file = open(path, "rb")  # noqa: SIM115
    file.read(3)
    return file


FORMS: dict[str, Callable[[str], Any]] = {
    "opened": lambda path: open(path, "rb"),  # noqa: SIM115
    "django": lambda path: File(open(path, "rb")),  # noqa: SIM115
    "middle": _in_the_middle,
    "gzip": gzip.open,
    "upper": Upper,
}


def file_as_sync(request: HttpRequest, form: str) -> HttpResponseBase:
    """The file `?path=` by way of one of several objects."""
    return FileResponse(FORMS[form](request.GET["path"]), content_type="text/plain")


async def file_as_async(request: HttpRequest, form: str) -> HttpResponseBase:
    """The same on the loop."""
    return file_as_sync(request, form)


def open_files(request: HttpRequest) -> HttpResponseBase:
    """How many descriptors of this process lead to `?path=`."""
    path = os.path.realpath(request.GET["path"])
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            count += os.readlink(link) == path
        except OSError:  # closed meanwhile
            continue
    return HttpResponse(str(count))
