"""How a response ends (PEP 3333): `close()`, errors, clients that leave; and wrapped files."""

import contextlib
import re
import signal
import socket
import struct

import pytest

from tests.server.wire import Closed, Served, serving
from tests.server.wsgi.asking import APPS, framed
from tests.server.wsgi_apps import CONTENT

pytestmark = pytest.mark.rondel_server


# ---------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("how", ["end", "raise", "later", "start"])
def test_close_is_called_once(server: Served, how: str, key: str) -> None:
    with contextlib.suppress(Closed):
        server.get(f"/closing?how={how}&key={key}")
    assert server.events(key) == ["closed"]


def test_close_is_called_once_when_the_client_leaves(rondel: Served, key: str) -> None:
    with rondel.connect() as wire:
        wire.send(f"GET /endless?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        wire._until(b"xxx")
        # A reset, not a polite end.
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    seen = 0
    while (notes := rondel.events(key, seen + 1))[-1] != "closed":
        seen = len(notes)
    assert notes.count("closed") == 1


def test_write_tells_when_the_client_has_gone(rondel: Served, key: str) -> None:
    with rondel.connect() as wire:
        wire.send(f"GET /endless_write?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        wire._until(b"xxx")
    assert rondel.events(key, 2) == ["writing", "ConnectionAbortedError"]


@pytest.mark.parametrize("target", ["/raise", "/raise_started", "/closing?key=k&how=raise"])
def test_an_error_is_logged_with_its_traceback_and_answered_with_500(
    rondel: Served, target: str
) -> None:
    with rondel.connect() as wire:
        assert wire.request(target).status == 500
        # The connection is as good as before.
        assert wire.request("/hello").body == b"hello"
    rondel.process.wait_for("Exception in the application")
    rondel.process.wait_for('wsgi_apps.py", line')
    rondel.process.wait_for("RuntimeError: the application's failure")


def test_an_error_in_close_is_logged_after_a_whole_response(rondel: Served) -> None:
    assert rondel.get("/bad_close").body == b"complete"
    rondel.process.wait_for("RuntimeError: a failure in close")


def test_a_client_that_left_is_no_error_and_the_log_names_statuses() -> None:
    with serving(f"{APPS}:app") as served:
        with served.connect() as wire:
            wire.send(b"GET /endless_write?key=k HTTP/1.1\r\nhost: t\r\n\r\n")
            wire._until(b"xxx")
        served.events("k", 2)
        assert served.get("/status?code=404").status == 404
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
        assert "Traceback" not in outcome.errors
    assert re.search(r'"GET /status\?code=404 HTTP/1\.1".* 404', outcome.output)


# ----------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["plain", "named", "memory", "gzip"])
def test_a_wrapped_file_is_sent(server: Served, kind: str) -> None:
    assert server.get(f"/file?kind={kind}").body == CONTENT


def test_a_plain_file_has_a_length_without_being_read(rondel: Served) -> None:
    assert rondel.get("/file").get("content-length") == str(len(CONTENT))
    assert framed(rondel.get("/file?kind=gzip"), len(CONTENT))


@pytest.mark.parametrize("kind", ["plain", "named", "memory"])
@pytest.mark.parametrize(("offset", "read"), [(0, 10), (1000, 0), (1000, 10), (len(CONTENT), 0)])
def test_a_file_is_sent_from_where_it_stands(
    server: Served, kind: str, offset: int, read: int
) -> None:
    got = server.get(f"/file?kind={kind}&offset={offset}&read={read}")
    assert got.body == CONTENT[offset + read :]


@pytest.mark.parametrize("kind", ["plain", "memory"])
def test_no_more_of_a_file_than_was_declared(rondel: Served, kind: str) -> None:
    with rondel.connect() as wire:
        assert wire.request(f"/file?kind={kind}&offset=10&said=2500").body == CONTENT[10:2510]
        with pytest.raises(Closed):
            wire.request(f"/file?kind={kind}&said={len(CONTENT) + 1}")


def test_what_is_no_plain_file_is_read(server: Served) -> None:
    assert server.get("/file?kind=pipe").body == b"from a pipe"
    assert server.get("/file?kind=empty").body == b""


def test_a_wrapped_file_is_closed_once(server: Served, key: str) -> None:
    assert server.get(f"/file?kind=closing&key={key}").body == CONTENT
    assert server.events(key) == ["closed"]
