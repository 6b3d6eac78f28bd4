"""The server benchmark's own machinery: loads that refuse wrong answers, command lines, limits."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import run_server
from harness import limits, programs
from harness.environment import BENCHMARKS, LOADS, Environment
from harness.figures import Figures, Run
from harness.process import ServerError, tree_memory
from harness.programs import PROGRAMS, Setting
from harness.serving import report
from harness.serving.cases import GROUPS
from harness.serving.load import EchoCase, PacedCase, told_by_h2load
from harness.traffic import TURNS, HttpCase, Server


class Local(Environment):
    """This interpreter, with load generators of the tests' own."""

    folder: Path

    @property
    def helpers(self) -> Path:
        return self.folder


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    environment = Local(Path(sys.executable), sys.version_info[:3], "")
    environment.folder = tmp_path_factory.mktemp("loads")
    for name, source in LOADS.items():
        target = str(environment.folder / name)
        flags = ["-Wall", "-Wextra", "-Werror", "-o", target]
        subprocess.run([compiler, *flags, str(BENCHMARKS / source)], check=True)
    return environment


class Connections(socketserver.ThreadingTCPServer):
    request_queue_size = 128
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        """The load ends with its connections open: a reset here is expected."""


@contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[Server]:
    """`handle` for each connection."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            handle(self.request)

    with Connections(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield Server("good", os.getpid(), server.server_address[1])
        server.shutdown()
        thread.join()


# ---------------------------------------------------------------------------- WebSocket


def read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


def echo(connection: socket.socket, change: Callable[[bytes], bytes]) -> None:
    """A WebSocket server as RFC 6455 has it, whose answers `change` makes."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read(connection, 1)
    key = next(x for x in head.split(b"\r\n") if x.lower().startswith(b"sec-websocket-key"))
    seed = key.split()[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(seed).digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )
    while True:
        first, size = read(connection, 2)
        assert first == 0x81 and size & 0x80
        length = size & 0x7F
        extended = read(connection, {126: 2, 127: 8}.get(length, 0))
        length = int.from_bytes(extended) if extended else length
        mask = read(connection, 4)
        data = bytes(b ^ mask[i % 4] for i, b in enumerate(read(connection, length)))
        connection.sendall(bytes([0x81, size & 0x7F]) + extended + change(data))


@pytest.mark.parametrize("size", [32, 125, 126, 1024, 65_535, 65_536])
def test_the_websocket_load_sends_frames_that_a_server_can_read(local: Local, size: int) -> None:
    case = EchoCase("x", "X", size, 6, connections=1)
    with serving(lambda connection: echo(connection, lambda data: data)) as server:
        spent = case.spend(local, server, 2)
    assert spent.cpu > 0 and spent.seconds > 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data: data[:-1] + b"!", "other bytes came back"),
        (lambda data: data + b"!", "more came back"),
    ],
)
def test_the_websocket_load_refuses_another_echo(
    local: Local, change: Callable[[bytes], bytes], complaint: str
) -> None:
    case = EchoCase("x", "X", 32, 6, connections=1)
    with (
        serving(lambda connection: echo(connection, change)) as server,
        pytest.raises(ServerError, match=complaint),
    ):
        case.spend(local, server, 2)


# ---------------------------------------------------------------------------- latency


def slow_once(seconds: float) -> Callable[[socket.socket], None]:
    """Answers at once, but for the tenth request of a connection."""
    pause = threading.Event()

    def handle(connection: socket.socket) -> None:
        number = 0
        while connection.recv(4096):
            number += 1
            if number == 10:
                pause.wait(seconds)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")

    return handle


def test_latency_counts_from_when_a_request_was_due_whoever_is_to_blame(local: Local) -> None:
    """A stop of 0.2 s delays all that were due meanwhile: at 200 requests a second 40 of 100."""
    request = HttpCase("x", "X", "GET", "/", b"x", TURNS * 100, connections=1)
    figures = Figures("median")
    with serving(slow_once(0.2)) as server:
        PacedCase(request, 200).measure(local, [server], figures, fewer=1)
    found = figures.values["x"]["good"]
    assert len(found) == TURNS and min(found) > 100_000


# ---------------------------------------------------------------------------- h2load

TOLD = """\
finished in 119.88ms, 1668.29 req/s, 221.57KB/s
requests: 200 total, 200 started, 200 done, {} succeeded, {} failed, 0 errored, 0 timeout
status codes: {} 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 26.56KB (27200) total, 17.58KB (18000) headers (space savings 0.00%), 2.54KB ({}) data
"""


def test_what_h2load_tells_has_to_be_exact() -> None:
    assert told_by_h2load(TOLD.format(200, 0, 200, 2600), 200, 2600) == pytest.approx(0.11988)
    for wrong in ((199, 1, 200, 2600), (200, 0, 199, 2600), (200, 0, 200, 2599)):
        with pytest.raises(ServerError, match="expected 200, and 2600 bytes"):
            told_by_h2load(TOLD.format(*wrong), 200, 2600)
    with pytest.raises(ServerError, match="0 answers"):
        told_by_h2load("no such output", 200, 2600)


# ---------------------------------------------------------------------------- servers


def test_each_server_is_told_its_setting_in_its_own_words(tmp_path: Path) -> None:
    chain, key = tmp_path / "crt", tmp_path / "key"
    setting = Setting(workers=3, certificate=(chain, key), files=tmp_path)
    for name in PROGRAMS:
        words = programs.command(Local(Path("/x/python"), (3, 11, 0), ""), name, setting, 7)
        assert words[0] == f"/x/{name.partition('-')[0]}" and "asgi_app:app" in words
        assert words[words.index("--workers") + 1] == "3"
        assert "7" in words or "127.0.0.1:7" in words
        if name != "gunicorn":
            assert str(chain) in words and str(key) in words


def test_a_server_without_its_packages_or_unasked_for_is_left_out() -> None:
    environment = Environment(Path(sys.executable), (3, 11, 0), "", {"gunicorn": "1"}, rondel=True)
    names = ["rondel", "granian", "gunicorn", programs.BARE]
    assert programs.available(environment, names, None) == ["rondel", "gunicorn"]
    assert programs.available(environment, names, {"granian"}) == ["rondel"]


def test_groups_and_cases_are_chosen_by_pattern() -> None:
    found = [(group.name, names) for group, names in run_server.chosen(["tls", "ws-*k"])]
    assert found == [("ws", ["ws-1k", "ws-64k"]), ("tls", ["hello"])]
    assert len(run_server.chosen([])) == len(GROUPS)


# ---------------------------------------------------------------------------- limits, tables


def run_of(rondel: float) -> Run:
    run = Run({"date": "2000-01-01", "interpreter": "CPython 3.11.0"}, {})
    for group in GROUPS:
        figures = run.parts.setdefault(group.part, Figures("median"))
        for case in group.cases:
            for place, server in enumerate(group.servers, 2):
                figures.add(case.name, server, [rondel if server == "rondel" else float(place)])
    return run


def test_the_best_peer_is_the_one_with_the_lowest_figure_and_never_the_bare_limit(
    tmp_path: Path,
) -> None:
    row = '[[limit]]\npart = "cpu"\ncase = "x"\nat_most = { best = 0.5 }\n'
    (tmp_path / "limits.toml").write_text(row)
    run = Run({}, {"cpu": Figures("median")})
    for server, value in {"rondel": 4.0, "slow": 20.0, "quick": 10.0, "bare": 1.0}.items():
        run.parts["cpu"].add("x", server, [value])
    (verdict,) = limits.check(run, tmp_path / "limits.toml")
    assert (verdict.limit.against, verdict.ratio, verdict.word) == ("quick", 0.4, "pass")
    alone = Run({}, {"cpu": Figures("median")})
    alone.parts["cpu"].add("x", "rondel", [4.0])
    (verdict,) = limits.check(alone, tmp_path / "limits.toml")
    assert verdict.word == "absent"


@pytest.mark.parametrize(("rondel", "word"), [(0.9, "pass"), (4.0, "FAIL")])
def test_each_group_has_a_limit_that_can_be_met_and_missed(rondel: float, word: str) -> None:
    verdicts = limits.check(run_of(rondel), BENCHMARKS / "limits.toml")
    met = {v.limit.part for v in verdicts if v.word == word}
    assert met >= {group.part for group in GROUPS}


def test_a_group_that_was_left_out_is_a_title_and_a_reason() -> None:
    run = run_of(1.0)
    run.parts["server-tls"] = Figures("median")
    run.parts["server-ws"].fail("ws-32", "granian", "it broke")
    titles = {section.title: section for section in report.sections(run)}
    assert "Not measured" in titles["HTTP/1.1 over TLS: CPU µs per request"].note
    assert "granian, ws-32: it broke." in titles["WebSocket: CPU µs per echoed message"].note


def test_proportional_memory_is_no_more_than_resident_memory() -> None:
    assert 0 < tree_memory(os.getpid(), "Pss") <= tree_memory(os.getpid())
