"""Runs the cases: one process a loop and case, in turns.

Each round starts each process anew, because a process keeps the luck of its memory layout; the
loops then take short turns, one at a time, and the ratio of two is the median over turns, so that a
busy second of the machine is in both.  The load's connections stay open over the turns of a round:
what it takes to open them is in no figure.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.environment import (
    CHECKOUT,
    Environment,
    build_tool,
    make_certificate,
    neutral,
    progress,
)
from harness.figures import Figures
from harness.process import cpu_clock

from net.case import Case, Group, Own, Served

HERE = Path(__file__).resolve().parent
TURNS = 3
WARM_UP = 2
"""Turns before: a thousand connections that keep a message each get their memory in the second."""
PATIENCE = 60.0
"""Seconds for a turn, or for a process to be there."""


class Failure(Exception):
    """A subject that can't be measured in a case; the message says why."""


@dataclass(frozen=True)
class Tools:
    """What has to be there beside the loops."""

    load: Path
    bare: Path | None
    certificate: Path | None


def prepare(environment: Environment) -> Tools:
    load = build_tool(environment, "net-load", HERE / "load.c")
    return Tools(load, bare_server(), certificate(environment))


def bare_server() -> Path | None:
    """`crates/rondel-core/examples/bare_echo.rs`: cargo knows whether it is up to date."""
    command = ["cargo", "build", "--release", "--quiet", "-p", "rondel-core"]
    command += ["--example", "bare_echo", "--message-format=json"]
    try:
        done = subprocess.run(
            command, cwd=CHECKOUT, env=neutral(), capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        progress("  no bare echo server: cargo is missing")
        return None
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("target", {}).get("name") == "bare_echo" and message.get("executable"):
            return Path(message["executable"])
    progress(f"  no bare echo server: cargo said {done.stderr.strip().splitlines()[-1:]}")
    return None


def certificate(environment: Environment) -> Path | None:
    """A key and a self-signed certificate, for this machine's benchmark alone."""
    both = environment.helpers / "net-certificate.pem"
    if both.exists():
        return both
    made = make_certificate(environment, "net", "rsa:2048")
    if made is None:
        return None
    chain, key = made
    both.write_text(key.read_text() + chain.read_text())
    return both


# ---------------------------------------------------------------------------- one process


class Talk:
    """A child process with which lines are exchanged."""

    def __init__(self, command: list[str], variables: Mapping[str, str]) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in `end`
        self.process = subprocess.Popen(
            command,
            cwd=HERE.parent,
            env=dict(variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its answer, or rather the lack of it, says so

    def hear(self) -> str:
        out = self.process.stdout
        assert out is not None
        there, _, _ = select.select([out], [], [], PATIENCE)
        line = out.readline().decode() if there else ""
        if line:
            return line.strip()
        raise Failure(self.complaint() if there else f"no answer in {PATIENCE:.0f} s")

    def complaint(self) -> str:
        try:
            status = self.process.wait(5)
        except subprocess.TimeoutExpired:
            status = None
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return lines[-1] if lines else f"ended with status {status}"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.errors):
            if file is not None:
                with contextlib.suppress(BrokenPipeError):
                    file.close()


@contextlib.contextmanager
def talking(command: list[str], variables: Mapping[str, str]) -> Iterator[Talk]:
    talk = Talk(command, variables)
    try:
        yield talk
    finally:
        talk.end()


# ---------------------------------------------------------------------------- a case


class Subject:
    """What is measured in a case: `turn` gives µs per message or operation."""

    def __init__(self, name: str, talk: Talk) -> None:
        self.name = name
        self.talk = talk

    def turn(self, count: int) -> float:
        self.talk.say(str(count))
        return float(self.talk.hear()) / 1000


class Server(Subject):
    def __init__(self, name: str, talk: Talk, load: Talk) -> None:
        super().__init__(name, talk)
        self.load = load

    def turn(self, count: int) -> float:
        before = cpu_clock(self.talk.pid)
        self.load.say(str(count))
        self.load.hear()
        return (cpu_clock(self.talk.pid) - before) / count / 1000


class Bench:
    def __init__(self, environment: Environment, tools: Tools, loops: list[str]) -> None:
        self.environment = environment
        self.tools = tools
        self.loops = loops
        self.variables = environment.variables()
        if tools.certificate is not None:
            self.variables["NET_CERTIFICATE"] = str(tools.certificate)

    def subjects(self, case: Case) -> list[tuple[str, str]]:
        """Names and loops."""
        found = [(loop, loop) for loop in self.loops]
        if isinstance(case, Served):
            found += [
                (name, loop) for name, (loop, _serve) in case.also.items() if loop in self.loops
            ]
        if self.tools.bare:
            found += [(floor, floor) for floor in case.floors]
        return found

    def python(self, *words: str) -> list[str]:
        return [str(self.environment.python), "-m", "net.process", *words]

    def start(
        self, stack: contextlib.ExitStack, group: Group, case: Case, name: str, loop: str
    ) -> Subject:
        if loop in case.lacking:
            raise Failure(case.lacking[loop])
        words = (loop, group.part, case.name)
        if isinstance(case, Own):
            command = self.python(*words)
            if loop in case.floors:
                command = [str(self.tools.bare), case.floors[loop], self.variables["NET_GREETER"]]
            talk = stack.enter_context(talking(command, self.variables))
            return Subject(name, talk)
        if case.load == "tls" and self.tools.certificate is None:
            raise Failure("no certificate")
        if loop in case.floors:
            command = [str(self.tools.bare), case.floors[loop]]
            if case.floors[loop] == "unix":
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                command.append(f"{folder}/socket")
        else:
            command = self.python(*words, name)
        talk = stack.enter_context(talking(command, self.variables))
        where = talk.hear().strip('"')
        load = stack.enter_context(talking(self.load(case, where), self.variables))
        if (answer := load.hear()) != "ready":
            raise Failure(f"the load said {answer!r}")
        return Server(name, talk, load)

    def load(self, case: Served, where: str) -> list[str]:
        numbers = [str(case.connections), str(case.size)]
        if case.load == "tls":
            return [str(self.environment.python), str(HERE / "load_tls.py"), where, *numbers]
        return [str(self.tools.load), case.load, where, *numbers]

    def run(self, group: Group, case: Case, figures: Figures, fewer: int) -> None:
        """One round of the case on all its subjects."""
        count = (case.messages if isinstance(case, Served) else case.operations) // fewer
        # Each connection has several messages, or the turn is the load's ebb and flow.
        if isinstance(case, Served) and case.load != "connect":
            count = max(count, 2 * case.connections)
        with contextlib.ExitStack() as stack:
            there = []
            for name, loop in self.subjects(case):
                if figures.failed(case.name, name):
                    continue
                try:
                    there.append(self.start(stack, group, case, name, loop))
                except Failure as failure:
                    self.fail(figures, case, name, failure)
            for turn in range(-WARM_UP, TURNS):
                shift = turn % len(there) if there else 0
                for subject in there[shift:] + there[:shift]:
                    if figures.failed(case.name, subject.name):
                        continue
                    try:
                        spent = subject.turn(count)
                    except Failure as failure:
                        self.fail(figures, case, subject.name, failure)
                        continue
                    if turn >= 0:
                        figures.add(case.name, subject.name, [spent])

    def fail(self, figures: Figures, case: Case, name: str, failure: Failure) -> None:
        figures.fail(case.name, name, str(failure))
        progress(f"  {name} {case.name}: {failure}")

    @contextlib.contextmanager
    def greeter(self) -> Iterator[None]:
        """The server that connecting clients connect to: asyncio's, and none of theirs."""
        words = ("asyncio", "net-connect", "accept")
        with talking(self.python(*words), self.variables) as talk:
            self.variables["NET_GREETER"] = talk.hear()
            yield


def run(
    bench: Bench,
    chosen: list[tuple[Group, Case]],
    parts: dict[str, Figures],
    rounds: int,
    fewer: int,
) -> None:
    with bench.greeter():
        for number in range(rounds):
            begin = time.monotonic()
            for group, case in chosen:
                figures = parts.setdefault(group.part, Figures("median"))
                bench.run(group, case, figures, fewer)
            progress(f"net: round {number + 1} of {rounds}, {time.monotonic() - begin:.0f} s")
