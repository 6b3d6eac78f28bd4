"""What a child's pipes hold: more once they were full, and never of many at a time."""

import contextlib
import fcntl
import os
import subprocess
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest

from tests.support import PATIENCE, Runtime

PIPE = subprocess.PIPE
USUAL, ROOMY, AT_MOST = 64 * 1024, 256 * 1024, 16
FULL = bytes(range(256)) * 400


@pytest.fixture
def grows(runtime: Runtime) -> bool:
    """Whether this loop does it: asyncio leaves them as they are."""
    return runtime.native


def size(process: Any, number: int) -> int:
    pipe = process._transport.get_pipe_transport(number).get_extra_info("pipe")
    return fcntl.fcntl(pipe.fileno(), fcntl.F_GETPIPE_SZ)


@contextlib.asynccontextmanager
async def cats(aio: ModuleType, count: int = 1) -> AsyncIterator[list[Any]]:
    made = [
        await aio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE) for _ in range(count)
    ]
    try:
        yield made
    finally:
        for process in made:
            process.stdin.close()
        for process in made:
            await aio.wait_for(process.communicate(), PATIENCE)


async def echo(aio: ModuleType, process: Any, message: bytes) -> None:
    process.stdin.write(message)
    got = await aio.wait_for(process.stdout.readexactly(len(message)), PATIENCE)
    assert got == message


async def test_pipes_of_small_messages_stay_as_they_are(aio: ModuleType) -> None:
    async with cats(aio) as (process,):
        for _ in range(3):
            await echo(aio, process, b"x" * 1000)
        assert [size(process, number) for number in (0, 1)] == [USUAL, USUAL]


async def test_a_pipe_that_was_full_holds_more(aio: ModuleType, grows: bool) -> None:
    async with cats(aio) as (process,):
        assert size(process, 0) == USUAL
        process.stdin.write(FULL)
        assert size(process, 0) == (ROOMY if grows else USUAL)
        got = await aio.wait_for(process.stdout.readexactly(len(FULL)), PATIENCE)
        assert got == FULL
        await echo(aio, process, FULL * 20)


async def test_a_pipe_that_was_read_full_holds_more(aio: ModuleType, grows: bool) -> None:
    # The child writes until its pipe is full: somebody who reads then reads all of it.
    process = await aio.create_subprocess_exec("/bin/cat", "/dev/zero", stdout=PIPE)
    for _ in range(200):
        await aio.wait_for(process.stdout.readexactly(USUAL), PATIENCE)
    assert size(process, 1) == (ROOMY if grows else USUAL)
    process.kill()
    await aio.wait_for(process.communicate(), PATIENCE)


async def test_no_more_than_a_few_at_a_time(aio: ModuleType, grows: bool) -> None:
    if not grows:
        pytest.skip("asyncio leaves them as they are")
    async with cats(aio, AT_MOST + 2) as processes:
        for process in processes:
            process.stdin.write(FULL)
        sizes = [size(process, 0) for process in processes]
        assert sizes == [ROOMY] * AT_MOST + [USUAL] * 2
        for process in processes:
            got = await aio.wait_for(process.stdout.readexactly(len(FULL)), PATIENCE)
            assert got == FULL
    # Those have ended: there is room for others.
    async with cats(aio) as (process,):
        process.stdin.write(FULL)
        assert size(process, 0) == ROOMY
        await aio.wait_for(process.stdout.readexactly(len(FULL)), PATIENCE)


async def test_a_pipe_of_the_programs_own_stays_as_it_is(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    reading, writing = os.pipe()
    with open(writing, "wb", 0) as pipe, open(reading, "rb", 0):
        transport, _protocol = await loop.connect_write_pipe(aio.BaseProtocol, pipe)
        transport.write(FULL)
        assert transport.get_write_buffer_size() == len(FULL) - USUAL
        assert fcntl.fcntl(pipe.fileno(), fcntl.F_GETPIPE_SZ) == USUAL
        transport.abort()
        await aio.sleep(0)
