"""Workers that are stuck: where is logged, and they are replaced and ended, whatever holds them."""

import contextlib
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cli.support import PATIENCE
from tests.workers.site import Site, ends, serving

# Short for a test, and still longer than a busy machine holds up a loop.
STALL = ("--limit-stall", "2", "--graceful-timeout", "1")


@contextlib.contextmanager
def asked(site: Site, path: str) -> Iterator[None]:
    """With a request whose answer nobody waits for."""
    with contextlib.closing(site.connect()) as connection:
        connection.request("GET", path)
        yield


def health(site: Site) -> tuple[int, Any]:
    found = re.search(r"health is told on (http://\S+)", "".join(site.process.errors))
    assert found is not None
    try:
        with urllib.request.urlopen(found[1], timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_worker_with_a_blocked_loop_is_replaced_and_killed(tmp_path: Path) -> None:
    with serving(tmp_path, *STALL, count=1) as site:
        first = site.ask().pid
        with asked(site, "/block"):
            site.wait_for(r"the loop is blocked for")
            site.wait_for(r"time\.sleep")
            site.wait_for(rf"replacing worker 1 \(pid {first}\): its loop is blocked")
            site.wait_for(r"worker 1 \(pid \d+\) is ready")
            second = site.ask().pid
            assert second != first
            site.wait_for(rf"\(pid {first}\) did not stop in time: killed")
            assert ends(first)
        assert site.ask().pid == second


def test_a_worker_whose_loop_runs_again_tells_so(tmp_path: Path) -> None:
    with serving(tmp_path, "--limit-stall", "2", count=1) as site:
        first = site.ask().pid
        with asked(site, "/block"):
            site.wait_for(r"the loop is blocked for")
            site.let_go()
            site.wait_for(r"the loop runs again")
        # It is replaced all the same, and stops by itself.
        assert ends(first)
        assert "killed" not in "".join(site.process.errors)


def test_a_worker_that_native_code_holds_is_ended_and_started_anew(tmp_path: Path) -> None:
    with serving(tmp_path, *STALL, count=1) as site:
        first = site.ask().pid
        with asked(site, "/native"):
            site.wait_for(rf"worker 1 \(pid {first}\) has done nothing for")
            # faulthandler needs no GIL.
            site.wait_for(r"in app")
            site.wait_for(rf"\(pid {first}\) was killed by SIGABRT")
            site.wait_for(r"worker 1 \(pid \d+\) is ready")
        assert site.ask().pid != first


def test_a_worker_with_a_stuck_request_is_replaced(tmp_path: Path) -> None:
    options = ("--limit-request-timeout", "0.4", "--graceful-timeout", "1")
    with serving(tmp_path, *options, count=1) as site:
        first = site.ask().pid
        with asked(site, "/stay"):
            site.wait_for(r"GET /stay: no response within 0.4 s")
            site.wait_for(r"GET /stay: it goes on, though cancelled")
            site.wait_for(rf"\(pid {first}\): a request is stuck: GET /stay")
            site.wait_for(r"worker 1 \(pid \d+\) is ready")
            assert ends(first)
        assert site.ask().pid != first


def test_the_health_port_shows_a_blocked_loop(tmp_path: Path) -> None:
    with serving(tmp_path, "--health-port", "0", "--limit-stall", "0") as site:
        pids = site.workers(2)
        status, told = health(site)
        assert (status, told["status"]) == (200, "ok")
        assert {worker["pid"] for worker in told["workers"]} == pids
        with asked(site, "/block"):
            site.wait_for("blocked")
            until(site, "blocked", 503)
            # The other one serves.
            assert site.ask().pid in pids
            site.let_go()
            until(site, "ok", 200)


def until(site: Site, what: str, status: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        found, told = health(site)
        if (found, told["status"]) == (status, what):
            return
        assert time.monotonic() < end, f"{told}, not {what}"
        time.sleep(0.05)
