"""Django's application inside of another: static files around it, as in the demo, or a router."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from .project_copy import Project, Running, needs_rondel

pytestmark = needs_rondel

# The demo's own, which tests otherwise replace.
_STATIC = """
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

application = ASGIStaticFilesHandler(get_asgi_application())
"""
_ROUTER = """
from django.core.asgi import get_asgi_application

django = get_asgi_application()


async def application(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    if scope["path"] == "/looking/":
        print("another has come", flush=True)
    await django(scope, receive, send)
"""
_URLS = """
import asyncio
from pathlib import Path

from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.http import HttpResponse
from django.urls import include, path

def is_open():
    return connection.in_atomic_block


async def transacting(request):
    block = transaction.atomic()
    await sync_to_async(block.__enter__)()
    print("a transaction is open", flush=True)
    while not Path("released").exists():
        await asyncio.sleep(0.01)
    found = await sync_to_async(is_open)()
    await sync_to_async(block.__exit__)(None, None, None)
    return HttpResponse(str(found))


async def looking(request):
    if "asgi" in request.GET:
        print("another has come", flush=True)
    return HttpResponse(str(await sync_to_async(is_open)()))


def sync_view(request, *args, **kwargs):
    return HttpResponse("sync")


async def async_view(request):
    return HttpResponse("async")


urlpatterns = [
    path("transacting/", transacting),
    path("looking/", looking),
    path("sync/", sync_view),
    path("async/", async_view),
    path("", include("site_project.urls")),  # what the 404 page names
    # Paths of this shape are static files' as well.
    path("<str:one>/<str:two>/<str:three>", sync_view),
]
"""
STYLES = "/static/shelf/site.css"


@pytest.fixture
def project(tmp_path: Path, database: Path) -> Project:
    project = Project(
        tmp_path / "project", database, SITE_DEBUG="0", SITE_SECRET_KEY="only-for-this-test" * 4
    )
    project.write("wrapped_urls.py", _URLS)
    project.settings('ROOT_URLCONF = "site_project.wrapped_urls"')
    return project


def serving(project: Project, *options: str) -> Iterator[tuple[Running, httpx.Client]]:
    with project.running("serve", "--tax", "--port", "{port}", *options) as running:
        running.until_logged("serving site_project.asgi")
        with running.client() as client:
            client.headers["Rondel-Tax"] = "1"
            yield running, client


@pytest.fixture
def behind_static_files(project: Project) -> Iterator[httpx.Client]:
    project.write("asgi.py", _STATIC)
    for _running, client in serving(project):
        yield client


@pytest.fixture
def routed(project: Project) -> Iterator[httpx.Client]:
    project.write("asgi.py", _ROUTER)
    for _running, client in serving(project):
        yield client


@pytest.mark.parametrize("way", ["django", "static", "router", "runserver"])
def test_no_request_gets_into_the_transaction_of_another(project: Project, way: str) -> None:
    if way in ("static", "router"):
        project.write("asgi.py", _STATIC if way == "static" else _ROUTER)
    command = ["serve", "--threads", "1", "--port", "{port}"]
    if way == "runserver":  # it has sixteen
        command = ["runserver", "{port}", "--noreload"]
    with (
        project.running(*command) as running,
        running.client() as client,
        ThreadPoolExecutor(21) as others,
    ):
        running.until_logged("Quit the server" if way == "runserver" else "serving site_project")
        first = others.submit(client.get, "/transacting/")
        running.until_logged("a transaction is open")
        # A router says it itself: Django's own handler needs the thread before the view is called.
        path = "/looking/" if way == "router" else "/looking/?asgi"
        looks = [others.submit(client.get, path) for _ in range(20)]
        running.until_logged("another has come", len(looks))
        (project.root / "released").touch()
        assert first.result().text == "True"
        assert {look.result().text for look in looks} == {"False"}
        running.check_log()


def tax(client: httpx.Client, path: str) -> str:
    return client.get(path).headers["server-timing"]


def test_behind_static_files_a_sync_view_is_one_hop(behind_static_files: httpx.Client) -> None:
    # The first is resolved on the loop, the next go to a thread at once.
    for _ in range(3):
        assert "1 hop on 1 thread" in tax(behind_static_files, "/sync/")


def test_behind_static_files_an_async_view_is_no_hop(behind_static_files: httpx.Client) -> None:
    assert "0 hops on 0 threads" in tax(behind_static_files, "/async/")


def test_static_files_are_served(behind_static_files: httpx.Client) -> None:
    response = behind_static_files.get(STYLES)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/css")
    assert behind_static_files.get("/static/shelf/nothing.css").status_code == 404


def test_a_static_file_is_not_taken_for_a_view_with_paths_of_its_shape(
    behind_static_files: httpx.Client,
) -> None:
    for path in ("/a/b/c", "/d/e/f", "/static-not/shelf/site.css"):
        assert behind_static_files.get(path).text == "sync"
    for _ in range(3):
        assert behind_static_files.get(STYLES).headers["content-type"].startswith("text/css")
    assert behind_static_files.get("/a/b/c").text == "sync"


def test_inside_a_router_the_inline_list_is_in_force(routed: httpx.Client) -> None:
    assert routed.get("/async/").text == "async"
    summary = tax(routed, "/async/")
    inline = int(summary.partition(" calls inline")[0].rpartition(" ")[2])
    # Of the sixteen that the default middleware and the signals make.
    assert inline >= 10, summary


def test_without_the_list_a_router_has_none(project: Project) -> None:
    project.write("asgi.py", _ROUTER)
    for _running, client in serving(project, "--no-inline"):
        assert "0 calls inline" in tax(client, "/async/")


@pytest.mark.parametrize("by", ["setting", "environment"])
def test_the_list_can_be_turned_off(project: Project, by: str) -> None:
    if by == "setting":
        project.settings('ROOT_URLCONF = "site_project.wrapped_urls"\nRONDEL_INLINE = None')
    else:
        project.env["RONDEL_NO_INLINE"] = "1"
    for _running, client in serving(project):
        assert "0 calls inline" in tax(client, "/async/")
