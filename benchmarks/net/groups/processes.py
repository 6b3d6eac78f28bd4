"""Subprocesses."""

from __future__ import annotations

import asyncio
import subprocess

from net.case import Own

ORDER = 90
TITLE = "Subprocesses"
NOTE = "CPU time of the parent alone, one child after the other."
LACKING = {"rloop": "no subprocesses"}
TRUE = "/bin/true"


async def spawn(count: int) -> None:
    for _ in range(count):
        process = await asyncio.create_subprocess_exec(TRUE)
        if await process.wait():
            raise RuntimeError("/bin/true failed")


async def communicate(count: int) -> None:
    for _ in range(count):
        process = await asyncio.create_subprocess_exec(
            "/bin/cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        out, _ = await process.communicate(b"hello")
        if out != b"hello":
            raise RuntimeError("/bin/cat failed")


CASES = (
    Own("spawn", "`create_subprocess_exec` and `wait`", spawn, 50, lacking=LACKING),
    Own("communicate", "with pipes and `communicate`", communicate, 50, lacking=LACKING),
)
