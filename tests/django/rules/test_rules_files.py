"""FileResponse: content, headers, size, and the file's end."""

import contextlib
import gzip
import hashlib
import os
import re
from pathlib import Path

import pytest

from tests.django.site_server import Kind, until

from .conftest import Serve
from .ground import THREADS, WELL, Ground, Profile, links, new_mark, new_server, read_until

each_view = pytest.mark.parametrize("view", ["sync", "async"])

LARGE = 24 * 1024 * 1024


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of some bytes."""
    path = tmp_path_factory.mktemp("files") / "small.txt"
    path.write_bytes(b"0123456789")
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file larger than any buffer between server and client."""
    path = tmp_path_factory.mktemp("files") / "large.bin"
    path.write_bytes(os.urandom(1024 * 1024) * (LARGE // (1024 * 1024)))
    return path


@each_view
def test_file_is_sent_with_its_length_and_type(plain: Ground, small: Path, view: str) -> None:
    mark, response = plain.marked(f"/{view}/file/?path={small}")
    assert response.content == b"0123456789"
    assert response.headers["content-length"] == "10"
    assert response.headers["content-type"] == "text/plain"
    assert response.headers["content-disposition"] == 'inline; filename="small.txt"'
    plain.wait("file-closed", mark=mark)
    assert plain.signals() == WELL
    assert len(plain.events("file-closed", mark=mark)) == 1


def test_attachment_has_the_name_it_was_given(plain: Ground, small: Path) -> None:
    response = plain.get("/sync/file/", params={"path": str(small), "name": "größe.pdf"})
    assert response.headers["content-type"] == "application/pdf"
    disposition = response.headers["content-disposition"]
    assert disposition == "attachment; filename*=utf-8''gr%C3%B6%C3%9Fe.pdf"


def test_file_is_sent_from_where_it_stands(plain: Ground, small: Path) -> None:
    response = plain.get(f"/sync/file/?path={small}&offset=4")
    assert (response.content, response.headers["content-length"]) == (b"456789", "6")


def test_range_is_not_djangos(plain: Ground, small: Path) -> None:
    response = plain.get(f"/sync/file/?path={small}", headers={"Range": "bytes=2-4"})
    assert (response.status_code, response.content) == (200, b"0123456789")


@each_view
def test_head_of_a_file_has_its_headers_alone(plain: Ground, small: Path, view: str) -> None:
    mark, response = plain.marked(f"/{view}/file/?path={small}", "HEAD")
    assert (response.content, response.headers["content-length"]) == (b"", "10")
    plain.wait("file-closed", mark=mark)


def test_empty_file(plain: Ground, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    response = plain.get(f"/sync/file/?path={tmp_path / 'empty'}")
    assert (response.content, response.headers["content-length"]) == (b"", "0")


def test_file_in_memory(plain: Ground) -> None:
    response = plain.get("/file/buffer/")
    assert (response.content, response.headers["content-length"]) == (b"from memory", "11")


@each_view
def test_large_file_arrives_to_the_byte(plain: Ground, large: Path, view: str) -> None:
    hasher = hashlib.sha256()
    with plain.client.stream("GET", f"/{view}/file/?path={large}") as response:
        assert response.headers["content-length"] == str(LARGE)
        for chunk in response.iter_bytes():
            hasher.update(chunk)
    assert hasher.digest() == hashlib.sha256(large.read_bytes()).digest()


COLLECTED = "its handler makes a list of a sync iterator's parts before the first is sent"
HELD = "its handler reads the file as the client takes it"


@each_view
@pytest.mark.parametrize("way", ["file", "file/as/upper"], ids=["whole", "iterated"])
@pytest.mark.stock_breaks(COLLECTED)
def test_large_file_is_never_in_memory_as_a_whole(
    plain: Ground, tmp_path: Path, small: Path, view: str, way: str
) -> None:
    size = 400 * 1024 * 1024
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, size)
    for _ in range(2):  # Rondel's server answers paths that it knows otherwise
        assert plain.get(f"/{view}/{way}/?path={small}").status_code == 200
    process = Path(f"/proc/{plain.server.pid}")
    (process / "clear_refs").write_text("5")  # the peak is from now on
    before = peak(process)
    length = 0
    with plain.client.stream("GET", f"/{view}/{way}/?path={path}") as response:
        for chunk in response.iter_raw():
            length += len(chunk)
    assert length == size
    assert peak(process) - before < 32 * 1024


def peak(process: Path) -> int:
    """The most KiB that the process has had in memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
    assert found is not None
    return int(found[1])


@each_view
@pytest.mark.stock_breaks(HELD)
def test_slow_clients_hold_neither_a_thread_nor_the_view(
    plain: Ground, large: Path, view: str
) -> None:
    with contextlib.ExitStack() as stack:
        mark = new_mark()
        slow = [
            stack.enter_context(
                plain.sent(f"/{view}/file/?path={large}", mark=mark, receive_buffer=4096)
            )
            for _ in range(THREADS + 2)
        ]
        # Nobody has read anything: the response is closed while the system has the file.
        plain.wait("file-closed", len(slow), mark=mark)
        plain.wait("finished", len(slow))
        plain.still_serves()
        received = read_until(slow[-1], b"\r\n\r\n")
        body = bytearray(received.partition(b"\r\n\r\n")[2])
        while len(body) < LARGE:
            body += slow[-1].recv(1 << 20)
        assert body == large.read_bytes()
    plain.still_serves()
    until(lambda: plain.get(f"/open-files/?path={large}").text == "0", "the files are closed")


@each_view
@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("opened", b"0123456789"),
        ("django", b"0123456789"),
        ("middle", b"3456789"),
    ],
)
def test_file_is_sent_as_its_object_reads_it(
    plain: Ground, small: Path, view: str, form: str, content: bytes
) -> None:
    response = plain.get(f"/{view}/file/as/{form}/?path={small}")
    assert (response.content, response.headers["content-length"]) == (content, str(len(content)))


@each_view
def test_file_object_that_decodes_is_read(plain: Ground, tmp_path: Path, view: str) -> None:
    text = b"some text " * 10_000
    packed = tmp_path / "text.gz"
    packed.write_bytes(gzip.compress(text))
    response = plain.get(f"/{view}/file/as/gzip/?path={packed}")
    assert (response.content, response.headers["content-length"]) == (text, str(len(text)))
    plain_text = tmp_path / "text.txt"
    plain_text.write_bytes(text)
    response = plain.get(f"/{view}/file/as/upper/?path={plain_text}")
    assert response.content == text.upper()


@each_view
def test_content_that_a_middleware_replaced_is_sent(
    serve: Serve, tmp_path: Path, view: str
) -> None:
    site = serve(Profile(("django.middleware.gzip.GZipMiddleware",)))
    text = b"some text " * 10_000
    path = tmp_path / "text.txt"
    path.write_bytes(text)
    mark, response = site.marked(f"/{view}/file/?path={path}")
    assert response.headers["content-encoding"] == "gzip"
    assert response.content == text
    site.wait("file-closed", mark=mark)
    # Without a client that can unpack it the file goes out as it is.
    response = site.get(f"/{view}/file/?path={path}", headers={"Accept-Encoding": "identity"})
    assert (response.content, response.headers["content-length"]) == (text, str(len(text)))


@each_view
def test_application_around_djangos_sees_bodies_alone(
    kind: Kind, tmp_path: Path, small: Path, view: str
) -> None:
    if kind.name != "rondel":
        pytest.skip("the application asks for Rondel's handler by its name")
    site = new_server(kind, Profile(), tmp_path)
    site.app = "rules_site.wrapped:application"
    site.start()
    try:
        with site.client() as client:
            assert client.get(f"/{view}/file/?path={small}").content == b"0123456789"
    finally:
        site.kill()


def test_file_passes_through_middleware(serve: Serve, small: Path) -> None:
    site = serve(Profile(links("syncclass", "asyncclass", "mixin")))
    mark, response = site.marked(f"/sync/file/?path={small}")
    assert response.content == b"0123456789"
    site.wait("file-closed", mark=mark)


def test_temporary_file_is_gone_after_its_response(plain: Ground, tmp_path: Path) -> None:
    response = plain.get(f"/file/temporary/?directory={tmp_path}")
    assert response.content == b"for a moment"
    plain.wait("finished")
    assert list(tmp_path.iterdir()) == []


@each_view
def test_file_is_closed_when_the_client_leaves(plain: Ground, large: Path, view: str) -> None:
    mark = new_mark()
    with plain.sent(f"/{view}/file/?path={large}", mark=mark, receive_buffer=4096) as sock:
        read_until(sock, b"\r\n\r\n")
    plain.wait("file-closed", mark=mark)
    plain.still_serves()
    assert len(plain.events("file-closed", mark=mark)) == 1
    assert plain.get(f"/open-files/?path={large}").text == "0"


def test_many_files_leave_no_descriptor(plain: Ground, small: Path) -> None:
    for _ in range(20):
        plain.get(f"/sync/file/?path={small}")
        plain.get(f"/async/file/?path={small}")
    plain.wait("finished", 40)
    assert plain.get(f"/open-files/?path={small}").text == "0"
