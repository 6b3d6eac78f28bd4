"""Views that fail: the page that visitors see, and the traceback that the log keeps."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from .site_server import TRACEBACK, Kind, SiteServer, environment, running, until


@pytest.fixture(scope="module")
def production(
    kind: Kind, database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SiteServer]:
    """The site as it would be deployed: DEBUG off, a key of its own."""
    env = environment(database, SITE_DEBUG="0", SITE_SECRET_KEY="only-for-this-test" * 4)
    log = tmp_path_factory.mktemp("production") / "server.log"
    with running(SiteServer(kind, env, log)) as started:
        yield started


@pytest.mark.parametrize("kind_of_view", ["sync", "async"])
def test_failing_view_is_a_500_with_its_traceback_in_the_log(
    production: SiteServer, kind_of_view: str
) -> None:
    with production.client() as client:
        response = client.get(f"/errors/{kind_of_view}/")
        assert response.status_code == 500
        assert "出错了" in response.text
        assert "DeliberateError" not in response.text
        message = f"DeliberateError: This {kind_of_view} view fails on purpose."
        until(lambda: message in production.log(), "the log holds the error")
        assert TRACEBACK in production.log()
        assert f"Internal Server Error: /errors/{kind_of_view}/" in production.log()
        # The server and the connection live on.
        assert client.get("/books/").status_code == 200


def test_missing_page_is_a_404_of_the_sites_own(production: SiteServer) -> None:
    with production.client() as client:
        response = client.get("/没有/这一页")
    assert response.status_code == 404
    assert "书架上没有这一页" in response.text
    assert quote("/没有/这一页") in response.text


@pytest.mark.parametrize("path", ["/books/no-such/", "/async/books/no-such/"])
def test_missing_book_is_a_404(production: SiteServer, path: str) -> None:
    with production.client() as client:
        assert client.get(path).status_code == 404


def test_static_files_are_served_without_debug(production: SiteServer) -> None:
    with production.client() as client:
        response = client.get("/static/admin/css/base.css")
        assert response.status_code == 200
        assert response.headers["content-type"].split(";")[0] == "text/css"
        assert client.get("/static/no-such.css").status_code == 404


def test_foreign_host_is_refused(production: SiteServer) -> None:
    with production.client() as client:
        assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 400


def test_debug_page_shows_the_traceback(client: httpx.Client, server: SiteServer) -> None:
    response = client.get("/errors/async/")
    assert response.status_code == 500
    assert "DeliberateError at /errors/async/" in response.text
    until(lambda: "DeliberateError" in server.log(), "the log holds the error")


def test_security_headers_of_the_middleware_are_there(production: SiteServer) -> None:
    with production.client() as client:
        headers = client.get("/").headers
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
