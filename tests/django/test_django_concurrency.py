"""The ways of concurrency inside views: what overlaps, what is cancelled, what is left alone."""

from typing import Any

import httpx
import pytest


def run(client: httpx.Client, slug: str) -> dict[str, Any]:
    """Run one way and return its report."""
    response = client.get(f"/ways/{slug}/", params={"format": "json"})
    assert response.status_code == 200
    report: dict[str, Any] = response.json()
    return report


def outcomes(report: dict[str, Any]) -> dict[str, str]:
    """How each span ended."""
    return {span["label"]: span["outcome"] for span in report["spans"]}


def test_gather_takes_as_long_as_the_slowest_not_as_the_sum(client: httpx.Client) -> None:
    report = run(client, "gather")
    # The sleeps: 0.3, 0.4 and 0.5 s. Elapsed time on the client's side bounds the server's.
    assert report["one_after_another"] >= 1.19
    assert 0.49 <= report["elapsed"] < 1.1
    assert set(outcomes(report).values()) == {"done"}
    assert report["said"][0] == "weather, news, prices"
    assert report["said"][1].startswith("14 books, ")


def test_gather_page_is_complete(client: httpx.Client) -> None:
    response = client.get("/ways/gather/")
    assert 0.49 <= response.elapsed.total_seconds() < 1.1
    assert "如何并发多个协程" in response.text
    assert "await asyncio.gather(" in response.text


@pytest.mark.parametrize("slug", ["create-task", "task-group"])
def test_tasks_overlap(client: httpx.Client, slug: str) -> None:
    report = run(client, slug)
    assert report["one_after_another"] >= 0.79
    assert 0.49 <= report["elapsed"] < 0.78
    assert set(outcomes(report).values()) == {"done"}


def test_failing_task_cancels_its_group(client: httpx.Client) -> None:
    report = run(client, "task-group-failing")
    assert outcomes(report) == {"fails after 0.2 s": "failed", "would need 1 s": "cancelled"}
    assert report["said"] == ["caught: the service hung up"]
    assert report["elapsed"] < 0.9


def test_as_completed_yields_the_quickest_first(client: httpx.Client) -> None:
    said = run(client, "as-completed")["said"]
    assert [line.split()[0] for line in said] == ["news", "weather", "prices"]


def test_wait_leaves_the_pending_running(client: httpx.Client) -> None:
    report = run(client, "wait")
    assert report["said"] == ["done: news, weather", "pending: prices", "later: prices"]
    assert set(outcomes(report).values()) == {"done"}


def test_timeout_cancels_what_is_awaited(client: httpx.Client) -> None:
    report = run(client, "timeout")
    assert outcomes(report) == {"quick, 0.2 s": "done", "slow, 1 s": "cancelled"}
    assert report["said"][0] == "quick"
    assert report["said"][1].startswith("timed out after 0.")
    assert 0.39 <= report["elapsed"] < 0.9


def test_loop_ticks_while_a_thread_blocks(client: httpx.Client) -> None:
    report = run(client, "to-thread")
    assert report["said"][0] == "blocking call returned"
    ticks = int(report["said"][1].split()[3])
    # Half a second of 0.05 s ticks is nine or ten; a blocked loop would make none.
    assert 3 <= ticks <= 10


def test_unknown_way_is_not_found(client: httpx.Client) -> None:
    assert client.get("/ways/no-such-way/").status_code == 404
