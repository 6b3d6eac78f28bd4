"""What an application sees of a client that goes away, and of its own end."""

import os

from tests.server.wire import Served


def test_receive_says_disconnect_when_the_client_goes(server: Served, key: str) -> None:
    with server.connect() as wire:
        wire.send(f"GET /disconnect?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        assert server.events(key) == ["waiting"]
    assert server.events(key, 3) == ["waiting", "http.disconnect", "http.disconnect"]


def test_receive_says_disconnect_while_streaming_and_sends_are_harmless(
    server: Served, key: str
) -> None:
    with server.connect() as wire:
        wire.send(f"GET /disconnect_while_streaming?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        server.events(key)
    seen = server.events(key, 5)
    assert seen[:2] == ["waiting", "http.disconnect"]
    assert set(seen[2:]) <= {"fine", "OSError"}


def test_a_disconnect_in_the_middle_of_a_body_reaches_the_reader(server: Served, key: str) -> None:
    with server.connect() as wire:
        wire.send(
            f"POST /listener?key={key} HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n".encode()
        )
        wire.send(b"half")
    assert server.get("/hello").body == b"hello"


def test_a_second_task_that_listens_is_told(server: Served, key: str) -> None:
    with server.connect() as wire:
        wire.send(f"GET /listener?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        assert server.events(key) == ["working"]
    assert server.events(key, 3) == ["working", "http.disconnect", "gave up"]


def test_a_second_task_that_listens_can_be_cancelled(server: Served, key: str) -> None:
    with server.connect() as wire:
        for number in range(1, 6):  # the connection and its later requests are unharmed
            wire.send(f"GET /listener?key={key}{number} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
            server.events(f"{key}{number}")
            server.get(f"/release?key={key}{number}")
            assert wire.response().body == b"worked"
            assert server.events(f"{key}{number}", 2) == ["working", "listener cancelled"]


def test_a_cancelled_receive_loses_nothing_of_the_body(server: Served, key: str) -> None:
    with server.connect() as wire:
        wire.send(
            f"POST /receive_again?key={key} HTTP/1.1\r\n"
            "host: t\r\ncontent-length: 4\r\n\r\n".encode()
        )
        assert server.events(key) == ["cancelled"]
        wire.send(b"body")
        assert wire.response().body == b"body"


def test_receive_after_the_response_says_disconnect(server: Served, key: str) -> None:
    with server.connect() as wire:
        assert wire.request(f"/after_response?key={key}", "POST", body=b"x").body == b"done"
        assert server.events(key) == ["http.disconnect"]
        assert wire.request("/hello").body == b"hello"


def test_an_application_may_work_on_after_its_response(server: Served, key: str) -> None:
    with server.connect() as wire:
        assert wire.request(f"/background?key={key}").body == b"answered"
        server.get(f"/release?key={key}")
        assert server.events(key) == ["background done"]


def test_the_work_after_a_response_survives_the_disconnect(server: Served, key: str) -> None:
    with server.connect() as wire:
        assert wire.request(f"/background?key={key}").body == b"answered"
    assert server.get("/hello").body == b"hello"
    server.get(f"/release?key={key}")
    assert server.events(key) == ["background done"]


def test_many_clients_that_go_away_leave_no_descriptors(server: Served, key: str) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))

    server.get("/hello")
    before = descriptors()
    for number in range(30):
        with server.connect() as wire:
            wire.send(f"GET /listener?key={key}{number} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
            server.events(f"{key}{number}")
        server.events(f"{key}{number}", 3)
    for _ in range(100):
        server.get("/hello")
        if descriptors() <= before + 1:
            break
    assert descriptors() <= before + 1
