"""Pipes: within a process, and to a child's standard streams."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
from typing import Any

from net.case import Own

ORDER = 95
TITLE = "Pipes"
NOTE = """\
CPU time of this process alone, system calls of both ends included. *Pair*: a message is written to
one end of a pipe and read from the other. *cat*: it goes through a child process and back.\
"""
LACKING = {"rloop": "no pipes"}


class Collect(asyncio.Protocol):
    """Lets one wait for a number of bytes."""

    def __init__(self) -> None:
        self.missing = 0
        self.full: Any = None

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing <= 0 and self.full is not None:
            self.full.set_result(None)
            self.full = None


async def pair(size: int, count: int) -> None:
    loop = asyncio.get_running_loop()
    end, other = os.pipe()
    reader, collect = await loop.connect_read_pipe(Collect, open(end, "rb", 0))  # noqa: SIM115
    writer, _ = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin,
        open(other, "wb", 0),  # noqa: SIM115
    )
    message = b"x" * size
    for _ in range(count):
        collect.missing += size
        collect.full = full = loop.create_future()
        writer.write(message)
        await full
    writer.close()
    reader.close()
    await asyncio.sleep(0)


async def streams(size: int, count: int) -> None:
    loop = asyncio.get_running_loop()
    end, other = os.pipe()
    reader = asyncio.StreamReader()
    r_transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader),
        open(end, "rb", 0),  # noqa: SIM115
    )
    w_transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin,
        open(other, "wb", 0),  # noqa: SIM115
    )
    writer = asyncio.StreamWriter(w_transport, protocol, None, loop)
    message = b"x" * size
    for _ in range(count):
        writer.write(message)
        await reader.readexactly(size)
    writer.close()
    r_transport.close()
    await asyncio.sleep(0)


async def cat(size: int, count: int) -> None:
    process = await asyncio.create_subprocess_exec(
        "/bin/cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    message = b"x" * size
    for _ in range(count):
        process.stdin.write(message)
        await process.stdout.readexactly(size)
    process.stdin.close()
    await process.wait()


def sizes(name: str, title: str, run: Any, small: int, large: int) -> tuple[Own, Own]:
    return (
        Own(f"{name}-1k", f"{title}, 1 KB", functools.partial(run, 1_000), small, lacking=LACKING),
        Own(
            f"{name}-100k",
            f"{title}, 100 KB",
            functools.partial(run, 100_000),
            large,
            lacking=LACKING,
        ),
    )


CASES = (
    *sizes("pair", "pair, `Protocol`", pair, 10_000, 1_000),
    *sizes("pair-streams", "pair, streams", streams, 10_000, 1_000),
    *sizes("cat", "`cat`, streams", cat, 2_000, 300),
)
