"""The forecast of a request's view: what it remembers of paths, and what it must not."""

import json
import subprocess
import sys
from typing import Any

import pytest

from .project_copy import needs_rondel
from .site_server import PATIENCE

pytestmark = needs_rondel

_PROJECT = """
import json
import sys
from types import ModuleType

from django.conf import settings

settings.configure(ROOT_URLCONF="urls", ALLOWED_HOSTS=["*"], USE_I18N=False, DATABASES={})
import django

django.setup()
from django.urls import URLPattern, clear_url_caches, get_resolver, path
from django.urls.resolvers import RoutePattern
from rondel.django.resolve import KEY, MOST, Forecast


def first(request, **captured): ...


async def second(request, **captured): ...


def urls(*patterns):
    sys.modules["urls"] = ModuleType("urls")
    sys.modules["urls"].urlpatterns = list(patterns)
    clear_url_caches()


forecast = Forecast()


def ask(at):
    scope = {"path": at}
    kind = forecast.kind(scope)
    return kind.value, scope[KEY][0] if KEY in scope else None


told = {}
urls(path("books/<int:number>/", first, {"shelf": 1}, name="book"))
(_, one), (_, other) = ask("/books/3/"), ask("/books/3/")
one.kwargs.clear()
one.captured_kwargs.clear()
one.extra_kwargs["shelf"] = 2
_, third = ask("/books/3/")
told["same view"] = one is not other and other.func is third.func is first
told["of others"] = [each.kwargs for each in (other, third)]
new = get_resolver().resolve("/books/3/")
told["attributes"] = [
    {name: repr(value) for name, value in vars(each).items()} for each in (third, new)
]

urls(path("books/<int:number>/", second))
told["other URLconf"] = [ask("/books/3/")[0], ask("/books/3/")[0]]

told["nowhere"] = ask("/nowhere/")
urls(path("nowhere/", second))
told["nowhere, then somewhere"] = ask("/nowhere/")[0]

urls(path("<int:number>/", first))
for number in range(3 * MOST):
    ask(f"/{number}/")
told["remembered"] = [len(forecast._known[1]), MOST]


class Moody(RoutePattern):
    moods = 0

    def match(self, path):
        Moody.moods += 1
        return super().match(path) if Moody.moods % 2 else None


urls(URLPattern(Moody("mood/", is_endpoint=True), second), path("mood/", first))
told["a pattern of one's own"] = [ask("/mood/")[0] for _ in range(4)]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What a process's forecasts were, by the name of what was asked."""
    done = subprocess.run(
        [sys.executable, "-c", _PROJECT], capture_output=True, text=True, timeout=PATIENCE * 3
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_what_a_request_does_to_its_match_is_not_seen_by_the_next(told: dict[str, Any]) -> None:
    assert told["same view"] is True
    assert told["of others"] == [{"number": 3, "shelf": 1}] * 2


def test_a_remembered_match_has_all_that_a_new_one_has(told: dict[str, Any]) -> None:
    remembered, new = told["attributes"]
    assert remembered == new
    assert {"func", "route", "url_name", "tried", "view_name"} <= {*new}


def test_another_urlconf_leads_to_its_own_views(told: dict[str, Any]) -> None:
    assert told["other URLconf"] == ["async", "async"]


def test_a_path_that_led_nowhere_is_looked_for_again(told: dict[str, Any]) -> None:
    assert told["nowhere"] == ["sync", None]
    assert told["nowhere, then somewhere"] == "async"


def test_no_more_than_some_paths_are_remembered(told: dict[str, Any]) -> None:
    remembered, most = told["remembered"]
    assert 0 < remembered <= most


def test_a_pattern_of_ones_own_is_asked_each_time(told: dict[str, Any]) -> None:
    assert told["a pattern of one's own"] == ["async", "sync", "async", "sync"]
