"""Request bodies: small, spooled, too large, chunked, multipart; read by every way there is."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Serve
from .ground import WELL, Ground, Profile, links

each_view = pytest.mark.parametrize("view", ["sync", "async"])

# Django's FILE_UPLOAD_MAX_MEMORY_SIZE: what is larger goes through a file on disk.
IN_MEMORY = 2_621_440
LIMIT = 10_000

ROOMY = Profile(settings={"DATA_UPLOAD_MAX_MEMORY_SIZE": None})


def digest(body: bytes) -> dict[str, Any]:
    return {"size": len(body), "sha": hashlib.sha256(body).hexdigest()}


@each_view
@pytest.mark.parametrize("by", ["body", "read", "lines", "chunks"])
@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_body_arrives_however_it_is_read(plain: Ground, view: str, by: str, size: int) -> None:
    body = bytes(n % 251 for n in range(size))
    response = plain.client.post(f"/{view}/body/?by={by}", content=body)
    assert response.json() == digest(body)


@each_view
@pytest.mark.parametrize("size", [IN_MEMORY - 1, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY])
def test_body_around_the_memory_limit_arrives(serve: Serve, view: str, size: int) -> None:
    site = serve(ROOMY)
    body = (b"0123456789abcde\n" * (size // 16 + 1))[:size]
    for by in ("body", "read", "lines"):
        response = site.client.post(f"/{view}/body/?by={by}", content=body)
        assert response.json() == digest(body), by


@each_view
def test_chunked_body_arrives(plain: Ground, view: str) -> None:
    def pieces() -> Iterator[bytes]:
        for number in range(50):
            yield b"%d;" % number * number

    response = plain.client.post(f"/{view}/body/", content=pieces())
    assert response.json() == digest(b"".join(pieces()))


@each_view
def test_chunked_body_in_single_bytes(plain: Ground, view: str) -> None:
    with plain.server.connect() as sock:
        request = (
            f"POST /{view}/body/ HTTP/1.1\r\nHost: rules\r\nTransfer-Encoding: chunked\r\n"
            "Connection: close\r\n\r\n3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n"
        )
        for byte in request.encode():
            sock.sendall(bytes([byte]))
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    assert digest(b"abcde")["sha"].encode() in received


@each_view
def test_body_that_is_not_read_does_not_harm_the_next_request(plain: Ground, view: str) -> None:
    for _ in range(3):
        response = plain.client.post(f"/{view}/body/?by=nothing", content=b"x" * 300_000)
        assert response.json() == digest(b"")
    assert plain.signals(started=3) == {name: 3 * count for name, count in WELL.items()}


@each_view
def test_body_beyond_djangos_limit_is_a_bad_request(serve: Serve, view: str) -> None:
    site = serve(Profile(settings={"DATA_UPLOAD_MAX_MEMORY_SIZE": LIMIT}))
    within = site.client.post(f"/{view}/body/", content=b"x" * LIMIT)
    assert within.json() == digest(b"x" * LIMIT)
    beyond = site.client.post(f"/{view}/body/", content=b"x" * (LIMIT + 1))
    assert beyond.status_code == 400
    assert beyond.json() == {"handler": 400, "exception": "RequestDataTooBig"}
    form = site.client.post(f"/{view}/body/?by=post", data={"a": "x" * LIMIT})
    assert form.status_code == 400


@each_view
def test_limit_is_for_the_body_in_memory_not_for_reading_it(serve: Serve, view: str) -> None:
    site = serve(Profile(settings={"DATA_UPLOAD_MAX_MEMORY_SIZE": LIMIT}))
    body = b"x" * (3 * LIMIT)
    assert site.client.post(f"/{view}/body/?by=read", content=body).json() == digest(body)
    upload = site.client.post(f"/{view}/body/?by=post", files={"f": ("big.bin", body)})
    assert upload.json()["files"]["f"]["size"] == 3 * LIMIT


@each_view
def test_too_many_fields_are_a_bad_request(serve: Serve, view: str) -> None:
    site = serve(Profile(settings={"DATA_UPLOAD_MAX_NUMBER_FIELDS": 5}))
    response = site.client.post(f"/{view}/body/?by=post", data={f"f{n}": "x" for n in range(6)})
    assert response.json() == {"handler": 400, "exception": "TooManyFieldsSent"}


@each_view
def test_form_arrives_in_post(plain: Ground, view: str) -> None:
    response = plain.client.post(f"/{view}/body/?by=post", data={"name": "grün", "n": ["1", "2"]})
    assert response.json() == {"post": {"name": ["grün"], "n": ["1", "2"]}, "files": {}}


@each_view
@pytest.mark.parametrize(
    ("size", "kept_in"),
    [(5, "InMemoryUploadedFile"), (IN_MEMORY + 1, "TemporaryUploadedFile")],
)
def test_multipart_upload_arrives(plain: Ground, view: str, size: int, kept_in: str) -> None:
    content = bytes(n % 256 for n in range(256)) * (size // 256 + 1)
    content = content[:size]
    response = plain.client.post(
        f"/{view}/body/?by=post",
        data={"title": "café"},
        files={"first": ("ä.bin", content), "second": ("b.txt", b"two")},
    )
    facts = response.json()
    assert facts["post"] == {"title": ["café"]}
    assert facts["files"]["first"] == {"name": "ä.bin", "class": kept_in, **digest(content)}
    assert facts["files"]["second"]["size"] == 3


@each_view
def test_broken_multipart_is_a_bad_request(plain: Ground, view: str) -> None:
    response = plain.client.post(
        f"/{view}/body/?by=post",
        content=b"--other--",
        headers={"Content-Type": "multipart/form-data; boundary=" + "b" * 300},
    )
    assert response.status_code == 400


@each_view
def test_expect_continue_is_answered(plain: Ground, view: str) -> None:
    with plain.server.connect() as sock:
        sock.sendall(
            f"POST /{view}/body/ HTTP/1.1\r\nHost: rules\r\nContent-Length: 3\r\n"
            "Expect: 100-continue\r\nConnection: close\r\n\r\n".encode()
        )
        assert sock.recv(65536).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"abc")
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    assert digest(b"abc")["sha"].encode() in received


def test_body_read_in_middleware_mix_arrives(serve: Serve) -> None:
    site = serve(Profile(links("syncclass", "asyncclass", "mixin", "syncfunction")))
    for view in ("sync", "async"):
        response = site.client.post(f"/{view}/body/", content=b"x" * 100_000)
        assert response.json() == digest(b"x" * 100_000)
