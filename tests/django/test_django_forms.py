"""Forms: CSRF, session and message cookies, writes from sync and async views, uploads."""

import hashlib
import random
import re
import secrets
from collections.abc import Iterator

import httpx
import pytest

MEGABYTE = 1024 * 1024


def csrf_token(page: httpx.Response) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert found, page.text
    return found[1]


def submit(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    """Fill in and send the form at `path`, as a browser does."""
    token = csrf_token(client.get(path))
    return client.post(path, data={**fields, "csrfmiddlewaretoken": token}, follow_redirects=True)


def test_note_is_saved_and_its_reader_remembered(client: httpx.Client) -> None:
    text = f"读完了 {secrets.token_hex(8)} & <b>"
    page = submit(client, "/books/alice/", reader="小明", text=text)
    assert page.history[0].status_code == 302
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert escaped in page.text
    assert "Thank you, 小明." in page.text  # the message cookie, shown once
    assert "Thank you" not in client.get("/books/alice/").text
    # The session cookie brings the name back, on another page and for this client alone.
    assert 'value="小明"' in client.get("/books/moby-dick/").text
    assert escaped in client.get("/async/books/alice/").text


def test_session_belongs_to_one_client(client: httpx.Client) -> None:
    submit(client, "/books/alice/", reader="Mei", text="again")
    assert "sessionid" in client.cookies
    client.cookies.clear()
    assert 'value="Mei"' not in client.get("/books/moby-dick/").text


def test_async_view_writes_to_the_database(client: httpx.Client) -> None:
    text = f"hello {secrets.token_hex(8)}"
    page = submit(client, "/guestbook/", name="Ana", text=text)
    assert page.history[0].status_code == 302
    assert text in page.text
    assert text in client.get("/guestbook/").text


def test_invalid_form_is_shown_again(client: httpx.Client) -> None:
    page = submit(client, "/guestbook/", name="Ana", text="")
    assert not page.history
    assert "This field is required." in page.text


@pytest.mark.parametrize("path", ["/books/alice/", "/guestbook/"])
def test_post_without_token_is_refused(client: httpx.Client, path: str) -> None:
    client.get(path)
    fields = {"reader": "x", "name": "x", "text": "no token"}
    assert client.post(path, data=fields).status_code == 403
    assert "no token" not in client.get(path).text


def test_upload_of_five_megabytes_arrives_whole(client: httpx.Client) -> None:
    content = random.Random(5).randbytes(5 * MEGABYTE)
    token = csrf_token(client.get("/upload/"))
    response = client.post(
        "/upload/?format=json",
        data={"csrfmiddlewaretoken": token},
        files={"file": ("数据.bin", content, "application/octet-stream")},
    )
    assert response.status_code == 200
    assert response.json() == {
        "name": "数据.bin",
        "size": len(content),
        "content_type": "application/octet-stream",
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_chunked_upload_of_unknown_length_is_read_as_one_form(client: httpx.Client) -> None:
    token = csrf_token(client.get("/guestbook/"))
    text = f"in chunks {secrets.token_hex(8)}"

    def pieces() -> Iterator[bytes]:
        yield f"csrfmiddlewaretoken={token}&name=".encode()
        yield b"Ana&te"
        yield f"xt={text.replace(' ', '+')}".encode()

    response = client.post(
        "/guestbook/",
        content=pieces(),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert response.status_code == 302
    assert text in client.get("/guestbook/").text


def test_page_of_an_upload_shows_the_hash(client: httpx.Client) -> None:
    token = csrf_token(client.get("/upload/"))
    page = client.post(
        "/upload/", data={"csrfmiddlewaretoken": token}, files={"file": ("a.txt", b"abc")}
    )
    assert hashlib.sha256(b"abc").hexdigest() in page.text


def test_upload_without_a_file_says_so(client: httpx.Client) -> None:
    token = csrf_token(client.get("/upload/"))
    response = client.post("/upload/?format=json", data={"csrfmiddlewaretoken": token})
    assert response.status_code == 400
    assert response.json() == {"errors": {"file": ["This field is required."]}}
