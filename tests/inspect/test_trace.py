"""`rondel trace`: another process records itself, and gives the recording to whoever has asked."""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import running as process

from .test_attach import RONDEL, ROOT, Child, ask, running
from .web_support import PATIENCE, inspected


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with running(tmp_path_factory.mktemp("run"), "ticks", "3") as child:
        child.connect().close()
        yield child


def question(words: str) -> dict[str, object]:
    return {"v": 1, "ask": words}


def test_what_tasks_do_is_drawn(child: Child) -> None:
    got = child.rondel("trace", str(child.pid), "--seconds", "0.2", "--draw")
    assert (got.status, got.errors) == (0, f"recording process {child.pid} for 0.2 s\n")
    for name in ("tick-0: tick", "tick-1: tick", "tick-2: tick", "main"):
        assert name in got.output
    assert "in a thread: read" not in got.output  # it was there before: nothing is known of it
    assert "One after another" in got.output


def test_it_is_written_as_a_trace(child: Child, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    got = child.rondel("trace", str(child.pid), "--seconds", "0.2", "-o", str(path))
    assert (got.status, got.output) == (0, "")
    assert str(path) in got.errors
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    tracks = {
        event["args"]["name"]: event["tid"] for event in events if event["name"] == "thread_name"
    }
    assert {event["pid"] for event in events} == {child.pid}
    of_one = [event["name"] for event in events if event["tid"] == tracks["tick-1: tick"]]
    assert "runs" in of_one
    assert "waits: sleep" in of_one
    (place,) = {
        event["args"]["at"]
        for event in events
        if event["tid"] == tracks["tick-1: tick"] and event["name"] == "waits: sleep"
    }
    assert place.partition(":")[0].endswith("child.py")


def test_one_at_a_time(child: Child) -> None:
    with child.connect() as sock:
        assert ask(sock, question("record 60")) == {"v": 1, "recording": True}
        assert ask(sock, question("record 60"))["error"] == "busy"
        outcome = child.rondel("trace", str(child.pid), "--draw")
        assert outcome.status == 1
        assert "a recording is going on already" in outcome.errors
        assert len(outcome.errors.splitlines()) == 1
        got = ask(sock, question("recorded"))
        assert len(got["events"]) % 5 == 0
        assert got["events"]
        assert ask(sock, question("recorded"))["error"] == "none"


def until_recorded(child: Child, recorded: bool) -> None:
    end = time.monotonic() + PATIENCE
    with child.connect() as sock:
        while ask(sock, question("stats"))["recorded"] is not recorded:
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.parametrize(
    "words",
    [
        ("trace", "{pid}", "--seconds", "600", "--draw"),
        ("top", "{pid}", "--view", "tasks", "--interval", "60", "--once"),
    ],
    ids=lambda words: str(words[0]),
)
def test_a_recording_ends_with_a_client_that_is_killed(
    child: Child, words: tuple[str, ...]
) -> None:
    command = [*RONDEL, *(word.format(pid=child.pid) for word in words)]
    with process(command, ROOT, **child.env) as client:
        until_recorded(child, True)
        client.kill()
    # At once, not after those minutes.
    until_recorded(child, False)


def test_a_recording_ends_with_a_page_that_is_killed(child: Child, tmp_path: Path) -> None:
    with inspected(tmp_path, "web", str(child.pid), **child.env) as web:
        path = f"/api/record?pid={child.pid}&seconds=60"
        connection = http.client.HTTPConnection(*web.address, timeout=PATIENCE)
        connection.request("POST", path)
        until_recorded(child, True)
        web.process.kill()
        connection.close()
    until_recorded(child, False)


def test_a_held_recording_outlasts_what_a_client_may_be_silent(
    child: Child, tmp_path: Path
) -> None:
    path = tmp_path / "trace.json"
    got = child.rondel("trace", str(child.pid), "--seconds", "5.5", "-o", str(path))
    assert got.status == 0, got.errors
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    times = [event["ts"] for event in events if "ts" in event]
    assert max(times) - min(times) > 5.2e6


def test_a_recording_that_is_not_held_stays_when_its_client_goes(child: Child) -> None:
    with child.connect() as sock:
        assert ask(sock, question("record 60"))["recording"]
    # Its end is seen before the next one is let in.
    with child.connect() as sock:
        assert "events" in ask(sock, question("recorded"))


def test_a_recording_of_the_programs_own_stays_its_own(tmp_path: Path) -> None:
    with running(tmp_path, "records", "x") as child, child.connect() as sock:
        assert ask(sock, question("recorded"))["error"] == "none"
        assert ask(sock, question("record 1"))["error"] == "busy"
        child.expected = 5  # what its own recording makes it end with


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "3601", "many", ""])
def test_seconds_have_bounds(child: Child, seconds: str) -> None:
    with child.connect() as sock:
        assert ask(sock, question(f"record {seconds}"))["error"] == "unknown"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--seconds", "0"], 2, "from more than 0 to 3600 seconds"),
        (["--seconds", "many"], 2, "'many' is not a number of seconds"),
        (["-o", "no/such/folder/file"], 1, "cannot write no/such/folder/file"),
    ],
)
def test_mistakes_are_told(child: Child, arguments: list[str], status: int, words: str) -> None:
    got = child.rondel("trace", str(child.pid), *arguments)
    assert got.status == status
    assert words in got.errors
