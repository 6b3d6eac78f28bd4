"""What a trusted proxy says of a request's client. uvicorn does the same by default."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.wire import Served, serving

APP = "tests.server.apps:app"
FOR, PROTO = "x-forwarded-for: 1.2.3.4\r\n", "x-forwarded-proto: https\r\n"


def origin(server: Served, headers: str, target: str = "/scope") -> tuple[Any, str]:
    """Client and scheme of a request with these headers."""
    with server.connect() as wire:
        seen = json.loads(wire.request(target, headers=headers).body)
        return seen["client"], seen["scheme"]


def test_a_proxy_on_this_machine_is_believed_by_default(server: Served) -> None:
    assert origin(server, FOR + PROTO) == (["1.2.3.4", 0], "https")


def test_without_a_proxys_headers_it_is_the_peer(server: Served) -> None:
    with server.connect() as wire:
        own = wire.socket.getsockname()
        seen = json.loads(wire.request("/scope").body)
    assert seen["client"] == list(own)
    assert seen["scheme"] == "http"


def test_requests_of_one_connection_come_from_whom_the_proxy_says(server: Served) -> None:
    with server.connect() as wire:
        for headers, client, scheme in [
            (FOR + PROTO, "1.2.3.4", "https"),
            (FOR, "1.2.3.4", "http"),
            ("x-forwarded-for: 5.6.7.8\r\n" + PROTO, "5.6.7.8", "https"),
            ("", "127.0.0.1", "http"),
            (FOR + PROTO, "1.2.3.4", "https"),
        ]:
            seen = json.loads(wire.request("/scope", headers=headers).body)
            assert (seen["client"][0], seen["scheme"]) == (client, scheme)


def test_the_headers_stay_for_the_application(server: Served) -> None:
    with server.connect() as wire:
        seen = json.loads(wire.request("/scope", headers=FOR).body)
    assert [{"bytes": "x-forwarded-for"}, {"bytes": "1.2.3.4"}] in seen["headers"]


def test_forwarded_is_not_believed_where_the_proxy_writes_the_other_kind(server: Served) -> None:
    client, scheme = origin(server, "forwarded: for=6.6.6.6;proto=https\r\n")
    assert client[0] == "127.0.0.1"
    assert scheme == "http"


@pytest.mark.rondel_server
def test_what_is_no_address_leaves_the_peer(server: Served) -> None:
    # uvicorn puts the text there as it came.
    client, _ = origin(server, "x-forwarded-for: 6.6.6.6, unknown\r\n")
    assert client[0] == "127.0.0.1"


@pytest.mark.rondel_server
def test_forwarded_as_the_rfc_has_it() -> None:
    with serving(APP, "--proxy-headers", "forwarded") as server:
        line = 'forwarded: for=6.6.6.6, for="[2001:db8::1]:4711";proto=https, for=127.0.0.1\r\n'
        assert origin(server, line) == (["2001:db8::1", 4711], "https")
        assert origin(server, FOR + PROTO)[0][0] == "127.0.0.1"


@pytest.mark.rondel_server
def test_headers_are_ignored_when_they_are_off() -> None:
    with serving(APP, "--proxy-headers", "off") as server:
        client, scheme = origin(server, FOR + PROTO)
        assert (client[0], scheme) == ("127.0.0.1", "http")


@pytest.fixture(scope="module")
def strangers() -> Iterator[Served]:
    """A server that trusts others than those who call it."""
    with serving(APP, "--forwarded-allow-ips", "10.0.0.0/8,192.168.1.1") as server:
        yield server


def test_a_peer_that_is_not_trusted_is_not_believed(strangers: Served) -> None:
    client, scheme = origin(strangers, FOR + PROTO)
    assert (client[0], scheme) == ("127.0.0.1", "http")


def test_the_client_is_the_last_that_is_no_trusted_proxy() -> None:
    with serving(APP, "--forwarded-allow-ips", "127.0.0.1,10.0.0.0/8") as server:
        chain = "x-forwarded-for: 6.6.6.6, 1.2.3.4, 10.1.1.1, 10.2.2.2\r\n"
        assert origin(server, chain)[0] == ["1.2.3.4", 0]


@pytest.mark.rondel_server
def test_a_peer_on_a_unix_socket_is_believed(tmp_path: Path) -> None:
    with serving(APP, "--forwarded-allow-ips", "10.0.0.1", uds=tmp_path / "s") as server:
        assert origin(server, FOR + PROTO) == (["1.2.3.4", 0], "https")


@pytest.mark.rondel_server
def test_the_access_log_names_the_client(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with serving(APP, "--access-log-file", str(log)) as server:
        origin(server, FOR)
        server.process.signal(signal.SIGTERM)
        server.process.end()
    assert re.search(r"\b1\.2\.3\.4\b(?!:)", log.read_text())


@pytest.mark.rondel_server
def test_a_wsgi_application_is_told_the_scheme_and_the_client(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    keys = 'wsgi.url_scheme', 'HTTPS', 'REMOTE_ADDR'\n"
        "    return [' '.join(environ.get(key, '-') for key in keys).encode()]\n"
    )
    with serving("shop:app", "--app-dir", str(tmp_path)) as server, server.connect() as wire:
        assert wire.request("/", headers=FOR + PROTO).body == b"https on 1.2.3.4"
        assert wire.request("/").body == b"http - 127.0.0.1"


V2 = b"\r\n\r\n\x00\r\nQUIT\n"
GET = b"GET /scope HTTP/1.1\r\nhost: test\r\n\r\n"


@pytest.fixture(scope="module")
def introduced() -> Iterator[Served]:
    with serving(APP, "--proxy-protocol", "--limit-header-timeout", "3") as server:
        yield server


@pytest.mark.rondel_server
@pytest.mark.parametrize(
    ("header", "client", "local"),
    [
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\n", ["1.2.3.4", 1111], ["5.6.7.8", 80]),
        (b"PROXY TCP6 2001:db8::1 ::2 1111 80\r\n", ["2001:db8::1", 1111], ["::2", 80]),
        (
            V2 + b"\x21\x11\x00\x0c" + bytes([1, 2, 3, 4, 5, 6, 7, 8, 4, 87, 0, 80]),
            ["1.2.3.4", 1111],
            ["5.6.7.8", 80],
        ),
    ],
    ids=["line, IPv4", "line, IPv6", "binary"],
)
@pytest.mark.parametrize("pieces", [1, 0], ids=["at once", "byte by byte"])
def test_the_proxy_protocol_says_who_the_client_is(
    introduced: Served, header: bytes, client: list[Any], local: list[Any], pieces: int
) -> None:
    with introduced.connect() as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if pieces:
            wire.send(header + GET)
        else:
            for at in range(len(header)):
                wire.send(header[at : at + 1])
            wire.send(GET)
        seen = json.loads(wire.response().body)
        assert seen["client"] == client
        assert seen["server"] == local
        # What this client says of proxies is its own word: it is not one that is trusted.
        again = json.loads(wire.request("/scope", headers="x-forwarded-for: 6.6.6.6\r\n").body)
        assert again["client"] == client


@pytest.mark.rondel_server
def test_a_proxy_that_speaks_for_itself_is_the_client(introduced: Served) -> None:
    for header in [b"PROXY UNKNOWN\r\n", V2 + b"\x20\x00\x00\x00"]:
        with introduced.connect() as wire:
            wire.send(header + GET)
            assert json.loads(wire.response().body)["client"] == list(wire.socket.getsockname())


@pytest.mark.rondel_server
@pytest.mark.parametrize("start", [GET, b"PROXY TCP4 x\r\n" + GET, b"PROXY TCP4 1.2.3.4", b""])
def test_what_is_no_header_or_comes_late_is_closed(introduced: Served, start: bytes) -> None:
    with introduced.connect() as wire:
        wire.send(start)
        assert wire.closed()


@pytest.mark.rondel_server
def test_only_trusted_proxies_introduce_anybody() -> None:
    options = ["--proxy-protocol", "--forwarded-allow-ips", "10.0.0.1"]
    with serving(APP, *options) as server, server.connect() as wire:
        assert wire.closed()


@pytest.mark.rondel_server
def test_a_stop_waits_for_nobodys_introduction() -> None:
    with serving(APP, "--proxy-protocol") as server, server.connect() as wire:
        with server.connect() as other:
            other.send(b"PROXY UNKNOWN\r\n" + GET)
            assert other.response().status == 200
        wire.send(b"PROXY ")
        server.process.signal(signal.SIGTERM)
        assert wire.closed()
        assert server.process.end().status == 0
