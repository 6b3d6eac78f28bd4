"""A child's standard streams: StreamReader and StreamWriter over its pipes."""

import asyncio
import inspect
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.support import PATIENCE, Runtime

PIPE = subprocess.PIPE


async def python(aio: ModuleType, code: str, **options: Any) -> Any:
    options = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE, **options}
    return await aio.create_subprocess_exec(sys.executable, "-c", code, **options)


async def ended(aio: ModuleType, process: Any) -> int:
    return await aio.wait_for(process.wait(), PATIENCE)  # type: ignore[no-any-return]


async def test_what_they_are(runtime: Runtime) -> None:
    aio = runtime.aio
    process = await python(aio, "")
    for stream, kind in (
        (process.stdin, "StreamWriter"),
        (process.stdout, "StreamReader"),
        (process.stderr, "StreamReader"),
    ):
        # rondel's functions give native ones, asyncio's names without install() asyncio's.
        assert type(stream) is getattr(aio, kind)
        assert isinstance(stream, getattr(asyncio, kind))
        assert repr(stream).startswith(f"<{kind} transport=<_Unix")
    assert isinstance(process._protocol, asyncio.subprocess.SubprocessStreamProtocol)
    assert repr(process._protocol).startswith("<SubprocessStreamProtocol stdin=<StreamWriter")
    assert isinstance(process, aio.subprocess.Process)
    process.stdin.close()
    assert await ended(aio, process) == 0


def test_the_functions_have_asyncios_signatures(aio: ModuleType) -> None:
    for name in ("create_subprocess_exec", "create_subprocess_shell"):
        ours = getattr(aio, name)
        assert inspect.iscoroutinefunction(ours)
        assert inspect.signature(ours) == inspect.signature(getattr(asyncio, name))
        assert getattr(aio.subprocess, name) is ours


async def test_lines_go_there_and_back(aio: ModuleType) -> None:
    process = await python(aio, "import sys\nfor line in sys.stdin: print(line.upper(), end='')")
    process.stdin.writelines([b"one\n", b"two\n", b"no end"])
    await process.stdin.drain()
    process.stdin.write_eof()
    lines = [line async for line in process.stdout]
    assert lines == [b"ONE\n", b"TWO\n", b"NO END"]
    assert process.stdout.at_eof()
    assert await process.stderr.read() == b""
    assert await ended(aio, process) == 0


async def test_more_than_pipes_hold_goes_through(aio: ModuleType) -> None:
    process = await aio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
    message = bytes(range(256)) * (1 << 12)
    for _ in range(2):
        process.stdin.write(message)
        got, _none = await aio.wait_for(
            aio.gather(process.stdout.readexactly(len(message)), process.stdin.drain()), PATIENCE
        )
        assert got == message
    process.stdin.close()
    await process.stdin.wait_closed()
    assert await process.stdout.read() == b""
    assert await ended(aio, process) == 0


async def test_both_outputs_are_kept_apart(aio: ModuleType) -> None:
    code = "import sys; sys.stdout.write('o' * 200000); sys.stderr.write('e' * 200000)"
    process = await python(aio, code)
    out, err = await aio.wait_for(process.communicate(), PATIENCE)
    assert (out, err) == (b"o" * 200_000, b"e" * 200_000)
    assert process.returncode == 0


async def test_a_reader_that_is_full_holds_the_child_up(aio: ModuleType) -> None:
    process = await python(aio, "print('x' * 1000000, end='')", limit=1000)
    while not process.stdout._paused:
        await aio.sleep(0.001)
    with pytest.raises(asyncio.LimitOverrunError):
        await process.stdout.readuntil(b"\n")
    assert await aio.wait_for(process.stdout.read(), PATIENCE) == b"x" * 1_000_000
    process.stdin.close()
    assert await ended(aio, process) == 0


async def test_a_child_that_does_not_read_breaks_the_pipe(aio: ModuleType) -> None:
    process = await python(aio, "import os; os.close(0); print('closed', flush=True); input()")
    assert await process.stdout.readline() == b"closed\n"
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            process.stdin.write(b"x" * 100_000)
            await process.stdin.drain()
    assert await ended(aio, process) == 1


async def test_input_that_the_child_does_not_want_is_dropped(aio: ModuleType) -> None:
    process = await python(aio, "print('no, thanks', end='')", stderr=None)
    out, _ = await aio.wait_for(process.communicate(b"x" * 1_000_000), PATIENCE)
    assert out == b"no, thanks"
    # 3.11's communicate() leaves the broken pipe to be reported as never retrieved.
    process._protocol._stdin_closed.exception()
    assert process.returncode == 0


async def test_a_shell_has_them_too(aio: ModuleType) -> None:
    process = await aio.create_subprocess_shell(
        "cat; echo done >&2", stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert await process.communicate(b"words") == (b"words", b"done\n")
