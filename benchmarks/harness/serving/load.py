"""Loads that are not `load.c`'s plain one: TLS and HTTP/2 by h2load, WebSocket by `net/load.c`, and
requests at a fixed rate.

Invariant: what is compared is checked.  h2load tells how many answers had a good status and how
many bytes of bodies came, both have to be exact; before that curl has got one answer, right to the
byte.  The other loads compare each answer themselves.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from net import drive

from harness.environment import Environment
from harness.figures import Figures
from harness.process import ServerError, cpu_since, tree_cpu
from harness.traffic import CONNECTIONS, TURNS, HttpCase, Server, Sink, Spent, run_load, take_turns

PATIENCE = 60
"""Seconds for a turn; the slowest takes about five."""


def words_of(command: list[str]) -> str:
    """The program's output; ServerError if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"{command[0]} took over {PATIENCE} s") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise ServerError(f"{command[0]}: {last[0] if last else done.returncode}")
    return done.stdout


# ---------------------------------------------------------------------------- TLS and HTTP/2


@dataclass(frozen=True)
class H2loadCase:
    """A GET by h2load: HTTP/2, over TLS or with prior knowledge, or HTTP/1.1 over TLS."""

    name: str
    title: str
    path: str
    answer: bytes
    requests: int
    secure: bool
    http2: bool
    sessions: int = 16
    """Connections. Few, as each begins with a handshake, which is in the figure."""

    @property
    def streams(self) -> int:
        """At once on each connection."""
        return CONNECTIONS // self.sessions if self.http2 else 1

    @property
    def connections(self) -> int:
        return self.sessions * self.streams

    @staticmethod
    def lacking() -> str | None:
        """Why no such case can be measured here."""
        gone = [program for program in ("h2load", "curl") if shutil.which(program) is None]
        return f"{' and '.join(gone)} missing (`scripts/clients.sh install`)" if gone else None

    def url(self, port: int) -> str:
        return f"http{'s' if self.secure else ''}://127.0.0.1:{port}{self.path}"

    def at_a_time(self, fewer: int) -> int:
        return max(self.connections, self.requests // (TURNS * fewer))

    def verify(self, environment: Environment, port: int) -> None:
        """One answer, of the HTTP version that is meant."""
        version = "--http1.1"
        if self.http2:
            version = "--http2" if self.secure else "--http2-prior-knowledge"
        command = ["curl", "--silent", "--show-error", "--insecure", "--max-time", "10", version]
        command += ["--write-out", "\n%{http_code} %{http_version}", self.url(port)]
        told = words_of(command)
        expected = f"{self.answer.decode()}\n200 {'2' if self.http2 else '1.1'}"
        if told != expected:
            raise ServerError(f"answered {told[-80:]!r}, expected {expected[-80:]!r}")

    def spend(self, environment: Environment, server: Server, count: int) -> Spent:
        command = ["h2load", "--requests", str(count), "--clients", str(self.sessions)]
        command += ["--max-concurrent-streams", str(self.streams)]
        if not self.http2:
            command.append("--h1")
        before = tree_cpu(server.pid)
        told = words_of([*command, self.url(server.port)])
        spent = cpu_since(before, server.pid)
        return Spent(spent, told_by_h2load(told, count, count * len(self.answer)))


FINISHED = re.compile(r"^finished in ([\d.]+)(s|ms|us),", re.MULTILINE)
SUCCEEDED = re.compile(r"^requests: .*, (\d+) succeeded, ", re.MULTILINE)
STATUS = re.compile(r"^status codes: (\d+) 2xx, ", re.MULTILINE)
DATA = re.compile(r"^traffic: .*\((\d+)\) data$", re.MULTILINE)
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def told_by_h2load(text: str, count: int, size: int) -> float:
    """The seconds that it took; ServerError unless all answers were right in status and size."""
    finished = FINISHED.search(text)
    found = [pattern.search(text) for pattern in (SUCCEEDED, STATUS, DATA)]
    numbers = [int(match[1]) if match else 0 for match in found]
    if finished is None or numbers != [count, count, size]:
        raise ServerError(
            f"h2load: {numbers[0]} answers, {numbers[1]} good, {numbers[2]} bytes; "
            f"expected {count}, and {size} bytes"
        )
    return float(finished[1]) * SECONDS[finished[2]]


# ---------------------------------------------------------------------------- WebSocket


@dataclass(frozen=True)
class EchoCase:
    """Messages of text that a WebSocket application sends back."""

    name: str
    title: str
    size: int
    requests: int
    connections: int = CONNECTIONS

    def at_a_time(self, fewer: int) -> int:
        return max(2 * self.connections, self.requests // (TURNS * fewer))

    def verify(self, environment: Environment, port: int) -> None:
        """The load compares all bytes of all echoes."""

    def spend(self, environment: Environment, server: Server, count: int) -> Spent:
        """The handshakes are over before the clocks are read."""
        words = ["ws", str(server.port), str(self.connections), str(self.size)]
        command = [str(environment.helpers / "net-load"), *words]
        try:
            with drive.talking(command, environment.variables()) as talk:
                if (said := talk.hear()) != "ready":
                    raise ServerError(f"the load said {said!r}")
                before = tree_cpu(server.pid)
                talk.say(str(count))
                seconds = float(talk.hear())
                return Spent(cpu_since(before, server.pid), seconds)
        except drive.Failure as failure:
            raise ServerError(str(failure)) from failure


# ---------------------------------------------------------------------------- latency


@dataclass(frozen=True)
class PacedCase:
    """Requests that are due at fixed times, whether or not earlier ones are answered."""

    request: HttpCase
    rate: int
    """Per second."""

    @property
    def name(self) -> str:
        return self.request.name

    @property
    def title(self) -> str:
        return self.request.title

    def measure(
        self,
        environment: Environment,
        servers: list[Server],
        figures: Figures,
        *,
        fewer: int,
        slowest: Figures | None = None,
    ) -> None:
        """The 99th percentile of the latency of each server, in µs, in turns; the 99.9th into
        `slowest`.
        """
        count = self.request.at_a_time(fewer)

        def turn(server: Server, first: bool) -> None:
            if first:
                self.request.verify(environment, server.port)
            options = ("-r", str(self.rate))
            told = run_load(environment, self.request, server.port, count, *options)
            if not first:
                figures.add(self.name, server.name, [told[2]])
                if slowest is not None:
                    slowest.add(self.name, server.name, [told[3]])

        take_turns(self.name, servers, Sink(figures, slowest), turn)
