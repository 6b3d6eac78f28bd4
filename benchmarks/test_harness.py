"""The benchmark's own machinery: a figure may be missing, but never wrong.

Each case runs on stock asyncio here, small; the rest pins what happens when a runtime dies, a
server answers wrongly, or a figure is absent.
"""

from __future__ import annotations

import asyncio
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import BATCH, CASES, CROWD, Case
from harness import chart, limits, readme, report, server, tasks
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
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        used = server.cpu_clock(process.pid)
        process.communicate(b"\n")
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
    found = [
        next(limits.read(tmp_path / "limits.toml", frozen)).at_most for frozen in (False, True)
    ]
    assert found == [0.4, 0.25]


def test_a_figure_that_is_absent_neither_passes_nor_fails() -> None:
    assert words(run_of(100, 1000))["gather/rloop"] == "absent"


def test_a_case_that_rondel_failed_once_misses_its_limit() -> None:
    run = run_of(100, 1000)
    run.tasks.fail("create_await", "rondel", "RuntimeError: broken")
    assert words(run)["create_await/rloop"] == "FAIL"
    assert "| failed |" in report.markdown(run, BENCHMARKS / "limits.toml", None)


def test_a_saved_run_reports_as_it_did_and_names_no_private_path(tmp_path: Path) -> None:
    run = run_of(100, 1000)
    run.tasks.fail("lock", "rloop", f"FileNotFoundError: {BENCHMARKS}/thing")
    run.save(tmp_path / "run.json")
    loaded = Run.load(tmp_path / "run.json")
    assert loaded.tasks.values == run.tasks.values
    assert "./benchmarks/thing" in loaded.tasks.errors["lock"]["rloop"]
    assert chart.svg(loaded) == chart.svg(run)


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers every GET with five bytes, and keeps the connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"12345")

    def log_message(self, format: str, *args: object) -> None:
        pass


class Listener(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """The load ends with its connections open: a reset here is expected."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@pytest.fixture
def port() -> Iterator[int]:
    with Listener(("127.0.0.1", 0), Answer) as listener:
        thread = threading.Thread(target=listener.serve_forever)
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
