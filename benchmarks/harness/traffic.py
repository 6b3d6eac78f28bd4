"""Requests, and servers that take turns under them: what the server benchmarks share.

Each round starts each server anew, because a process keeps the luck of its memory layout; the
servers then take short turns under load, one at a time, so that a busy second hits none of them
alone.  Before a server is measured, its answer is compared with the expected bytes, and the load
checks status and length of every further one.  Where answers rightly differ (by a time, a token, a
task's name) each of them has to hold a phrase instead.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from harness.environment import Environment, progress
from harness.figures import Figures
from harness.process import ServerError, Starter, cpu_since, tree_cpu

CONNECTIONS = 64
TURNS = 3
"""Measurements of each case and server in one round."""


@dataclass(frozen=True)
class Server:
    name: str
    pid: int
    port: int


@dataclass(frozen=True)
class Spent:
    """What a turn took."""

    cpu: int
    """ns of the server's whole process tree."""
    seconds: float


class Request(Protocol):
    """One line of a table: the same request or message again and again."""

    @property
    def name(self) -> str:
        """In figures, limits, and on the command line."""

    @property
    def title(self) -> str:
        """In tables."""

    @property
    def connections(self) -> int:
        """That are busy at once."""

    def at_a_time(self, fewer: int) -> int:
        """Requests of one turn, of a run that makes `fewer` times less of them."""

    def verify(self, environment: Environment, port: int) -> None:
        """ServerError if the answer is not right to the byte."""

    def spend(self, environment: Environment, server: Server, count: int) -> Spent:
        """So many requests, each answer checked."""


@dataclass(frozen=True)
class HttpCase:
    """The same HTTP/1.1 request, on connections that are kept."""

    name: str
    title: str
    method: str
    path: str
    answer: bytes
    requests: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 200
    contains: str = ""
    """In the head or the body of each answer; if it is set, `answer` is not looked at."""
    connections: int = CONNECTIONS

    @property
    def wire(self) -> bytes:
        """The request as the load generator sends it."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body:
            if not any(name.lower() == "content-type" for name, _ in self.headers):
                lines.append("Content-Type: application/octet-stream")
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body

    def at_a_time(self, fewer: int) -> int:
        return max(self.connections, self.requests // (TURNS * fewer))

    def verify(self, environment: Environment, port: int) -> None:
        verify(self, port)

    def spend(self, environment: Environment, server: Server, count: int) -> Spent:
        before = tree_cpu(server.pid)
        seconds = load(environment, self, server.port, count)
        return Spent(cpu_since(before, server.pid), seconds)


@dataclass(frozen=True)
class Sink:
    """Where the figures of a case go."""

    cpu: Figures
    """µs of CPU time per request, or whatever the turns add."""
    rate: Figures | None = None
    """Requests per second."""
    wall: Figures | None = None
    """Milliseconds that a request takes as its client sees it, on average: where views sleep."""

    def fail(self, case: str, server: str, error: ServerError) -> None:
        for figures in (self.cpu, self.rate, self.wall):
            if figures is not None:
                figures.fail(case, server, str(error))
        progress(f"  {server} {case}: {error}")


def start(
    stack: contextlib.ExitStack, starters: Mapping[str, Starter], cases: list[str], sink: Sink
) -> list[Server]:
    """The servers that came up, until `stack` is closed; one that did not fails in all cases."""
    there = []
    for name, starter in starters.items():
        try:
            there.append(Server(name, *stack.enter_context(starter())))
        except ServerError as error:
            for case in cases:
                sink.fail(case, name, error)
    return there


def take_turns(
    name: str, servers: list[Server], sink: Sink, turn: Callable[[Server, bool], None]
) -> None:
    """`turn` for each server several times, of which the first verifies and warms up."""
    for number in range(-1, TURNS):
        shift = number % len(servers) if servers else 0
        for server in servers[shift:] + servers[:shift]:
            if not sink.cpu.failed(name, server.name):
                try:
                    turn(server, number < 0)
                except ServerError as error:
                    sink.fail(name, server.name, error)


def measure_case(
    environment: Environment,
    name: str,
    requests: Mapping[str, Request],
    servers: list[Server],
    *,
    fewer: int,
    sink: Sink,
) -> None:
    """One case on all servers that have a request in `requests`, in turns."""

    def turn(server: Server, first: bool) -> None:
        case = requests[server.name]
        count = case.at_a_time(fewer)
        if first:
            case.verify(environment, server.port)
        spent = case.spend(environment, server, count)
        if first:
            return
        sink.cpu.add(name, server.name, [spent.cpu / count / 1000])
        if sink.rate is not None:
            sink.rate.add(name, server.name, [count / spent.seconds])
        if sink.wall is not None:
            sink.wall.add(name, server.name, [1000 * spent.seconds * case.connections / count])

    take_turns(name, [server for server in servers if server.name in requests], sink, turn)


def verify(case: HttpCase, port: int) -> None:
    """One request through a real client, whose answer must be right: to the byte, or what it holds.

    Redirects are not followed.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(case.method, case.path, case.body or None, dict(case.headers))
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if case.contains:
        right = case.contains.encode() in str(response.headers).encode() + body
        expected = f"{case.contains!r}"
    else:
        right, expected = body == case.answer, f"{len(case.answer)}"
    if response.status != case.status or not right:
        raise ServerError(
            f"answered {response.status} with {len(body)} bytes, "
            f"expected {case.status} with {expected}"
        )


def load(environment: Environment, case: HttpCase, port: int, requests: int) -> float:
    """All the requests over kept-alive connections; the seconds that it took."""
    return run_load(environment, case, port, requests)[0]


def run_load(
    environment: Environment, case: HttpCase, port: int, requests: int, *options: str
) -> list[float]:
    """What the load generator tells, `options` before its other words."""
    arguments: list[int | str] = [port, case.connections, requests, case.status]
    arguments += ["any", case.contains] if case.contains else [len(case.answer)]
    done = subprocess.run(
        [str(environment.helpers / "load"), *options, *map(str, arguments)],
        input=case.wire,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise ServerError(reason or f"the load ended with status {done.returncode}")
    return [float(word) for word in done.stdout.split()]
