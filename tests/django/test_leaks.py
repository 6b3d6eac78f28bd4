"""What requests leave behind in their databases: it is ended, said, and nobody else's trouble.

One thread serves, so that the request after the leak meets its thread.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .project_copy import Project, Running, needs_rondel

pytestmark = needs_rondel

_URLS = """
import gc
import threading

from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpResponse, JsonResponse
from django.urls import include, path

from shelf.models import Greeting


def write():
    Greeting.objects.create(name="leak", text="never to be seen")


def begin_atomic():
    transaction.atomic().__enter__()
    write()


def begin_by_autocommit():
    transaction.set_autocommit(False)
    write()


def begin_by_hand():
    connection.cursor().execute("BEGIN")
    write()


BEGIN = {"atomic": begin_atomic, "autocommit": begin_by_autocommit, "by-hand": begin_by_hand}


def leak(request, how):
    BEGIN[how]()
    return HttpResponse("left open")


def leak_and_fail(request):
    begin_atomic()
    raise LookupError("on its way")


async def wrappers(request):
    assert connection.vendor == "sqlite"
    gc.collect()
    return HttpResponse(sum(isinstance(each, BaseDatabaseWrapper) for each in gc.get_objects()))


async def leak_async(request, how):
    await sync_to_async(BEGIN[how])()
    return HttpResponse("left open")


def finish_properly(request):
    with transaction.atomic():
        Greeting.objects.count()
    return HttpResponse("done")


def state(request):
    Greeting.objects.count()
    return JsonResponse(
        {
            "atomic": connection.in_atomic_block,
            "autocommit": connection.autocommit,
            "raw": connection.connection.in_transaction,
            "leaked": Greeting.objects.filter(name="leak").count(),
            "thread": threading.current_thread().name,
        }
    )


async def state_async(request):
    return await sync_to_async(state)(request)


def count_notes():
    return Greeting.objects.count()


def count_and_close():
    try:
        return Greeting.objects.count()
    finally:
        connection.close()


async def elsewhere(request):
    await sync_to_async(count_notes, thread_sensitive=False)()
    return HttpResponse("counted")


async def elsewhere_closed(request):
    await sync_to_async(count_and_close, thread_sensitive=False)()
    return HttpResponse("counted")


def own_thread(request):
    thread = threading.Thread(target=count_notes, name="counter")
    thread.start()
    thread.join()
    return HttpResponse("counted")


urlpatterns = [
    path("wrappers/", wrappers),
    path("sync/<slug:how>/", leak),
    path("async/<slug:how>/", leak_async),
    path("fail/", leak_and_fail),
    path("properly/", finish_properly),
    path("state/", state),
    path("state-async/", state_async),
    path("elsewhere/", elsewhere),
    path("elsewhere-closed/", elsewhere_closed),
    path("own-thread/", own_thread),
    path("", include("shelf.urls")),
]
"""

CLEAN = {"atomic": False, "autocommit": True, "raw": False, "leaked": 0}


@pytest.fixture
def project(tmp_path: Path, database: Path) -> Project:
    """In production: nothing is in debug mode."""
    project = Project(
        tmp_path / "project", database, SITE_DEBUG="0", SITE_SECRET_KEY="only-for-this-test" * 4
    )
    project.write("leak_urls.py", _URLS)
    # Connections are kept, so that what they are left with is seen.
    project.settings(
        'ROOT_URLCONF = "site_project.leak_urls"\nDATABASES["default"]["CONN_MAX_AGE"] = None'
    )
    return project


@pytest.fixture
def server(project: Project) -> Iterator[Running]:
    with project.running("serve", "--port", "{port}", "--threads", "1") as running:
        running.until_logged("serving site_project.asgi")
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def state(client: httpx.Client, path: str = "/state/") -> dict[str, Any]:
    """What the next request on the thread finds."""
    found: dict[str, Any] = client.get(path).json()
    assert found.pop("thread") == "rondel-worker-0"
    return found


@pytest.mark.parametrize("how", ["atomic", "autocommit", "by-hand"])
@pytest.mark.parametrize(
    ("way", "view"), [("sync", "leak_urls.leak"), ("async", "leak_urls.leak_async")]
)
def test_an_open_transaction_is_rolled_back_and_its_view_named(
    server: Running, client: httpx.Client, way: str, view: str, how: str
) -> None:
    # The second request is known to be a thread's and does not come to the loop.
    for times in (1, 2):
        assert client.get(f"/{way}/{how}/").text == "left open"
        assert state(client) == CLEAN
        assert state(client, "/state-async/") == CLEAN
        server.until_logged(
            f"GET /{way}/{how}/: site_project.{view} left a transaction open on the database "
            "'default'",
            times,
        )


def test_a_view_that_fails_with_a_transaction_open_is_named_as_well(
    server: Running, client: httpx.Client
) -> None:
    for times in (1, 2):
        assert client.get("/fail/").status_code == 500
        assert state(client) == CLEAN
        server.until_logged("leak_urls.leak_and_fail left a transaction open", times)


def test_views_that_end_their_transactions_are_not_blamed(
    server: Running, client: httpx.Client
) -> None:
    for _ in range(2):
        assert client.get("/properly/").text == "done"
        assert state(client) == CLEAN
    assert "left" not in server.log


def test_connection_objects_of_past_requests_are_not_kept(client: httpx.Client) -> None:
    """Each async request has one of its own on the loop, which it never opens."""
    counts = [int(client.get("/wrappers/").text) for _ in range(20)]
    assert counts[-1] <= counts[1]


def test_in_production_connections_on_other_threads_are_not_looked_at(
    server: Running, client: httpx.Client
) -> None:
    for _ in range(2):
        assert client.get("/elsewhere/").text == "counted"
    assert state(client) == CLEAN
    assert "left a connection" not in server.log


@pytest.mark.parametrize("switch", ["settings", "environment"], ids=["DEBUG", "RONDEL_DEBUG"])
def test_debug_mode_names_who_left_a_connection_on_a_free_thread_and_where(
    project: Project, switch: str
) -> None:
    if switch == "settings":
        project.env["SITE_DEBUG"] = "1"
    else:
        project.env["RONDEL_DEBUG"] = "1"
    with project.running("serve", "--port", "{port}", "--allow-debug") as server:
        server.until_logged("serving site_project.asgi")
        with server.client() as client:
            assert client.get("/elsewhere/").text == "counted"
            # Reported by the end of the next request at the latest.
            client.get("/properly/")
            server.until_logged("leak_urls.elsewhere left a connection to the database 'default'")
            server.until_logged("on the thread 'rondel-free-0'")
            server.until_logged("in count_notes\n    return Greeting.objects.count()")
            # Once for each connection.
            for _ in range(3):
                client.get("/properly/")
            assert server.log.count("left a connection") == 1


def test_a_connection_of_a_thread_of_ones_own_is_found_when_the_thread_is_over(
    project: Project,
) -> None:
    project.env["RONDEL_DEBUG"] = "1"
    with project.running("serve", "--port", "{port}") as server:
        server.until_logged("serving site_project.asgi")
        with server.client() as client:
            assert client.get("/own-thread/").text == "counted"
            server.until_logged(
                "left a connection to the database 'default' open on the thread 'counter'"
            )
            server.until_logged("in count_notes\n    return Greeting.objects.count()")


def test_connections_that_are_closed_or_a_requests_own_are_not_reported(
    project: Project,
) -> None:
    project.env["RONDEL_DEBUG"] = "1"
    with project.running("serve", "--port", "{port}") as server:
        server.until_logged("serving site_project.asgi")
        with server.client() as client:
            for _ in range(2):
                assert client.get("/elsewhere-closed/").text == "counted"
                client.get("/properly/")
                client.get("/state-async/")
            assert "left a connection" not in server.log
