"""The page's process: who is answered, what others get, and when it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rondel.inspect.web import address
from rondel.inspect.web.peers import user_of
from rondel.server.settings import read_settings
from tests.cli.support import call, environment
from tests.inspect.web_support import PATIENCE, RONDEL, ROOT, Web, inspected

BUSY = ("-m", "tests.inspect.busy")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with inspected(tmp_path_factory.mktemp("run"), "run", "--inspect", "0", *BUSY) as web:
        yield web


@pytest.fixture(scope="module")
def open_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("run")
    with inspected(folder, "run", "--inspect", "0.0.0.0:0", *BUSY) as web:
        yield web


def test_it_is_on_loopback_by_default_and_needs_no_token(page: Web) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", page.url)
    got = page.ask("/")
    assert got.status == 200
    assert b"<title>Rondel inspector</title>" in got.body


def test_the_environment_does_not_turn_off_what_was_asked_for(page: Web) -> None:
    # `inspected` sets RONDEL_INSPECT=0.
    end = time.monotonic() + PATIENCE
    while "loops" not in (told := page.ask("/api/state").json)["processes"][0]:
        assert time.monotonic() < end, told
    [process] = told["processes"]
    assert process["pid"] == page.process.pid
    assert process["program"].startswith("python")
    assert len(process["loops"]) == 1


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_another_name_for_loopback_is_refused(page: Web, host: str) -> None:
    assert page.ask("/api/state", Host=host).status in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8000"])
def test_names_of_loopback_are_known(page: Web, host: str) -> None:
    assert page.ask("/api/state", Host=host).status == 200


def test_pages_of_elsewhere_get_nothing(page: Web) -> None:
    host = f"127.0.0.1:{page.address[1]}"
    assert page.ask("/api/state", Origin=f"http://{host}", Host=host).status == 200
    assert page.ask("/api/state", Origin="http://evil.example", Host=host).status == 403
    assert page.ask("/api/state", Origin="null", Host=host).status == 403
    for site in ("cross-site", "same-site"):
        assert page.ask("/api/state", Sec_Fetch_Site=site).status == 403
        assert page.ask("/", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors").status == 403
    # A link to it is harmless.
    assert page.ask("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200
    record = "/api/record?seconds=1"
    assert page.ask(record, "POST", Origin="http://evil.example", Host=host).status == 403


def test_the_browser_is_told_to_load_nothing_from_elsewhere(page: Web) -> None:
    for path in ("/", "/static/js/main.js", "/api/state", "/nothing"):
        headers = page.ask(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/js",
        "/index.html",
        "/api/nothing",
    ],
)
def test_only_the_page_s_own_files_are_there(page: Web, path: str) -> None:
    assert page.ask(path).status == 404


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ("tasks", 400),
        ("tasks?pid=x", 400),
        ("tasks?pid=1", 404),
        ("tasks?pid=99999999999", 400),
        ("task?pid={pid}&id=999999", 404),
        ("task?pid={pid}&id=nan", 400),
        ("members?pid={pid}&row=x&begin=-1", 400),
        ("record?pid={pid}&seconds=1", 404),
    ],
)
def test_questions_that_are_none_are_refused_in_words(
    page: Web, question: str, status: int
) -> None:
    got = page.ask("/api/" + question.format(pid=page.process.pid))
    assert got.status == status
    assert got.json["error"]


def test_a_recording_is_bounded(page: Web) -> None:
    for seconds in ("0", "61", "inf", "nan"):
        path = f"/api/record?pid={page.process.pid}&seconds={seconds}"
        assert page.ask(path, "POST").status == 400


def test_a_client_that_leaves_ends_its_recording(page: Web) -> None:
    path = f"/api/record?pid={page.process.pid}&seconds="
    end = time.monotonic() + PATIENCE
    busy = False
    while not busy:
        with socket.create_connection(page.address, timeout=PATIENCE) as client:
            client.sendall(f"POST {path}60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            # If this one comes first, the other is refused, and is sent again.
            busy = page.ask(f"{path}0.05", "POST").status == 503
        assert time.monotonic() < end
    # Another one may record at once, not after that minute.
    while (got := page.ask(f"{path}0.1", "POST")).status != 200:
        assert "is going on already" in got.json["error"]
        assert time.monotonic() < end
        time.sleep(0.05)


# ------------------------------------------------------------------------------- with a token


def test_others_than_this_machine_need_the_token(open_page: Web) -> None:
    assert len(open_page.token) >= 40
    for path in ("/", "/api/state", "/static/js/main.js", "/?token=", "/?token=x"):
        got = open_page.ask(path)
        assert got.status == 401
        assert open_page.token.encode() not in got.body
    assert open_page.ask(f"/api/state?token={open_page.token}").status == 401, "only at the door"


def test_the_token_becomes_a_cookie_and_leaves_the_address(open_page: Web) -> None:
    got = open_page.ask(f"/?token={open_page.token}")
    assert got.status == 200
    assert b'http-equiv="refresh" content="0;url=/"' in got.body
    assert open_page.token.encode() not in got.body
    cookie = got.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    pair = cookie.partition(";")[0]
    assert open_page.ask("/api/state", Cookie=pair).status == 200
    assert open_page.ask("/api/state", Cookie=pair[:-1]).status == 401
    assert open_page.ask("/api/state", Cookie=f"a=b; {pair}", Host="some.name").status == 200


def test_programs_may_send_the_token_as_a_header(open_page: Web) -> None:
    bearer = f"Bearer {open_page.token}"
    assert open_page.ask("/api/state", Authorization=bearer).status == 200
    assert open_page.ask("/api/state", Authorization=bearer + "x").status == 401
    assert open_page.ask("/api/state", Authorization="Bearer \xff").status == 401


def test_the_token_is_nowhere_for_other_users(open_page: Web) -> None:
    commands = subprocess.run(
        ["ps", "-eo", "args"], capture_output=True, text=True, check=True
    ).stdout
    assert open_page.token not in commands


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to be somebody else")
def test_another_user_of_this_machine_gets_nothing(page: Web) -> None:
    code = (
        "import os, sys, encodings.idna, http.client\n"
        "os.setuid(65534)\n"
        "connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=30)\n"
        "connection.request('GET', '/api/state')\n"
        "print(connection.getresponse().status)\n"
    )
    got = call([sys.executable, "-c", code, str(page.address[1])], ROOT)
    assert (got.status, got.output) == (0, "403\n"), got.errors


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_the_kernel_tells_whose_a_connection_is(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as listener:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip(f"no {host} here")
        listener.listen()
        with socket.create_connection(listener.getsockname()[:2]) as client:
            there = client.getsockname()[:2]
            here = listener.getsockname()[:2]
            assert user_of(there, here) == os.geteuid()
            assert user_of((host, 1), here) is None


# -------------------------------------------------------------------------------- life and end


def ends(address: tuple[str, int]) -> None:
    """Nobody listens there any more, soon."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(address, timeout=PATIENCE).close()
        except OSError:
            return
        assert time.monotonic() < end, "the page outlived its program"
        time.sleep(0.02)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_program_however_that_ends(tmp_path: Path, end: signal.Signals) -> None:
    with inspected(tmp_path, "run", "--inspect", "0", *BUSY) as web:
        assert web.ask("/").status == 200
        web.process.signal(end)
        web.process.end()
        ends(web.address)


def test_it_ends_with_a_service_that_is_killed_and_shows_its_workers(tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(APP)
    words = ("serve", "served:app", "--app-dir", str(tmp_path), "--port", "0")
    with inspected(tmp_path, *words, "--workers", "2", "--inspect", "0") as web:
        web.process.wait_for(r" with 2 workers")
        end = time.monotonic() + PATIENCE
        while len(shown := web.ask("/api/state").json["processes"]) != 2:
            assert time.monotonic() < end, shown
        assert web.process.pid not in [one["pid"] for one in shown]
        assert all(len(one["loops"]) == 1 for one in shown)
        web.process.signal(signal.SIGKILL)
        web.process.end()
        ends(web.address)


APP = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""


def test_the_program_has_no_child_and_no_descriptor_of_it(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "try:\n"
        "    os.waitpid(-1, 0)\n"
        "except ChildProcessError:\n"
        "    print('no child', flush=True)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    left = [int(name) for name in os.listdir('/proc/self/fd')]\n"
        "    left = [n for n in left if n > 2 and os.path.exists(f'/proc/self/fd/{n}')]\n"
        "    print(left, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
    )
    got = call([*RONDEL, "run", "--inspect", "0", "-c", code], tmp_path)
    assert got.status == 0, got.errors
    assert got.output == "no child\n[]\n"


def test_a_port_in_use_is_told_before_the_program_runs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        got = call([*RONDEL, "run", "--inspect", port, "-c", "print('ran')"], tmp_path)
        assert (got.status, got.output) == (2, "")
        assert port in got.errors and "in use" in got.errors
        assert got.errors.count("\n") == 1
        (tmp_path / "served.py").write_text(APP)
        words = ["serve", "served:app", "--app-dir", str(tmp_path), "--port", "0"]
        got = call([*RONDEL, *words, "--inspect", port], tmp_path)
        assert got.status == 1
        assert port in got.errors and "in use" in got.errors


@pytest.mark.parametrize("text", ["x", "1:2:3", "70000", "host:", ":80", "::1:80", "a b:1"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST"):
        address.parse(text)


def test_addresses_as_they_are_written() -> None:
    assert str(address.parse("8001")) == "127.0.0.1:8001"
    assert str(address.parse("[::1]:0")) == "[::1]:0"
    assert address.parse("localhost:1").is_loopback
    assert address.parse("127.9.9.9:1").is_loopback
    for text in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1"):
        assert not address.parse(text).is_loopback


def test_a_process_that_cannot_be_asked_has_no_page(tmp_path: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    got = call([*RONDEL, "web", str(os.getpid())], tmp_path, env=env)
    assert got.status == 1
    assert got.errors.startswith("rondel web: process ")
    assert got.errors.count("\n") == 1


def test_rondel_web_shows_a_process_that_runs_and_ends_with_it(tmp_path: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "RONDEL_INSPECT": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.inspect.child", "tasks", "10"],
        cwd=ROOT,
        env=environment(**env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert child.stdout is not None and child.stdin is not None
    try:
        assert child.stdout.readline() == "there\n"
        with inspected(tmp_path, "web", str(child.pid), "--at", "0") as web:
            told = web.ask(f"/api/tasks?pid={child.pid}").json
            assert told["total"] >= 11
            child.stdin.close()
            assert web.process.end().status == 0
            ends(web.address)
    finally:
        child.kill()
        child.wait(PATIENCE)
        child.stdout.close()
        child.stdin.close()


def test_a_blocked_loop_is_shown_all_the_same(tmp_path: Path) -> None:
    code = (
        "import asyncio, time, sys\n"
        "async def main():\n"
        "    print('blocks', file=sys.stderr, flush=True)\n"
        "    time.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with inspected(tmp_path, "run", "--inspect", "0", "-c", code) as web:
        web.process.wait_for("blocks")
        end = time.monotonic() + PATIENCE
        while not (stalls := web.ask("/api/stalls").json["processes"][0].get("stalls")):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert stalls[0]["stack"][0][1:] == [4, "main"]
        [row] = web.ask(f"/api/tasks?pid={web.process.pid}").json["rows"]
        assert row["states"] == {"running": 1}


def test_services_have_the_option_under_all_its_names(tmp_path: Path) -> None:
    file = tmp_path / "rondel.toml"
    file.write_text("inspect = 8001\n")
    assert read_settings(str(file), {}).values["inspect"] == "127.0.0.1:8001"
    named = {"RONDEL_INSPECT_PAGE": "[::]:0"}
    assert read_settings(str(file), named).values["inspect"] == "[::]:0"
    # What says whether a process can be asked at all is no address.
    assert read_settings(str(file), {"RONDEL_INSPECT": "0"}).values["inspect"] == "127.0.0.1:8001"
    got = call([*RONDEL, "serve", "served:app", "--inspect", "here"], tmp_path)
    assert got.status == 2
    assert "'here' is not [HOST:]PORT" in got.errors
