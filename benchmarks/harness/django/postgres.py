"""A private PostgreSQL: a cluster in a temporary folder, reached by a Unix socket there.

Invariants: no TCP port, no cluster of the machine's own is touched, and nothing is left when the
`with` ends.  PostgreSQL refuses to run as root, so under root it runs as an account without rights.
Durability is off: the benchmark reads.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCOUNTS = ("postgres", "nobody")
"""For root; the first that exists."""

CONNECTIONS = 300
"""uvicorn opens one per request in flight."""

START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0


class PostgresError(Exception):
    """There is none here; the message says why."""


@dataclass(frozen=True)
class Cluster:
    folder: Path
    """Holds the socket; the superuser `bench` may connect without a password."""
    version: str


def programs() -> Path:
    """The folder of `initdb` and `postgres`: on the path, or where Debian has them."""
    found = shutil.which("initdb")
    if found and shutil.which("postgres", path=str(Path(found).parent)):
        return Path(found).parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda path: int(path.parent.parent.name), default=None)
    if newest is None:
        raise PostgresError("no initdb found (Debian: apt install postgresql)")
    return newest.parent


def identity() -> tuple[dict[str, Any], int | None]:
    """How a subprocess becomes one that PostgreSQL accepts, and whom its files must belong to."""
    if os.geteuid() != 0:
        return {}, None
    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam(name)
            return {
                "user": account.pw_uid,
                "group": account.pw_gid,
                "extra_groups": [],
            }, account.pw_uid
    raise PostgresError(f"root cannot run it, and there is no account {' or '.join(ACCOUNTS)}")


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A running one. PostgresError if there can be none."""
    folder = programs()
    become, owner = identity()
    with tempfile.TemporaryDirectory(prefix="bench-pg-") as name:
        home = Path(name)
        if owner is not None:
            os.chown(home, owner, -1)
        become |= {"cwd": home, "env": {"PATH": os.defpath, "HOME": name, "LC_ALL": "C"}}

        def tool(program: str, *words: str) -> str:
            done = subprocess.run(
                [str(folder / program), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                **become,
            )
            if done.returncode:
                last = done.stdout.strip().splitlines()[-1:] or ["no message"]
                raise PostgresError(f"{program} failed: {last[0]}")
            printed: str = done.stdout
            return printed

        data = home / "data"
        account = ["--username", "bench", "--auth", "trust", "--encoding", "UTF8"]
        tool("initdb", "--pgdata", str(data), *account, "--no-sync")
        numbers = re.search(r"\d[\d.]*", tool("postgres", "--version"))
        settings = ["listen_addresses=", f"max_connections={CONNECTIONS}", "fsync=off"]
        words = [word for setting in settings for word in ("-c", setting)]
        # Not by `pg_ctl start`: its daemon would be an orphan, and in a container without an init a
        # zombie afterwards.
        with (home / "log").open("w+") as log:
            server = subprocess.Popen(
                [str(folder / "postgres"), "-D", str(data), "-k", name, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl+C is ours: it ends when the servers have ended
                **become,
            )
            try:
                wait_until_ready(server, data / "postmaster.pid", home / "log")
                yield Cluster(home, numbers[0] if numbers else "of unknown version")
            finally:
                stop(server)


def wait_until_ready(server: subprocess.Popen[bytes], status: Path, log: Path) -> None:
    """It writes its state to the last line of its pid file, as `pg_ctl --wait` knows."""
    end = time.monotonic() + START_TIMEOUT
    while True:
        with contextlib.suppress(OSError):
            lines = status.read_text().splitlines()
            if lines and lines[-1].strip() == "ready":
                return
        if server.poll() is not None or time.monotonic() > end:
            last = log.read_text().strip().splitlines()[-1:] or ["no message"]
            raise PostgresError(f"postgres did not start: {last[0]}")
        time.sleep(0.02)


def stop(server: subprocess.Popen[bytes]) -> None:
    """SIGINT is its fast shutdown: clients are disconnected. What hangs is killed."""
    server.send_signal(signal.SIGINT)
    try:
        server.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
