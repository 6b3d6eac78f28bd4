"""`thread_sensitive`: one thread for a request's sync code, few for all; contexts kept apart."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from .conftest import Serve
from .ground import THREADS, Gate, Ground, Profile, links, new_mark, read_until

each_view = pytest.mark.parametrize("view", ["sync", "async"])
CHAINS = [(), ("mixin", "syncclass"), ("syncclass", "asyncclass")]
each_chain = pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "-".join(chain) or "none")


def test_sync_calls_of_an_async_view_run_on_one_thread(plain: Ground) -> None:
    facts = plain.facts("/async/threads/")
    sensitive = [*facts["sequence"], *facts["at_once"]]
    assert not any(call["loop"] for call in sensitive)
    assert len({call["thread"] for call in sensitive}) == 1
    assert facts["loop"]
    assert facts["thread"] != sensitive[0]["thread"]


def test_nested_bridges_come_back_to_the_same_thread(plain: Ground) -> None:
    facts = plain.facts("/async/threads/")
    outer, loop, inner, outer_again = facts["nested"]
    assert loop == {"thread": facts["thread"], "loop": True}
    assert outer["thread"] == inner["thread"] == outer_again["thread"]
    assert outer["thread"] == facts["sequence"][0]["thread"]


def test_insensitive_calls_run_off_the_loop(plain: Ground) -> None:
    assert not plain.facts("/async/threads/")["insensitive"]["loop"]


@each_chain
def test_async_code_of_a_sync_view_runs_on_the_servers_loop(
    serve: Serve, chain: tuple[str, ...]
) -> None:
    site = serve(Profile(links(*chain)))
    facts = site.facts("/sync/threads/")
    before, sync, after = facts["inside"]
    assert before == after
    assert before["loop"] and not sync["loop"]
    assert sync["thread"] == facts["thread"]
    assert before["thread"] == site.facts("/async/")["thread"]


@each_chain
@each_view
def test_all_sync_code_of_a_request_runs_on_one_thread(
    serve: Serve, view: str, chain: tuple[str, ...]
) -> None:
    """Signals' receivers, middleware, view, ORM calls: everything that says where it runs."""
    site = serve(Profile(links(*chain)))
    _mark, response = site.marked(f"/{view}/backend/")
    site.wait("finished")
    facts = response.json()
    places = [*site.events(), facts, facts.get("again", facts)]
    threads = {place["thread"] for place in places if not place["loop"]}
    assert len(threads) == 1, places
    assert {"started", "finished", "db-opened"} <= {event["event"] for event in site.events()}


@each_view
def test_concurrent_requests_have_threads_of_their_own(
    plain: Ground, gates: Callable[[], Gate], view: str
) -> None:
    """Two views that hold their threads do not wait for each other."""
    gate = gates()
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(plain.sent(f"/hold/?gate={gate.path}"))
        held = plain.wait("holding", 2)
        assert len({event["thread"] for event in held}) == 2
        # A third request's sync code is not held up either.
        assert plain.facts(f"/{view}/threads/")
        gate.open(2)
    plain.wait("finished", 3)


@pytest.mark.bounded_threads
@pytest.mark.parametrize("path", ["/sync/", "/clean-context/", "/async/threads/"])
@each_chain
def test_many_requests_use_no_more_threads_than_allowed(
    serve: Serve, path: str, chain: tuple[str, ...]
) -> None:
    site = serve(Profile(links(*chain)))
    with ThreadPoolExecutor(16) as clients:
        for status in clients.map(lambda _: site.get(path).status_code, range(160)):
            assert status == 200
    site.wait("finished", 160)
    threads = {event["thread"] for event in site.events() if not event["loop"]}
    assert 1 <= len(threads) <= THREADS


@pytest.mark.bounded_threads
def test_requests_beyond_the_threads_wait_and_are_answered(plain: Ground, gate: Gate) -> None:
    count = 3 * THREADS
    with ExitStack() as stack:
        socks = [stack.enter_context(plain.sent(f"/hold/?gate={gate.path}")) for _ in range(count)]
        plain.wait("holding", THREADS)
        gate.open(count)
        for sock in socks:
            read_until(sock, b'"loop": false')
    threads = {event["thread"] for event in plain.wait("holding", count)}
    assert len(threads) <= THREADS


@each_view
def test_contextvars_cross_a_bridge_both_ways(plain: Ground, view: str) -> None:
    assert plain.facts(f"/{view}/context/") == {"down": ["view"], "up": ["view", "below"]}


def test_contextvars_of_a_request_are_gone_when_its_thread_serves_another(plain: Ground) -> None:
    for _ in range(3 * THREADS):
        assert plain.facts("/clean-context/")["seen"] == []


@each_view
def test_contextvars_of_a_running_request_do_not_reach_one_that_arrives(
    plain: Ground, gate: Gate, view: str
) -> None:
    """The loop is busy with a task when the request arrives, so it never comes to rest between."""
    with plain.sent(f"/spin/?gate={gate.path}", mark=new_mark()) as sock:
        plain.wait("spinning")
        try:
            trails = [plain.facts(f"/{view}/")["trail"] for _ in range(5)]
        finally:
            gate.open()
        read_until(sock, b"spinner")
    assert trails == [[]] * 5


@each_view
def test_contexts_of_concurrent_requests_are_their_own(
    alone: Callable[..., Ground], view: str
) -> None:
    chain = links("mixin", "asyncclass", "syncclass")
    site = alone(Profile(chain))
    with ThreadPoolExecutor(8) as clients:
        for response in clients.map(lambda _: site.get(f"/{view}/"), range(80)):
            assert response.status_code == 200
            assert response.json()["trail"] == ["00", "01", "02"]
