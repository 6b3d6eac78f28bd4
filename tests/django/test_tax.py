"""The tax report: what it counts, who is told, and that nobody else is."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import django
import httpx
import pytest

from .project_copy import Project, Running, needs_rondel

pytestmark = needs_rondel

PRODUCTION = {"SITE_DEBUG": "0", "SITE_SECRET_KEY": "only-for-this-test" * 4}
ASKING = {"Rondel-Tax": "1"}

_URLS = """
import asyncio
import threading
import time

from asgiref.sync import async_to_sync, sync_to_async
from django.contrib import admin
from django.core.signals import request_finished, request_started
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.urls import include, path
from django.views import View

from rondel.bridge import bridge_pool
from shelf.models import Book


def sync_view(request):
    Book.objects.count()
    return HttpResponse("sync")


async def async_view(request):
    await Book.objects.acount()
    await asyncio.gather(*(sync_to_async(slow)() for _ in range(3)))
    return HttpResponse("async")


def slow():
    time.sleep(0.01)


async def inner():
    return await sync_to_async(deep)()


def deep():
    time.sleep(0.03)
    return "deep"


def outer():
    return async_to_sync(inner)()


async def nested(request):
    return HttpResponse(await sync_to_async(outer)())


class Classy(View):
    async def get(self, request):
        return HttpResponse("classy")


def noted(**kwargs):
    pass


async def connect(request):
    request_started.connect(noted)
    return HttpResponse("connected")


def streamed(request):
    return StreamingHttpResponse(iter([b"a", b"b"]))


released = threading.Event()


def hold(request):
    print("holding", flush=True)
    released.wait(20)
    return HttpResponse("held")


async def release(request):
    while bridge_pool().stats()["queued"] == 0:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.03)
    released.set()
    return HttpResponse("released")


def whole_file(request):
    return FileResponse(open(__file__, "rb"))


def own_timing(request):
    response = HttpResponse("timed")
    response["Server-Timing"] = "mine;dur=1"
    return response


urlpatterns = [
    path("sync/", sync_view),
    path("async/", async_view),
    path("nested/", nested),
    path("classy/", Classy.as_view()),
    path("connect/", connect),
    path("streamed/", streamed),
    path("own-timing/", own_timing),
    path("hold/", hold),
    path("release/", release),
    path("file/", whole_file),
    path("any/special/", async_view),
    path("any/<slug:name>/", lambda request, name: HttpResponse(name)),
    path("admin/", admin.site.urls),
    path("", include("shelf.urls")),
]
"""


def make(tmp_path: Path, database: Path, **env: str) -> Project:
    project = Project(tmp_path / "project", database, **env)
    project.write("tax_urls.py", _URLS)
    project.settings('ROOT_URLCONF = "site_project.tax_urls"')
    return project


@pytest.fixture
def project(tmp_path: Path, database: Path) -> Project:
    """In production."""
    return make(tmp_path, database, **PRODUCTION)


class Timing:
    """A Server-Timing header, as browsers read it."""

    def __init__(self, response: httpx.Response) -> None:
        self.durations: dict[str, float] = {}
        self.descriptions: dict[str, str] = {}
        value = response.headers["server-timing"]
        # W3C: metric = token *(; name=value); what is quoted may hold commas.
        for metric in re.split(r", (?=[a-z]+\d*;)", value):
            name, *rest = re.split(r";(?=dur=|desc=)", metric)
            for parameter in rest:
                key, _, text = parameter.partition("=")
                if key == "dur":
                    self.durations[name] = float(text)
                else:
                    self.descriptions[name] = text.strip('"')

    @property
    def summary(self) -> str:
        return self.descriptions["hops"]

    def call(self, name: str) -> tuple[float, str]:
        """Milliseconds and the rest of the description of a function."""
        found = [
            (self.durations[metric], text)
            for metric, text in self.descriptions.items()
            if name in text
        ]
        assert len(found) == 1, (name, self.descriptions)
        return found[0]


def serving(project: Project, *options: str):  # type: ignore[no-untyped-def]
    return project.running("serve", "--port", "{port}", *options)


def ready(server: Running) -> httpx.Client:
    server.until_logged("serving site_project.asgi")
    return server.client()


def test_without_the_option_nobody_is_told_anything(project: Project) -> None:
    with serving(project) as server, ready(server) as client:
        for path in ("/sync/", "/sync/", "/async/"):
            response = client.get(path, headers=ASKING)
            assert response.status_code == 200
            assert "server-timing" not in response.headers
        server.signal(15)
        assert server.wait() == 0
        assert "tax" not in server.log
        assert "hops" not in server.log


def test_only_requests_that_ask_get_the_header_and_the_log_line(project: Project) -> None:
    with serving(project, "--tax") as server, ready(server) as client:
        for path in ("/sync/", "/sync/", "/async/"):
            assert "server-timing" not in client.get(path).headers
            assert "server-timing" not in client.get(path, headers={"Rondel-Tax": "0"}).headers
        assert "tax of" not in server.log
        assert "server-timing" in client.get("/async/", headers=ASKING).headers
        server.until_logged("tax of GET /async/ (site_project.tax_urls.async_view): ")


def test_a_sync_request_is_one_hop_with_what_it_did_on_its_thread(project: Project) -> None:
    with serving(project, "--tax") as server, ready(server) as client:
        # Through the loop; then, as the server knows the path, by a thread from the start.
        for _ in range(2):
            timing = Timing(client.get("/sync/", headers=ASKING))
            assert timing.summary == "1 hop on 1 thread, 0 calls inline"
            assert ": request, waited " in timing.call("tax_urls.sync_view: request")[1]
            timing.call("tax_urls.sync_view: call")
            timing.call("query (default): call")
            timing.call("SessionMiddleware: call")
            assert timing.durations["run"] <= timing.durations["total"]


def test_a_sync_request_tells_how_long_it_waited_for_a_thread(project: Project) -> None:
    with serving(project, "--tax", "--threads", "1") as server, ready(server) as client:
        # Known to be a thread's from now on.
        client.get("/sync/")
        with ThreadPoolExecutor(2) as others:
            held = others.submit(client.get, "/hold/")
            server.until_logged("holding")
            waiting = others.submit(client.get, "/sync/", headers=ASKING)
            client.get("/release/")
            assert held.result().text == "held"
            timing = Timing(waiting.result())
        assert timing.durations["wait"] >= 30
        assert timing.durations["run"] < timing.durations["total"] - 30


def test_hops_of_an_async_view_are_counted_and_named(project: Project) -> None:
    with serving(project, "--tax") as server, ready(server) as client:
        timing = Timing(client.get("/async/", headers=ASKING))
        hops, threads = re.match(r"(\d+) hops on (\d+) thread", timing.summary).groups()  # type: ignore[union-attr]
        assert (hops, threads) == ("4", "1")
        assert ": thread, waited " in timing.call("QuerySet.count(Book)")[1]
        ran, text = timing.call("3 x site_project.tax_urls.slow")
        assert ran >= 30
        # One thread makes the three: the second waits for the first, the third for both.
        waited = float(re.search(r"waited ([\d.]+) ms", text).group(1))  # type: ignore[union-attr]
        assert waited >= 30
        server.until_logged("x SessionMiddleware.process_request, inline")
        server.until_logged("x site_project.tax_urls.async_view, view")


def test_time_of_nested_hops_is_counted_once(project: Project) -> None:
    with serving(project, "--tax") as server, ready(server) as client:
        timing = Timing(client.get("/nested/", headers=ASKING))
        assert timing.summary.startswith("3 hops on 1 thread")
        deep, _ = timing.call("tax_urls.deep: thread")
        inner, _ = timing.call("tax_urls.inner: loop")
        outer, _ = timing.call("tax_urls.outer: thread")
        assert deep >= 30
        assert inner < deep
        assert outer < deep
        assert timing.durations["run"] < timing.durations["total"]


def test_receivers_are_named_also_those_that_share_a_hop(project: Project) -> None:
    with serving(project, "--tax") as server, ready(server) as client:
        client.get("/connect/")
        client.get("/async/", headers=ASKING)
        server.until_logged("tax of GET /async/")
        # Django 4.2 has no `asend`: there all of `send` is called on a thread.
        hop = r"request_started: .*\bsite_project\.tax_urls\.noted"
        hop = hop if django.VERSION >= (5, 0) else r"Signal\.send"
        assert re.search(rf"x {hop}, thread", server.log)
        client.get("/sync/")
        client.get("/sync/", headers=ASKING)
        server.until_logged("tax of GET /sync/")
        assert "x site_project.tax_urls.noted, call" in server.log


def test_class_based_views_are_named_by_their_class(project: Project) -> None:
    with serving(project, "--tax") as server, ready(server) as client:
        client.get("/classy/", headers=ASKING)
        server.until_logged("tax of GET /classy/ (site_project.tax_urls.Classy): ")


def test_streams_files_and_a_header_of_the_views_own(project: Project) -> None:
    with serving(project, "--tax") as server, ready(server) as client:
        for _ in range(2):
            response = client.get("/streamed/", headers=ASKING)
            assert response.text == "ab"
            assert "hops;desc=" in response.headers["server-timing"]
            response = client.get("/file/", headers=ASKING)
            assert "def whole_file(request)" in response.text
            assert "hops;desc=" in response.headers["server-timing"]
            assert "def whole_file(request)" in client.get("/file/").text
            response = client.get("/own-timing/", headers=ASKING)
            values = response.headers.get_list("server-timing")
            assert values[0] == "mine;dur=1"
            assert values[1].startswith("hops;")


def test_the_end_shows_a_table_of_views_and_functions(project: Project) -> None:
    with serving(project, "--tax") as server, ready(server) as client:
        for _ in range(3):
            client.get("/sync/")
        client.get("/async/")
        # Its path is like those of a sync view, so that a thread has it first, and gives it back.
        assert client.get("/any/one/").text == "one"
        assert client.get("/any/special/").text == "async"
        assert client.get("/no/such/page/").status_code == 404
        assert "Per request" not in server.log
        server.signal(15)
        assert server.wait() == 0
        server.check_log()
    columns = r" +(\d+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$"
    views = {
        match.group(1): match.groups()[1:]
        for match in re.finditer(r"^(\S+|\(no view\))" + columns, server.log, re.MULTILINE)
    }
    assert views["site_project.tax_urls.sync_view"][0] == "3"
    requests, hops, inline, wait, run, total = views["site_project.tax_urls.async_view"]
    assert (requests, hops) == ("2", "4.0")
    assert float(inline) > 10
    assert float(wait) >= 30
    assert 30 <= float(run) <= float(total)
    assert views["(no view)"][0] == "1"
    assert sum(int(row[0]) for row in views.values()) == 7
    assert re.search(r"^site_project\.tax_urls\.slow +thread +6 ", server.log, re.MULTILINE)


def test_runserver_answers_who_asks_while_debug_is_on(tmp_path: Path, database: Path) -> None:
    project = make(tmp_path, database)
    with project.running("runserver", "{port}", "--noreload") as server:
        server.until_logged("Quit the server with")
        with server.client() as client:
            assert "server-timing" not in client.get("/async/").headers
            timing = Timing(client.get("/async/", headers=ASKING))
            assert "hop" in timing.summary
            server.until_logged("tax of GET /async/ (site_project.tax_urls.async_view): ")
            assert "Per request" not in server.log


def test_runserver_tells_nobody_while_debug_is_off(project: Project) -> None:
    with project.running("runserver", "{port}", "--noreload") as server:
        server.until_logged("Quit the server with")
        with server.client() as client:
            assert "server-timing" not in client.get("/async/", headers=ASKING).headers


class TestNames:
    """What calls are called."""

    def test_functions_methods_partials_and_models(self) -> None:
        from functools import partial, wraps
        from typing import Any

        from rondel.django.names import call_name, view_name

        def plain() -> None: ...

        @wraps(plain)
        def wrapped() -> None: ...

        class Book:
            def save(self) -> None: ...

        class QuerySet:
            model = Book

            def get(self) -> None: ...

        class Middleware:
            def __call__(self, request: Any) -> None: ...

        here = f"{__name__}.{type(self).__qualname__}"
        local = "test_functions_methods_partials_and_models.<locals>"
        assert call_name(plain) == f"{here}.{local}.plain"
        assert call_name(wrapped) == f"{here}.{local}.plain"
        assert call_name(partial(partial(Book().save), 1)) == "Book.save"
        assert call_name(QuerySet().get) == "QuerySet.get(Book)"
        assert call_name(Middleware()) == f"{type(self).__name__}.{local}.Middleware"
        assert call_name(len) == "len"
        assert view_name(Middleware()) == f"{here}.{local}.Middleware"

    def test_a_header_is_ascii_and_quoted(self) -> None:
        from rondel.django.tax import _quoted

        assert _quoted('a "b" \\ 书') == '"a \\"b\\" \\\\ ?"'
