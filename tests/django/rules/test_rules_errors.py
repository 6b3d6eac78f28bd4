"""Errors: the project's handlers, views that forget their response, exceptions past Django."""

import contextlib
from collections.abc import Callable

import httpx
import pytest

from tests.django.site_server import Kind, SiteServer

from .conftest import Serve
from .ground import RAISED, WELL, Ground, Profile, links

each_view = pytest.mark.parametrize("view", ["sync", "async"])


def test_handler404_answers_what_no_url_matches(plain: Ground) -> None:
    response = plain.get("/nowhere/at/all/")
    assert response.status_code == 404
    assert response.json()["handler"] == 404
    assert response.json()["path"] == "/nowhere/at/all/"
    assert plain.signals() == WELL


@each_view
def test_handler500_answers_what_a_view_raises(plain: Ground, view: str) -> None:
    response = plain.get(f"/{view}/raise/error/")
    assert (response.status_code, response.json()["handler"]) == (500, 500)
    assert plain.signals() == RAISED
    plain.still_serves()


@each_view
def test_handler400_answers_a_suspicious_request(serve: Serve, view: str) -> None:
    site = serve(Profile(settings={"ALLOWED_HOSTS": ["127.0.0.1"]}))
    response = site.get(f"/{view}/", headers={"Host": "elsewhere.example"})
    assert response.status_code == 400
    assert response.json() == {"handler": 400, "exception": "DisallowedHost"}


@each_view
def test_view_without_a_response_is_an_error_that_names_it(plain: Ground, view: str) -> None:
    response = plain.get(f"/{view}/nothing/")
    assert response.status_code == 500
    said = f"The view rules_site.views.requests.nothing_{view} didn't return an HttpResponse object"
    assert said in plain.server.log()
    assert plain.signals() == RAISED


@each_view
def test_debug_page_shows_the_error(serve: Serve, view: str) -> None:
    site = serve(Profile(links("syncclass", "asyncclass"), settings={"DEBUG": True}))
    response = site.get(f"/{view}/raise/error/")
    assert response.status_code == 500
    assert "DeliberateError" in response.text
    assert "asked for" in response.text
    assert site.get("/nowhere/").status_code == 404


@each_view
def test_exception_past_django_ends_its_request_alone(doomed: Ground, view: str) -> None:
    # A server of its own: Django forgets the body's file then, and no request_finished comes.
    with contextlib.suppress(httpx.RemoteProtocolError):
        assert doomed.get(f"/{view}/raise/base/").status_code == 500
    doomed.still_serves()
    assert "DeliberateExit" in doomed.server.log()


@each_view
@pytest.mark.parametrize("what", ["exit", "interrupt"])
def test_exit_raised_by_a_view_never_ends_the_server_silently(
    own: Callable[..., SiteServer], kind: Kind, view: str, what: str
) -> None:
    name = {"exit": "SystemExit", "interrupt": "KeyboardInterrupt"}[what]
    server = own(Profile(), name)
    server.start()
    with server.client() as client, contextlib.suppress(httpx.TransportError):
        client.get(f"/{view}/raise/{what}/")
    # Whether it goes on is the server's choice: an exit that it obeys is no accident. To vanish
    # without a word is one.
    alive = True
    with server.client() as client:
        try:
            alive = client.get("/sync/").status_code == 200
        except httpx.TransportError:
            alive = False
    if alive:
        # Django forgets the request's file then: the log is not looked at, the end is.
        server.terminate()
        assert server.wait() in kind.clean_exits
    else:
        server.wait()
        assert name in server.log()


def test_broken_receiver_of_the_start_is_the_servers_error(
    own: Callable[..., SiteServer],
) -> None:
    """An exception before Django has a request is a 500 of the server, and is logged."""
    server = own(Profile(settings={"RULES_BROKEN_RECEIVER": True}))
    server.start()
    with server.client() as client:
        assert client.get("/sync/?broken").status_code == 500
        assert client.get("/sync/").status_code == 200
    assert "DeliberateError: in a receiver" in server.log()
