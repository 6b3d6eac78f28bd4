"""Middleware: every form beside every other, in MIDDLEWARE's order, on one thread, in context."""

from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import pytest

from tests.django.site_server import SiteError, SiteServer

from .conftest import Serve
from .ground import RAISED, Ground, Profile, links

FORMS = (
    "syncclass",
    "asyncclass",
    "bothclass",
    "mixin",
    "syncfunction",
    "asyncfunction",
    "bothfunction",
)


def every_pair(letters: tuple[str, ...]) -> tuple[str, ...]:
    """The shortest sequence in which each ordered pair of letters stands side by side once."""
    walk, used = [letters[0]], set[tuple[str, str]]()
    # Taking the last unused letter first, a letter's own double as the first of all, closes an
    # Eulerian circuit of the complete graph with loops; the test below proves it did.
    while True:
        last = walk[-1]
        free = [letter for letter in reversed(letters) if (last, letter) not in used]
        if not free:
            return tuple(walk)
        following = last if (last, last) not in used else free[0]
        used.add((last, following))
        walk.append(following)


MIXED = every_pair(FORMS)

CHAINS = {
    "mixed": MIXED,
    "sync": ("syncclass", "mixin", "syncfunction", "bothclass", "bothfunction", "syncclass"),
    "async": ("asyncclass", "mixin", "asyncfunction", "bothclass", "bothfunction", "asyncclass"),
    "both": ("bothclass", "mixin", "bothfunction"),
    "async-then-sync": ("asyncclass", "asyncfunction", "syncclass", "syncfunction"),
    "sync-then-async": ("syncclass", "syncfunction", "asyncclass", "asyncfunction"),
}

each_chain = pytest.mark.parametrize("chain", CHAINS)
each_view = pytest.mark.parametrize("view", ["sync", "async"])


@pytest.fixture
def site(chain: str, serve: Serve) -> Ground:
    """A server with that chain."""
    return serve(Profile(links(*CHAINS[chain])))


def test_mixed_chain_has_every_pair_of_forms() -> None:
    assert set(pairwise(MIXED)) == set(product(FORMS, repeat=2))
    assert len(MIXED) == len(FORMS) ** 2 + 1


@each_chain
@each_view
def test_middleware_runs_in_the_order_of_the_setting(chain: str, view: str, site: Ground) -> None:
    mark, response = site.marked(f"/{view}/")
    assert response.status_code == 200
    names = [f"{number:02}" for number in range(len(CHAINS[chain]))]
    events = site.events(mark=mark)
    assert [event["label"] for event in events if event["event"] == "in"] == names
    assert [event["label"] for event in events if event["event"] == "out"] == names[::-1]
    assert [event["event"] for event in events].index("view") == len(names)


@each_chain
@each_view
def test_contextvars_of_middleware_reach_the_view_and_come_back(
    chain: str, view: str, site: Ground
) -> None:
    mark, response = site.marked(f"/{view}/")
    names = [f"{number:02}" for number in range(len(CHAINS[chain]))]
    assert response.json()["trail"] == names
    for number, entered in enumerate(site.events("in", mark=mark)):
        assert entered["trail"] == names[:number]
    for left in site.events("out", mark=mark):
        assert left["trail"] == [*names, "view"]


@each_chain
@each_view
def test_contextvars_of_a_request_do_not_reach_the_next(
    chain: str, view: str, site: Ground
) -> None:
    for _ in range(3):
        mark, _response = site.marked(f"/{view}/")
        assert site.events("in", mark=mark)[0]["trail"] == []


@each_chain
@each_view
def test_sync_code_runs_on_one_thread_and_async_code_on_the_loop(
    chain: str, view: str, site: Ground
) -> None:
    mark, response = site.marked(f"/{view}/")
    events = [event for event in site.events(mark=mark) if event["event"] in ("in", "out")]
    for event in events:
        form = CHAINS[chain][int(event["label"])]
        if form.startswith("async"):
            assert event["loop"], event
        if form.startswith(("sync", "mixin")):
            assert not event["loop"], event
    assert response.json()["loop"] == (view == "async")
    everything = [*events, response.json()]
    assert len({event["thread"] for event in everything if not event["loop"]}) <= 1
    assert len({event["thread"] for event in everything if event["loop"]}) <= 1


@each_chain
@each_view
def test_an_exception_becomes_one_response_that_all_middleware_sees(
    chain: str, view: str, site: Ground
) -> None:
    mark, response = site.marked(f"/{view}/raise/error/")
    assert (response.status_code, response.json()["handler"]) == (500, 500)
    left = site.events("out", mark=mark)
    assert [event["status"] for event in left] == [500] * len(CHAINS[chain])
    assert site.signals() == RAISED


# -- ends before the view, and beyond it


@pytest.mark.parametrize("stop", ["short_circuit_sync", "short_circuit_async"])
def test_short_circuit_answers_without_the_view_and_the_rest(serve: Serve, stop: str) -> None:
    chain = (
        *links("syncclass", "asyncclass"),
        f"rules_site.middleware.{stop}",
        "rules_site.middleware.link_99_mixin",
    )
    site = serve(Profile(chain))
    mark, response = site.marked("/sync/?stop")
    assert (response.status_code, response.text) == (203, "stopped")
    assert [(e["event"], e["label"]) for e in site.events(mark=mark)] == [
        *(("in", "00"), ("in", "01")),
        *(("out", "01"), ("out", "00")),
    ]
    mark, response = site.marked("/async/")
    assert response.status_code == 200
    assert [e["label"] for e in site.events("in", mark=mark)] == ["00", "01", "99"]


RAISING = (
    *links("bothclass"),
    "rules_site.middleware.raise_sync",
    "rules_site.middleware.link_01_mixin",
    "rules_site.middleware.raise_async",
    "rules_site.middleware.link_02_bothfunction",
)


@each_view
@pytest.mark.parametrize("moment", ["before", "after", "async-before", "async-after"])
def test_an_exception_of_middleware_is_a_response_to_those_outside(
    serve: Serve, view: str, moment: str
) -> None:
    site = serve(Profile(RAISING))
    mark, response = site.marked(f"/{view}/?raise={moment}")
    assert (response.status_code, response.json()["handler"]) == (500, 500)
    outside = ["00"] if not moment.startswith("async") else ["01", "00"]
    inside = {"before": [], "after": ["02", "01"], "async-before": [], "async-after": ["02"]}
    left = [(event["label"], event["status"]) for event in site.events("out", mark=mark)]
    assert left == [
        *((label, 200) for label in inside[moment]),
        *((label, 500) for label in outside),
    ]
    assert bool(site.events("view", mark=mark)) == moment.endswith("after")
    assert site.signals() == RAISED


def test_middleware_not_used_leaves_no_gap(serve: Serve) -> None:
    chain = (*links("syncclass"), "rules_site.middleware.unused", "rules_site.middleware.unused")
    site = serve(Profile((*chain, "rules_site.middleware.link_02_asyncclass")))
    for view in ("sync", "async"):
        mark, response = site.marked(f"/{view}/")
        assert response.json()["trail"] == ["00", "02"]
        assert [e["label"] for e in site.events("out", mark=mark)] == ["02", "00"]


@pytest.mark.parametrize(
    ("middleware", "reason"),
    [("broken", "DeliberateError: a middleware's factory"), ("nothing", "returned None")],
)
def test_middleware_that_cannot_be_made_ends_the_start_and_says_so(
    own: Callable[..., SiteServer], middleware: str, reason: str
) -> None:
    server = own(Profile((f"rules_site.middleware.{middleware}",)))
    with pytest.raises(SiteError, match=r"ended with [1-9]") as caught:
        server.start()
    assert reason in str(caught.value)


# -- hooks


HOOKS = (
    "rules_site.middleware.hooks_a_sync",
    "rules_site.middleware.hooks_b_async",
    "rules_site.middleware.hooks_c_sync",
    "rules_site.middleware.hooks_d_async",
)


@pytest.fixture
def hooked(serve: Serve) -> Ground:
    """Four classes with all hooks, sync and async in turn."""
    return serve(Profile(HOOKS))


def labels(site: Ground, event: str, mark: str) -> str:
    return "".join(found["label"] for found in site.events(event, mark=mark))


@each_view
def test_process_view_runs_in_order_and_sees_the_view(hooked: Ground, view: str) -> None:
    mark, response = hooked.marked(f"/{view}/päth/x/")
    assert response.status_code == 200
    assert labels(hooked, "process_view", mark) == "abcd"
    for event in hooked.events("process_view", mark=mark):
        assert event["view"] == f"{view}_facts" and event["kwargs"] == {"name": "x"}


@each_view
@pytest.mark.parametrize("who", "abcd")
def test_process_view_that_answers_spares_the_view(hooked: Ground, view: str, who: str) -> None:
    mark, response = hooked.marked(f"/{view}/?{who}=view")
    assert (response.status_code, response.text) == (202, f"{who} answered in process_view")
    assert labels(hooked, "process_view", mark) == "abcd"[: "abcd".index(who) + 1]
    assert labels(hooked, "out", mark) == "dcba"
    assert not hooked.events("view", mark=mark)


@each_view
@pytest.mark.parametrize("who", "abcd")
def test_process_exception_runs_inside_out_until_one_answers(
    hooked: Ground, view: str, who: str
) -> None:
    mark, response = hooked.marked(f"/{view}/raise/error/?{who}=exception")
    assert (response.status_code, response.text) == (202, f"{who} answered in process_exception")
    asked = labels(hooked, "process_exception", mark)
    assert asked == "dcba"[: "dcba".index(who) + 1]
    assert hooked.events("process_exception", mark=mark)[0]["error"] == "DeliberateError"
    # A handled exception is no request's exception.
    assert hooked.signals()["exception"] == 0


@each_view
def test_process_exception_that_nobody_answers_is_an_error(hooked: Ground, view: str) -> None:
    mark, response = hooked.marked(f"/{view}/raise/error/")
    assert response.status_code == 500
    assert labels(hooked, "process_exception", mark) == "dcba"
    assert hooked.signals() == RAISED


@each_view
def test_process_template_response_runs_inside_out_before_rendering(
    hooked: Ground, view: str
) -> None:
    mark, response = hooked.marked(f"/{view}/template/reader/")
    assert response.text == "hello d c b a, reader"
    assert labels(hooked, "process_template_response", mark) == "dcba"
    assert labels(hooked, "out", mark) == "dcba"


@each_view
def test_process_template_response_is_for_responses_that_render(hooked: Ground, view: str) -> None:
    mark, _response = hooked.marked(f"/{view}/")
    assert not hooked.events("process_template_response", mark=mark)


@each_view
def test_hooks_run_where_their_form_says(hooked: Ground, view: str) -> None:
    mark, _response = hooked.marked(f"/{view}/template/x/")
    events: list[dict[str, Any]] = [
        *hooked.events("process_view", mark=mark),
        *hooked.events("process_template_response", mark=mark),
    ]
    assert len(events) == 8
    for event in events:
        assert event["loop"] == (event["label"] in "bd"), event
    assert len({event["thread"] for event in events if not event["loop"]}) == 1


# -- Django's own


DEFAULT = (
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
)


@each_view
def test_default_middleware_does_its_work(serve: Serve, view: str) -> None:
    site = serve(Profile(DEFAULT))
    response = site.get(f"/{view}/")
    assert response.status_code == 200
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-length"] == str(len(response.content))
    moved = site.get(f"/{view}")
    assert (moved.status_code, moved.headers["location"]) == (301, f"/{view}/")
    forbidden = site.client.post(f"/{view}/", data={"a": "b"})
    assert forbidden.status_code == 403
