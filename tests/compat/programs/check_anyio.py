"""anyio's asyncio backend: `anyio.run`, its sockets, threads, processes, and its pytest plugin.

Its whole suite runs in `python -m tests.conformance anyio`; this is what a program uses.
"""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_process
import anyio.to_thread

from .conftest import MODE, PATIENCE, child_command, is_the_loop


def options() -> dict[str, Any]:
    if MODE != "loop":
        return {}
    import rondel

    return {"loop_factory": rondel.new_event_loop}


async def exchange() -> None:
    is_the_loop(asyncio.get_running_loop())
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)

    async def echo(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send(data)

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)

        async def client(number: int) -> None:
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(b"%d" % number)
                assert await stream.receive() == b"%d" % number

        async with anyio.create_task_group() as clients:
            for number in range(30):
                clients.start_soon(client, number)
        group.cancel_scope.cancel()
    with anyio.move_on_after(0.01) as scope:
        await anyio.sleep(PATIENCE)
    assert scope.cancelled_caught
    assert await anyio.to_thread.run_sync(sum, (1, 2)) == 3
    assert await anyio.to_thread.run_sync(anyio.from_thread.run, later, 5) == 6
    done = await anyio.run_process([sys.executable, "-c", "print(input())"], input=b"in")
    assert done.stdout == b"in\n"
    assert await anyio.to_process.run_sync(int, "7") == 7
    send, receive = anyio.create_memory_object_stream[int](3)
    async with anyio.create_task_group() as group:
        group.start_soon(fill, send)
        async with receive:
            assert [item async for item in receive] == list(range(10))


async def later(number: int) -> int:
    await anyio.sleep(0)
    return number + 1


async def fill(send: Any) -> None:
    async with send:
        for number in range(10):
            await send.send(number)


def check_anyio_run() -> None:
    anyio.run(exchange, backend="asyncio", backend_options=options())


def check_a_blocking_portal() -> None:
    with anyio.from_thread.start_blocking_portal("asyncio", options()) as portal:
        assert portal.call(later, 1) == 2
        assert portal.start_task_soon(later, 2).result(PATIENCE) == 3


TESTS = """
import anyio
import pytest
pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return ("asyncio", OPTIONS)

async def test_it():
    import asyncio
    assert type(asyncio.get_running_loop()).__module__.partition(".")[0] == "WANTED"
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0)
"""


def check_its_pytest_plugin(project: Path) -> None:
    wanted = "asyncio" if MODE == "stdlib" else "rondel"
    chosen = "{'loop_factory': __import__('rondel').new_event_loop}" if MODE == "loop" else "{}"
    (project / "test_it.py").write_text(TESTS.replace("WANTED", wanted).replace("OPTIONS", chosen))
    ended = subprocess.run(
        child_command("-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider"),
        cwd=project,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
