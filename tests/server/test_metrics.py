"""What the server answers by itself: its metrics, of all workers, and its health."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.server.wire import PATIENCE, Served, serving

pytestmark = pytest.mark.rondel_server

APP = "tests.server.apps:app"
OPTIONS = ("--metrics", "/-/metrics", "--health", "/-/health")

Samples = dict[str, float]


def samples(text: bytes) -> Samples:
    """Prometheus' text by its rules: name, labels, a number; types said once, before."""
    found: Samples = {}
    typed: set[str] = set()
    for line in text.decode().splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert kind in ("counter", "gauge", "histogram")
            assert name not in typed
            typed.add(name)
        elif not line.startswith("# HELP "):
            match = re.fullmatch(
                r'([a-z_]+)((?:\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})?) (\S+)', line
            )
            assert match is not None, line
            base = re.sub(r"_(bucket|sum|count)$", "", match[1])
            assert match[1] in typed or base in typed
            assert match[1] + match[2] not in found
            found[match[1] + match[2]] = float(match[3])
    return found


def scrape(served: Served) -> Samples:
    answer = served.get("/-/metrics")
    assert answer.status == 200
    assert answer.get("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    return samples(answer.body)


def total(found: Samples, labels: str) -> float:
    return found.get(f"rondel_requests_total{{{labels}}}", 0.0)


def test_requests_are_counted_by_method_and_status() -> None:
    with serving(APP, *OPTIONS) as served:
        with served.connect() as wire:
            for _ in range(3):
                wire.request("/hello")
            wire.request("/echo", "POST", body=b"x")
            wire.request("/status?code=404")
            wire.request("/hello", "PURGE")
        served.get("/raise_before")
        found = scrape(served)
    assert total(found, 'method="GET",status="2xx"') == 3
    assert total(found, 'method="POST",status="2xx"') == 1
    assert total(found, 'method="GET",status="4xx"') == 1
    assert total(found, 'method="other",status="2xx"') == 1
    assert total(found, 'method="GET",status="5xx"') == 1
    assert found["rondel_request_duration_seconds_count"] == 7
    assert found['rondel_request_duration_seconds_bucket{le="+Inf"}'] == 7
    assert found["rondel_request_duration_seconds_sum"] > 0
    buckets = [count for name, count in found.items() if "_bucket{" in name]
    assert buckets == sorted(buckets)
    assert found["rondel_workers"] == 1
    assert found['rondel_connections{worker="1"}'] == 1
    assert found['rondel_resident_memory_bytes{worker="1"}'] > 1 << 20


def test_a_request_that_is_being_answered_is_in_flight(key: str) -> None:
    with serving(APP, *OPTIONS) as served, served.connect() as wire:
        wire.send(f"GET /hold?key={key} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
        served.events(key)
        assert scrape(served)['rondel_requests_in_flight{worker="1"}'] == 1
        served.get(f"/release?key={key}")
        wire.response()
        assert scrape(served)['rondel_requests_in_flight{worker="1"}'] == 0


def workers(served: Served) -> set[int]:
    """The supervisor's children."""
    pid = served.process.pid
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def until_all_tell(served: Served) -> Samples:
    """Successors write their gauges within a second."""
    deadline = time.monotonic() + PATIENCE
    while (found := scrape(served))["rondel_workers"] != 2:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def test_the_counts_of_all_workers_are_one_sum_and_those_of_dead_ones_are_kept() -> None:
    get = 'method="GET",status="2xx"'
    with serving(APP, "--workers", "2", *OPTIONS) as served:
        for _ in range(20):
            served.get("/hello")
        assert total(until_all_tell(served), get) == 20
        served.process.signal(signal.SIGHUP)
        served.process.wait_for("reloaded")
        served.get("/hello")
        assert total(until_all_tell(served), get) == 21
        # Those of the reload may still be leaving: whoever it hits, the counts stay.
        victim = max(workers(served))
        os.kill(victim, signal.SIGKILL)
        served.process.wait_for("SIGKILL")
        served.get("/hello")
        assert total(until_all_tell(served), get) == 22
        served.process.signal(signal.SIGTERM)
        assert served.process.end().status == 0


def test_the_server_s_own_answers_are_no_requests_of_the_application() -> None:
    with serving(APP, *OPTIONS) as served:
        assert served.get("/-/health?x=1").body == b"ok\n"
        scrape(served)
        assert total(scrape(served), 'method="GET",status="2xx"') == 0
        served.process.signal(signal.SIGTERM)
        assert "/-/" not in served.process.end().output


def test_without_the_options_the_paths_are_the_application_s() -> None:
    with serving() as served:
        assert served.get("/-/health").body != b"ok\n"
