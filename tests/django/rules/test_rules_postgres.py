"""PostgreSQL: how many connections there are, whose they are, and how they heal."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import django
import pytest

from tests.django.site_server import until

from .cluster import Postgres
from .conftest import Serve
from .ground import THREADS, Gate, Ground, Profile, from_django_5, links, new_mark, read_until

each_view = pytest.mark.parametrize("view", ["sync", "async"])
CHAIN = ("mixin", "syncclass")

PER_REQUEST = "a thread of its own for each request: no connection outlives one"

Site = tuple[Ground, str]
Connected = Callable[..., Site]


@pytest.fixture
def connected(serve: Serve, postgres: Postgres) -> Connected:
    """A server on PostgreSQL with these settings, and the name that its connections bear."""

    def make(**more: Any) -> Site:
        named = {**more, "OPTIONS": "+".join(more.get("OPTIONS", {}))}
        application = "rules-" + "-".join(f"{key}={value}" for key, value in named.items()).lower()
        settings = postgres.settings_for(application, **more)
        profile = Profile(links(*CHAIN), database=settings)
        return serve(profile), application

    return make


@each_view
def test_connection_is_gone_after_the_request(
    connected: Connected, postgres: Postgres, view: str
) -> None:
    """CONN_MAX_AGE=0."""
    site, application = connected(CONN_MAX_AGE=0)
    pids = {site.facts(f"/{view}/backend/")["pid"] for _ in range(5)}
    assert len(pids) == 5
    until(lambda: postgres.backends(application) == [], "all connections are closed")
    opened, closed = site.wait("db-opened", 5), site.wait("db-closed", 5)
    assert sorted((e["connection"], e["thread"]) for e in opened) == sorted(
        (e["connection"], e["thread"]) for e in closed
    )


@each_view
@pytest.mark.stock_breaks(PER_REQUEST)
def test_backend_process_is_kept_from_request_to_request(
    connected: Connected, postgres: Postgres, view: str
) -> None:
    site, application = connected(CONN_MAX_AGE=None)
    by_thread: dict[int, set[int]] = {}
    for _ in range(3 * THREADS):
        place = site.facts(f"/{view}/backend/")
        place = place.get("again", place)
        by_thread.setdefault(place["thread"], set()).add(place["pid"])
    assert all(len(pids) == 1 for pids in by_thread.values())
    assert len(by_thread) <= THREADS
    assert set().union(*by_thread.values()) <= set(postgres.backends(application))


@pytest.mark.bounded_threads
@each_view
@pytest.mark.parametrize("age", [0, None])
def test_connections_under_load_are_never_more_than_the_threads(
    connected: Connected, postgres: Postgres, view: str, age: int | None
) -> None:
    site, application = connected(CONN_MAX_AGE=age)
    most = 0
    with ThreadPoolExecutor(24) as clients:
        answers = [clients.submit(site.get, f"/{view}/backend/") for _ in range(240)]
        while not all(answer.done() for answer in answers):
            most = max(most, len(postgres.backends(application)))
    assert {answer.result().status_code for answer in answers} == {200}
    # PostgreSQL takes a moment to notice that a connection was closed, while its thread may have
    # opened the next one.
    leaving = THREADS if age == 0 else 0
    assert 1 <= most <= THREADS + leaving
    # What the samples may have missed, the server's own account has not.
    assert len({event["thread"] for event in site.events("db-opened")}) <= THREADS


@each_view
def test_load_is_answered_and_leaves_no_transaction_open(
    alone: Callable[..., Ground], postgres: Postgres, view: str
) -> None:
    application = f"rules-load-{view}"
    settings = postgres.settings_for(application, CONN_MAX_AGE=0)
    site = alone(Profile(links(*CHAIN), database=settings))
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: site.get(f"/{view}/backend/"), range(40)))
    assert {answer.status_code for answer in answers} == {200}
    assert postgres.idle_in_transaction(application) == 0


@pytest.mark.skipif(django.VERSION < (5, 1), reason="Django has pools from 5.1 on")
@each_view
def test_connections_of_a_pool_go_back_to_it_after_the_request(
    connected: Connected, postgres: Postgres, view: str
) -> None:
    """Fewer of them than threads: a request that kept one would let others wait until they fail."""
    pytest.importorskip("psycopg_pool", reason="psycopg's pool is not installed")
    pool = {"min_size": 1, "max_size": THREADS - 1, "timeout": 10}
    site, application = connected(CONN_MAX_AGE=0, OPTIONS={"pool": pool})
    with ThreadPoolExecutor(24) as clients:
        answers = list(clients.map(lambda _: site.get(f"/{view}/backend/"), range(120)))
    assert {answer.status_code for answer in answers} == {200}
    assert 1 <= len(postgres.backends(application)) <= THREADS - 1
    assert postgres.idle_in_transaction(application) == 0


@each_view
def test_killed_connection_heals_with_health_checks(
    connected: Connected, postgres: Postgres, view: str
) -> None:
    site, application = connected(CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True)
    for _ in range(2 * THREADS):
        site.facts(f"/{view}/backend/")
    postgres.kill(application)
    for _ in range(2 * THREADS):
        assert site.get(f"/{view}/backend/").status_code == 200


@each_view
def test_killed_connection_without_health_checks_costs_a_request_a_thread_at_most(
    alone: Callable[..., Ground], postgres: Postgres, view: str
) -> None:
    """In a server of its own: a thread that no further request came to still has a dead one."""
    application = f"rules-killed-{view}"
    settings = postgres.settings_for(application, CONN_MAX_AGE=None)
    site = alone(Profile(links(*CHAIN), database=settings))
    for _ in range(2 * THREADS):
        site.facts(f"/{view}/backend/")
    assert postgres.kill(application) >= 1
    answers = [site.get(f"/{view}/backend/").status_code for _ in range(4 * THREADS)]
    assert answers.count(500) <= THREADS
    assert answers.count(200) == len(answers) - answers.count(500)


def test_connection_killed_during_a_request_costs_that_request_alone(
    connected: Connected, postgres: Postgres, gate: Gate
) -> None:
    site, application = connected(CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True)
    mark = new_mark()
    with site.sent(f"/async/backend/?gate={gate.path}", mark=mark) as sock:
        site.wait("holding", mark=mark)
        assert postgres.kill(application) >= 1
        gate.open()
        assert b" 500 " in read_until(sock, b"\r\n\r\n").partition(b"\r\n")[0]
    for _ in range(2 * THREADS):
        assert site.get("/async/backend/").status_code == 200


@pytest.mark.parametrize("commit", ["yes", "no"])
def test_transaction_over_several_calls_is_its_requests_own(
    connected: Connected, postgres: Postgres, gate: Gate, commit: str
) -> None:
    """Opened in one sync_to_async call and closed in another, with other requests between."""
    site, application = connected(CONN_MAX_AGE=0)
    mark, ours, theirs = new_mark(), new_mark(), new_mark()
    with site.sent(f"/split/?name={ours}&commit={commit}&gate={gate.path}", mark=mark) as sock:
        site.wait("in-transaction", mark=mark)
        assert site.client.post(f"/sync/write/?name={theirs}").status_code == 201
        assert site.client.post(f"/async/write/?name={theirs}").status_code == 201
        # Theirs are committed, ours is seen by nobody.
        assert site.facts(f"/entries/?name={theirs}")["count"] == 2
        assert site.facts(f"/entries/?name={ours}")["count"] == 0
        assert postgres.idle_in_transaction(application) == 1
        gate.open()
        answer = read_until(sock, b'"ended"').decode()
    assert " 200 " in answer.partition("\r\n")[0]
    assert site.facts(f"/entries/?name={ours}")["count"] == (commit == "yes")
    assert site.facts(f"/entries/?name={theirs}")["count"] == 2
    assert postgres.idle_in_transaction(application) == 0


@from_django_5
def test_transaction_left_open_is_not_handed_to_the_next_request(
    connected: Connected, postgres: Postgres, gate: Gate
) -> None:
    """The client leaves within it: nothing is committed, no connection stays in it."""
    site, application = connected(CONN_MAX_AGE=0)
    mark, ours = new_mark(), new_mark()
    with site.sent(f"/split/?name={ours}&commit=yes&gate={gate.path}", mark=mark):
        site.wait("in-transaction", mark=mark)
    until(lambda: postgres.idle_in_transaction(application) == 0, "the transaction has ended")
    assert site.facts(f"/entries/?name={ours}")["count"] == 0
    assert site.client.post(f"/sync/write/?name={ours}").status_code == 201
    assert site.facts(f"/entries/?name={ours}")["count"] == 1
