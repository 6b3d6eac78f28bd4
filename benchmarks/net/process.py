"""One process under measurement: one loop, one case.

Usage: `python -m net.process LOOP PART CASE [SUBJECT]`.  A server prints the port or the path that
it listens on and serves until its standard input ends.  What a process does by itself is done N
times for every line N of its standard input, and CPU nanoseconds per operation are printed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

from net.case import Own, Place, Served, find


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """The named loop; for Rondel also asyncio's names, as `rondel run` has it."""
    module = importlib.import_module(name)
    if name == "rondel":
        module.install()
    loop: asyncio.AbstractEventLoop = module.new_event_loop()
    return loop


async def serve(case: Served, subject: str) -> None:
    server = case.also[subject][1] if subject in case.also else case.serve
    loop = asyncio.get_running_loop()
    over = loop.create_future()

    def wait_for_end() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(over.set_result, None)

    with tempfile.TemporaryDirectory() as folder:
        place = Place(str(Path(folder, "socket")), os.environ.get("NET_CERTIFICATE", ""))
        where = await server(place)
        print(json.dumps(where), flush=True)
        # No watch on standard input: the loop shall have nothing but the case.
        threading.Thread(target=wait_for_end, daemon=True).start()
        await over
    os._exit(0)  # the sockets need no farewell


async def measure(case: Own) -> None:
    while line := sys.stdin.readline():
        count = int(line)
        start = time.process_time_ns()
        await case.run(count)
        print(json.dumps((time.process_time_ns() - start) / count), flush=True)
    os._exit(0)


def main() -> None:
    loop_name, part, name, *rest = sys.argv[1:]
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = new_loop(loop_name)
    case = find(part, name)  # after install(): the cases must see the installed names
    asyncio.set_event_loop(loop)
    if isinstance(case, Served):
        loop.run_until_complete(serve(case, rest[0] if rest else loop_name))
    else:
        loop.run_until_complete(measure(case))


if __name__ == "__main__":
    main()
