"""Requests of real servers: in flight, in threads, ended, in stalls, with their tasks and views."""

import contextlib
import itertools
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import Outcome, call, running
from tests.inspect.test_attach import RONDEL, answer
from tests.server.wire import Response, Served, command
from tests.support import PATIENCE

ROOT = Path(__file__).parents[2]
numbers = itertools.count()


class Looked:
    """A server, and who looks into it."""

    def __init__(self, served: Served, env: dict[str, str], folder: Path) -> None:
        self.served = served
        self.env = env
        self.folder = folder
        self._clients = ThreadPoolExecutor(16)

    def rondel(self, *arguments: str) -> Outcome:
        command, *options = arguments
        return call([*RONDEL, command, str(self.served.process.pid), *options], ROOT, env=self.env)

    def ask(self, question: str) -> Any:
        path = self.folder / "rondel" / f"{self.served.process.pid}.sock"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(path))
            sock.sendall(json.dumps({"v": 1, "ask": question}).encode() + b"\n")
            return answer(sock)

    def get(self, target: str) -> "Future[Response]":
        """Asked, not waited for."""
        return self._clients.submit(self.served.get, target)

    def request(self, path: str, wanted: Callable[[Any], bool], ask: str = "requests") -> Any:
        """The request in flight with this path, once it is as wanted."""
        return self.until(ask, lambda data: found(data["requests"], path, wanted))

    def until(self, ask: str, look: Callable[[Any], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while True:
            data = self.ask(ask)
            seen = look(data)
            if seen:
                return seen
            assert time.monotonic() < end, data
            time.sleep(0.01)

    def ended(self, path: str) -> Any:
        return self.until("requests", lambda data: found(data["recent"], path))

    def open(self, key: str) -> None:
        assert self.served.get(f"/open?gate={key}").body == b"open"

    def close(self) -> None:
        self._clients.shutdown(wait=True)


def found(requests: list[Any], path: str, wanted: Callable[[Any], bool] = bool) -> Any:
    matching = [one for one in requests if one["path"] == path and wanted(one)]
    return matching[-1] if matching else None


def state(wanted: str) -> Callable[[Any], bool]:
    return lambda one: bool(one["state"] == wanted)


@contextlib.contextmanager
def looked_at(folder: Path, app: str, *options: str, **more: str) -> Iterator[Looked]:
    env = {"XDG_RUNTIME_DIR": str(folder), "RONDEL_INSPECT": "1", **more}
    words = command(app, "--port", "0", *options)
    with running(words, ROOT, **env) as process:
        place = process.wait_for(r"serving .*on http://127\.0\.0\.1:(\d+)")
        looked = Looked(Served(process, ("127.0.0.1", int(place[1]))), env, folder)
        yield looked
        looked.close()
        process.signal(signal.SIGTERM)
        outcome = process.end()
        assert outcome.status == 0, outcome.errors


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looked]:
    with looked_at(tmp_path_factory.mktemp("run"), "tests.inspect.served:asgi") as looked:
        yield looked


@pytest.fixture
def key() -> str:
    return f"key{next(numbers)}"


def test_a_request_in_flight_has_its_view_its_task_and_its_tasks_children(
    looked: Looked, key: str
) -> None:
    reply = looked.get(f"/waits/{key}?gate={key}&password=secret")
    one = looked.request(f"/waits/{key}", state("waiting"))
    assert (one["method"], one["view"]) == ("GET", "tests.inspect.served.waits")
    assert (one["hops"], one["hop_wait"], one["thread_run"]) == (0, 0, 0)
    assert one["age"] > 0
    tasks = [task for task in looked.ask("tasks")["tasks"] if task.get("request") == one["id"]]
    child, own = sorted(tasks, key=lambda task: bool(task["id"] == one["task"]))
    assert (child["name"], child["parent"]) == ("child", own["id"])
    tree = looked.rondel("tree", "--name", "Task").output
    assert f"Starlette.__call__  [waiting]  GET /waits/{key}\n" in tree
    line = row(looked.rondel("requests").output, key)
    assert line.startswith("waiting ")
    assert line.endswith(f"  GET /waits/{key}  tests.inspect.served.waits")
    looked.open(key)
    assert reply.result(PATIENCE).status == 202
    ended = looked.ended(f"/waits/{key}")
    assert (ended["id"], ended["status"]) == (one["id"], 202)
    assert ended["seconds"] >= one["age"]
    assert "secret" not in json.dumps(looked.ask("requests"))


def row(table: str, path: str) -> str:
    [line] = [line for line in table.splitlines() if path in line]
    return line


@pytest.mark.parametrize("way", ["by-thread", "by-bridge", "by-executor"])
def test_a_call_in_a_thread_is_a_hop_and_is_called_by_the_function_s_name(
    looked: Looked, key: str, way: str
) -> None:
    reply = looked.get(f"/{way}?gate={key}")
    one = looked.request(f"/{way}", state("thread"), "requests stacks")
    assert one["hops"] == 1
    assert "held" in [function for _, _, function in one["stack"]]
    table = looked.rondel("requests", "--stacks").output
    assert " held (" in table
    [task] = [task for task in looked.ask("tasks")["tasks"] if task["id"] == one["task"]]
    assert (task["on"]["kind"], task["on"]["what"]) == ("thread", "tests.inspect.served.held")
    later = looked.request(f"/{way}", lambda now: bool(now["thread_run"] > one["thread_run"]))
    looked.open(key)
    assert reply.result(PATIENCE).body == b"held"
    ended = looked.ended(f"/{way}")
    assert (ended["hops"], ended["status"]) == (1, 200)
    assert ended["thread_run"] >= later["thread_run"]
    assert ended["seconds"] >= ended["hop_wait"] + ended["thread_run"]


def test_one_that_waits_for_a_thread_is_queued(looked: Looked, key: str) -> None:
    # All thread-sensitive calls outside of a context have one thread.
    first = looked.get(f"/by-bridge?gate={key}-1")
    running_one = looked.request("/by-bridge", state("thread"))
    second = looked.get(f"/by-bridge?gate={key}-2")
    queued = looked.request("/by-bridge", state("queued"))
    assert (queued["hops"], queued["thread_run"]) == (1, 0)
    assert queued["id"] > running_one["id"]
    assert looked.ask("stats")["pool"]["queued"] >= 1
    looked.open(f"{key}-1")
    assert first.result(PATIENCE).status == 200
    assert looked.request("/by-bridge", state("thread"))["id"] == queued["id"]
    looked.open(f"{key}-2")
    assert second.result(PATIENCE).status == 200
    ended = looked.until(
        "requests", lambda data: [one for one in data["recent"] if one["id"] == queued["id"]]
    )
    assert ended[0]["hop_wait"] > 0


def test_code_that_a_thread_calls_on_the_loop_is_the_request_s_as_well(
    looked: Looked, key: str
) -> None:
    reply = looked.get(f"/there-and-back?gate={key}")
    one = looked.request("/there-and-back", lambda one: bool(one["hops"] == 2))
    tasks = [task for task in looked.ask("tasks")["tasks"] if task.get("request") == one["id"]]
    assert len(tasks) == 2
    whats = {task["on"]["what"] for task in tasks}
    assert whats == {"tests.inspect.served.outer", "tests.inspect.served.held"}
    looked.open(key)
    assert reply.result(PATIENCE).body == b"held"


def test_slow_ones_keep_their_view_when_they_have_ended(looked: Looked, key: str) -> None:
    reply = looked.get(f"/waits/{key}?gate={key}")
    looked.request(f"/waits/{key}", lambda one: bool(one["age"] > 0.12))
    looked.open(key)
    reply.result(PATIENCE)
    slow = looked.until("requests", lambda data: found(data["slow"], f"/waits/{key}"))
    assert slow["view"] == "tests.inspect.served.waits"
    assert row(looked.rondel("requests", "--slow", "0.1").output, key).startswith("202 ")
    assert key not in looked.rondel("requests").output
    assert key not in looked.rondel("requests", "--slow", "1000").output
    told = json.loads(looked.rondel("requests", "--slow", "0.1", "--json").output)
    assert found(told["slow"], f"/waits/{key}") and not found(told["slow"], "/hello")


def test_nothing_of_a_path_acts_on_the_terminal(looked: Looked, key: str) -> None:
    # A C1 control character, as UTF-8: terminals take it for the beginning of a sequence.
    with looked.served.connect() as wire:
        wire.send(f"GET /x{key}".encode() + b"\xc2\x9b31m?q=1 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert wire.response().status == 404
    looked.until("requests", lambda data: found(data["recent"], f"/x{key}\x9b31m"))
    line = row(looked.rondel("requests", "--ended").output, f"x{key}")
    assert f"/x{key}\\x9b31m" in line and "\x9b" not in line


def test_long_paths_are_cut(looked: Looked, key: str) -> None:
    looked.served.get(f"/{key}" + "/long" * 100)
    paths = [one["path"] for one in looked.ask("requests")["recent"]]
    [path] = [path for path in paths if path.startswith(f"/{key}/long")]
    assert path.endswith("…") and len(path) < 130


def test_a_websocket_connection_is_shown_as_one(looked: Looked) -> None:
    from websockets.sync.client import connect

    url = looked.served.url.replace("http", "ws") + "/socket"
    with connect(url, proxy=None) as websocket:
        one = looked.request("/socket", state("waiting"))
        assert one["websocket"] is True
        assert "GET /socket (websocket)" in looked.rondel("requests").output
        websocket.send("over")
    looked.ended("/socket")


def test_a_program_sees_its_own(looked: Looked) -> None:
    looked.served.get("/hello")
    [mine], ended = looked.served.json("/oneself")
    assert (mine["state"], mine["view"]) == ("loop", "tests.inspect.served.oneself")
    assert mine["status"] is None
    assert "/hello" in ended


def test_stats_have_the_pool_and_the_process(looked: Looked, key: str) -> None:
    before = looked.ask("stats")
    reply = looked.get(f"/by-thread?gate={key}")
    during = looked.until(
        "stats", lambda data: data if data["pool"]["busy"] > before["pool"]["busy"] else None
    )
    assert during["pool"]["threads"] >= 1
    looked.open(key)
    reply.result(PATIENCE)
    calls = before["pool"]["calls"] + 1
    after = looked.until("stats", lambda data: data if data["pool"]["busy"] == 0 else None)
    assert after["pool"]["calls"] >= calls
    assert after["pool"]["ran"] > before["pool"]["ran"]
    assert after["pool"]["waited"] > before["pool"]["waited"]
    assert after["process"]["cpu"] >= before["process"]["cpu"] > 0
    assert after["process"]["rss"] > 10_000_000


def test_under_load_each_answer_is_whole_and_nothing_is_left(looked: Looked) -> None:
    over = threading.Event()

    def client() -> int:
        count = 0
        with looked.served.connect() as wire:
            while not over.is_set():
                assert wire.request("/hello").status == 200
                count += 1
        return count

    with ThreadPoolExecutor(8) as clients:
        loads = [clients.submit(client) for _ in range(8)]
        try:
            looked.until("requests", lambda data: len(data["recent"]) == 256)
            for _ in range(30):
                data = looked.ask("requests")
                ids = [one["id"] for one in data["requests"]]
                assert ids == sorted(set(ids)) and len(ids) <= 8
                assert not set(ids) & {one["id"] for one in data["recent"]}
                assert {one["state"] for one in data["requests"]} <= {"loop", "waiting"}
                assert {one["path"] for one in data["requests"]} <= {"/hello"}
                assert len(data["recent"]) == 256
        finally:
            over.set()
    assert sum(load.result() for load in loads) > 256
    looked.until("requests", lambda data: not data["requests"])


def test_a_stall_names_frame_task_request_and_view(
    looked: Looked, key: str, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    reply = looked.get(f"/stall/{key}?file={go_on}&password=secret")
    try:
        stall = looked.until(
            "stalls", lambda data: [one for one in data["stalls"] if one.get("request")]
        )[-1]
        assert not stall["over"]
        functions = [function for _, _, function in stall["stack"]]
        place = functions.index("blocks")
        assert functions[place + 1] == "stalling"
        assert (stall["name"], stall["coro"]) == ("staller", "stalling")
        request = stall["request"]
        assert (request["method"], request["path"]) == ("GET", f"/stall/{key}")
        assert request["view"] == "tests.inspect.served.stall"
        # It goes on only now.
        now = looked.ask("requests now")
        assert found(now["requests"], f"/stall/{key}")["id"] == request["id"]
    finally:
        go_on.touch()
    assert reply.result(PATIENCE).body == b"stalled"
    line = f"  the request: GET /stall/{key} (tests.inspect.served.stall)\n"
    assert line in looked.rondel("stalls").output
    looked.served.process.wait_for(f"the request: GET /stall/{key} ")
    [told] = [one for one in looked.served.json("/told") if one["request"]]
    assert told["request"] == request


def test_while_native_code_has_the_gil_requests_are_told_without_views(
    looked: Looked, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    reply = looked.get(f"/native-stall?file={go_on}")
    try:
        one = looked.request("/native-stall", bool, "requests now")
        assert "view" not in one
    finally:
        go_on.touch()
    assert reply.result(PATIENCE).body == b"stalled"


def test_turned_off_there_are_none(tmp_path: Path) -> None:
    app = "tests.inspect.served:asgi"
    with looked_at(tmp_path, app, RONDEL_INSPECT="0") as looked:
        assert looked.served.json("/oneself") == [[], []]


# ------------------------------------------------------------------------------------ threads


def test_wsgi_s_are_queued_for_a_thread_then_on_it(tmp_path: Path) -> None:
    app = "tests.inspect.served:wsgi"
    with looked_at(tmp_path, app, "--threads", "2") as looked:
        replies = []
        for number in range(2):
            replies.append(looked.get(f"/held/{number}?folder={tmp_path}"))
            one = looked.request(f"/held/{number}", state("thread"), "requests stacks")
            assert one["view"] == "page"
            functions = [function for _, _, function in one["stack"]]
            assert functions.index("blocks") < functions.index("page")
            assert (one.get("task"), one["hops"]) == (None, 1)
        replies.append(looked.get(f"/held/2?folder={tmp_path}"))
        queued = looked.request("/held/2", state("queued"))
        assert (queued["hops"], "view" in queued) == (0, False)
        assert row(looked.rondel("requests").output, "/held/2").startswith("queued ")
        (tmp_path / "0").touch()
        looked.request("/held/2", state("thread"))
        for name in ("1", "2"):
            (tmp_path / name).touch()
        assert {reply.result(PATIENCE).status for reply in replies} == {200}
        ended = looked.ended("/held/2")
        assert (ended["status"], ended["hops"]) == (200, 1)
        assert ended["hop_wait"] >= queued["age"]


def test_django_s_have_views_on_either_side(tmp_path: Path) -> None:
    app = "tests.inspect.served_django:application"
    module = "tests.inspect.served_django"
    with looked_at(tmp_path, app) as looked:
        replies = []
        for name, where, view in [
            ("sync", "thread", "sync_view"),
            # Learned: this one does not come to the loop at all.
            ("sync", "thread", "sync_view"),
            ("async", "waiting", "async_view"),
            ("class", "waiting", "ClassBased"),
            ("queries", "thread", "queries"),
        ]:
            path = f"/{name}/{len(replies)}"
            replies.append(looked.get(path))
            one = looked.request(path, state(where))
            assert one["view"] == f"{module}.{view}"
            if name == "queries":
                # The thread may have begun before the task has ended its step.
                waits = looked.until(
                    "tasks",
                    lambda data, id=one["task"]: next(
                        (t["on"] for t in data["tasks"] if t["id"] == id and "on" in t), None
                    ),
                )
                assert waits["what"] == f"{module}.SlowQuerySet.get"
        for number in range(len(replies)):
            assert looked.served.get(f"/open/{number}").status == 200
        assert {reply.result(PATIENCE).status for reply in replies} == {200}
        first, second = looked.ended("/sync/0"), looked.ended("/sync/1")
        assert first["hops"] >= 1 and second["hops"] == 1
        assert "task" in first and "task" not in second
        assert first["thread_run"] > 0 and second["thread_run"] > 0
