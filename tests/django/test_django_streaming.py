"""Streaming responses: they arrive piece by piece, and a client that leaves ends them."""

import http.client
import json
import socket

import django
import httpx
import pytest

from .site_server import PATIENCE, SiteServer, until

notices_disconnects = pytest.mark.skipif(
    django.VERSION < (5, 0), reason="Django listens for the client's leaving from 5.0 on"
)

LONG = "/stream/?lines=5000&delay=0.05"  # over four minutes: no test waits for its end


def open_streams(client: httpx.Client) -> int:
    count: int = client.get("/api/where/").json()["open_streams"]
    return count


def read_until(sock: socket.socket, mark: bytes) -> bytes:
    """Read up to `mark`; the socket's timeout bounds the wait."""
    received = b""
    while mark not in received:
        chunk = sock.recv(65536)
        assert chunk, f"the server closed before {mark!r}: {received!r}"
        received += chunk
    return received


def request(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def test_lines_arrive_while_the_generator_still_runs(
    server: SiteServer, client: httpx.Client
) -> None:
    with client.stream("GET", "/stream/?lines=10&delay=0.2") as response, server.client() as other:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert "content-length" not in response.headers
        arriving = response.iter_lines()
        first = next(arriving)
        # The server itself says that the generator has not ended: no clock is trusted.
        assert open_streams(other) == 1
        rest = list(arriving)
        until(lambda: open_streams(other) == 0, "the stream is over")
    lines = [first, *rest]
    assert [line.split()[1] for line in lines] == [str(number) for number in range(1, 11)]
    made = [float(line.split()[5]) for line in lines]
    assert made == sorted(made)
    assert made[-1] - made[0] >= 9 * 0.19


def test_response_without_delays_arrives_whole(client: httpx.Client) -> None:
    lines = client.get("/stream/?lines=5000&delay=0").text.splitlines()
    assert len(lines) == 5000
    assert lines[-1].startswith("line 5000 of 5000 at ")


def test_server_sent_events_arrive_in_order(client: httpx.Client) -> None:
    with client.stream("GET", "/events/feed/?count=5&delay=0.05") as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache"
        events = "".join(response.iter_text()).strip().split("\n\n")
    assert len(events) == 6
    for number, event in enumerate(events[:5], start=1):
        identity, name, data = event.split("\n")
        assert (identity, name) == (f"id: {number}", "event: tick")
        assert json.loads(data.removeprefix("data: "))["number"] == number
    assert events[5] == "event: end\ndata: {}"


def test_head_of_a_stream_has_no_body(server: SiteServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request("HEAD", "/stream/?lines=3&delay=0.01")
    head = connection.getresponse()
    assert head.status == 200
    assert head.read() == b""
    connection.request("GET", "/api/where/")
    assert json.loads(connection.getresponse().read())["process"] == server.pid
    connection.close()


@notices_disconnects
@pytest.mark.parametrize("farewell", ["close", "reset"])
def test_client_leaving_in_the_middle_ends_the_generator(
    server: SiteServer, client: httpx.Client, farewell: str
) -> None:
    until(lambda: open_streams(client) == 0, "earlier streams are over")
    sock = server.connect()
    sock.sendall(request(LONG))
    read_until(sock, b"line 2 of")
    assert open_streams(client) == 1
    if farewell == "reset":
        # A linger time of 0 makes close() send a reset instead of a FIN.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    until(lambda: open_streams(client) == 0, "the generator was told that the client left")
    assert client.get("/books/").status_code == 200


@notices_disconnects
def test_twenty_clients_leaving_at_once(server: SiteServer, client: httpx.Client) -> None:
    until(lambda: open_streams(client) == 0, "earlier streams are over")
    sockets = [server.connect() for _ in range(20)]
    for sock in sockets:
        sock.sendall(request(LONG))
    for sock in sockets:
        read_until(sock, b"line 1 of")
    assert open_streams(client) == 20
    for sock in sockets:
        sock.close()
    until(lambda: open_streams(client) == 0, "all generators have ended")


@pytest.mark.parametrize("path", ["/ways/wait/", "/books/", "/async/books/"])
def test_client_leaving_before_the_response_harms_nothing(
    server: SiteServer, client: httpx.Client, path: str
) -> None:
    for _ in range(5):
        with server.connect() as sock:
            sock.sendall(request(path))
    response = client.get(path)
    assert response.status_code == 200


def test_client_leaving_in_the_middle_of_its_upload_harms_nothing(
    server: SiteServer, client: httpx.Client
) -> None:
    head = (
        b"POST /upload/?format=json HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000\r\n\r\n"
    )
    with server.connect() as sock:
        sock.sendall(head + b"--b\r\n" + bytes(100_000))
    assert client.get("/upload/").status_code == 200


def test_stop_lets_a_stream_run_to_its_end(own_server: SiteServer) -> None:
    own_server.start()
    with own_server.connect() as sock:
        sock.sendall(request("/stream/?lines=10&delay=0.1"))
        received = read_until(sock, b"line 1 of")
        own_server.terminate()
        while chunk := sock.recv(65536):
            received += chunk
    assert b"line 10 of 10" in received
    assert received.endswith(b"\r\n0\r\n\r\n")
    # Not stop(): a second signal asks for an end without grace.
    own_server.check_end()
