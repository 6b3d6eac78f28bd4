"""`rondel serve` from the banner to the end: signals, lifespan, logs, and its exit statuses."""

import re
import signal
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .support import RONDEL, Process, call, running, serving

APPLICATION = """\
import asyncio, sys, threading, time

def say(text):
    print(text, file=sys.stderr, flush=True)

async def lifespan(scope, receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["answer"] = "42"
    say("starting up")
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    say("shutting down")
    await send({"type": "lifespan.shutdown.complete"})

async def reply(send, body):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    if scope["path"] == "/for-ever":
        say("in flight")
        await asyncio.Event().wait()
    elif scope["path"] == "/stubborn":
        say("in flight")
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                say("not me")
    elif scope["path"] == "/thread":
        threading.Thread(target=time.sleep, args=(60,), name="stuck").start()
    await reply(send, scope["state"]["answer"].encode() + scope["root_path"].encode())

async def plain(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError("only http")
    await reply(send, repr("state" in scope).encode())

async def refuses(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})

async def dies(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        raise KeyError("halfway")
    await reply(send, b"served")

async def hangs(scope, receive, send):
    await receive()
    say("hanging")
    await asyncio.Event().wait()

async def mute(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await reply(send, b"served")
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site_app.py").write_text(APPLICATION)
    return tmp_path


def get(url: str, path: str = "/") -> bytes:
    with urllib.request.urlopen(urllib.parse.urljoin(url, path), timeout=20) as response:
        body: bytes = response.read()
        return body


def stop(process: Process, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
    process.signal(number)
    outcome = process.end()
    return outcome.status, outcome.output, outcome.errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_gracefully_with_status_0(site: Path, number: signal.Signals) -> None:
    with serving("site_app:app", site) as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*", url)
        assert get(url) == b"42"
        status, output, errors = stop(process, number)
    assert status == 0
    assert errors.index("starting up") < errors.index("serving site_app:app")
    assert errors.index("stopping") < errors.index("shutting down") < errors.index("stopped")
    assert re.fullmatch(r'127\.0\.0\.1:\d+ - "GET / HTTP/1\.1" 200 \d+\.\dms\n', output)


def test_the_access_log_can_be_turned_off(site: Path) -> None:
    with serving("site_app:app", site, "--no-access-log") as (process, url):
        get(url)
        status, output, _ = stop(process)
    assert (status, output) == (0, "")


def test_the_root_path_reaches_the_scope(site: Path) -> None:
    with serving("site_app:app", site, "--root-path", "/shop") as (_, url):
        assert get(url).endswith(b"/shop")


def test_requests_in_flight_are_cut_off_at_the_deadline(site: Path) -> None:
    with (
        serving("site_app:app", site, "--graceful-timeout", "0.2") as (process, url),
        ThreadPoolExecutor() as pool,
    ):
        pending = pool.submit(get, url, "/for-ever")
        process.wait_for("in flight")
        status, _, errors = stop(process)
        assert pending.exception() is not None
    assert status == 0
    assert "cut off 1 request that did not end in time" in errors
    assert "shutting down" in errors


def test_a_second_signal_cuts_off_at_once_with_status_1(site: Path) -> None:
    with (
        serving("site_app:app", site, "--graceful-timeout", "600") as (process, url),
        ThreadPoolExecutor() as pool,
    ):
        pending = pool.submit(get, url, "/for-ever")
        process.wait_for("in flight")
        process.signal(signal.SIGINT)
        process.wait_for("stopping")
        status, _, _ = stop(process, signal.SIGINT)
        assert pending.exception() is not None
    assert status == 1


def test_a_request_that_swallows_its_cancel_does_not_hold_the_process(site: Path) -> None:
    with (
        serving("site_app:app", site, "--graceful-timeout", "0.1") as (process, url),
        ThreadPoolExecutor() as pool,
    ):
        pending = pool.submit(get, url, "/stubborn")
        process.wait_for("in flight")
        process.signal(signal.SIGINT)
        process.wait_for("requests that did not end when they were cancelled: 1")
        outcome = process.end()
        assert pending.exception() is not None
    assert "tasks did not end when they were cancelled; leaving them" in outcome.errors


def test_a_stuck_thread_does_not_hold_the_process(site: Path) -> None:
    with serving("site_app:app", site) as (process, url):
        get(url, "/thread")
        status, _, errors = stop(process)
    assert status == 0
    assert "threads still busy after the stop: stuck" in errors


@pytest.mark.parametrize("app", ["plain", "mute"])
def test_an_application_without_lifespan_is_served_quietly(site: Path, app: str) -> None:
    with serving(f"site_app:{app}", site) as (process, url):
        get(url)
        status, _, errors = stop(process)
    assert status == 0
    assert len(errors.splitlines()) == 3, errors  # serving, stopping, stopped
    assert "lifespan" not in errors


def test_without_lifespan_the_scope_has_no_state(site: Path) -> None:
    with serving("site_app:plain", site) as (_, url):
        assert get(url) == b"False"


def test_a_startup_that_dies_halfway_is_served_with_a_warning(site: Path) -> None:
    with serving("site_app:dies", site) as (process, url):
        assert get(url) == b"served"
        status, _, errors = stop(process)
    assert status == 0
    assert "WARNING the application took the lifespan's startup event and then raised" in errors
    assert "KeyError: 'halfway'" in errors


def test_a_refused_startup_is_one_line_and_status_1(site: Path) -> None:
    got = call([*RONDEL, "serve", "site_app:refuses", "--port", "0"], site)
    assert got.status == 1
    assert got.errors == "rondel serve: the application's startup failed: no database\n"


@pytest.mark.parametrize("app", ["plain", "mute"])
def test_lifespan_on_wants_one(site: Path, app: str) -> None:
    arguments = ["serve", f"site_app:{app}", "--port", "0", "--lifespan", "on"]
    got = call([*RONDEL, *arguments], site)
    assert got.status == 1
    assert "rondel serve: the application has no lifespan" in got.errors.splitlines()[-1]


def test_lifespan_off_never_asks(site: Path) -> None:
    with serving("site_app:hangs", site, "--lifespan", "off") as (process, _):
        assert stop(process)[0] == 0
        assert "hanging" not in "".join(process.errors)


def test_a_startup_that_hangs_is_ended(site: Path) -> None:
    arguments = ["serve", "site_app:hangs", "--port", "0", "--lifespan-timeout", "0.2"]
    got = call([*RONDEL, *arguments], site)
    assert got.status == 1
    assert "startup took more than 0.2 s" in got.errors


def test_a_signal_during_the_startup_stops(site: Path) -> None:
    with running([*RONDEL, "serve", "site_app:hangs", "--port", "0"], site) as process:
        process.wait_for("hanging")
        status, _, errors = stop(process)
    assert status == 0
    assert "Traceback" not in errors
    assert "stopped while starting" in errors


def test_the_banner_can_be_silenced(site: Path) -> None:
    arguments = ["serve", "site_app:app", "--port", "0", "--log-level", "warning"]
    with running([*RONDEL, *arguments], site) as process:
        process.wait_for("starting up")
        status, _, errors = stop(process)
    assert status == 0
    assert "serving" not in errors


def test_every_address_of_a_name_shares_the_free_port(site: Path) -> None:
    with serving("site_app:app", site, "--host", "localhost") as (_, url):
        assert url.startswith("http://localhost:")
        assert get(url) == b"42"
        assert get(url.replace("localhost", "127.0.0.1")) == b"42"
