"""What a supervisor listens on, whom it tells, and where it logs."""

import os
import pwd
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import PATIENCE, RONDEL, call, running
from tests.workers.site import APPLICATION, Site, serving, until


def test_a_unix_socket_has_the_mode_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    address = ("--uds", str(path), "--uds-mode", "660")
    with serving(tmp_path, address=address) as site:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        site.workers(2)
        site.signal(signal.SIGHUP)
        site.wait_for("reloaded")
        site.workers(2)
        site.signal(signal.SIGTERM)
        assert site.process.end().status == 0
        assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_unix_socket_has_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    with serving(tmp_path, address=("--uds", str(path), "--uds-owner", "nobody:12345"), count=1):
        told = path.stat()
        assert (told.st_uid, told.st_gid) == (pwd.getpwnam("nobody").pw_uid, 12345)


def test_an_owner_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(APPLICATION)
    address = ["--uds", "site.sock", "--uds-owner", "nobody-of-this-name"]
    got = call([*RONDEL, "serve", "site_app:app", *address], tmp_path)
    assert got.status == 2
    assert got.errors == (
        "rondel serve: uds_owner: no user 'nobody-of-this-name' on this machine\n"
    )
    assert not (tmp_path / "site.sock").exists()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        os.set_inheritable(sock.fileno(), True)
        yield sock


START = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
if sys.argv[2] == "systemd":
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["alone", "workers"])
@pytest.mark.parametrize("how", ["systemd", "fd"])
def test_a_socket_that_it_was_started_with(
    tmp_path: Path, listening: socket.socket, how: str, workers: tuple[str, ...]
) -> None:
    (tmp_path / "site_app.py").write_text(APPLICATION)
    rest = ["-m", "rondel", "serve", "site_app:app", *workers]
    rest += ["--fd", "3"] if how == "fd" else []
    command = [sys.executable, "-c", START, str(listening.fileno()), how, *rest]
    with running(command, tmp_path, pass_fds=[listening.fileno()]) as child:
        site = Site(child, f"http://127.0.0.1:{listening.getsockname()[1]}", tmp_path)
        child.wait_for(rf"serving site_app:app on {site.url} ")
        assert site.ask().generation == "first"


def test_what_is_no_socket_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(APPLICATION)
    got = call([*RONDEL, "serve", "site_app:app", "--fd", "1"], tmp_path)
    assert got.status == 2
    assert "descriptor 1 is not a socket" in got.errors


def test_systemd_is_told(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(APPLICATION)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.settimeout(PATIENCE)
        heard.bind(str(tmp_path / "notify"))
        command = [*RONDEL, "serve", "site_app:app", "--workers", "2", "--port", "0"]
        with running(command, tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            assert heard.recv(4096).decode() == f"READY=1\nMAINPID={process.pid}"
            process.signal(signal.SIGHUP)
            assert heard.recv(4096).decode().startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert heard.recv(4096) == b"READY=1"
            process.signal(signal.SIGTERM)
            assert heard.recv(4096) == b"STOPPING=1"
            assert process.end().status == 0


def logged_in(file: Path, *paths: str) -> int:
    text = file.read_text()
    return sum(path in text for path in paths)


def test_log_files_are_opened_anew_on_usr1(tmp_path: Path) -> None:
    access, errors = tmp_path / "access.log", tmp_path / "error.log"
    old = access.with_suffix(".old")
    (tmp_path / "site_app.py").write_text(APPLICATION)
    command = [*RONDEL, "serve", "site_app:app", "--workers", "2", "--port", "0"]
    command += ["--access-log-file", str(access), "--log-file", str(errors)]
    with running(command, tmp_path) as process:
        until(lambda: errors.exists() and "Ctrl+C stops" in errors.read_text(), "no banner")
        url = errors.read_text().rpartition(" on ")[2].split()[0]
        site = Site(process, url, tmp_path)
        site.ask("/before")
        until(lambda: "/before" in access.read_text(), "no line")
        for path in (access, errors):
            path.rename(path.with_suffix(".old"))
        process.signal(signal.SIGUSR1)
        # Each worker hears of it in its own time, and then logs to the new file.
        asked: dict[str, int] = {}

        def both_moved() -> bool:
            path = f"/after-{len(asked)}-"
            asked[path] = site.ask(path).pid
            logged = access.read_text() if access.exists() else ""
            return len({pid for path, pid in asked.items() if path in logged}) == 2

        until(both_moved, "the old file is written to")
        # Whatever was asked before a worker moved is in the old file.
        until(lambda: logged_in(access, *asked) + logged_in(old, *asked) == len(asked), "lost")
        before = old.read_text()
        last: list[int] = []

        def both_asked() -> bool:
            last.append(site.ask("/last").pid)
            return len(set(last)) == 2

        until(both_asked, "one worker answers all")
        until(lambda: access.read_text().count("/last") == len(last), "lines are missing")
        assert old.read_text() == before
        process.signal(signal.SIGTERM)
        assert process.end().status == 0
        assert "stopped" in errors.read_text()
