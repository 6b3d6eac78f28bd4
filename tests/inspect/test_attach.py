"""Looking into another process: its socket, the commands, and clients that mean no good."""

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import PATIENCE, Outcome, call, environment

ROOT = Path(__file__).parents[2]
RONDEL = [sys.executable, "-m", "rondel"]


class Child:
    """A program that runs, and is there."""

    def __init__(self, folder: Path, *arguments: str, **env: str) -> None:
        self.folder = folder
        self.expected = 0
        self.env = {"XDG_RUNTIME_DIR": str(folder), "RONDEL_INSPECT": "1", **env}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.inspect.child", *arguments],
            cwd=ROOT,
            env=environment(**self.env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "there\n"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def path(self) -> Path:
        return self.folder / "rondel" / f"{self.pid}.sock"

    def rondel(self, *arguments: str) -> Outcome:
        return call([*RONDEL, *arguments], ROOT, env=self.env)

    def json(self, command: str) -> Any:
        outcome = self.rondel(command, str(self.pid), "--json")
        assert outcome.status == 0, outcome.errors
        return json.loads(outcome.output)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                sock.connect(str(self.path))
            except OSError:
                # The thread opens it a moment after the loop began.
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
            else:
                return sock

    def end(self) -> int:
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        status = self.process.wait(PATIENCE)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status


@contextlib.contextmanager
def running(folder: Path, *arguments: str, **env: str) -> Iterator[Child]:
    child = Child(folder, *arguments, **env)
    try:
        yield child
        assert child.end() == child.expected
    finally:
        if child.process.poll() is None:
            child.process.kill()
        child.end()


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with running(tmp_path_factory.mktemp("run"), "tasks", "1000") as child:
        child.connect().close()
        yield child


def ask(sock: socket.socket, question: object) -> Any:
    sock.sendall(json.dumps(question).encode() + b"\n")
    return answer(sock)


def answer(sock: socket.socket) -> Any:
    with sock.makefile("rb") as file:
        return json.loads(file.readline())


STATS = {"v": 1, "ask": "stats"}


def test_the_socket_is_its_owner_s_alone(child: Child) -> None:
    assert stat.S_IMODE(child.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(child.path.parent.stat().st_mode) == 0o700


def test_ps_lists_it_with_its_program(child: Child) -> None:
    outcome = child.rondel("ps")
    line = next(line for line in outcome.output.splitlines() if str(child.pid) in line)
    assert "tests.inspect.child tasks 1000" in line
    [row] = json.loads(child.rondel("ps", "--json").output)
    assert (row["pid"], len(row["loops"])) == (child.pid, 1)
    assert row["loops"][0]["tasks"] >= 1001


def test_tree_groups_the_tasks_by_what_they_wait_for(child: Child) -> None:
    output = child.rondel("tree", str(child.pid)).output
    assert re.search(r"1000 × worker +\[waiting\]  \(worker-0, worker-1, worker-2, …\)", output)
    assert re.search(r"→ Queue\.get <Queue at 0x[0-9a-f]+>", output)
    assert re.search(r"→ thread: TextIOWrapper|→ thread: ", output)
    assert len(output.splitlines()) < 20


def test_tree_is_filtered_by_name_state_and_age(child: Child) -> None:
    def names(*options: str) -> set[str]:
        outcome = child.rondel("tree", str(child.pid), "--json", *options)
        return {task["name"] for task in json.loads(outcome.output)["tasks"]}

    assert names("--name", r"worker-99\d") == {f"worker-99{i}" for i in range(10)}
    assert names("--state", "sleeping") == set()
    assert len(names("--older", "0")) >= 1000
    assert names("--older", "100000") == set()


def test_what_cannot_be_asked_is_said_with_what_to_do(child: Child) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    outcome = child.rondel("tree", str(gone.pid))
    assert outcome.status == 1 and f"no process {gone.pid}" in outcome.errors
    # This one runs no Rondel loop that listens.
    outcome = child.rondel("tree", str(os.getpid()))
    assert outcome.status == 1 and "does not answer for Rondel" in outcome.errors
    outcome = child.rondel("tree", "x")
    assert outcome.status == 2 and "invalid int value" in outcome.errors


def test_a_socket_of_a_dead_process_is_swept(child: Child) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    stale = child.path.with_name(f"{gone.pid}.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    assert child.rondel("ps").status == 0
    assert not stale.exists() and child.path.exists()


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (b"{}\n", "version"),
        (b"nonsense\n", "bad-request"),
        (b"\xff\xfe\x00\n", "bad-request"),
        (b'{"v": 2, "ask": "stats"}\n', "version"),
        (b'{"v": 1, "ask": "passwords"}\n', "unknown"),
        (b'{"v": 1, "ask": ["stats"]}\n', "bad-request"),
        (b"[" * 60_000 + b"\n", "bad-request"),
        (b"x" * 70_000, "too-long"),
    ],
    ids=["empty", "no-json", "no-text", "later", "unknown", "list", "deep", "long"],
)
def test_a_bad_request_is_refused_and_harms_nobody(
    child: Child, request_: bytes, kind: str
) -> None:
    with child.connect() as sock:
        sock.sendall(request_)
        assert answer(sock)["error"] == kind
    with child.connect() as sock:
        assert ask(sock, STATS)["pid"] == child.pid


def test_clients_that_say_nothing_or_go_away_keep_nobody_out(child: Child) -> None:
    with contextlib.ExitStack() as silent:
        for _ in range(20):
            silent.enter_context(child.connect())
        # More than may be there at once: the last ones are shown the door, at once.
        last = silent.enter_context(child.connect())
        with contextlib.suppress(ConnectionError):
            assert last.recv(1) == b""
    for _ in range(20):
        with child.connect() as sock:
            sock.sendall(json.dumps({"v": 1, "ask": "tasks"}).encode() + b"\n")
            # Gone while the answer is made or sent.
    end = time.monotonic() + PATIENCE
    while True:
        with child.connect() as sock, contextlib.suppress(ValueError, ConnectionError):
            assert ask(sock, STATS)["pid"] == child.pid
            break
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_is_gone_when_the_process_has_ended(tmp_path: Path) -> None:
    with running(tmp_path, "tasks", "1") as child:
        child.connect().close()
        assert child.end() == 0
        assert not child.path.exists()


def test_a_process_that_dies_while_it_answers_is_reported(tmp_path: Path) -> None:
    with running(tmp_path, "tasks", "30000") as child:
        with child.connect() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(json.dumps({"v": 1, "ask": "tasks"}).encode() + b"\n")
            assert len(sock.recv(10)) == 10
            child.process.send_signal(signal.SIGKILL)
            child.process.wait(PATIENCE)
            with contextlib.suppress(ConnectionError):
                while sock.recv(1 << 20):
                    pass
        outcome = child.rondel("tree", str(child.pid))
        assert outcome.status == 1 and f"no process {child.pid}" in outcome.errors
        child.expected = -signal.SIGKILL


def test_it_can_be_turned_off_and_needs_a_private_folder(tmp_path: Path) -> None:
    with running(tmp_path, "tasks", "1", RONDEL_INSPECT="0") as child:
        assert not child.path.exists()
    open_to_all = tmp_path / "rondel"
    open_to_all.mkdir(exist_ok=True)
    open_to_all.chmod(0o755)
    private = tmp_path / "tmp"
    private.mkdir()
    with running(tmp_path, "tasks", "1", TMPDIR=str(private)) as child:
        expected = private / f"rondel-{os.geteuid()}" / f"{child.pid}.sock"
        end = time.monotonic() + PATIENCE
        while not expected.exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert expected.exists()
        assert not child.path.exists()


def test_a_fork_has_its_own_and_python_counts_no_thread_of_ours(tmp_path: Path) -> None:
    program = """
import os, sys, threading, warnings, rondel
warnings.simplefilter("error")
async def main():
    await rondel.sleep(0.01)
rondel.run(main())
assert threading.enumerate() == [threading.main_thread()]
pid = os.fork()
if pid == 0:
    rondel.run(main())
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
rondel.run(main())
"""
    outcome = call(
        [sys.executable, "-c", program, str(tmp_path / "rondel")],
        ROOT,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "RONDEL_INSPECT": "1"},
    )
    assert (outcome.status, outcome.errors) == (0, "")


# ------------------------------------------------------------------------------------ stalls


def wait_for_stall(child: Child, wanted: Any) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE
    while True:
        for stall in child.json("stalls"):
            if wanted(stall):
                found: dict[str, Any] = stall
                return found
        assert time.monotonic() < end, "no stall was reported"


def test_a_stall_is_reported_while_it_lasts_with_its_place_and_task(tmp_path: Path) -> None:
    flag = tmp_path / "go-on"
    with running(tmp_path, "python", str(flag)) as child:
        try:
            stall = wait_for_stall(child, lambda stall: stall["stack"])
            # It goes on only now.
            assert not stall["over"]
            assert not stall["native"]
            functions = [function for _, _, function in stall["stack"]]
            # Further in it may look for the flag.
            place = functions.index("blocks_in_python")
            assert functions[place + 1] == "stalls"
            assert (stall["name"], stall["coro"]) == ("blocker", "stalls")
            assert stall["seconds"] >= 0.1
        finally:
            flag.touch()
        wait_for_stall(child, lambda stall: stall["over"])
        text = child.rondel("stalls", str(child.pid)).output
        assert "the event loop was in one step of task 'blocker' (stalls) for" in text


def test_a_stall_in_native_code_that_has_the_gil_is_told_as_such(tmp_path: Path) -> None:
    flag = tmp_path / "go-on"
    with running(tmp_path, "pydll", str(flag)) as child:
        try:
            wait_for_stall(child, lambda stall: stall["native"])
        finally:
            flag.touch()


def test_a_program_is_told_of_stalls(tmp_path: Path) -> None:
    program = """
import threading, rondel, rondel.inspect
told = threading.Event()
stalls = []
def handler(stall):
    stalls.append(stall)
    told.set()
take_away = rondel.inspect.on_stall(handler)
async def blocks():
    assert told.wait(60)
rondel.run(blocks())
take_away()
[stall] = stalls
assert "blocks" in str(stall) and not stall.native and not stall.over
print(rondel.inspect.stalls()[0].coro)
"""
    outcome = call(
        [sys.executable, "-c", program],
        ROOT,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "RONDEL_INSPECT": "1"},
    )
    assert (outcome.status, outcome.output, outcome.errors) == (0, "blocks\n", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_gets_nothing_even_if_the_folder_lets_it_in(tmp_path: Path) -> None:
    # The program is loaded before it is somebody else, who may not be able to read it.
    program = """
import os, socket, sys
os.chdir(sys.argv[1])
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(60)
try:
    sock.connect(sys.argv[2])
    sock.sendall(b'{"v": 1, "ask": "stats"}\\n')
    print(sock.recv(100))
except PermissionError:
    print("refused")
except ConnectionError:
    print(b"")
"""
    with running(tmp_path, "tasks", "1") as child:
        child.connect().close()
        command = [sys.executable, "-c", program, str(child.path.parent), child.path.name]
        assert call(command, ROOT).output == "refused\n"
        child.path.parent.chmod(0o711)
        child.path.chmod(0o666)
        assert call(command, ROOT).output == "b''\n"
