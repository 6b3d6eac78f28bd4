"""Applications that misbehave: what the client gets and what the log says."""

import signal

import pytest

from tests.server.apps import BAD
from tests.server.wire import CLEAN, SERVER, Closed, Served, serving


def logged(target: str) -> tuple[object, str]:
    """(response or None for an abrupt end, all of the log) of one request to a fresh server."""
    with serving() as served:
        try:
            answer: object = served.get(target)
        except Closed:
            answer = None
        assert served.get("/hello").body == b"hello"
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
    assert outcome.status in CLEAN
    return answer, outcome.errors


def test_an_error_before_the_start_is_a_500_and_a_traceback() -> None:
    answer, log = logged("/raise_before")
    assert answer is not None
    assert answer.status == 500  # type: ignore[attr-defined]
    assert b"ZeroDivisionError" not in answer.body  # type: ignore[attr-defined]
    assert "Traceback (most recent call last)" in log
    assert "in do_raise_before" in log
    assert "ZeroDivisionError: raised before the start" in log


def test_an_error_after_the_start_cuts_the_response_off() -> None:
    answer, log = logged("/raise_after")
    assert answer is None, "the client must see that the response is not complete"
    assert "ZeroDivisionError: raised after the start" in log


def test_an_error_at_the_end_leaves_the_response_whole() -> None:
    answer, log = logged("/raise_at_the_end")
    assert answer is not None
    assert answer.body == b"complete"  # type: ignore[attr-defined]
    assert "ZeroDivisionError: raised at the end" in log


def test_no_response_is_a_500_and_a_line() -> None:
    answer, log = logged("/no_response")
    assert answer is not None
    assert answer.status == 500  # type: ignore[attr-defined]
    assert "without" in log


def test_half_a_response_is_cut_off_and_a_line() -> None:
    answer, log = logged("/half_response")
    assert answer is None
    assert "without" in log


@pytest.mark.skipif(SERVER != "rondel", reason="uvicorn lets some of them through to its parser")
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_message_raises_in_the_application_and_is_a_500(
    server: Served, key: str, kind: str
) -> None:
    target = f"/bad?key={key}&kind={kind.replace(' ', '%20')}"
    assert server.get(target).status == 500
    assert server.events(key) == ["raised"]


def test_a_second_start_raises_and_cuts_the_response_off(server: Served, key: str) -> None:
    with pytest.raises(Closed):
        answer = server.get(f"/start_twice?key={key}")
        # The first start may still be unsent: then the client gets a plain 500.
        assert answer.status == 500
        raise Closed("as good as cut off")
    assert server.events(key) == ["raised"]
