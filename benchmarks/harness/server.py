"""The HTTP part: server CPU per request, one process a server, rounds interleaved over servers.

The figure is CPU time (user and system, every thread, the whole process tree) that the server
took for N requests, over N; the load's own CPU and the wall time do not enter.  Each round starts
each server anew, because a process keeps the luck of its memory layout; the servers then take
turns, one under load at a time.  The median over rounds is reported, because load comes from
outside and how well it batches varies both ways.

Before a server is measured, each of its answers is compared with the expected bytes.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from asgi_app import HELLO, LARGE

from harness.environment import BENCHMARKS, Environment, progress
from harness.figures import Figures

SERVERS = ("rondel", "uvicorn", "granian", "bare")
CONNECTIONS = 64
TURNS = 3
"""Measurements of each case and server in one round."""

START_TIMEOUT = 20.0
"""Seconds until a server must answer; the slowest here needs about one."""

STOP_TIMEOUT = 10.0


class ServerError(Exception):
    """The server cannot be measured; the message says why."""


@dataclass(frozen=True)
class HttpCase:
    """One line of the table: the same request again and again."""

    name: str
    title: str
    method: str
    path: str
    answer: bytes
    requests: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def wire(self) -> bytes:
        """The request as the load generator sends it."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body:
            lines += ["Content-Type: application/octet-stream", f"Content-Length: {len(self.body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


BROWSER_HEADERS = (
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "http://localhost/start"),
    ("Cookie", "sessionid=4y1qbkfyqzmhdx2mq8r2ykx4k4a6b3vz; csrftoken=Q0m3yqTz6k"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Cache-Control", "max-age=0"),
)
"""With Host, the dozen that a browser sends."""

ECHO = bytes(range(256)) * 40

HTTP_CASES: tuple[HttpCase, ...] = (
    HttpCase("hello", "ASGI hello", "GET", "/", HELLO, 20_000),
    HttpCase("headers", "12 request headers", "GET", "/", HELLO, 20_000, b"", BROWSER_HEADERS),
    HttpCase("echo", "POST echo, 10 KB", "POST", "/echo", ECHO, 15_000, ECHO),
    HttpCase("large", "100 KB body", "GET", "/100k", LARGE, 8_000),
)


def available(environment: Environment, wanted: set[str] | None) -> list[str]:
    there = {
        "rondel": environment.rondel,
        "uvicorn": {"uvicorn", "uvloop", "httptools"} <= environment.packages.keys(),
        "granian": "granian" in environment.packages,
        "bare": environment.bare_server is not None,
    }
    return [
        name
        for name in SERVERS
        if there[name] and (wanted is None or name == "rondel" or name in wanted)
    ]


def command(environment: Environment, server: str, port: int) -> list[str]:
    """One worker, no access log, quiet; every other option as the server has it by default."""
    programs = environment.bin
    address = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    if server == "rondel":
        return [str(programs / "rondel"), "serve", "asgi_app:app", *address]
    if server == "uvicorn":
        options = ["--loop", "uvloop", "--http", "httptools", "--log-level", "warning"]
        return [str(programs / "uvicorn"), "asgi_app:app", *address, *options]
    if server == "granian":
        options = ["--interface", "asgi", "--workers", "1", "--http", "1", "--loop", "uvloop"]
        options += ["--log-level", "warning"]
        return [str(programs / "granian"), "asgi_app:app", *address, *options]
    return [str(environment.bare_server), str(port)]


def run(
    environment: Environment,
    servers: list[str],
    only: set[str],
    *,
    rounds: int,
    quick: bool,
    results: Figures,
) -> None:
    """All the cases asked for, on all the servers, `rounds` times."""
    cases = [case for case in HTTP_CASES if not only or case.name in only]
    for number in range(rounds):
        start = time.monotonic()
        with contextlib.ExitStack() as stack:
            there: list[tuple[str, int, int]] = []
            for server in servers:
                try:
                    there.append((server, *stack.enter_context(running(environment, server))))
                except ServerError as error:
                    for case in cases:
                        results.fail(case.name, server, str(error))
                    progress(f"http: {server}: {error}")
            for case in cases:
                measure_case(environment, case, there, quick, results)
        progress(f"http: round {number + 1} of {rounds}, {time.monotonic() - start:.0f} s")


def measure_case(
    environment: Environment,
    case: HttpCase,
    servers: list[tuple[str, int, int]],
    quick: bool,
    results: Figures,
) -> None:
    """One case on all servers in short turns, so that a busy second hits none of them alone."""
    requests = case.requests // (15 if quick else 3)
    for turn in range(-1, TURNS):  # the first turn verifies and warms up
        shift = turn % len(servers) if servers else 0
        for server, pid, port in servers[shift:] + servers[:shift]:
            if results.failed(case.name, server):
                continue
            try:
                if turn < 0:
                    verify(case, port)
                before = tree_cpu(pid)
                load(environment, case, port, requests)
                spent = cpu_since(before, pid)
            except ServerError as error:
                results.fail(case.name, server, str(error))
                progress(f"http: {server} {case.name}: {error}")
                continue
            if turn >= 0:
                results.add(case.name, server, [spent / requests / 1000])


# ---------------------------------------------------------------------------- processes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(environment: Environment, server: str) -> Iterator[tuple[int, int]]:
    """The server's process id and port, answering; gone with all its children afterwards."""
    port = free_port()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command(environment, server, port),
            cwd=BENCHMARKS,
            env=environment.variables(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_until_answering(process, port, log)
            yield process.pid, port
        finally:
            stop(process)


def wait_until_answering(process: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
    end = time.monotonic() + START_TIMEOUT
    while True:
        if process.poll() is not None:
            raise ServerError(f"ended at start with status {process.returncode}: {tail(log)}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise ServerError(f"no answer in {START_TIMEOUT:.0f} s: {tail(log)}") from None
            time.sleep(0.02)  # nothing tells a stranger that the port is bound


def tail(log: IO[str]) -> str:
    log.seek(0)
    lines = log.read().strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the parent, as a user would; what is left of its session is killed."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        progress(f"http: {process.args!r:.60} did not stop on SIGTERM; killed")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# ---------------------------------------------------------------------------- CPU time


def process_tree(root: int) -> set[int]:
    """The process and its descendants, from the parents in /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = (entry / "stat").read_text()
                # The name, in parentheses, may hold spaces and parentheses of its own.
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return tree


def cpu_clock(pid: int) -> int:
    """The process's CPU clock in ns; /proc's utime and stime count ticks of 10 ms only.

    The identifier is what clock_getcpuclockid(3) makes on Linux: the inverted process id over
    three bits, of which 2 stands for "all threads, time on a CPU".
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def tree_cpu(root: int) -> dict[int, int]:
    clocks: dict[int, int] = {}
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            clocks[pid] = cpu_clock(pid)
    return clocks


def cpu_since(before: dict[int, int], root: int) -> int:
    """ns since `before`; a process that ended meanwhile would be missing, so it is an error."""
    after = tree_cpu(root)
    if gone := before.keys() - after.keys():
        raise ServerError(f"{len(gone)} of its processes ended under load")
    return sum(clock - before.get(pid, 0) for pid, clock in after.items())


# ---------------------------------------------------------------------------- requests


def verify(case: HttpCase, port: int) -> None:
    """One request through a real client, whose answer must be right to the byte."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(case.method, case.path, case.body or None, dict(case.headers))
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if response.status != 200 or body != case.answer:
        raise ServerError(
            f"answered {response.status} with {len(body)} bytes, "
            f"expected 200 with {len(case.answer)}"
        )


def load(environment: Environment, case: HttpCase, port: int, requests: int) -> None:
    arguments = [port, CONNECTIONS, requests, 200, len(case.answer)]
    done = subprocess.run(
        [str(environment.helpers / "load"), *map(str, arguments)],
        input=case.wire,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise ServerError(reason or f"the load ended with status {done.returncode}")
