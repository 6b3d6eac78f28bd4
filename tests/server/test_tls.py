"""HTTPS: what is agreed on, which certificate is shown, clients' certificates, renewal, ends."""

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.support import call, environment
from tests.net.certificates import client_context
from tests.server.certificates import Identity, identity, openssl, signed
from tests.server.h2wire import H2Wire
from tests.server.wire import PATIENCE, ROOT, SERVER, Closed, Served, Wire, command, serving

pytestmark = pytest.mark.skipif(SERVER != "rondel", reason="about Rondel's own options")

APP = "tests.server.apps:app"


def options(*identities: Identity) -> list[str]:
    return [
        word
        for one in identities
        for word in ("--ssl-certfile", one.certificate, "--ssl-keyfile", one.key)
    ]


def context_for(*protocols: str, **trust: Any) -> ssl.SSLContext:
    context = client_context(**trust)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@pytest.fixture(scope="module")
def secure() -> Iterator[Served]:
    chosen = options(identity("localhost"), identity("other.example"))
    with serving(APP, *chosen, context=client_context()) as served:
        yield served
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
        assert outcome.status == 0, outcome.errors


@pytest.fixture
def swire(secure: Served) -> Iterator[Wire]:
    with secure.connect() as wire:
        yield wire


def agreed(wire: Wire) -> ssl.SSLSocket:
    assert isinstance(wire.socket, ssl.SSLSocket)
    return wire.socket


def subject(wire: Wire) -> str:
    found = agreed(wire).getpeercert()
    assert found is not None
    return str(dict(pair[0] for pair in found["subject"])["commonName"])  # type: ignore[misc, index]


# -- requests --------------------------------------------------------------------------------


def test_a_request_is_https_and_the_scope_tells_of_tls(swire: Wire) -> None:
    scope = json.loads(swire.request("/scope").body)
    assert scope["scheme"] == "https"
    tls = scope["extensions"]["tls"]
    assert tls["tls_version"] == 0x0304
    assert tls["cipher_suite"] in (0x1301, 0x1302, 0x1303)
    shown = ssl.PEM_cert_to_DER_cert(tls["server_cert"])
    assert shown == agreed(swire).getpeercert(binary_form=True)
    assert tls["client_cert_chain"] == []
    assert tls["client_cert_name"] is None
    assert tls["client_cert_error"] is None
    again = json.loads(swire.request("/scope").body)["extensions"]
    assert again == scope["extensions"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_both_versions_of_tls(secure: Served, version: ssl.TLSVersion) -> None:
    context = client_context()
    context.minimum_version = context.maximum_version = version
    with Wire(secure.address, context) as wire:
        tls = json.loads(wire.request("/scope").body)["extensions"]["tls"]
        assert (
            tls["tls_version"]
            == {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}[agreed(wire).version() or ""]
        )


def test_a_connection_is_kept_and_requests_are_pipelined(swire: Wire) -> None:
    for _ in range(3):
        assert swire.request("/hello").body == b"hello"
    swire.send(b"GET /hello HTTP/1.1\r\nhost: t\r\n\r\n" * 50)
    for _ in range(50):
        assert swire.response().body == b"hello"


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 5_000_000])
def test_bodies_of_any_size_go_both_ways(swire: Wire, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    assert swire.request("/length", "POST", body=body[:size]).body == b"%d" % size
    # While the request is still being sent the response comes: read in another thread's stead.
    parts = swire.request(f"/parts?count={size // 100_000 + 1}").body
    assert parts.startswith(b"part0;")


def test_a_large_response_to_a_client_that_reads_slowly(secure: Served, key: str) -> None:
    with secure.connect() as wire:
        wire.send(f"GET /fast_writer?key={key}&count=200 HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        secure.events(key)
        # What the kernel and the records hold is a few megabytes; the application waits.
        assert len(wire.response().body) == 200 * 65536
    assert len(secure.events(key, 200)) == 200


@pytest.mark.parametrize("size", [0, 10, 100_000, 3_000_000])
def test_a_file_is_sent(secure: Served, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    file = {"file": str(tmp_path / "file"), "more_body": True}
    messages = [{"body": "<", "more_body": True}, file, {"body": ">", "more_body": False}]
    url = f"{secure.url}/file"
    told = {"messages": json.dumps(messages), "length": str(size + 2)}
    for two in (False, True):
        with httpx.Client(verify=client_context(), http2=two, http1=not two) as client:
            assert client.get(url, params=told).content == b"<" + content + b">"
            assert client.get(f"{secure.url}/hello").content == b"hello"
            del told["length"]
            assert client.get(url, params=told).content == b"<" + content + b">"
            told["length"] = str(size + 2)


def test_a_file_that_is_too_short_breaks_the_connection_off(
    secure: Served, tmp_path: Path, key: str
) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    messages = [{"file": str(tmp_path / "file"), "more_body": False}]
    told = {"messages": json.dumps(messages), "length": "2000", "key": key}
    with httpx.Client(verify=client_context()) as client, pytest.raises(httpx.HTTPError):
        client.get(f"{secure.url}/file", params=told).raise_for_status()
    assert secure.get("/hello").body == b"hello"


def test_a_disconnect_reaches_the_application(secure: Served, key: str) -> None:
    with secure.connect() as wire:
        wire.send(f"GET /disconnect?key={key} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        secure.events(key)
    assert secure.events(key, 2)[:2] == ["waiting", "http.disconnect"]


def test_the_end_of_a_connection_is_told_by_close_notify(secure: Served) -> None:
    with secure.connect() as wire:
        assert wire.request("/close").body == b"bye"
        # Without suppress_ragged_eofs an end that was not told raises.
        agreed(wire).suppress_ragged_eofs = False
        assert agreed(wire).recv(100) == b""


# -- ALPN and HTTP/2 ---------------------------------------------------------------------------


def test_http2_by_alpn(secure: Served) -> None:
    with H2Wire(secure.address, context_for("h2", "http/1.1")) as wire2:
        assert isinstance(wire2.socket, ssl.SSLSocket)
        assert wire2.socket.selected_alpn_protocol() == "h2"
        scope = json.loads(wire2.get("/scope").body)
        assert (scope["http_version"], scope["scheme"]) == ("2", "https")
        assert scope["extensions"]["tls"]["tls_version"] == 0x0304


def test_http1_by_alpn_and_without(secure: Served) -> None:
    with Wire(secure.address, context_for("http/1.1")) as wire:
        assert agreed(wire).selected_alpn_protocol() == "http/1.1"
        assert json.loads(wire.request("/scope").body)["http_version"] == "1.1"
    with Wire(secure.address, context_for()) as wire:
        assert agreed(wire).selected_alpn_protocol() is None
        assert wire.request("/hello").body == b"hello"


def test_a_client_of_neither_is_refused(secure: Served) -> None:
    with pytest.raises(ssl.SSLError, match="ALPN|alert"):
        Wire(secure.address, context_for("spdy/3"))
    assert secure.get("/hello").body == b"hello"


def test_httpx_with_many_streams(secure: Served) -> None:
    async def ask() -> list[httpx.Response]:
        context = context_for()
        async with httpx.AsyncClient(verify=context, http2=True, timeout=PATIENCE) as client:
            url = f"{secure.url}/echo"
            return await asyncio.gather(
                *(client.post(url, content=b"%d" % n * 100_000) for n in range(10))
            )

    answers = asyncio.run(ask())
    assert [answer.http_version for answer in answers] == ["HTTP/2"] * 10
    assert [answer.content for answer in answers] == [b"%d" % n * 100_000 for n in range(10)]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl(secure: Served, version: str) -> None:
    asked = ["curl", "--silent", "--show-error", "--fail", version, "--max-time", "20"]
    trust = ["--cacert", identity("localhost").certificate]
    ran = subprocess.run(
        [*asked, *trust, "--data-binary", "@-", f"{secure.url}/echo"],
        input=b"x" * 300_000,
        capture_output=True,
        env=environment(),
        check=True,
    )
    assert ran.stdout == b"x" * 300_000


# -- certificates ------------------------------------------------------------------------------


def test_the_certificate_is_the_one_of_the_name(secure: Served) -> None:
    with Wire(secure.address, client_context("other.example"), name="other.example") as wire:
        assert subject(wire) == "other.example"
    with Wire(secure.address, client_context(), name="localhost") as wire:
        assert subject(wire) == "localhost"


def test_a_name_that_is_nobodys_gets_the_first_certificate(secure: Served) -> None:
    context = client_context()
    context.check_hostname = False
    with Wire(secure.address, context, name="unheard.of") as wire:
        assert subject(wire) == "localhost"
        assert wire.request("/hello").body == b"hello"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_sessions_are_resumed_by_tickets(secure: Served, version: ssl.TLSVersion) -> None:
    context = client_context()
    context.maximum_version = version
    with Wire(secure.address, context) as wire:
        assert wire.request("/hello").body == b"hello"  # by then the ticket has come
        session = agreed(wire).session
        assert not agreed(wire).session_reused
    assert session is not None
    assert session.has_ticket
    with Wire(secure.address, context, session=session) as wire:
        assert agreed(wire).session_reused
        assert wire.request("/hello").body == b"hello"


def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "c.key"

    def install(name: str) -> None:
        for source, target in (
            (identity(name).certificate, certificate),
            (identity(name).key, key),
        ):
            shutil.copy(source, f"{target}.new")
            os.replace(f"{target}.new", target)

    install("localhost")
    given = options(Identity(str(certificate), str(key)))
    with (
        serving(APP, *given, "--ssl-reload", "0.05", context=client_context()) as server,
        server.connect() as kept,
    ):
        assert kept.request("/hello").body == b"hello"
        install("renewed.example")
        server.process.wait_for("certificates were loaded again")
        with Wire(
            server.address, client_context("renewed.example"), name="renewed.example"
        ) as wire:
            assert subject(wire) == "renewed.example"
            assert wire.request("/hello").body == b"hello"
        assert kept.request("/hello").body == b"hello"
        certificate.write_text("nonsense")
        server.process.wait_for("the old ones stay: .*c.pem has no certificate")
        with Wire(
            server.address, client_context("renewed.example"), name="renewed.example"
        ) as wire:
            assert wire.request("/hello").body == b"hello"


def test_sighup_has_certificates_loaded_again(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "c.key"
    shutil.copy(identity("localhost").certificate, certificate)
    shutil.copy(identity("localhost").key, key)
    given = options(Identity(str(certificate), str(key)))
    with serving(APP, *given, "--ssl-reload", "0", context=client_context()) as server:
        assert server.get("/hello").body == b"hello"
        shutil.copy(identity("renewed.example").certificate, certificate)
        shutil.copy(identity("renewed.example").key, key)
        server.process.signal(signal.SIGHUP)
        server.process.wait_for("certificates were loaded again")
        with Wire(
            server.address, client_context("renewed.example"), name="renewed.example"
        ) as wire:
            assert wire.request("/hello").body == b"hello"


def test_a_key_that_is_protected_by_a_password(tmp_path: Path) -> None:
    one = identity("localhost")
    lock_key(one.key, tmp_path / "locked.key")
    given = options(Identity(one.certificate, f"{tmp_path}/locked.key"))
    password = ["--ssl-keyfile-password", "secret"]
    with serving(APP, *given, *password, context=client_context()) as server:
        assert server.get("/hello").body == b"hello"
    ended = call(command(APP, "--port", "0", *given, "--ssl-keyfile-password", "other"), ROOT)
    assert "cannot be unlocked by the password" in ended.errors


def lock_key(key: str, target: Path) -> None:
    how = ("-topk8", "-v2", "aes256", "-passout", "pass:secret")
    openssl("pkcs8", *how, "-in", key, "-out", str(target))


def test_a_key_in_the_certificates_file(tmp_path: Path) -> None:
    one = identity("localhost")
    both = tmp_path / "both.pem"
    both.write_text(Path(one.key).read_text() + Path(one.certificate).read_text())
    with serving(APP, "--ssl-certfile", str(both), context=client_context()) as server:
        assert server.get("/hello").body == b"hello"


# -- clients' certificates ---------------------------------------------------------------------


def test_clients_show_certificates(tmp_path: Path) -> None:
    client = signed(tmp_path, "/O=Example\\, Inc./CN=somebody")
    stranger = identity("stranger.example")
    given = [*options(identity("localhost")), "--ssl-ca-certs", client.authority]
    shows = client_context()
    shows.load_cert_chain(client.certificate, client.key)
    strange = client_context(shows="stranger.example")
    assert stranger.certificate
    with serving(APP, *given, "--ssl-cert-reqs", "required", context=shows) as server:
        tls = server.json("/scope")["extensions"]["tls"]
        assert tls["client_cert_name"] == "CN=somebody,O=Example\\, Inc."
        (shown,) = tls["client_cert_chain"]
        assert shown.strip() in Path(client.certificate).read_text()
        for refused in (client_context(), strange):
            # TLS 1.3's client has finished when it is refused: it learns it when it reads.
            with (
                pytest.raises((ssl.SSLError, ConnectionError, Closed)),
                Wire(server.address, refused) as wire,
            ):
                wire.request("/hello")
        assert server.get("/hello").body == b"hello"


def test_clients_may_show_certificates(tmp_path: Path) -> None:
    client = signed(tmp_path, "/CN=somebody")
    given = [*options(identity("localhost")), "--ssl-ca-certs", client.authority]
    # uvicorn's number for "optional".
    with serving(APP, *given, "--ssl-cert-reqs", "1", context=client_context()) as server:
        tls = server.json("/scope")["extensions"]["tls"]
        assert tls["client_cert_name"] is None
        shows = client_context()
        shows.load_cert_chain(client.certificate, client.key)
        with Wire(server.address, shows) as wire:
            tls = json.loads(wire.request("/scope").body)["extensions"]["tls"]
            assert tls["client_cert_name"] == "CN=somebody"


# -- what is refused ---------------------------------------------------------------------------


def test_the_oldest_version_can_be_set() -> None:
    given = [*options(identity("localhost")), "--ssl-min-version", "1.3"]
    old = client_context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(APP, *given, context=client_context()) as server:
        with pytest.raises(ssl.SSLError):
            Wire(server.address, old)
        assert server.get("/hello").body == b"hello"


def test_a_client_that_speaks_no_tls_is_told_and_does_no_harm(secure: Served) -> None:
    with Wire(secure.address) as wire:
        wire.send(b"GET /hello HTTP/1.1\r\nhost: t\r\n\r\n")
        answer = wire.response()
        assert answer.status == 400
        assert b"HTTPS" in answer.body
        assert wire.closed()
    with Wire(secure.address) as wire:
        wire.send(b"\0\1\2\3nonsense that is no hello")
        assert not wire.rest().startswith(b"HTTP")
    assert secure.get("/hello").body == b"hello"


def test_a_handshake_has_a_deadline() -> None:
    given = [*options(identity("localhost")), "--limit-tls-handshake", "0.2"]
    with (
        serving(APP, *given, context=client_context()) as server,
        Wire(server.address) as silent,
        Wire(server.address) as slow,
    ):
        slow.send(b"\x16\x03\x01")
        assert silent.closed()
        assert slow.closed()


def test_many_unfinished_handshakes_hold_nobody_up(secure: Served) -> None:
    waiting = [Wire(secure.address) for _ in range(100)]
    try:
        for wire in waiting:
            wire.send(b"\x16\x03\x01\x02\x00\x01")
        assert secure.get("/hello").body == b"hello"
    finally:
        for wire in waiting:
            # Reset, not closed: the next test's connections are not behind them.
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.close()
    assert secure.get("/hello").body == b"hello"


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (["--ssl-certfile", "{place}/none.pem"], "none.pem cannot be read: No such file"),
        (["--ssl-certfile", "{place}/text.pem"], "text.pem has no certificate"),
        (["--ssl-certfile", "{good.certificate}"], "localhost.pem has no private key"),
        (["--ssl-certfile", "{good.certificate}", "--ssl-keyfile", "{other.key}"], "the key is"),
        (["--ssl-certfile", "{good.certificate}", "--ssl-keyfile", "{place}/locked.key"], "passw"),
        (["--http-redirect", "0"], "http_redirect is about HTTPS: give ssl_certfile"),
        (["--ssl-certfile", "{good.certificate}", "--ssl-cert-reqs", "2"], "give ssl_ca_certs"),
        (["--ssl-certfile", "a", "--ssl-certfile", "b", "--ssl-keyfile", "c"], "1 times"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(given: list[str], what: str, tmp_path: Path) -> None:
    good, other = identity("localhost"), identity("other.example")
    (tmp_path / "text.pem").write_text("no certificate")
    lock_key(good.key, tmp_path / "locked.key")
    words = [word.format(place=tmp_path, good=good, other=other) for word in given]
    ended = call(command(APP, "--port", "0", *words), ROOT)
    assert ended.status != 0
    last = ended.errors.splitlines()[-1]
    assert last.startswith("rondel serve: ") or "error" in last, ended.errors
    assert what in ended.errors
    assert "Traceback" not in ended.errors


# -- from http to https ------------------------------------------------------------------------


def test_a_plain_port_sends_clients_to_https(tmp_path: Path) -> None:
    given = [*options(identity("localhost")), "--http-redirect", "0"]
    with serving(APP, *given, context=client_context()) as server:
        assert not isinstance(server.address, str)
        found = server.process.wait_for(r"http://127\.0\.0\.1:(\d+) sends to https")
        plain = ("127.0.0.1", int(found[1]))
        place = f"https://localhost:{server.address[1]}"
        with Wire(plain) as wire:
            wire.send(
                b"POST /echo/a%20b?c=d HTTP/1.1\r\nhost: localhost:1\r\ncontent-length: 0\r\n\r\n"
            )
            answer = wire.response()
            assert answer.status == 308
            assert answer.get("location") == f"{place}/echo/a%20b?c=d"
        with Wire(plain) as wire:
            wire.send(b"GET /x HTTP/1.1\r\nhost: evil.example@localhost\r\n\r\n")
            assert wire.response().status in (308, 400)
        with H2Wire(plain) as wire2:
            answer2 = wire2.get("/hello")
            assert answer2.status == 308
            assert answer2.headers["location"] == f"https://test:{server.address[1]}/hello"
        with httpx.Client(verify=client_context(), follow_redirects=True) as client:
            url = f"http://localhost:{plain[1]}/echo"
            answer3 = client.post(url, content=b"moved")
            assert (answer3.content, answer3.url.scheme) == (b"moved", "https")


def test_a_proxys_header_comes_before_tls() -> None:
    chosen = options(identity("localhost"))
    with serving(APP, *chosen, "--proxy-protocol", "--proxy-headers", "off") as served:
        with served.connect() as wire:
            wire.send(b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 443\r\n")
            wire.socket = client_context().wrap_socket(wire.socket, server_hostname="localhost")
            seen = json.loads(wire.request("/scope").body)
            assert seen["client"] == ["1.2.3.4", 1111]
            assert seen["scheme"] == "https"
        with served.connect() as wire:
            wire.send(b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 443\r\nGET / HTTP/1.1\r\nhost: t\r\n\r\n")
            assert wire.response().status == 400
