"""The benchmark's own machinery: a figure may be missing, but never wrong.

Each case runs on stock asyncio here, small; the rest pins what happens when a runtime dies, a
server answers wrongly, or a figure is absent.
"""

from __future__ import annotations

import asyncio
import http.server
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import BATCH, CASES, CROWD, Case
from harness import chart, limits, process, readme, report, tasks, traffic
from harness.environment import BENCHMARKS, Environment
from harness.figures import Figures, Run

FATAL_LOOP = """
import asyncio, os

class Loop(asyncio.SelectorEventLoop):
    def call_later(self, *args, **kwargs):
        os.abort()

new_event_loop = Loop
"""


class LocalEnvironment(Environment):
    """This interpreter, with one more folder of runtimes."""

    runtimes: Path

    def variables(self) -> dict[str, str]:
        return {"PYTHONPATH": f"{BENCHMARKS}:{self.runtimes}"}


@pytest.fixture
def local(tmp_path: Path) -> LocalEnvironment:
    environment = LocalEnvironment(Path(sys.executable), sys.version_info[:3], "")
    environment.runtimes = tmp_path
    return environment


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_case_runs_on_stock_asyncio(case: Case) -> None:
    with asyncio.Runner() as runner:
        runner.run(case.run(max(CROWD, BATCH) if not case.memory else 10))


def test_a_runtime_that_dies_in_a_case_keeps_the_figures_of_the_others(
    local: LocalEnvironment, tmp_path: Path
) -> None:
    (tmp_path / "fatal.py").write_text(FATAL_LOOP)
    figures = Figures("min")
    tasks.run_process(local, "fatal", ["call_soon", "call_later", "lock"], ["--quick"], figures)
    assert figures.figure("call_soon", "fatal")
    assert figures.figure("lock", "fatal")
    assert figures.errors["call_later"]["fatal"] == "killed by SIGABRT"


def test_a_runtime_that_does_not_import_fails_in_every_case(local: LocalEnvironment) -> None:
    figures = Figures("min")
    tasks.run_process(local, "no_such_runtime", ["call_soon", "lock"], [], figures)
    assert "no_such_runtime" in figures.errors["call_soon"]["no_such_runtime"]
    assert figures.failed("lock", "no_such_runtime")


def test_cpu_clock_counts_what_another_process_has_used() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint('done', flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as burner:
        assert burner.stdout is not None
        assert burner.stdout.readline() == b"done\n"
        used = process.cpu_clock(burner.pid)
        burner.communicate(b"\n")
    assert used >= 200_000_000


def run_of(rondel: float, rloop: float) -> Run:
    run = Run({"date": "2000-01-01", "interpreter": "CPython 3.11.0"})
    run.tasks.add("create_await", "rondel", [rondel * 2, rondel])
    run.tasks.add("create_await", "rloop", [rloop])
    return run


def test_a_servers_ratio_ignores_a_spell_that_slowed_both() -> None:
    figures = Figures("median")
    figures.add("hello", "rondel", [10, 10, 40, 40])
    figures.add("hello", "bare", [5, 5, 20, 20])
    figures.add("hello", "uvicorn", [20, 20, 80, 20])
    assert figures.ratio("hello", "rondel", "bare") == 2
    assert figures.ratio("hello", "rondel", "uvicorn") == 0.5


def words(run: Run) -> dict[str, str]:
    verdicts = limits.check(run, BENCHMARKS / "limits.toml")
    return {f"{v.limit.case}/{v.limit.against}": v.word for v in verdicts}


def test_a_ratio_over_its_limit_fails_and_one_under_it_passes() -> None:
    assert words(run_of(100, 1000))["create_await/rloop"] == "pass"
    assert words(run_of(200, 1000))["create_await/rloop"] == "FAIL"


def test_a_run_with_a_frozen_collector_has_limits_of_its_own(tmp_path: Path) -> None:
    row = 'part = "tasks"\ncase = "gather"\n'
    ratios = "at_most = { rloop = 0.4 }\nfrozen_at_most = { rloop = 0.25 }\n"
    (tmp_path / "limits.toml").write_text(f"[[limit]]\n{row}{ratios}")
    found = [next(limits.read(tmp_path / "limits.toml", frozen)).bound for frozen in (False, True)]
    assert found == [0.4, 0.25]


def test_at_least_is_a_floor_and_itself_bounds_rondels_own_figure(tmp_path: Path) -> None:
    (tmp_path / "limits.toml").write_text(
        '[[limit]]\npart = "rate"\ncase = "x"\nat_least = { peer = 1.0 }\n'
        '[[limit]]\npart = "rate"\ncase = "growth"\nat_most = { itself = 105 }\n'
    )

    def found(rondel: float, growth: float) -> list[str]:
        run = Run({"date": "2000-01-01"}, {"rate/a/1": Figures("median")})
        run.parts["rate/a/1"].add("x", "rondel", [rondel])
        run.parts["rate/a/1"].add("x", "peer", [100.0])
        run.parts["rate/a/1"].add("growth", "rondel", [growth])
        return [verdict.word for verdict in limits.check(run, tmp_path / "limits.toml")]

    assert found(101, 104) == ["pass", "pass"]
    assert found(99, 106) == ["FAIL", "FAIL"]


def test_a_limit_is_for_each_part_of_its_family_that_has_the_case(tmp_path: Path) -> None:
    (tmp_path / "limits.toml").write_text(
        '[[limit]]\npart = "cpu"\ncase = "x"\nat_most = { peer = 1.0 }\n'
        '[[limit]]\npart = "cpu"\ncase = "nowhere"\nat_most = { peer = 1.0 }\n'
        '[[limit]]\npart = "of another benchmark"\ncase = "x"\nat_most = { peer = 1.0 }\n'
    )
    run = Run({}, {f"cpu/{name}": Figures("median") for name in ("a", "b", "c")})
    for name, rondel in (("a", 1.0), ("b", 3.0)):
        run.parts[f"cpu/{name}"].add("x", "rondel", [rondel])
        run.parts[f"cpu/{name}"].add("x", "peer", [2.0])
    run.parts["cpu/c"].add("y", "rondel", [1.0])
    verdicts = limits.check(run, tmp_path / "limits.toml")
    assert [(v.limit.part, v.word) for v in verdicts] == [
        ("cpu/a", "pass"),
        ("cpu/b", "FAIL"),
        ("cpu", "absent"),
    ]


def test_a_limit_for_every_case_is_one_for_each_that_was_measured_or_failed(tmp_path: Path) -> None:
    (tmp_path / "limits.toml").write_text(
        '[[limit]]\npart = "cpu"\ncase = "every"\nat_most = { peer = 1.0 }\n'
    )
    run = Run({}, {"cpu": Figures("median")})
    for name, rondel in (("a", 1.0), ("b", 3.0)):
        run.parts["cpu"].add(name, "rondel", [rondel])
        run.parts["cpu"].add(name, "peer", [2.0])
    run.parts["cpu"].fail("c", "rondel", "broken")
    verdicts = limits.check(run, tmp_path / "limits.toml")
    assert [(v.limit.case, v.word) for v in verdicts] == [
        ("a", "pass"),
        ("b", "FAIL"),
        ("c", "FAIL"),
    ]


def test_a_figure_that_is_absent_neither_passes_nor_fails() -> None:
    assert words(run_of(100, 1000))["gather/rloop"] == "absent"


def test_a_case_that_rondel_failed_once_misses_its_limit() -> None:
    run = run_of(100, 1000)
    run.tasks.fail("create_await", "rondel", "RuntimeError: broken")
    assert words(run)["create_await/rloop"] == "FAIL"
    assert "| failed |" in report.markdown(run, report.sections(run), BENCHMARKS / "limits.toml")


def test_a_saved_run_reports_as_it_did_and_names_no_private_path(tmp_path: Path) -> None:
    run = run_of(100, 1000)
    run.tasks.fail("lock", "rloop", f"FileNotFoundError: {BENCHMARKS}/thing")
    run.save(tmp_path / "run.json")
    loaded = Run.load(tmp_path / "run.json")
    assert loaded.tasks.values == run.tasks.values
    assert "./benchmarks/thing" in loaded.tasks.errors["lock"]["rloop"]
    assert chart.svg(loaded, report.sections(loaded)) == chart.svg(run, report.sections(run))


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers every GET with five bytes, and keeps the connection.

    A path but `/` is the answer's body in chunks, separated by `-`; one that ends with `!` leaves
    the last chunk out.
    """

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path != "/":
            self.send_chunks(self.path[1:].removesuffix("!").split("-"))
            return
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"12345")

    def send_chunks(self, chunks: list[str]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(f"{len(chunk):X}\r\n{chunk}\r\n".encode())
            self.wfile.flush()
        if self.path.endswith("!"):
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\nTrailer: t\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


class Listener(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # the load connects 64 times at once; what overflows waits for seconds

    def handle_error(self, request: object, client_address: object) -> None:
        """The load ends with its connections open: a reset here is expected."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@pytest.fixture
def port() -> Iterator[int]:
    with Listener(("127.0.0.1", 0), Answer) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,))
        thread.start()
        yield listener.server_port
        listener.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    target = tmp_path_factory.mktemp("load") / "load"
    command = [compiler, "-Wall", "-Wextra", "-Werror", "-o", str(target)]
    subprocess.run([*command, str(BENCHMARKS / "load.c")], check=True)
    return target


@pytest.mark.parametrize(
    ("status", "length", "complaint"),
    [
        (200, 5, ""),
        (200, 6, "load: a body of 5 bytes instead of 6\n"),
        (204, 5, "load: status 200 instead of 204: HTTP/1.1 200 OK"),
    ],
)
def test_load_accepts_only_the_expected_answer(
    load: Path, port: int, status: int, length: int, complaint: str
) -> None:
    words = [str(load), str(port), "2", "20", str(status), str(length)]
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    done = subprocess.run(words, input=request, capture_output=True, check=False)
    assert done.stderr.decode().startswith(complaint)
    assert done.returncode == bool(complaint)


@pytest.mark.parametrize(
    ("path", "phrase", "complaint"),
    [
        ("/", "12345", ""),
        ("/", "234", ""),
        ("/", "Content-Length: 5", ""),  # the head counts, too
        ("/", "1x3", "load: a response without '1x3'\n"),  # no time of day in the head's Date
        ("/", "123456", "load: a response without '123456'\n"),
        ("/abcdefghijklmnop-qrs", "opqr", ""),
        ("/aab-aabaab-aac", "aabaaba", ""),  # a beginning that fails is the next one's beginning
        ("/abc-def", "abd", "load: a response without 'abd'\n"),
        ("/abc!", "abc", "load: the server closed a connection\n"),
    ],
)
def test_load_takes_answers_of_any_length_that_hold_the_phrase(
    load: Path, port: int, path: str, phrase: str, complaint: str
) -> None:
    words = [str(load), str(port), "2", "20", "200", "any", phrase]
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    done = subprocess.run(words, input=request, capture_output=True, check=False)
    assert done.stderr.decode() == complaint
    assert done.returncode == bool(complaint)


class Patient(socketserver.StreamRequestHandler):
    """Of two connections one is answered when the other, answered before, is closed."""

    first = threading.Lock()
    closed = threading.Event()

    def handle(self) -> None:
        self.rfile.readline()
        last = not self.first.acquire(blocking=False)
        if last and not self.closed.wait(10):
            return
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        if not last:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.closed.set()


def test_load_lets_a_server_close_a_connection_that_has_nothing_left_to_ask(load: Path) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Patient) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        words = [str(load), str(server.server_address[1]), "2", "2", "200", "1"]
        request = b"GET / HTTP/1.1\r\n\r\n"
        done = subprocess.run(words, input=request, capture_output=True, check=False)
        server.shutdown()
        thread.join()
    assert (done.stderr, done.returncode) == (b"", 0)


class Measuring(LocalEnvironment):
    """With a load generator of the tests' own."""

    load: Path

    @property
    def helpers(self) -> Path:
        return self.load.parent


@pytest.fixture
def measuring(load: Path) -> Measuring:
    environment = Measuring(Path(sys.executable), sys.version_info[:3], "")
    environment.load = load
    return environment


@pytest.mark.parametrize("answer", [b"12345", b"12344", b"123456"])
def test_a_server_is_measured_only_if_its_answer_is_right_to_the_byte(
    measuring: Measuring, port: int, answer: bytes
) -> None:
    case = traffic.HttpCase("x", "X", "GET", "/", answer, 300)
    sink = traffic.Sink(Figures("median"), Figures("median"))
    there = [traffic.Server("good", os.getpid(), port)]
    traffic.measure_case(measuring, "x", {"good": case}, there, fewer=1, sink=sink)
    right = answer == b"12345"
    assert sink.rate is not None
    for figures in (sink.cpu, sink.rate):
        assert figures.failed("x", "good") is not right
        assert len(figures.values.get("x", {}).get("good", [])) == (traffic.TURNS if right else 0)


@pytest.mark.parametrize(
    ("status", "contains", "right"),
    [(200, "234", True), (200, "432", False), (201, "234", False), (200, "Length: 5", True)],
)
def test_an_answer_that_may_differ_has_to_have_its_status_and_hold_its_phrase(
    measuring: Measuring, port: int, status: int, contains: str, right: bool
) -> None:
    case = traffic.HttpCase("x", "X", "GET", "/", b"", 192, status=status, contains=contains)
    sink = traffic.Sink(Figures("median"), wall=Figures("median"))
    there = [traffic.Server("good", os.getpid(), port)]
    traffic.measure_case(measuring, "x", {"good": case}, there, fewer=1, sink=sink)
    assert sink.wall is not None
    for figures in (sink.cpu, sink.wall):
        assert figures.failed("x", "good") is not right
        assert len(figures.values.get("x", {}).get("good", [])) == (traffic.TURNS if right else 0)


def test_a_form_says_its_own_content_type() -> None:
    plain = traffic.HttpCase("x", "X", "POST", "/", b"", 1, b"a=b")
    form = traffic.HttpCase("x", "X", "POST", "/", b"", 1, b"a=b", (("content-type", "x/y"),))
    assert plain.wire.count(b"Content-Type: application/octet-stream\r\n") == 1
    assert b"octet-stream" not in form.wire and b"content-type: x/y\r\n" in form.wire
    assert form.wire.endswith(b"Content-Length: 3\r\n\r\na=b")


def test_memory_is_that_of_the_whole_tree() -> None:
    """A child's pages count, once it has touched them."""
    hold = "x = bytearray(b'1') * (64 << 20); print(flush=True); input()"
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {hold!r}])\nchild.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as burner:
        assert burner.stdout is not None
        assert burner.stdout.readline() == b"\n"
        resident = process.tree_memory(burner.pid)
        burner.communicate(b"\n")
    assert 64 << 20 < resident < 192 << 20


def test_the_readmes_take_the_figures_of_a_run_and_keep_their_words() -> None:
    run = run_of(3.0, 4.0)
    run.about |= {"date": "2030-01-02", "interpreter": "CPython 3.15.1 (x)", "versions": "rondel 9"}
    run.about["machine"] = "Some CPU, 64 cores, Linux 9.1"
    old = "| ns | Rondel |\n| --- | --: |\n| gone | 1 |"
    said = "Of 2026-11-24, CPython 3.11.2 (x), AMD EPYC, 2 cores, Linux 6.18"
    said += "; rondel 1, uvloop 2; commit a1."
    text = f"# Title\n\n{readme.BEGIN}\n{said}\n\nWords.\n\n{old}\n{readme.END}\ntail | stays\n"
    new = readme.updated(text, run)
    assert "Of 2030-01-02, CPython 3.15.1 (x), Some CPU, 64 cores, Linux 9.1; rondel 9." in new
    assert "gone" not in new and "Words." in new and new.endswith("tail | stays\n")
    assert "\n".join(report.tables(run)[0]) in new
    with pytest.raises(ValueError, match="no room"):
        readme.updated("# Title\n", run)
