"""Functions of the inline list that turn out to need a thread: they get one, and leave the list."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .project_copy import Project, Running, needs_rondel

pytestmark = needs_rondel

_URLS = """
import asyncio
import threading
import time

from asgiref.sync import sync_to_async
from django.core.signals import request_finished, request_started
from django.http import HttpResponse, JsonResponse
from django.urls import include, path

from rondel.django import inline
from shelf.models import Book

calls = []


def here():
    return "the loop" if threading.current_thread() is threading.main_thread() else "a thread"


@inline
def counts():
    calls.append(f"counts on {here()}")
    return Book.objects.count()


@inline
def sleeps():
    time.sleep(0.05)
    return here()


@inline
def computes():
    end = time.thread_time() + 0.03
    while time.thread_time() < end:
        pass
    return here()


@inline
def quick():
    return here()


@inline
def fails():
    calls.append("fails")
    raise LookupError("its own")


class Counter:
    @inline
    def method(self):
        calls.append(f"method on {here()}")
        return Book.objects.count()


@inline
def first(**kwargs):
    calls.append(f"first on {here()}")


@inline
def second(**kwargs):
    calls.append(f"second on {here()}")
    Book.objects.count()


@inline
def third(**kwargs):
    calls.append(f"third on {here()}")


CALLS = {
    "counts": counts, "method": Counter().method, "sleeps": sleeps, "computes": computes,
    "quick": quick,
}


async def call(request, name):
    return HttpResponse(str(await sync_to_async(CALLS[name])()))


async def failing(request):
    try:
        await sync_to_async(fails)()
    except LookupError as error:
        return HttpResponse(f"{error}, by {len(calls)} call")


async def connect(request, which):
    signal = {"started": request_started, "finished": request_finished}[which]
    for receiver in (first, second, third):
        signal.connect(receiver)
    return HttpResponse("connected")


async def seen(request):
    until = request.GET.get("until")
    for _ in range(1000):
        if until is None or until in calls:
            break
        await asyncio.sleep(0.01)
    found = list(calls)
    calls.clear()
    return JsonResponse(found, safe=False)


urlpatterns = [
    path("call/<slug:name>/", call),
    path("failing/", failing),
    path("connect/<slug:which>/", connect),
    path("seen/", seen),
    path("", include("shelf.urls")),
]
"""

NEEDS = "needs a thread: it gets one, now and from here on"
BLOCKED = "blocked the event loop for"


@pytest.fixture
def project(tmp_path: Path, database: Path) -> Project:
    """In production: nothing is in debug mode."""
    project = Project(
        tmp_path / "project", database, SITE_DEBUG="0", SITE_SECRET_KEY="only-for-this-test" * 4
    )
    project.write("inline_urls.py", _URLS)
    project.settings('ROOT_URLCONF = "site_project.inline_urls"')
    return project


@pytest.fixture
def server(project: Project) -> Iterator[Running]:
    with project.running("serve", "--port", "{port}") as running:
        running.until_logged("serving site_project.asgi")
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def debugged(project: Project) -> Iterator[tuple[Running, httpx.Client]]:
    """The same in debug mode."""
    project.env["RONDEL_DEBUG"] = "1"
    with project.running("serve", "--port", "{port}") as running:
        running.until_logged("serving site_project.asgi")
        with running.client() as client:
            yield running, client


@pytest.mark.parametrize("name", ["counts", "method"])
def test_an_inline_call_that_queries_is_made_again_on_a_thread(
    server: Running, client: httpx.Client, name: str
) -> None:
    assert client.get(f"/call/{name}/").text == "14"
    assert client.get("/seen/").json() == [f"{name} on the loop", f"{name} on a thread"]
    # It has left the list.
    assert client.get(f"/call/{name}/").text == "14"
    assert client.get("/seen/").json() == [f"{name} on a thread"]
    server.until_logged(NEEDS)
    assert server.log.count(NEEDS) == 1
    assert f"in {name}\n    return Book.objects.count()" in server.log
    assert "SynchronousOnlyOperation" in server.log


def test_an_inline_call_that_raises_something_else_is_made_once(
    server: Running, client: httpx.Client
) -> None:
    assert client.get("/failing/").text == "its own, by 1 call"
    assert NEEDS not in server.log


def test_a_receiver_that_queries_is_called_again_and_the_others_are_not(
    server: Running, client: httpx.Client
) -> None:
    client.get("/connect/started/")
    assert client.get("/seen/").json() == [
        "first on the loop",
        "second on the loop",
        "third on the loop",
        "second on a thread",
    ]
    # From now on the signal has a receiver that needs a thread: all get the same.
    assert client.get("/seen/").json() == [
        f"{name} on a thread" for name in ("first", "second", "third")
    ]
    assert server.log.count(NEEDS) == 1


def test_a_receiver_of_request_finished_that_queries_is_called_again_as_well(
    server: Running, client: httpx.Client
) -> None:
    client.get("/connect/finished/")
    server.until_logged(NEEDS)
    # The client may be here before the thread has made the second call.
    found = client.get("/seen/", params={"until": "second on a thread"}).json()
    assert found == [
        "first on the loop",
        "second on the loop",
        "third on the loop",
        "second on a thread",
    ]


def test_debug_mode_reports_an_inline_call_that_blocks_with_the_line_that_waits(
    debugged: tuple[Running, httpx.Client],
) -> None:
    server, client = debugged
    assert client.get("/call/sleeps/").text == "the loop"
    server.until_logged(f"site_project.inline_urls.sleeps ({server_file(server)}:")
    server.until_logged(BLOCKED)
    assert "in sleeps\n    time.sleep(0.05)" in server.log
    assert client.get("/call/sleeps/").text == "a thread"
    assert server.log.count(BLOCKED) == 1


def test_debug_mode_leaves_inline_calls_alone_that_are_quick_or_compute(
    debugged: tuple[Running, httpx.Client],
) -> None:
    server, client = debugged
    for _ in range(3):
        assert client.get("/call/quick/").text == "the loop"
        assert client.get("/call/computes/").text == "the loop"
    assert "inline_urls.quick" not in server.log
    assert "inline_urls.computes" not in server.log


def test_production_does_not_time_inline_calls(server: Running, client: httpx.Client) -> None:
    for _ in range(2):
        assert client.get("/call/sleeps/").text == "the loop"
    assert BLOCKED not in server.log


def server_file(server: Running) -> str:
    """The path of the module with the functions."""
    return str(server.log_path.parent / "site_project" / "inline_urls.py")


class TestList:
    """The list itself, in this process."""

    def test_what_was_forbidden_is_not_listed_again(self) -> None:
        from rondel.bridge.inline import allow, forbid, inline, runs_inline

        def listed() -> None: ...

        allow(listed)
        assert runs_inline(listed, (), {})
        forbid(listed)
        assert not runs_inline(listed, (), {})
        allow(listed)
        inline(listed)
        assert not runs_inline(listed, (), {})

    def test_only_the_named_exceptions_ask_for_a_thread(self) -> None:
        from rondel.bridge import inline as _  # noqa: F401
        from rondel.bridge.inline import allow, ask_for_thread, expelled, runs_inline

        def listed() -> None: ...

        class NeedsThread(Exception):
            pass

        import sys

        module = sys.modules["rondel.bridge.inline"]
        before = module._asking
        try:
            ask_for_thread(NeedsThread)
            allow(listed)
            assert not expelled(listed, ValueError())
            assert runs_inline(listed, (), {})
            assert expelled(listed, NeedsThread())
            assert not runs_inline(listed, (), {})
        finally:
            ask_for_thread(*before)

    def test_observers_see_calls_in_turn_and_none_costs_a_look_only(self) -> None:
        from collections.abc import Callable
        from typing import Any

        from rondel.bridge import observe

        seen: list[str] = []

        class Noting(observe.Observer):
            def __init__(self, name: str) -> None:
                self.name = name

            def inline(self, func: Callable[..., Any], call: Callable[[], Any]) -> Any:
                seen.append(f"{self.name} in")
                try:
                    return call()
                finally:
                    seen.append(f"{self.name} out")

        one, two = Noting("one"), Noting("two")
        before = observe.current
        observe.add(one)
        observe.add(two)
        observe.add(one)
        try:
            assert observe.current is not None
            assert observe.current.inline(len, lambda: 42) == 42
            assert seen == ["two in", "one in", "one out", "two out"]
        finally:
            observe.remove(one)
            observe.remove(two)
        assert observe.current is before


_MIDDLEWARE = """
import threading

from django.utils.deprecation import MiddlewareMixin

from site_project.inline_urls import calls, here


class Noting(MiddlewareMixin):
    def process_request(self, request):
        calls.append(f"process_request on {here()}")

    def process_response(self, request, response):
        calls.append(f"process_response on {here()}")
        return response


def listed():
    return here()
"""
_NAMED = """
MIDDLEWARE = [*MIDDLEWARE, "site_project.noting.Noting"]
RONDEL_INLINE = ["site_project.noting.Noting.process_request", "site_project.noting.listed"]
"""


def test_the_setting_names_functions_and_methods(project: Project) -> None:
    project.write("noting.py", _MIDDLEWARE)
    project.settings('ROOT_URLCONF = "site_project.inline_urls"' + _NAMED)
    with project.running("serve", "--port", "{port}") as running:
        running.until_logged("serving site_project.asgi")
        with running.client() as client:
            client.get("/call/quick/")
            found = client.get("/seen/").json()
    assert found[:2] == ["process_request on the loop", "process_response on a thread"]


@pytest.mark.parametrize(
    "name", ["nothing.of.this", "shelf.models.Nothing", "shelf.models.Book.no"]
)
@pytest.mark.parametrize("options", [(), ("--workers", "1", "--preload")], ids=["one", "preload"])
def test_a_name_that_is_not_there_is_refused(
    project: Project, name: str, options: tuple[str, ...]
) -> None:
    project.settings(f"RONDEL_INLINE = [{name!r}]")
    status, said = project.manage("serve", "--port", "0", *options)
    assert status != 0
    assert f"the project's settings: RONDEL_INLINE names {name!r}" in said
    assert "Traceback" not in said
