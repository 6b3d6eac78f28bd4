"""SIGHUP and recycling: new code and new processes, and no client that notices."""

import contextlib
import signal
import threading
from pathlib import Path

import pytest

from tests.workers.site import Site, ends, serving

PRELOAD = pytest.mark.parametrize("options", [(), ("--preload",)], ids=["afresh", "preload"])


class Load:
    """Clients that ask on and on, each request of which must be answered."""

    def __init__(self, site: Site, clients: int = 2) -> None:
        self._site = site
        self._over = threading.Event()
        self.answered = 0
        self.failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._ask, args=(kept,), daemon=True)
            for kept in (True, False)
            for _ in range(clients)
        ]

    def _ask(self, kept: bool) -> None:
        """Over connections that are kept as long as the server keeps them, or one a request."""
        over = self._site.connect() if kept else None
        try:
            while not self._over.is_set():
                answer = self._site.ask(over=over)
                self.answered += 1
                if over is not None and answer.closes:
                    over.close()
                    over = self._site.connect()
        except BaseException as failure:
            self.failures.append(failure)
        finally:
            if over is not None:
                over.close()

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@PRELOAD
def test_a_reload_brings_new_code_and_no_request_fails(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    with serving(tmp_path, "--no-access-log", *options) as site, Load(site) as load:
        old = site.workers(2)
        for generation in ("second", "third"):
            site.rewrite(generation)
            site.signal(signal.SIGHUP)
            site.wait_for("reloaded")
            assert all(ends(pid) for pid in old)
            old = site.workers(2)
            assert site.ask().generation == generation
    assert load.failures == []
    assert load.answered > 20


@PRELOAD
def test_code_that_fails_leaves_the_old_serving(tmp_path: Path, options: tuple[str, ...]) -> None:
    with serving(tmp_path, *options) as site:
        old = site.workers(2)
        (tmp_path / "site_app.py").write_text("import nothing_here\n")
        site.signal(signal.SIGHUP)
        site.wait_for("importing 'site_app' failed: ModuleNotFoundError")
        site.wait_for("could not start: the reload is given up")
        assert site.workers(2) == old
        # Mended, it reloads.
        site.rewrite("mended")
        site.signal(signal.SIGHUP)
        site.wait_for("reloaded")
        site.until("mended")


def test_a_reload_waits_for_requests_of_the_old(tmp_path: Path) -> None:
    with serving(tmp_path, count=1) as site:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(site.ask("/wait")), daemon=True)
        asking.start()
        site.wait_for("in flight")
        site.rewrite("second")
        site.signal(signal.SIGHUP)
        site.wait_for("reloaded")
        site.until("second")
        site.let_go()
        asking.join()
        assert answers[0].generation == "first"


def test_an_idle_connection_gets_one_more_answer(tmp_path: Path) -> None:
    with serving(tmp_path, count=1) as site, contextlib.closing(site.connect()) as kept:
        old = site.ask(over=kept)
        assert not old.closes
        site.signal(signal.SIGHUP)
        site.wait_for("reloaded")
        last = site.ask(over=kept)
        assert (last.pid, last.closes) == (old.pid, True)
        assert ends(old.pid)


def test_an_idle_connection_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with serving(tmp_path, count=1) as site, contextlib.closing(site.connect()) as kept:
        old = site.ask(over=kept)
        site.signal(signal.SIGHUP)
        assert ends(old.pid)
        assert kept.sock.recv(1) == b""


def test_a_reload_reads_the_options_anew(tmp_path: Path) -> None:
    options = tmp_path / "rondel.toml"
    options.write_text("access-log = false\n")
    with serving(tmp_path, count=1) as site:
        old = site.ask().pid
        options.write_text('access-log = true\nhost = "0.0.0.0"\n')
        site.signal(signal.SIGHUP)
        site.wait_for("host was changed: that takes a restart")
        site.wait_for("reloaded")
        assert ends(old)
        site.ask("/told")
        options.write_text("colour = 1\n")
        site.signal(signal.SIGHUP)
        site.wait_for("no reload: rondel.toml: colour is not an option")
        site.signal(signal.SIGTERM)
        got = site.process.end()
    assert [line.split()[3] for line in got.output.splitlines()] == ["/told"]


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["afresh", "preload"])
def test_a_worker_is_replaced_after_so_many_requests(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    with serving(tmp_path, "--no-access-log", "--max-requests", "20", *options) as site:
        old = site.workers(2)
        with Load(site, clients=1) as load:
            for _ in range(2):
                site.wait_for(r"replacing worker \d \(pid \d+\): \d+ requests served")
                site.wait_for(r"worker \d \(pid \d+\) is ready")
        assert load.failures == []
        assert site.workers(2) != old


def test_a_worker_is_replaced_when_it_is_old(tmp_path: Path) -> None:
    with serving(tmp_path, "--max-age", "0.5", "--max-age-jitter", "0.1", count=1) as site:
        old = site.ask().pid
        site.wait_for(rf"replacing worker 1 \(pid {old}\): \d+ s old")
        assert ends(old)
        assert site.ask().pid != old


def test_a_worker_is_replaced_when_it_has_too_much_memory(tmp_path: Path) -> None:
    with serving(tmp_path, "--max-rss", "300M", count=1) as site:
        old = site.ask().pid
        for _ in range(5):
            site.ask("/hold")
        site.wait_for(rf"replacing worker 1 \(pid {old}\): \d+ MiB resident")
        assert ends(old)
        assert site.ask().pid != old
