"""Hooks of the async chain: listed ones are called on the loop, all others as before."""

import json
from pathlib import Path

import pytest

from .project_copy import Project, needs_rondel

pytestmark = needs_rondel

_SEEN = """
import threading

from django.http import JsonResponse
from django.urls import path

calls = []


def note(what):
    here = "the loop" if threading.current_thread() is threading.main_thread() else "a thread"
    calls.append(f"{what} on {here}")


async def seen(request):
    calls.append("view")
    return JsonResponse(calls, safe=False)


urlpatterns = [path("seen/", seen)]
"""

_MIDDLEWARE = """
from asgiref.sync import SyncToAsync
from django.http import HttpResponse
from django.utils.deprecation import MiddlewareMixin
from shelf.models import Book

from site_project.seen import calls, note


class Listed(MiddlewareMixin):
    def process_request(self, request):
        note("listed request")

    def process_response(self, request, response):
        note("listed response")
        return response


class Unlisted(MiddlewareMixin):
    def process_request(self, request):
        note("unlisted request")

    def process_response(self, request, response):
        note("unlisted response")
        return response


class Queries(MiddlewareMixin):
    def process_request(self, request):
        note("queries")
        Book.objects.count()


class Answers(MiddlewareMixin):
    def process_request(self, request):
        note("answers")
        return HttpResponse(f"answered after {len(calls)}")


class Own(MiddlewareMixin):
    async def __acall__(self, request):
        note("its own")
        return await self.get_response(request)

    def process_request(self, request):
        note("not called")


class Spying(MiddlewareMixin):
    # Somebody who wants to see all calls of the bridge.
    def __init__(self, get_response):
        super().__init__(get_response)
        original = SyncToAsync.__call__
        if original.__name__ == "spy":
            return

        async def spy(self, *args, **kwargs):
            calls.append(f"bridge: {self.func.__qualname__}")
            return await original(self, *args, **kwargs)

        SyncToAsync.__call__ = spy
"""


@pytest.fixture
def project(tmp_path: Path, database: Path) -> Project:
    project = Project(
        tmp_path / "project", database, SITE_DEBUG="0", SITE_SECRET_KEY="only-for-this-test" * 4
    )
    project.write("seen.py", _SEEN)
    project.write("hooks.py", _MIDDLEWARE)
    return project


def calls(project: Project, *classes: str, listed: tuple[str, ...] = (), times: int = 1) -> str:
    """What was called with these classes as inner middleware until the last view of so many."""
    project.settings(
        'ROOT_URLCONF = "site_project.seen"\n'
        f"MIDDLEWARE = [*MIDDLEWARE, *{[f'site_project.hooks.{name}' for name in classes]}]\n"
        f"RONDEL_INLINE = {[f'site_project.hooks.{name}' for name in listed]}"
    )
    with project.running("serve", "--port", "{port}") as running:
        running.until_logged("serving site_project.asgi")
        with running.client() as client:
            return [client.get("/seen/").text for _ in range(times)][-1]


LISTED = ("Listed.process_request", "Listed.process_response")


def test_listed_hooks_are_called_on_the_loop_and_others_on_a_thread(project: Project) -> None:
    found = json.loads(calls(project, "Listed", "Unlisted", listed=LISTED, times=2))
    before = ["listed request on the loop", "unlisted request on a thread", "view"]
    assert found == [
        *before,
        "unlisted response on a thread",
        "listed response on the loop",
        *before,
    ]


def test_a_listed_hook_that_queries_is_called_again_on_a_thread(project: Project) -> None:
    found = json.loads(calls(project, "Queries", listed=("Queries.process_request",), times=2))
    again = ["queries on a thread", "view"]
    assert found == ["queries on the loop", *again, *again]


@pytest.mark.parametrize("listed", [(), ("Answers.process_request",)])
def test_a_hook_that_answers_ends_the_chain(project: Project, listed: tuple[str, ...]) -> None:
    found = calls(project, "Listed", "Answers", "Unlisted", listed=(*LISTED, *listed))
    assert found == "answered after 2"


def test_a_middlewares_own_way_through_stays(project: Project) -> None:
    found = json.loads(calls(project, "Own", listed=("Own.process_request",)))
    assert found == ["its own on the loop", "view"]


def test_who_replaces_the_bridges_call_sees_each_hook(project: Project) -> None:
    found = json.loads(calls(project, "Spying", "Listed", listed=LISTED))
    assert found[-4:] == [
        "bridge: Listed.process_request",
        "listed request on the loop",
        "bridge: CsrfViewMiddleware.process_view",
        "view",
    ]
