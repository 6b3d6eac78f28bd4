"""Many requests while workers are replaced, and while some are killed: who gets no answer?

    python -m tests.workers.storm                        10^5 requests, a reload every 2 seconds
    python -m tests.workers.storm --preload              the same with a template
    python -m tests.workers.storm --kill 1               and a worker killed every second

Half of the clients keep their connections, half take a new one for each request. Without kills each
request must be answered; a request that a killed worker had in hand is lost with it, and no other.
The last line is "storm: N passed, N failed (...)"; the exit status is 1 if anything failed.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

import rondel
from tests.workers.site import Site, serving

CLIENTS = 16


@dataclass
class Toll:
    """What clients have seen."""

    left: int
    answered: int = 0
    pids: set[int] = field(default_factory=set)
    # Requests that were sent and not answered, and why.
    lost: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class Client:
    """One of them; `kept` connections are used for as long as the server keeps them."""

    def __init__(self, toll: Toll, host: str, port: int, *, kept: bool) -> None:
        self._toll, self._address, self._kept = toll, (host, port), kept

    async def run(self) -> None:
        """Ask until there is nothing left to ask."""
        toll, connection = self._toll, None
        while toll.left > 0:
            toll.left -= 1
            if connection is None:
                try:
                    connection = await asyncio.open_connection(*self._address)
                except OSError as error:
                    toll.refused.append(str(error))
                    continue
            try:
                closes = await self._ask(*connection)
            except (OSError, EOFError) as error:
                toll.lost.append(f"{type(error).__name__}: {error}")
                closes = True
            if closes or not self._kept:
                connection[1].close()
                connection = None
        if connection is not None:
            connection[1].close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"GET / HTTP/1.1\r\nHost: storm\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(f"answered {head.splitlines()[0]!r}")
        fields = dict(line.lower().split(b": ", 1) for line in head.splitlines()[1:-1])
        body = await reader.readexactly(int(fields[b"content-length"]))
        self._toll.answered += 1
        self._toll.pids.add(int(body.split()[0]))
        return fields.get(b"connection") == b"close"


async def storm(site: Site, options: argparse.Namespace) -> tuple[Toll, int, int]:
    """The clients' toll, and how many reloads and kills there were."""
    toll = Toll(options.requests)
    parts = urllib.parse.urlsplit(site.url)
    assert parts.hostname is not None
    assert parts.port is not None
    reloads = kills = 0

    async def reload() -> None:
        nonlocal reloads
        while True:
            await asyncio.sleep(options.reload)
            site.rewrite(f"generation-{reloads}")
            site.signal(signal.SIGHUP)
            await asyncio.to_thread(site.wait_for, "reloaded|reload is given up")
            reloads += 1
            sys.stderr.write(f"\r{toll.answered} answered, {reloads} reloads, {kills} kills ")

    async def kill() -> None:
        nonlocal kills
        while True:
            await asyncio.sleep(options.kill)
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice([*toll.pids]), signal.SIGKILL)
                kills += 1
            toll.pids.clear()
            while not toll.pids:
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        clients = [
            group.create_task(Client(toll, parts.hostname, parts.port, kept=n % 2 == 0).run())
            for n in range(CLIENTS)
        ]
        others = [group.create_task(reload())] if options.reload else []
        others += [group.create_task(kill())] if options.kill else []
        await asyncio.wait(clients)
        for other in others:
            other.cancel()
    return toll, reloads, kills


def main() -> int:
    """Serve, storm, tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--requests", type=int, default=100_000)
    add("--workers", type=int, default=2)
    add("--preload", action="store_true")
    add("--reload", type=float, default=2.0, metavar="S", help="seconds between; 0: never")
    add("--kill", type=float, default=0.0, metavar="S", help="seconds between; 0: never")
    options = parser.parse_args()
    given = ["--no-access-log", *(["--preload"] if options.preload else [])]
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), *given, count=options.workers) as site,
    ):
        toll, reloads, kills = rondel.run(storm(site, options))
        site.signal(signal.SIGTERM)
        status = site.process.end().status
    problems = [*toll.refused, *(toll.lost if len(toll.lost) > kills * CLIENTS else [])]
    if status != 0:
        problems.append(f"the supervisor ended with status {status}")
    for problem in problems[:20]:
        sys.stderr.write(f"\n{problem}")
    told = f"{reloads} reloads, {kills} kills, {len(toll.lost)} lost with those"
    seconds = time.monotonic() - began
    print(f"\nstorm: {toll.answered} passed, {len(problems)} failed ({told}, {seconds:.0f} s)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
