"""`--static`: files answered natively, before ASGI, WSGI and Django applications alike.

What is served and what is said of it is tested with the crate: crates/rondel-http/tests/statics.rs.
"""

import errno
import gzip
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rondel.server.config import Config
from rondel.server.errors import UsageError
from rondel.server.options import split_mounts
from tests.cli.support import running
from tests.server.wire import PATIENCE, ROOT, Response, Served, Wire, serving

pytestmark = pytest.mark.rondel_server

# A page that the application has, and what it says of one that it has not.
APPS = {
    "tests.server.apps:app": ("/hello", 500),
    "tests.server.wsgi_apps:app": ("/hello", 500),
    "tests.server.flask_site:app": ("/page/x", 404),
    "tests.server.django_site:application": ("/page/x", 404),
    "tests.server.django_asgi:application": ("/page/x", 404),
}
LARGE = bytes(range(1, 251)) * 64_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    public = root / "public files"
    (public / "sub").mkdir(parents=True)
    (root / "secret").write_text("secret")
    (public / "site.css").write_text("body {}")
    (public / "app.js").write_text("plain")
    (public / "app.js.gz").write_bytes(gzip.compress(b"plain"))
    (public / "sub" / "index.html").write_text("<p>index")
    (public / "large").write_bytes(LARGE)
    (public / "up").symlink_to("../secret")
    return public


@pytest.fixture(scope="module", params=sorted(APPS))
def site(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Served, str, int]]:
    page, missing = APPS[request.param]
    with serving(request.param, "--static", f"/static={folder}") as served:
        yield served, page, missing
        served.process.signal(signal.SIGTERM)
        outcome = served.process.end()
        assert outcome.status == 0, outcome.errors


def test_files_are_sent_and_all_else_is_the_applications(site: tuple[Served, str, int]) -> None:
    served, page, missing = site
    with served.connect() as wire:
        got = wire.request("/static/site.css")
        assert (got.status, got.body) == (200, b"body {}")
        assert got.get("content-type") == "text/css; charset=utf-8"
        assert got.get("server") == "rondel"
        assert got.get("date") is not None
        assert wire.request(page).status == 200
        assert wire.request("/static/large").body == LARGE
        assert wire.request("/static/sub/").body == b"<p>index"
        assert wire.request("/static/site.css", "POST", headers="").status == 405
        for target in ("/static/none", "/static/up", "/static/%2e%2e/secret", "/static/../secret"):
            got = wire.request(target)
            assert got.status == missing, target
            assert b"secret\n" not in got.body
        assert wire.request("/static/site.css").body == b"body {}"


def test_clients_of_every_day(site: tuple[Served, str, int]) -> None:
    with httpx.Client(base_url=site[0].url, timeout=PATIENCE) as client:
        first = client.get("/static/app.js")
        assert (first.text, first.headers["content-encoding"]) == ("plain", "gzip")
        again = client.get("/static/app.js", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        part = client.get("/static/large", headers={"range": "bytes=1000000-1999999"})
        assert (part.status_code, part.content) == (206, LARGE[1_000_000:2_000_000])
        moved = client.get("/static/sub", follow_redirects=True)
        assert (moved.text, moved.url.path) == ("<p>index", "/static/sub/")


@pytest.mark.parametrize("app", ["tests.server.apps:app", "tests.server.wsgi_apps:app"])
def test_the_logs_have_them(app: str, folder: Path) -> None:
    options = ["--static", f"/={folder}", "--request-id", "on", "--metrics", "/-/metrics"]
    style = "%(client)s %(method)s %(target)s %(status)s %(bytes)s %(request_id)s"
    with serving(app, *options, "--access-log-format", style) as served:
        with served.connect() as wire:
            got = wire.request("/site.css?v=1", headers="X-Request-ID: mine\r\n")
            assert got.get("x-request-id") == "mine"
            etag = got.get("etag")
            assert wire.request("/site.css", "HEAD").status == 200
            assert wire.request("/site.css", headers=f"If-None-Match: {etag}\r\n").status == 304
            made = wire.request("/sub", "DELETE").get("x-request-id")
            metrics = wire.request("/-/metrics").body.decode()
        served.process.signal(signal.SIGTERM)
        lines = served.process.end().output.splitlines()
    asked = [line.split(maxsplit=1)[1] for line in lines if line.startswith("127.0.0.1")]
    assert re.search("GET /site.css.v=1 200 7 mine", asked[0])
    assert asked[1].startswith("HEAD /site.css 200 0 ")
    assert asked[2].startswith("GET /site.css 304 0 ")
    assert asked[3] == f"DELETE /sub 405 18 {made}"
    assert re.search(r'method="DELETE",status="4xx"\} 1$', metrics, re.M), metrics


def open_for(fifo: Path) -> int:
    """The writing end of a pipe, once somebody has opened it for reading."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO
            assert time.monotonic() < deadline, "nobody reads"
            time.sleep(0.01)


def is_refused(served: Served) -> bool:
    """Whether the server accepts no more, soon."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(served.address) != 0:
                return True
        time.sleep(0.01)
    return False


def test_nobody_waits_for_the_interpreter(folder: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    options = ("--static", f"/static={folder}", "--no-access-log", "--threads", "2")
    with (
        serving("tests.server.wsgi_apps:app", *options) as served,
        served.connect() as wire,
        served.connect() as other,
    ):
        assert wire.request("/hello").body == b"hello"
        other.send(f"GET /keep_interpreter?key=k&gate={gate} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        writing = open_for(gate)
        # The other side reads: from now on it does not let go of the interpreter.
        for _ in range(3):
            assert wire.request("/static/site.css").body == b"body {}"
            assert wire.request("/static/large").body == LARGE
        os.write(writing, b"x")
        os.close(writing)
        assert other.response().body == b"kept"


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["afresh", "preload"])
def test_all_workers_have_them_and_a_reload_brings_others(
    folder: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "rondel.toml").write_text(f'static = ["/static={folder}"]\n')
    command = [sys.executable, "-m", "rondel", "serve", "tests.server.apps:app", "--port", "0"]
    command += ["--app-dir", str(ROOT), "--workers", "2", *options]
    with running(command, tmp_path) as process:
        ready = process.wait_for(r"serving .* on http://127\.0\.0\.1:(\d+)")
        served = Served(process, ("127.0.0.1", int(ready[1])))
        for _ in range(20):
            assert served.get("/static/site.css").body == b"body {}"
        other = tmp_path / "other"
        other.mkdir()
        (other / "new.txt").write_text("new")
        (tmp_path / "rondel.toml").write_text(f'static = ["/static={other}"]\n')
        process.signal(signal.SIGHUP)
        process.wait_for("reloaded")
        # Those that were replaced may have accepted a connection or two at the last moment.
        answers = (served.get("/static/new.txt") for _ in range(100))
        assert next(got for got in answers if got.status == 200).body == b"new"
        process.signal(signal.SIGTERM)
        outcome = process.end()
    assert outcome.status == 0, outcome.errors


def test_a_stop_lets_a_file_on_its_way_arrive(folder: Path) -> None:
    options = ("--static", f"/={folder}")
    with serving("tests.server.apps:app", *options) as served, served.connect() as wire:
        wire.send(b"GET /large HTTP/1.1\r\nhost: t\r\n\r\n")
        wire._until(b"\r\n\r\n")
        served.process.signal(signal.SIGTERM)
        assert is_refused(served)
        assert wire.exactly(len(LARGE)) == LARGE
        assert served.process.end().status == 0


def test_a_file_that_is_replaced_is_another(folder: Path, tmp_path: Path) -> None:
    options = ("--static", f"/s={tmp_path}")
    with serving("tests.server.apps:app", *options) as served, served.connect() as wire:
        for number, text in enumerate(("one", "two", "six")):
            (tmp_path / "new").write_text(text)
            os.utime(tmp_path / "new", ns=(0, 10**18 + number))
            os.replace(tmp_path / "new", tmp_path / "page.txt")
            got = wire.request("/s/page.txt")
            assert got.body == text.encode()
            assert got.get("etag") == f'"3b9aca00.{number:x}-3"'


def answers(wire: Wire, *targets: str) -> list[Response]:
    return [wire.request(target) for target in targets]


def test_several_routes_and_an_age(folder: Path) -> None:
    routes = ("--static", f"/a={folder}", "--static", f"/a/b/={folder / 'sub'}")
    with serving("tests.server.apps:app", *routes, "--static-max-age", "60") as served:
        with served.connect() as wire:
            first, second = answers(wire, "/a/site.css", "/a/b/")
        assert (first.body, first.get("cache-control")) == (b"body {}", "public, max-age=60")
        assert second.body == b"<p>index"


# ------------------------------------------------------------------------------- the option


@pytest.mark.parametrize(
    "mount",
    ["", "/static", "/static=", "static=x", "=x", "/a%20b=x", "/a b=x", "/a?=x", "//=x", "/a//b=x"],
)
def test_what_is_no_mount_is_refused(mount: str) -> None:
    with pytest.raises(UsageError, match=r"static: .* is not a list of ROUTE=DIR"):
        Config(static=(mount,))


def test_a_mount_is_a_route_and_a_folder(tmp_path: Path) -> None:
    assert split_mounts(["/=a b", "/s/=x=y", "/a.b-c/d=z"]) == [
        ("", "a b"),
        ("/s", "x=y"),
        ("/a.b-c/d", "z"),
    ]
    with pytest.raises(UsageError, match="each route once"):
        Config(static=(f"/a={tmp_path}", f"/a/={tmp_path}"))
    with pytest.raises(UsageError, match="static: there is no directory 'nowhere'"):
        Config(static=("/=nowhere",))
    with pytest.raises(UsageError, match="give static as well"):
        Config(static_max_age=1.0)


def test_a_folder_that_is_missing_is_one_line_at_the_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rondel", "serve", "tests.server.apps:app"]
    with running([*command, "--static", f"/={tmp_path}/none"], ROOT) as process:
        outcome = process.end()
    assert outcome.status == 2
    assert "there is no directory" in outcome.errors
    assert "Traceback" not in outcome.errors
    assert json.dumps(outcome.output) == '""'
