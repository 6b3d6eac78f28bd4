"""request_started, request_finished, got_request_exception, close: once each, come what may."""

from collections.abc import Callable

import pytest

from .ground import RAISED, WELL, Gate, Ground, from_django_5, new_mark, read_until

each_view = pytest.mark.parametrize("view", ["sync", "async"])


@each_view
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_signals_once_when_a_request_goes_well(plain: Ground, view: str, method: str) -> None:
    plain.client.request(method, f"/{view}/")
    assert plain.signals() == WELL


@each_view
def test_signals_once_when_the_view_raises(plain: Ground, view: str) -> None:
    plain.get(f"/{view}/raise/error/")
    assert plain.signals() == RAISED


@each_view
def test_signals_come_before_and_after_the_view(plain: Ground, view: str) -> None:
    plain.get(f"/{view}/")
    plain.wait("finished")
    order = [event["event"] for event in plain.events()]
    order = [name for name in order if name in ("started", "view", "finished")]
    assert order == ["started", "view", "finished"]


@each_view
def test_started_says_which_request(plain: Ground, view: str) -> None:
    plain.get(f"/{view}/päth/ö/")
    (started,) = plain.wait("started")
    assert started["path"] == f"/{view}/päth/ö/"


@each_view
def test_sync_receivers_run_in_a_thread_and_async_ones_on_the_loop(
    plain: Ground, view: str
) -> None:
    plain.get(f"/{view}/raise/error/")
    assert plain.signals() == RAISED
    for name in ("started", "finished", "exception"):
        assert not any(event["loop"] for event in plain.events(name))
        assert all(event["loop"] for event in plain.events(f"{name}-async"))


def test_signals_once_under_many_requests_at_once(doomed: Ground, gate: Gate) -> None:
    with (
        doomed.sent(f"/hold/?gate={gate.path}") as one,
        doomed.sent(f"/hold/?gate={gate.path}") as two,
    ):
        doomed.wait("holding", 2)
        for _ in range(20):
            doomed.get("/sync/")
            doomed.get("/async/")
        gate.open(2)
        read_until(one, b"thread")
        read_until(two, b"thread")
    assert doomed.signals(started=42) == {name: count * 42 for name, count in WELL.items()}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_response_is_closed_once(plain: Ground, method: str) -> None:
    mark, response = plain.marked("/sync/closing/", method)
    assert response.status_code == 200
    plain.wait("finished")
    plain.still_serves()
    assert len(plain.events("closed", mark=mark)) == 1


@each_view
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_streaming_response_is_closed_once(plain: Ground, view: str, method: str) -> None:
    mark, response = plain.marked(f"/{view}/stream/", method)
    assert response.status_code == 200
    plain.wait("closed", mark=mark)
    plain.wait("finished")
    plain.still_serves()
    assert len(plain.events("closed", mark=mark)) == 1


def test_large_response_is_closed_once_when_the_client_does_not_read_it(plain: Ground) -> None:
    mark = new_mark()
    with plain.sent("/sync/closing/?size=30000000", mark=mark, receive_buffer=4096) as sock:
        read_until(sock, b"xxxx")
    plain.wait("closed", mark=mark)
    plain.still_serves()
    assert len(plain.events("closed", mark=mark)) == 1
    started = len(plain.events("started"))
    assert plain.signals(started) == {name: started * count for name, count in WELL.items()}


@from_django_5
def test_async_view_is_cancelled_when_the_client_leaves_and_its_cleaning_is_awaited(
    plain: Ground, gates: Callable[[], Gate]
) -> None:
    mark, gate, cleaning = new_mark(), gates(), gates()
    with plain.sent(f"/async/closing/?gate={gate.path}&cleaning={cleaning.path}", mark=mark):
        plain.wait("entered", mark=mark)
    (cancelled,) = plain.wait("cancelled", mark=mark)
    assert cancelled["error"] == "CancelledError"
    plain.facts("/sync/")
    # The request is not over before its view has cleaned up.
    plain.wait("finished")
    plain.still_serves()
    plain.wait("finished", 3)
    assert len(plain.events("finished")) == len(plain.events("started")) - 1 == 3
    cleaning.open()
    plain.wait("left", mark=mark)
    assert plain.signals(started=4) == {name: 4 * count for name, count in WELL.items()}
    assert not plain.events("closed", mark=mark)


@from_django_5
def test_sync_view_runs_to_its_end_when_the_client_leaves(plain: Ground, gate: Gate) -> None:
    mark = new_mark()
    with plain.sent(f"/sync/closing/?gate={gate.path}", mark=mark):
        plain.wait("entered", mark=mark)
    plain.facts("/async/")
    assert not plain.events("left", mark=mark)
    gate.open()
    plain.wait("left", mark=mark)
    assert plain.signals(started=2) == {name: 2 * count for name, count in WELL.items()}


@from_django_5
@pytest.mark.stock_breaks("a sync view's response is lost, unclosed, when the client has left")
def test_response_is_closed_once_when_the_client_left_during_the_sync_view(
    plain: Ground, gate: Gate
) -> None:
    mark = new_mark()
    with plain.sent(f"/sync/closing/?gate={gate.path}", mark=mark):
        plain.wait("entered", mark=mark)
    plain.facts("/async/")
    gate.open()
    plain.wait("left", mark=mark)
    assert plain.signals(started=2) == {name: 2 * count for name, count in WELL.items()}
    assert len(plain.events("closed", mark=mark)) == 1


@from_django_5
def test_client_that_leaves_within_its_body_is_no_request(plain: Ground) -> None:
    with plain.server.connect() as sock:
        sock.sendall(
            b"POST /sync/body/ HTTP/1.1\r\nHost: rules\r\nContent-Length: 1000\r\n\r\nonly this"
        )
        plain.still_serves()
    plain.still_serves()
    assert plain.signals(started=4) == {name: 4 * count for name, count in WELL.items()}
    assert not plain.events("started", path="/sync/body/")
