"""Starting, crashing, stopping: what the supervisor does for each, and what clients see of it."""

import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.support import RONDEL, call, running
from tests.workers.site import APPLICATION, ends, serving

PRELOAD = pytest.mark.parametrize("options", [(), ("--preload",)], ids=["afresh", "preload"])


@PRELOAD
def test_workers_answer_and_stop_gracefully(tmp_path: Path, options: tuple[str, ...]) -> None:
    with serving(tmp_path, *options, count=3) as site:
        pids = site.workers(3)
        assert site.process.pid not in pids
        site.signal(signal.SIGTERM)
        got = site.process.end()
    assert got.status == 0, got.errors
    assert "stopped" in got.errors
    for pid in pids:
        assert f"shut down {pid}" in got.errors
        assert ends(pid)


def test_the_application_is_imported_by_each_worker(tmp_path: Path) -> None:
    with serving(tmp_path, count=2) as site:
        pids = site.workers(2)
        assert sorted(site.imports()) == sorted(f"{pid} first" for pid in pids)


@PRELOAD
def test_workers_share_memory(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Pages that two processes have count half in each: those of Python and Rondel, here."""
    with serving(tmp_path, *options, count=2) as site:
        for pid in site.workers(2):
            rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {row.split()[0]: int(row.split()[1]) for row in rows}
            assert sizes["Pss_Anon:"] < 0.8 * sizes["Anonymous:"]


def test_preload_imports_the_application_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--preload", count=3) as site:
        pids = site.workers(3)
        (line,) = site.imports()
        assert int(line.split()[0]) not in pids


@PRELOAD
def test_a_killed_worker_is_replaced_while_the_other_serves(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    with serving(tmp_path, *options) as site:
        first, second = sorted(site.workers(2))
        os.kill(first, signal.SIGKILL)
        site.wait_for(rf"worker \d \(pid {first}\) was killed by SIGKILL")
        assert {site.ask().pid for _ in range(10)} == {second}
        site.wait_for(r"worker \d \(pid \d+\) is ready")
        assert first not in site.workers(2)


def test_a_killed_template_is_made_anew_and_its_workers_serve_on(tmp_path: Path) -> None:
    with serving(tmp_path, "--preload") as site:
        pids = site.workers(2)
        template = int(site.imports()[0].split()[0])
        os.kill(template, signal.SIGKILL)
        site.wait_for(rf"template \(pid {template}\) was killed by SIGKILL")
        assert site.workers(2) == pids
        # One that dies now comes from the new template.
        os.kill(min(pids), signal.SIGKILL)
        site.wait_for(r"worker \d \(pid \d+\) is ready")
        assert len(site.imports()) == 2


def test_one_that_dies_right_away_is_started_after_a_pause(tmp_path: Path) -> None:
    with serving(tmp_path, count=1) as site:
        os.kill(site.ask().pid, signal.SIGKILL)
        assert site.wait_for(r"starting worker 1 again in ([\d.]+) s")[1] == "0.5"
        site.wait_for("worker 1 .* is ready")
        os.kill(site.ask().pid, signal.SIGKILL)
        assert site.wait_for(r"starting worker 1 again in ([\d.]+) s")[1] == "1"


@PRELOAD
def test_workers_stop_when_the_supervisor_is_gone(tmp_path: Path, options: tuple[str, ...]) -> None:
    with serving(tmp_path, *options) as site:
        pids = site.workers(2)
        site.signal(signal.SIGKILL)
        assert all(ends(pid) for pid in pids)


@PRELOAD
def test_requests_in_flight_end_before_the_stop(tmp_path: Path, options: tuple[str, ...]) -> None:
    with serving(tmp_path, *options) as site, ThreadPoolExecutor() as pool:
        asked = pool.submit(site.ask, "/wait")
        site.wait_for("in flight")
        site.signal(signal.SIGTERM)
        site.wait_for("stopping: ")
        site.let_go()
        assert asked.result().generation == "first"
        assert site.process.end().status == 0


def test_a_second_signal_cuts_requests_off(tmp_path: Path) -> None:
    with serving(tmp_path) as site, ThreadPoolExecutor() as pool:
        asked = pool.submit(site.ask, "/for-ever")
        site.wait_for("in flight")
        site.signal(signal.SIGINT)
        site.wait_for("stopping: ")
        site.signal(signal.SIGINT)
        assert asked.exception() is not None
        assert site.process.end().status == 1


def test_the_deadline_cuts_requests_off(tmp_path: Path) -> None:
    with serving(tmp_path, "--graceful-timeout", "0.2") as site, ThreadPoolExecutor() as pool:
        asked = pool.submit(site.ask, "/for-ever")
        site.wait_for("in flight")
        site.signal(signal.SIGTERM)
        site.wait_for("cut off 1 request that did not end in time")
        assert asked.exception() is not None
        assert site.process.end().status == 0


@PRELOAD
def test_an_application_that_fails_is_told_once(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "broken.py").write_text("import nothing_here\n")
    command = [*RONDEL, "serve", "broken:app", "--workers", "3", "--port", "0", *options]
    got = call(command, tmp_path)
    assert got.status == 1
    assert got.errors.count("Traceback") == 1
    assert got.errors.count("importing 'broken' failed: ModuleNotFoundError") == 1


def test_a_wrong_name_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("async def app(scope, receive, send): ...\n")
    command = [*RONDEL, "serve", "hello:ap", "--workers", "2", "--port", "0"]
    got = call(command, tmp_path)
    assert (got.status, got.errors) == (
        1,
        "rondel serve: 'hello' has no attribute 'ap'; did you mean 'app'?\n",
    )


def test_ttin_and_ttou_add_and_remove_a_worker(tmp_path: Path) -> None:
    with serving(tmp_path, count=1) as site:
        first = site.workers(1)
        site.signal(signal.SIGTTIN)
        site.wait_for("worker 2 .* is ready")
        assert first < site.workers(2)
        site.signal(signal.SIGTTOU)
        site.wait_for("1 workers from now on")
        site.wait_for("shut down")
        assert site.workers(1) == first
        site.signal(signal.SIGTTOU)
        site.wait_for("the last worker stays")


def test_workers_auto_is_one_per_processor(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(APPLICATION)
    count = len(os.sched_getaffinity(0))
    command = [*RONDEL, "serve", "site_app:app", "--workers", "auto", "--port", "0"]
    with running(command, tmp_path) as process:
        assert int(process.wait_for(r"with (\d+) worker")[1]) == count


def test_ctrl_c_while_starting_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import sys, time\nprint('importing', file=sys.stderr, flush=True)\ntime.sleep(600)\n"
    )
    command = [*RONDEL, "serve", "slow:app", "--workers", "2", "--port", "0"]
    with running(command, tmp_path) as process:
        process.wait_for("importing")
        process.signal(signal.SIGINT)
        assert process.end().status == 0


def test_a_start_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(600)\n")
    command = [*RONDEL, "serve", "slow:app", "--workers", "1", "--port", "0"]
    got = call([*command, "--start-timeout", "0.5"], tmp_path)
    assert got.status == 1
    assert "did not start in time: killed" in got.errors
    assert "worker 1 was killed by SIGKILL before it was ready" in got.errors


# A worker that the system gives no processor to gets nothing, rightly: the shares of one round
# count on a machine of one's own. Shares that are uneven by themselves are so in each.
ROUNDS = 4


def test_connections_are_spread_evenly(tmp_path: Path) -> None:
    total, count = 600, 3
    rounds = []
    with serving(tmp_path, "--no-access-log", count=count) as site, ThreadPoolExecutor(4) as pool:
        site.workers(count)
        for _ in range(ROUNDS):
            seen = Counter(pool.map(lambda _: site.ask().pid, range(total)))
            rounds.append(sorted(seen.values()))
            if rounds[-1][-1] <= 1.3 * total / count:
                return
    pytest.fail(f"shares of {count} workers in {total} connections: {rounds}")


def test_others_take_the_share_of_a_blocked_worker(tmp_path: Path) -> None:
    with serving(tmp_path, "--no-access-log", count=3) as site, ThreadPoolExecutor() as pool:
        site.workers(3)
        blocked = pool.submit(site.ask, "/block")
        site.wait_for("blocked")
        rounds = []
        for _ in range(ROUNDS):
            rounds.append(Counter(site.ask().pid for _ in range(60)))
            if max(rounds[-1].values()) <= 1.3 * 30:
                break
        site.let_go()
        last = rounds[-1]
        assert blocked.result().pid not in sum(rounds, Counter())
        assert len(last) == 2
        assert max(last.values()) <= 1.3 * 30, rounds
