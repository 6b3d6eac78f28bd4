"""Stopping: what happens to requests in flight, idle connections and the access log."""

import re
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.server.wire import SERVER, Closed, Served, serving


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_request_in_flight_is_answered_and_the_exit_is_clean(number: signal.Signals) -> None:
    with serving() as served, served.connect() as wire:
        wire.send(b"GET /hold_for?key=k&seconds=0.5 HTTP/1.1\r\nhost: t\r\n\r\n")
        served.events("k")
        served.process.signal(number)
        assert wire.response().body == b"held"
        assert wire.closed()
        outcome = served.process.end()
    assert outcome.status == 0 if SERVER == "rondel" else outcome.status in (0, -number)
    assert "Traceback" not in outcome.errors


def test_an_idle_connection_does_not_delay_the_stop() -> None:
    with serving() as served, served.connect() as idle, served.connect() as silent:
        assert idle.request("/hello").body == b"hello"
        begin = time.monotonic()
        served.process.signal(signal.SIGTERM)
        assert idle.closed()
        assert silent.closed()
        served.process.end()
    assert time.monotonic() - begin < 5


def test_new_connections_are_refused_while_stopping() -> None:
    with serving() as served, served.connect() as wire:
        wire.send(b"GET /hold_for?key=k&seconds=1 HTTP/1.1\r\nhost: t\r\n\r\n")
        served.events("k")
        served.process.signal(signal.SIGTERM)
        served.process.wait_for("(?i)stopping|shutting down")
        refused = False
        for _ in range(100):
            with socket.socket() as sock:
                if sock.connect_ex(served.address) != 0:
                    refused = True
                    break
            time.sleep(0.002)
        assert refused
        assert wire.response().body == b"held"


@pytest.mark.rondel_server
def test_a_request_over_the_deadline_is_cut_off() -> None:
    with serving("tests.server.apps:app", "--graceful-timeout", "0.3") as served:
        with served.connect() as wire:
            wire.send(b"GET /hold?key=k HTTP/1.1\r\nhost: t\r\n\r\n")
            served.events("k")
            begin = time.monotonic()
            served.process.signal(signal.SIGTERM)
            with pytest.raises(Closed):
                wire.response()
        outcome = served.process.end()
    assert time.monotonic() - begin < 10
    assert "cut off" in outcome.errors
    assert outcome.status == 0


@pytest.mark.rondel_server
def test_a_second_signal_ends_it_at_once() -> None:
    with serving() as served, served.connect() as wire:
        wire.send(b"GET /hold?key=k HTTP/1.1\r\nhost: t\r\n\r\n")
        served.events("k")
        served.process.signal(signal.SIGINT)
        served.process.wait_for("stopping")
        served.process.signal(signal.SIGINT)
        with pytest.raises(Closed):
            wire.response()
        outcome = served.process.end()
    assert outcome.status != 0
    assert "Traceback" not in outcome.errors


def requests_logged(served: Served) -> list[str]:
    served.get("/hello?a=b")
    with served.connect() as wire:
        wire.request("/status?code=404", "POST", body=b"x")
    served.process.signal(signal.SIGTERM)
    outcome = served.process.end()
    everything = (outcome.output + outcome.errors).splitlines()
    return [line for line in everything if re.search(r"(GET|POST) /", line)]


def test_the_access_log_has_a_line_per_request() -> None:
    with serving() as served:
        lines = requests_logged(served)
    assert len(lines) == 2
    assert re.search(r'127\.0\.0\.1.*"GET /hello\?a=b HTTP/1\.1".* 200', lines[0])
    assert re.search(r'127\.0\.0\.1.*"POST /status\?code=404 HTTP/1\.1".* 404', lines[1])


def test_no_access_log() -> None:
    with serving("tests.server.apps:app", "--no-access-log") as served:
        assert requests_logged(served) == []


@pytest.mark.rondel_server
def test_a_control_character_in_a_path_cannot_forge_a_log_line() -> None:
    with serving() as served:
        served.get("/hello%0aGET%20/forged")
        lines = requests_logged(served)
    assert len(lines) == 3


@pytest.mark.rondel_server
def test_a_unix_socket_serves_and_its_file_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with serving(uds=path) as served:
        assert served.get("/hello").body == b"hello"
        served.process.signal(signal.SIGTERM)
        served.process.end()
    assert not path.exists()
