"""Signal handlers on the loop, and SIGINT as asyncio.run treats it."""

import asyncio
import os
import signal
import threading
from types import ModuleType

import pytest

from tests.support import PATIENCE, RUNTIMES, Runtime, python

Loop = asyncio.AbstractEventLoop


async def test_a_signal_handler_runs_on_the_loop(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    got = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, got.set_result, "usr1")
    os.kill(os.getpid(), signal.SIGUSR1)
    assert await aio.wait_for(got, PATIENCE) == "usr1"
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


async def test_a_signal_wakes_an_idle_loop_from_another_thread(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    got = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, got.set_result, None)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    await aio.wait_for(got, PATIENCE)
    timer.join()
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_the_last_handler_set_wins(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    got = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, got.set_result, "first")
    loop.add_signal_handler(signal.SIGUSR1, got.set_result, "second")
    os.kill(os.getpid(), signal.SIGUSR1)
    assert await aio.wait_for(got, PATIENCE) == "second"
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_removing_a_handler_restores_the_default(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.remove_signal_handler(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    loop.add_signal_handler(signal.SIGINT, print)
    loop.remove_signal_handler(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_close_removes_the_handlers(runtime: Runtime) -> None:
    loop = runtime.new_event_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


async def test_an_error_in_a_signal_handler_is_reported(runtime: Runtime) -> None:
    loop = runtime.aio.get_running_loop()

    def broken() -> None:
        loop.call_soon(handled.set)
        raise ZeroDivisionError

    handled = runtime.aio.Event()
    loop.add_signal_handler(signal.SIGUSR1, broken)
    os.kill(os.getpid(), signal.SIGUSR1)
    await runtime.aio.wait_for(handled.wait(), PATIENCE)
    loop.remove_signal_handler(signal.SIGUSR1)
    (context,) = runtime.take_errors()
    assert isinstance(context["exception"], ZeroDivisionError)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_signals_that_cannot_be_caught_are_refused(loop: Loop, number: signal.Signals) -> None:
    with pytest.raises((RuntimeError, OSError)):
        loop.add_signal_handler(number, print)


def test_bad_signal_numbers_and_callbacks_are_refused(loop: Loop) -> None:
    async def coroutine() -> None: ...

    with pytest.raises(ValueError, match="invalid signal number"):
        loop.add_signal_handler(10_000, print)
    with pytest.raises(TypeError):
        loop.add_signal_handler("SIGUSR1", print)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        loop.add_signal_handler(signal.SIGUSR1, coroutine)


def test_a_signal_handler_needs_the_main_thread(runtime: Runtime) -> None:
    raised: list[BaseException] = []

    def use() -> None:
        loop = runtime.new_event_loop()
        try:
            loop.add_signal_handler(signal.SIGUSR1, print)
        except (RuntimeError, ValueError) as error:
            raised.append(error)
        loop.close()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(raised) == 1


def test_python_level_handlers_run_while_the_loop_sleeps(runtime: Runtime) -> None:
    # signal.signal without the loop: the handler must not wait for the loop's next timer.
    seen: list[int] = []

    async def main() -> None:
        loop = runtime.aio.get_running_loop()
        old = signal.signal(signal.SIGUSR1, lambda *args: seen.append(args[0]))
        timer = threading.Timer(0.05, signal.pthread_kill, (main_thread, signal.SIGUSR1))
        timer.start()
        begin = loop.time()
        while not seen and loop.time() - begin < PATIENCE:
            await runtime.aio.sleep(0.5)
        timer.join()
        signal.signal(signal.SIGUSR1, old)

    main_thread = threading.get_ident()
    runtime.run(main())
    assert seen == [signal.SIGUSR1]


ENTRY = """
import asyncio, os, signal, sys
name = sys.argv[1]
if name == "asyncio":
    aio, run = asyncio, asyncio.run
elif name == "rondel":
    import rondel as aio
    run = aio.run
else:
    import rondel
    aio = asyncio
    def run(coro):
        with asyncio.Runner(loop_factory=rondel.new_event_loop) as runner:
            return runner.run(coro)
"""


@pytest.mark.parametrize("name", RUNTIMES)
def test_sigint_cancels_the_main_task_and_raises_keyboard_interrupt(name: str) -> None:
    ended = python(
        ENTRY
        + """
async def main():
    aio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
    try:
        await aio.sleep(20)
    except aio.CancelledError:
        print("cancelled", flush=True)
        raise
run(main())
""",
        name,
    )
    assert ended.stdout == "cancelled\n"
    assert "KeyboardInterrupt" in ended.stderr.splitlines()[-1]
    assert ended.returncode == -signal.SIGINT


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_second_sigint_interrupts_at_once(name: str) -> None:
    ended = python(
        ENTRY
        + """
async def main():
    loop = aio.get_running_loop()
    loop.call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
    while True:
        try:
            await aio.sleep(20)
        except aio.CancelledError:
            print("swallowed", flush=True)
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(10_000_000): pass
            print("not reached", flush=True)
run(main())
""",
        name,
    )
    assert ended.stdout == "swallowed\n"
    assert ended.returncode == -signal.SIGINT


@pytest.mark.parametrize("name", RUNTIMES)
def test_sigint_in_a_busy_coroutine_is_seen_at_its_next_await(name: str) -> None:
    ended = python(
        ENTRY
        + """
async def main():
    os.kill(os.getpid(), signal.SIGINT)
    print("busy", flush=True)
    try:
        await aio.sleep(0)
        await aio.sleep(20)
    finally:
        print("finally", flush=True)
try:
    run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
print("after", flush=True)
""",
        name,
    )
    assert ended.stdout == "busy\nfinally\ninterrupted\nafter\n"
    assert ended.returncode == 0


@pytest.mark.parametrize("name", RUNTIMES)
def test_sigint_in_run_until_complete_raises_out_of_the_loop(name: str) -> None:
    ended = python(
        ENTRY
        + """
loop = aio.new_event_loop() if name != "asyncio-on-rondel" else rondel.new_event_loop()
loop.call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted", loop.is_running())
loop.close()
""",
        name,
    )
    assert ended.stdout == "interrupted False\n"
    assert ended.returncode == 0, ended.stderr
