"""Child processes of the loop: how it hears of their ends, and what it leaves alone.

CPython's own suite (`tests/conformance`) covers transports, protocols and streams.
"""

import asyncio
import contextlib
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import PATIENCE, Runtime, open_descriptors

PIPE = subprocess.PIPE
# A program that says it is there and waits for the end of its stdin.
WAITS = (sys.executable, "-Sc", "import sys; print('here', flush=True); sys.stdin.read()")


async def start(aio: ModuleType, *program: str) -> Any:
    process = await asyncio.create_subprocess_exec(*program, stdin=PIPE, stdout=PIPE)
    assert await process.stdout.readline() == b"here\n"
    return process


async def test_output_and_code(aio: ModuleType) -> None:
    process = await asyncio.create_subprocess_shell(
        "cat; echo oops >&2; exit 3", stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert await process.communicate(b"in" * 100_000) == (b"in" * 100_000, b"oops\n")
    assert process.returncode == 3
    assert await process.wait() == 3


async def test_no_thread_watches_a_child(runtime: Runtime, aio: ModuleType) -> None:
    if not runtime.native:
        pytest.skip("asyncio 3.11 has one")
    process = await start(aio, *WAITS)
    assert [t.name for t in threading.enumerate() if "waitpid" in t.name] == []
    process.stdin.close()
    assert await process.wait() == 0


async def test_children_that_end_together_are_all_heard_of(aio: ModuleType) -> None:
    async def one(code: int) -> int:
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"exit {code}")
        return await process.wait()

    assert await aio.gather(*[one(code) for code in range(20)]) == list(range(20))


@pytest.mark.parametrize("name", ["kill", "terminate"])
async def test_a_signalled_child_leaves_no_zombie(aio: ModuleType, name: str) -> None:
    process = await start(aio, *WAITS)
    getattr(process, name)()
    number = signal.SIGKILL if name == "kill" else signal.SIGTERM
    await process.communicate()
    assert process.returncode == -number
    assert not Path(f"/proc/{process.pid}").exists()
    # It is over: its number may be another's.
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def test_all_of_popens_options_work(aio: ModuleType, tmp_path: Path) -> None:
    read, write = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-Sc",
            f"import os; os.write({write}, b'+'); print(os.getcwd(), os.environ, os.getsid(0) "
            "== os.getpid(), os.nice(0), oct(os.umask(0)))",
            stdout=PIPE,
            cwd=tmp_path,
            env={"ONLY": "this"},
            pass_fds=[write],
            start_new_session=True,
            preexec_fn=lambda: os.nice(1) and None,
            umask=0o31,
        )
        out, _ = await process.communicate()
        assert os.read(read, 1) == b"+"
    finally:
        os.close(read)
        os.close(write)
    text = out.decode()
    assert (
        str(tmp_path) in text and "'ONLY': 'this'" in text and f"True {os.nice(0) + 1} 0o31" in text
    )


async def test_a_program_that_is_not_there(aio: ModuleType) -> None:
    with pytest.raises(FileNotFoundError):
        await asyncio.create_subprocess_exec("/no/such/program")


async def test_cancelling_the_start_ends_the_child(aio: ModuleType) -> None:
    started: list[Any] = []
    real = subprocess.Popen

    def popen(*args: Any, **kwargs: Any) -> Any:
        process = real(*args, **kwargs)
        started.append(process)
        task.cancel()
        return process

    subprocess.Popen = popen  # type: ignore[assignment,misc]
    try:
        task = aio.create_task(asyncio.create_subprocess_exec("/bin/sleep", "60"))
        with pytest.raises(aio.CancelledError):
            await task
    finally:
        subprocess.Popen = real  # type: ignore[misc]
    assert started[0].returncode == -signal.SIGKILL


async def test_sigchld_stays_the_programs(aio: ModuleType) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda *_: heard.append(1))
    try:
        other = subprocess.Popen(["/bin/sh", "-c", "exit 5"])
        process = await asyncio.create_subprocess_exec("/bin/true")
        assert await process.wait() == 0
        # A child that is not the loop's is left to who started it.
        assert await aio.to_thread(other.wait, PATIENCE) == 5
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert heard


async def test_a_child_that_somebody_else_has_reaped(
    runtime: Runtime, aio: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    if not runtime.native and sys.version_info < (3, 12):
        pytest.skip("asyncio's thread may be first")
    process = await start(aio, *WAITS)
    process.kill()
    # Blocks the loop, which can't be first.
    os.waitpid(process.pid, 0)
    await process.communicate()
    assert process.returncode == 255
    assert "255" in caplog.text


async def test_a_child_that_its_transports_close_has_reaped_keeps_its_code(
    runtime: Runtime, aio: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    if not runtime.native:
        pytest.skip("asyncio's watcher finds no status and reports 255")
    process = await start(aio, *WAITS)
    process.kill()
    # It has ended and is not waited for: what `close()` polls, before the loop has heard of it.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    process._transport.close()
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == -signal.SIGKILL
    assert caplog.records == []


async def test_without_pidfds_a_thread_does_it(
    runtime: Runtime, aio: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(pid: int, flags: int = 0) -> int:
        raise OSError(errno.EPERM, "no")

    if not runtime.native:
        pytest.skip("asyncio asks once")
    monkeypatch.setattr(os, "pidfd_open", refused)
    process = await start(aio, *WAITS)
    process.stdin.close()
    assert await process.wait() == 0


async def test_a_child_that_nobody_could_watch_is_ended(
    runtime: Runtime, aio: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not runtime.native:
        pytest.skip("about Rondel's watching")
    started: list[Any] = []

    def refused(transport: Any) -> None:
        started.append(transport._proc)
        raise RuntimeError("no threads either")

    loop = aio.get_running_loop()
    monkeypatch.setattr(loop, "_watch_child", refused)
    with pytest.raises(RuntimeError, match="no threads either"):
        await asyncio.create_subprocess_exec("/bin/sleep", "60")
    assert started[0].returncode == -signal.SIGKILL
    await aio.sleep(0.01)


def test_loops_in_threads_have_their_own_children(runtime: Runtime) -> None:
    codes: list[int] = []

    async def main(code: int) -> None:
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"exit {code}")
        codes.append(await process.wait())

    loops = [runtime.new_event_loop() for _ in range(4)]
    if not runtime.native:
        # asyncio 3.11 wants a watcher that a loop of the main thread has seen.
        asyncio.set_event_loop(loops[0])
    threads = [
        threading.Thread(target=loop.run_until_complete, args=(main(code),))
        for code, loop in enumerate(loops)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(codes) == [0, 1, 2, 3]


def test_a_loop_that_is_closed_leaves_no_descriptor(runtime: Runtime) -> None:
    if not runtime.native:
        pytest.skip("asyncio's is lost")
    loop = runtime.new_event_loop()

    async def main() -> Any:
        transport, _ = await loop.subprocess_exec(
            asyncio.SubprocessProtocol, "/bin/sleep", "60", stdin=None, stdout=None, stderr=None
        )
        return transport

    def pidfds() -> list[str]:
        return [target for _, target in open_descriptors() if "pidfd" in target]

    transport = loop.run_until_complete(main())
    assert len(pidfds()) == 1
    process = transport.get_extra_info("subprocess")
    loop.close()
    assert pidfds() == []
    transport.close()
    assert process.wait(PATIENCE) == -signal.SIGKILL
    del transport
    gc.collect()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there are no watchers any more")
def test_a_watcher_of_the_programs_own_is_used(runtime: Runtime) -> None:
    from asyncio import unix_events

    class Watcher(unix_events.ThreadedChildWatcher):  # type: ignore[name-defined,misc]
        used = 0

        def add_child_handler(self, pid: int, callback: Any, *args: Any) -> None:
            self.used += 1
            super().add_child_handler(pid, callback, *args)

    policy = asyncio.get_event_loop_policy()
    watcher = Watcher()
    before = policy._watcher  # type: ignore[attr-defined]
    policy._watcher = watcher  # type: ignore[attr-defined]

    async def main() -> int:
        process = await asyncio.create_subprocess_exec("/bin/true")
        return await process.wait()

    try:
        assert runtime.run(main()) == 0
    finally:
        policy._watcher = before  # type: ignore[attr-defined]
    assert watcher.used == 1
