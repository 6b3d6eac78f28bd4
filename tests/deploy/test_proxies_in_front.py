"""nginx, Caddy and HAProxy pass requests on; their configurations are those of examples/deploy.

They are Debian's packages (`scripts/proxies.sh install`); where one is missing its tests skip.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.cli.support import Process, call, running
from tests.server.wire import PATIENCE, ROOT, Served, Wire, command

pytestmark = pytest.mark.rondel_server

EXAMPLES = ROOT / "examples" / "deploy"
SOCKET = "/run/mysite/rondel.sock"
PROGRAMS = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def replaced(name: str, *pairs: tuple[str, str]) -> str:
    """An example's text with its places changed; each must be there."""
    text = (EXAMPLES / name).read_text()
    for old, new in pairs:
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


@dataclass(frozen=True)
class Place:
    """Where the proxy listens, and the server behind it."""

    folder: Path
    port: int
    behind: Path | int

    @property
    def static(self) -> Path:
        return self.folder / "static"


def nginx(program: str, place: Place) -> list[str]:
    site = replaced(
        "nginx.conf",
        ("listen 80;", f"listen 127.0.0.1:{place.port};"),
        (SOCKET, str(place.behind)),
        ("/srv/mysite/static/", f"{place.static}/"),
    )
    folder = place.folder
    (folder / "site.conf").write_text(site)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"daemon off; {user} pid {folder}/pid; error_log stderr; worker_processes 1;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n include {folder}/site.conf; }}\n"
    )
    return [program, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def caddy(program: str, place: Place) -> list[str]:
    site = replaced(
        "Caddyfile",
        (":80 {", f":{place.port} {{\n\tbind 127.0.0.1"),
        (f"unix/{SOCKET}", f"unix/{place.behind}"),
        ("/srv/mysite/static", str(place.static)),
    )
    config = place.folder / "Caddyfile"
    # No place of its own outside of the test's.
    config.write_text(f"{{\n\tadmin off\n\tstorage file_system {place.folder}/storage\n}}\n{site}")
    return [program, "run", "--adapter", "caddyfile", "--config", str(config)]


def haproxy(program: str, place: Place, name: str = "haproxy.cfg") -> list[str]:
    config = place.folder / "haproxy.cfg"
    config.write_text(
        replaced(
            name,
            ("bind :80", f"bind 127.0.0.1:{place.port}"),
            ("10.0.0.11:8000", f"127.0.0.1:{place.behind}"),
            ("    server two 10.0.0.12:8000\n", ""),
        )
    )
    return [program, "-db", "-f", str(config)]


def haproxy_tcp(program: str, place: Place) -> list[str]:
    return haproxy(program, place, "haproxy-tcp.cfg")


COMMANDS: dict[str, Callable[[str, Place], list[str]]] = {
    "nginx": nginx,
    "caddy": caddy,
    "haproxy": haproxy,
    "haproxy-tcp": haproxy_tcp,
}


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def server(name: str, folder: Path) -> Iterator[tuple[Process, Path | int]]:
    """Rondel as it is started behind that proxy, trusting nobody but it."""
    options = ["--health", "/-/health"]
    if name != "nginx":
        # Before 1.29 nginx takes a 103 for the response.
        options += ["--early-hints"]
    if name == "haproxy-tcp":
        # The client of these tests has a trusted proxy's address, and would be believed.
        options += ["--proxy-protocol", "--proxy-headers", "off"]
    if name.startswith("haproxy"):
        # HAProxy says `X-Forwarded-For: 127.0.0.1` of these tests.
        options += ["--port", "0", "--forwarded-allow-ips", "127.0.0.1"]
    else:
        options += ["--uds", str(folder / "s"), "--forwarded-allow-ips", "10.0.0.1"]
    with running(command("tests.server.ws_apps:app", *options), ROOT) as process:
        if name.startswith("haproxy"):
            port = process.wait_for(r"serving .*on http://127\.0\.0\.1:(\d+)")[1]
            yield process, int(port)
        else:
            process.wait_for("serving .*on unix")
            yield process, folder / "s"


@pytest.fixture(scope="module", params=list(COMMANDS))
def front(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The proxy's address, with a server behind it."""
    program = shutil.which(request.param.partition("-")[0], path=PROGRAMS)
    if program is None:
        pytest.skip(f"{request.param} is not installed: scripts/proxies.sh install")
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "static").mkdir()
    (folder / "static" / "style.css").write_text("body {}")
    with server(request.param, folder) as (_, behind):
        place = Place(folder, free_port(), behind)
        line = COMMANDS[request.param](program, place)
        with running(line, folder, HOME=str(folder)) as process:
            end = time.monotonic() + PATIENCE
            while not accepts(place.port):
                assert time.monotonic() < end, "".join(process.errors)
                time.sleep(0.02)
            yield Served(process, ("127.0.0.1", place.port))
            # Killed, it would leave its own workers.
            process.signal(signal.SIGTERM)
            process.end()


@pytest.fixture
def wire(front: Served) -> Iterator[Wire]:
    with front.connect() as opened:
        yield opened


def test_the_application_sees_the_client_and_not_the_proxy(wire: Wire) -> None:
    seen = json.loads(wire.request("/scope/a%20b?c=d").body)
    # The headers tell no port, the PROXY protocol does.
    assert seen["client"] in (["127.0.0.1", 0], list(wire.socket.getsockname()))
    assert seen["scheme"] == "http"
    assert seen["path"] == "/scope/a b"
    assert seen["query_string"] == {"bytes": "c=d"}
    assert seen["http_version"] == "1.1"


def test_what_a_client_says_of_itself_is_not_believed(wire: Wire) -> None:
    said = "x-forwarded-for: 6.6.6.6\r\nforwarded: for=6.6.6.6;proto=https\r\n"
    said += "x-forwarded-proto: https\r\n"
    seen = json.loads(wire.request("/scope", headers=said).body)
    assert seen["client"][0] == "127.0.0.1"
    assert seen["scheme"] == "http"


def test_an_upload_comes_whole(wire: Wire) -> None:
    # Answered when all of it is there: nginx sends no more of it once an answer has begun.
    body = os.urandom(3_000_000)
    assert wire.request("/length", "POST", body=body).body == b"3000000"


def test_a_long_response_comes_whole(wire: Wire) -> None:
    answer = wire.request("/compressible?size=100000&count=30")
    assert len(answer.body) == 3_000_000


def test_many_requests_by_one_connection(wire: Wire) -> None:
    for number in range(100):
        assert wire.request(f"/hello?{number}").body == b"hello"


def test_early_hints_pass(wire: Wire, request: pytest.FixtureRequest) -> None:
    if "nginx" in request.node.name:
        pytest.skip("none are sent to nginx")
    messages = [
        {"type": "http.response.early_hint", "links": ["</a.css>; rel=preload"]},
        {"type": "http.response.start", "status": 200},
        {"type": "http.response.body", "body": "hello"},
    ]
    early = wire.request(f"/say?messages={quote(json.dumps(messages))}")
    assert (early.status, early.get("link")) == (103, "</a.css>; rel=preload")
    assert wire.response().body == b"hello"


def test_a_websocket_passes(front: Served) -> None:
    client = pytest.importorskip("websockets.sync.client")
    limits = {"open_timeout": PATIENCE, "close_timeout": PATIENCE, "max_size": None}
    with client.connect(front.url.replace("http", "ws") + "/echo", **limits) as one:
        for message in ["", "text", b"bytes" * 100_000]:
            one.send(message)
            assert one.recv(timeout=PATIENCE) == message
    assert one.close_code == 1000


def test_the_proxys_files_are_its_own(front: Served, request: pytest.FixtureRequest) -> None:
    if "haproxy" in request.node.name:
        pytest.skip("HAProxy serves no files")
    assert front.get("/static/style.css").body == b"body {}"


def test_the_example_of_systemd_is_one_that_systemd_takes(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze", path=PROGRAMS)
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    for name in ("mysite.socket", "mysite.service"):
        (tmp_path / name).write_text(
            (EXAMPLES / name).read_text().replace("/srv/mysite/venv/bin/rondel", sys.executable)
        )
    told = call([program, "verify", str(tmp_path / "mysite.service")], tmp_path)
    assert "mysite" not in told.errors, told.errors
