"""SQLite: atomic requests, and connections that belong to a thread and live as the settings say."""

import uuid

import pytest

from .conftest import Serve
from .ground import RAISED, THREADS, Event, Ground, Profile, links

each_view = pytest.mark.parametrize("view", ["sync", "async"])
CHAINS = [(), ("mixin", "syncclass"), ("syncclass", "asyncclass", "mixin")]
each_chain = pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "-".join(chain) or "none")

PER_REQUEST = "a thread of its own for each request: no connection outlives one"


def atomic(*forms: str) -> Profile:
    return Profile(links(*forms), database={"ATOMIC_REQUESTS": True})


def count(site: Ground, name: str) -> int:
    rows: int = site.facts(f"/entries/?name={name}")["count"]
    return rows


def owners(events: list[Event]) -> dict[int, int]:
    return {event["connection"]: event["thread"] for event in events}


def name() -> str:
    return uuid.uuid4().hex


# -- ATOMIC_REQUESTS


@each_chain
def test_atomic_request_commits_when_the_view_returns(serve: Serve, chain: tuple[str, ...]) -> None:
    site, row = serve(atomic(*chain)), name()
    response = site.client.post(f"/sync/write/?name={row}")
    assert (response.status_code, response.json()) == (201, {"atomic": True})
    assert count(site, row) == 1


@each_chain
def test_atomic_request_rolls_back_when_the_view_raises(
    serve: Serve, chain: tuple[str, ...]
) -> None:
    site, row = serve(atomic(*chain)), name()
    assert site.client.post(f"/sync/write/?name={row}&fail").status_code == 500
    assert site.signals() == RAISED
    assert count(site, row) == 0


def test_rollback_of_a_view_spares_what_process_exception_does(serve: Serve) -> None:
    """The transaction ends with the view; the hook that handles the exception is outside."""
    chain = ("rules_site.middleware.hooks_a_sync",)
    site, row = serve(Profile(chain, database={"ATOMIC_REQUESTS": True})), name()
    response = site.client.post(f"/sync/write/?name={row}&fail&a=exception")
    assert response.status_code == 202
    assert count(site, row) == 0


@each_chain
def test_view_that_is_marked_is_not_atomic(serve: Serve, chain: tuple[str, ...]) -> None:
    site, row = serve(atomic(*chain)), name()
    assert site.client.post(f"/sync/write/unbound/?name={row}&fail").status_code == 500
    assert count(site, row) == 1


@each_chain
def test_async_view_cannot_be_atomic(serve: Serve, chain: tuple[str, ...]) -> None:
    site, row = serve(atomic(*chain)), name()
    assert site.client.post(f"/async/write/?name={row}").status_code == 500
    assert "You cannot use ATOMIC_REQUESTS with async views." in site.server.log()
    assert count(site, row) == 0
    assert site.client.post(f"/async/write/unbound/?name={row}").status_code == 201
    assert count(site, row) == 1


@each_view
def test_without_atomic_requests_a_failing_view_keeps_what_it_wrote(
    plain: Ground, view: str
) -> None:
    row = name()
    if view == "sync":
        assert plain.client.post(f"/sync/write/?name={row}&fail").status_code == 500
    else:
        assert plain.client.post(f"/async/write/?name={row}").status_code == 201
    assert count(plain, row) == 1


# -- connections


@each_view
@each_chain
def test_connection_closes_after_the_request_on_its_own_thread(
    serve: Serve, chain: tuple[str, ...], view: str
) -> None:
    """CONN_MAX_AGE=0. sqlite3 would refuse a close on another thread."""
    site = serve(Profile(links(*chain), database={"CONN_MAX_AGE": 0}))
    for _ in range(3):
        site.facts(f"/{view}/backend/")
    # A response is there before its request is over, so closes may change places.
    opened, closed = site.wait("db-opened", 3), site.wait("db-closed", 3)
    assert owners(opened) == owners(closed)
    assert len(owners(opened)) == 3


@each_view
def test_connection_is_the_same_in_all_calls_of_a_request(plain: Ground, view: str) -> None:
    _mark, response = plain.marked(f"/{view}/backend/")
    facts = response.json()
    assert facts.get("again", facts)["connection"] == facts["connection"]
    assert len(plain.events("db-opened")) == 1


@each_view
@each_chain
@pytest.mark.stock_breaks(PER_REQUEST)
def test_connection_persists_on_its_thread(serve: Serve, chain: tuple[str, ...], view: str) -> None:
    """CONN_MAX_AGE=None: as many connections as threads, however many requests."""
    site = serve(Profile(links(*chain), database={"CONN_MAX_AGE": None}))
    facts = [site.facts(f"/{view}/backend/") for _ in range(3 * THREADS)]
    by_thread: dict[int, set[int]] = {}
    for place in facts:
        place = place.get("again", place)
        by_thread.setdefault(place["thread"], set()).add(place["connection"])
    assert len(by_thread) <= THREADS
    assert all(len(connections) == 1 for connections in by_thread.values())
    assert not site.events("db-closed")


@each_view
@pytest.mark.stock_breaks(PER_REQUEST)
def test_connection_older_than_its_age_is_replaced(serve: Serve, view: str) -> None:
    """An age that is over by the end of any request: it closes, and the thread stays."""
    site = serve(Profile(links("mixin"), database={"CONN_MAX_AGE": 1e-9}))
    facts = [site.facts(f"/{view}/backend/") for _ in range(3 * THREADS)]
    site.wait("db-closed", 3 * THREADS)
    assert len({place["connection"] for place in facts}) == 3 * THREADS
    assert len({place.get("again", place)["thread"] for place in facts}) <= THREADS
