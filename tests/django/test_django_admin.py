"""The admin: sign in, lists, a change that is saved, and the static files it needs."""

import re

import httpx
import pytest

from .test_django_forms import csrf_token


@pytest.fixture
def admin(client: httpx.Client) -> httpx.Client:
    """A client that has signed in as the demo's administrator."""
    page = client.get("/admin/", follow_redirects=True)
    assert page.url.path == "/admin/login/"
    fields = {
        "username": "admin",
        "password": "admin",
        "next": "/admin/",
        "csrfmiddlewaretoken": csrf_token(page),
    }
    page = client.post("/admin/login/", data=fields, follow_redirects=True)
    assert page.url.path == "/admin/"
    assert "管理后台" in page.text
    return client


def test_wrong_password_is_refused(client: httpx.Client) -> None:
    token = csrf_token(client.get("/admin/login/"))
    fields = {"username": "admin", "password": "wrong", "csrfmiddlewaretoken": token}
    page = client.post("/admin/login/", data=fields)
    assert page.status_code == 200
    assert "Please enter the correct username and password" in page.text
    assert "sessionid" not in client.cookies


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/admin/shelf/book/", "14 books"),
        ("/admin/shelf/book/?q=西游", "1 book"),
        ("/admin/shelf/author/", "13 authors"),
        ("/admin/auth/user/", "admin@example.com"),
    ],
)
def test_changelist(admin: httpx.Client, path: str, text: str) -> None:
    page = admin.get(path)
    assert page.status_code == 200
    assert text in page.text


def test_change_is_saved(admin: httpx.Client) -> None:
    found = re.search(
        r'href="(/admin/shelf/greeting/\d+/change/)[^>]*>Rondel<',
        admin.get("/admin/shelf/greeting/").text,
    )
    assert found
    path = found[1]
    fields = {"name": "Rondel", "text": "changed in the admin", "_save": "Save"}
    fields["csrfmiddlewaretoken"] = csrf_token(admin.get(path))
    page = admin.post(path, data=fields, follow_redirects=True)
    assert "was changed successfully" in page.text
    assert "changed in the admin" in admin.get("/guestbook/").text


def test_styles_and_scripts_of_the_admin_are_served(admin: httpx.Client) -> None:
    page = admin.get("/admin/shelf/book/").text
    files = set(re.findall(r'(?:href|src)="(/static/[^"]+\.(?:css|js))"', page))
    assert "/static/admin/css/base.css" in files
    assert "/static/admin/css/changelists.css" in files
    assert len(files) >= 8
    for file in sorted(files):
        response = admin.get(file)
        assert response.status_code == 200, file
        kind = "text/css" if file.endswith(".css") else "text/javascript"
        assert response.headers["content-type"].split(";")[0] == kind, file
        assert len(response.content) == int(response.headers["content-length"]) > 0, file


def test_unchanged_static_file_is_not_sent_again(client: httpx.Client) -> None:
    first = client.get("/static/admin/css/base.css")
    again = client.get(
        "/static/admin/css/base.css",
        headers={"If-Modified-Since": first.headers["last-modified"]},
    )
    assert again.status_code == 304
    assert again.content == b""
    # The connection is in order after a response without a body.
    assert client.get("/static/admin/css/base.css").content == first.content


def test_signing_out_ends_the_session(admin: httpx.Client) -> None:
    token = csrf_token(admin.get("/admin/"))
    admin.post("/admin/logout/", data={"csrfmiddlewaretoken": token})
    assert admin.get("/admin/", follow_redirects=True).url.path == "/admin/login/"
