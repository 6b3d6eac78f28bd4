"""Streams: piece by piece, from sync and async iterators, and closed when the client leaves."""

import pytest

from .conftest import Serve
from .ground import WELL, Gate, Ground, Profile, from_django_5, links, new_mark, read_until

each_view = pytest.mark.parametrize("view", ["sync", "async"])
collects = pytest.mark.stock_breaks("a sync iterator is collected before its first byte is sent")

# A piece that should be here at once: only a test that fails waits so long.
SOON = 3.0

PATHS = ["/sync/stream/", "/async/stream/", "/async/stream/of-sync/", "/sync/stream/of-async/"]


@pytest.mark.parametrize("path", PATHS)
def test_stream_arrives_whole_and_in_order(plain: Ground, path: str) -> None:
    mark, response = plain.marked(path)
    assert response.content == b"piece0piece1piece2"
    assert len(plain.wait("piece", 3, mark=mark)) == 3
    assert plain.signals() == WELL


@pytest.mark.parametrize("path", PATHS)
def test_stream_passes_through_middleware(serve: Serve, path: str) -> None:
    site = serve(Profile(links("syncclass", "asyncclass", "mixin")))
    _mark, response = site.marked(path)
    assert response.content == b"piece0piece1piece2"


@pytest.mark.parametrize("pieces", [0, 1])
@each_view
def test_stream_of_hardly_anything(plain: Ground, view: str, pieces: int) -> None:
    response = plain.get(f"/{view}/stream/?pieces={pieces}")
    assert (response.status_code, response.content) == (200, b"piece0"[: 6 * pieces])


@each_view
def test_large_stream_arrives_whole(plain: Ground, view: str) -> None:
    response = plain.get(f"/{view}/stream/?pieces=40&size=300000")
    assert len(response.content) == 40 * 300_000
    assert response.content[-300_000:].startswith(b"piece39")


@pytest.mark.parametrize(
    "view",
    ["async", pytest.param("sync", marks=collects)],
)
def test_pieces_are_sent_while_the_iterator_still_runs(
    plain: Ground, gate: Gate, view: str
) -> None:
    mark = new_mark()
    with plain.sent(f"/{view}/stream/?pieces=3&gate={gate.path}", mark=mark) as sock:
        read_until(sock, b"piece0", SOON)
        assert not plain.events("ended", mark=mark)
        gate.open()
        read_until(sock, b"piece1", SOON)
        gate.open()
        read_until(sock, b"piece2\r\n0\r\n\r\n", SOON)
    plain.wait("ended", mark=mark)
    assert plain.signals() == WELL


@collects
def test_sync_iterator_of_an_async_view_streams_too(plain: Ground, gate: Gate) -> None:
    with plain.sent(f"/async/stream/of-sync/?pieces=2&gate={gate.path}") as sock:
        read_until(sock, b"piece0", SOON)
        gate.open()
        read_until(sock, b"piece1", SOON)


@collects
def test_waiting_sync_iterator_does_not_hold_the_loop(plain: Ground, gate: Gate) -> None:
    with plain.sent(f"/sync/stream/?pieces=2&gate={gate.path}") as sock:
        read_until(sock, b"piece0", SOON)
        plain.still_serves()
        gate.open()
        read_until(sock, b"piece1", SOON)


@each_view
def test_iterator_that_fails_cuts_the_response(doomed: Ground, view: str) -> None:
    mark = new_mark()
    with doomed.sent(f"/{view}/stream/?pieces=3&fail=1", mark=mark) as sock:
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    # Before its first byte an error can be a response; after it only an end without the last chunk.
    assert b" 500 " in received.partition(b"\r\n")[0] or not received.endswith(b"0\r\n\r\n")
    doomed.wait("ended", mark=mark)
    doomed.still_serves()
    assert "DeliberateError: in the iterator" in doomed.server.log()


@each_view
@pytest.mark.stock_breaks("a failing iterator's response is not closed, nothing is finished")
def test_request_with_a_failing_iterator_is_finished_once(doomed: Ground, view: str) -> None:
    mark = new_mark()
    with doomed.sent(f"/{view}/stream/?pieces=3&fail=1", mark=mark) as sock:
        while sock.recv(65536):
            pass
    doomed.wait("ended", mark=mark)
    for _ in range(3):
        doomed.still_serves()
    assert len(doomed.events("closed", mark=mark)) == 1
    started = len(doomed.events("started"))
    assert len(doomed.wait("finished", started)) == started


@from_django_5
@pytest.mark.parametrize("farewell", ["close", "reset"])
def test_async_generator_is_ended_when_the_client_leaves_while_it_waits(
    plain: Ground, gate: Gate, farewell: str
) -> None:
    mark = new_mark()
    with plain.sent(f"/async/stream/?pieces=9&gate={gate.path}", mark=mark) as sock:
        read_until(sock, b"piece0")
        if farewell == "reset":
            sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: close() sends a reset
    (interrupted,) = plain.wait("interrupted", mark=mark)
    assert interrupted["error"] == "CancelledError"
    plain.wait("ended", mark=mark)
    plain.wait("closed", mark=mark)
    assert plain.signals() == WELL
    assert len(plain.events("closed", mark=mark)) == 1


@from_django_5
@pytest.mark.parametrize(
    "breathe",
    [
        "&breathe",
        pytest.param(
            "",
            marks=[
                pytest.mark.stock_breaks("send() to a client that left returns at once, for ever"),
            ],
        ),
    ],
)
def test_async_generator_is_ended_when_the_client_leaves_while_it_is_full(
    plain: Ground, breathe: str
) -> None:
    """The generator stands at a `yield`, as the client does not read what it sent."""
    mark = new_mark()
    path = f"/async/stream/?pieces=500&size=100000{breathe}"
    with plain.sent(path, mark=mark, receive_buffer=4096) as sock:
        read_until(sock, b"piece0")
        plain.still_serves()
    plain.wait("ended", mark=mark)
    plain.wait("closed", mark=mark)
    plain.still_serves()
    assert len(plain.events("closed", mark=mark)) == 1
    assert len(plain.events("ended", mark=mark)) == 1
    assert len(plain.events("piece", mark=mark)) < 500


@from_django_5
@collects
def test_sync_iterator_is_closed_when_the_client_leaves(plain: Ground, gate: Gate) -> None:
    mark = new_mark()
    with plain.sent(f"/sync/stream/?pieces=9&gate={gate.path}", mark=mark) as sock:
        read_until(sock, b"piece0", SOON)
    plain.still_serves()
    # It is asked for at most one more piece: a thread can't be interrupted.
    gate.open()
    plain.wait("ended", mark=mark)
    plain.wait("closed", mark=mark)
    assert len(plain.events("piece", mark=mark)) <= 2
    assert len(plain.events("closed", mark=mark)) == 1


@from_django_5
@collects
def test_stream_of_the_first_request_to_a_path_is_closed_when_the_client_leaves(
    serve: Serve,
) -> None:
    # Rondel finds out on the loop what the view is; later ones go to a thread at once.
    site = serve(Profile(links("syncclass")))
    mark = new_mark()
    with site.sent("/sync/stream/?pieces=500&size=20000", mark=mark) as sock:
        read_until(sock, b"piece0", SOON)
    site.wait("ended", mark=mark)
    site.wait("closed", mark=mark)
    assert len(site.events("piece", mark=mark)) < 500
    assert len(site.events("closed", mark=mark)) == 1
    assert site.signals() == WELL


@from_django_5
@collects
def test_sync_iterator_waits_for_a_client_that_does_not_read(plain: Ground) -> None:
    mark = new_mark()
    path = "/sync/stream/?pieces=50&size=1000000"
    with plain.sent(path, mark=mark, receive_buffer=4096) as sock:
        read_until(sock, b"piece0", SOON)
        plain.still_serves()
        assert len(plain.events("piece", mark=mark)) < 50
    plain.wait("ended", mark=mark)
    assert len(plain.events("piece", mark=mark)) < 50
    plain.wait("closed", mark=mark)
