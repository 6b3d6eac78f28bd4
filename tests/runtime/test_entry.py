"""The ways in: run, Runner, the policy, install() and the package's names."""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.support import ONLY_ASYNCIO, Runtime, python

needs_rondel = pytest.mark.skipif(ONLY_ASYNCIO, reason="RONDEL_TEST_ONLY_ASYNCIO is set")
var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


def test_run_makes_a_loop_and_closes_it(runtime: Runtime) -> None:
    async def main() -> Any:
        return runtime.aio.get_running_loop()

    loop = runtime.aio.run(main())
    assert loop.is_closed()


def test_run_refuses_what_is_not_a_coroutine(runtime: Runtime) -> None:
    with pytest.raises((TypeError, ValueError), match="coroutine"):
        runtime.aio.run(3)


async def test_run_refuses_to_nest(aio: ModuleType) -> None:
    async def inner() -> None: ...

    coro = inner()
    with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
        aio.run(coro)
    coro.close()


def test_a_runner_runs_many_coroutines_on_one_loop_in_one_context(runtime: Runtime) -> None:
    async def get() -> tuple[Any, str]:
        return runtime.aio.get_running_loop(), var.get()

    async def change() -> None:
        var.set("kept by the runner")

    with runtime.Runner() as runner:
        loop = runner.get_loop()
        runner.run(change())
        assert runner.run(get()) == (loop, "kept by the runner")
        assert not loop.is_closed()
    assert loop.is_closed()
    assert var.get() == "unset"
    with pytest.raises(RuntimeError, match="closed"):
        runner.get_loop()


def test_a_runner_takes_a_context_per_run(runtime: Runtime) -> None:
    async def change() -> None:
        var.set("in the given one")

    context = contextvars.copy_context()
    with runtime.Runner() as runner:
        runner.run(change(), context=context)
    assert context[var] == "in the given one"


def test_the_runner_shuts_generators_and_executors_down(runtime: Runtime) -> None:
    before = threading.active_count()
    seen: list[str] = []

    async def numbers() -> Any:
        try:
            yield 1
        finally:
            seen.append("generator closed")

    async def main() -> None:
        await runtime.aio.to_thread(int)
        runtime.kept = numbers()  # type: ignore[attr-defined]
        await runtime.kept.__anext__()  # type: ignore[attr-defined]

    runtime.run(main())
    assert seen == ["generator closed"]
    assert threading.active_count() == before


def test_the_main_task_is_a_task_with_the_runtimes_type(runtime: Runtime) -> None:
    async def main() -> Any:
        return runtime.aio.current_task()

    task = runtime.run(main())
    assert isinstance(task, runtime.types.Task)
    assert isinstance(task, asyncio.Task)


def test_task_names_start_at_task_1() -> None:
    program = """
import asyncio
async def child(): return asyncio.current_task().get_name()
async def main():
    return [asyncio.current_task().get_name(), await asyncio.create_task(child())]
print(RUN(main()))
"""
    expected = "['Task-1', 'Task-2']\n"
    assert python(program.replace("RUN", "asyncio.run")).stdout == expected
    if not ONLY_ASYNCIO:
        for run in ("__import__('rondel').run", "(__import__('rondel').install(), asyncio.run)[1]"):
            assert python(program.replace("RUN", run)).stdout == expected


@needs_rondel
def test_the_package_has_every_public_name_of_asyncio() -> None:
    import rondel

    missing = [name for name in asyncio.__all__ if not hasattr(rondel, name)]
    assert missing == []
    assert set(asyncio.__all__) <= set(rondel.__all__)
    assert rondel.protocols is asyncio.protocols
    assert rondel.subprocess.Process is asyncio.subprocess.Process
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = rondel.nonsense


@needs_rondel
@pytest.mark.parametrize("name", asyncio.__all__)
def test_native_names_keep_kind_and_signature(name: str) -> None:
    import rondel

    stock, native = getattr(asyncio, name), getattr(rondel, name)
    if stock is native or name == "EventLoop":  # asyncio's is an alias of its selector loop
        return
    assert inspect.isclass(stock) == inspect.isclass(native)
    assert inspect.iscoroutinefunction(stock) == inspect.iscoroutinefunction(native)
    assert native.__name__ == stock.__name__
    assert native.__doc__
    if inspect.isfunction(stock) and name not in ("run", "new_event_loop"):
        assert list(inspect.signature(native).parameters) == list(
            inspect.signature(stock).parameters
        )


@needs_rondel
def test_install_makes_asyncios_names_native_and_uninstall_undoes_it() -> None:
    ended = python("""
import asyncio, asyncio.tasks, rondel
before = {name: getattr(asyncio, name) for name in asyncio.__all__}
assert not rondel.installed()
rondel.install()
rondel.install()
assert rondel.installed()
assert asyncio.gather is rondel.gather and asyncio.gather is not before["gather"]
assert asyncio.tasks.sleep is rondel.sleep
from asyncio import TaskGroup, timeout
assert TaskGroup is rondel.TaskGroup and timeout is rondel.timeout

async def main():
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(0, "slept"))
    assert isinstance(asyncio.get_running_loop(), rondel.EventLoop)
    assert isinstance(task, asyncio.Task)
    async with asyncio.timeout(5):
        return await asyncio.gather(task, asyncio.wait_for(asyncio.sleep(0, 2), 5))

print(asyncio.run(main()))
loop = asyncio.new_event_loop()
assert isinstance(loop, rondel.EventLoop)
loop.close()
rondel.uninstall()
rondel.uninstall()
assert not rondel.installed()
assert {name: getattr(asyncio, name) for name in asyncio.__all__} == before

async def stock():
    return type(asyncio.get_running_loop()).__module__
print(asyncio.run(stock()))
""")
    assert ended.stderr == ""
    assert ended.stdout == "['slept', 2]\nasyncio.unix_events\n"


@needs_rondel
def test_a_stock_loop_works_while_rondel_is_installed() -> None:
    ended = python("""
import asyncio, threading, rondel
rondel.install()

async def work():
    with_timeout = await asyncio.wait_for(asyncio.sleep(0.001, "timeout"), 5)
    gathered = await asyncio.gather(asyncio.sleep(0, "gather"), asyncio.to_thread(str, "thread"))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(0, asyncio.current_task() in asyncio.all_tasks()))
    done, _ = await asyncio.wait([task])
    async with asyncio.timeout(5):
        assert await asyncio.shield(task)
    loop = asyncio.get_running_loop()
    return with_timeout, gathered, task.result(), len(done), type(loop).__name__

loop = asyncio.SelectorEventLoop()
print(loop.run_until_complete(work()))
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
""")
    assert ended.stderr == ""
    assert ended.stdout == (
        "('timeout', ['gather', 'thread'], True, 1, '_UnixSelectorEventLoop')\n"
    )


@needs_rondel
def test_the_policy_makes_native_loops() -> None:
    ended = python("""
import asyncio, warnings, rondel
warnings.simplefilter("ignore", DeprecationWarning)
asyncio.set_event_loop_policy(rondel.EventLoopPolicy())
async def main():
    return type(asyncio.get_running_loop()).__qualname__
print(asyncio.run(main()))
""")
    assert ended.stdout == "EventLoop\n", ended.stderr


class Made(asyncio.SelectorEventLoop):
    """A loop of the program's own."""


@pytest.fixture
def policy_as_before() -> Iterator[None]:
    before = asyncio.events._event_loop_policy  # type: ignore[attr-defined]
    yield
    asyncio.set_event_loop_policy(before)


@pytest.mark.usefixtures("policy_as_before")
@pytest.mark.parametrize("how", ["method", "factory", "on the instance"])
def test_the_programs_own_policy_decides_about_the_loop(runtime: Runtime, how: str) -> None:
    class Policy(asyncio.DefaultEventLoopPolicy):
        if how == "method":

            def new_event_loop(self) -> Any:
                return Made()

        if how == "factory":
            _loop_factory = Made

    policy = Policy()
    if how == "on the instance":
        policy.new_event_loop = Made  # type: ignore[method-assign]
    asyncio.set_event_loop_policy(policy)

    async def main() -> Any:
        return runtime.aio.get_running_loop()

    assert type(runtime.aio.run(main())) is Made
    with runtime.aio.Runner() as runner:
        assert type(runner.get_loop()) is Made
        assert asyncio.get_event_loop_policy().get_event_loop() is runner.get_loop()


@needs_rondel
@pytest.mark.usefixtures("policy_as_before")
def test_a_policy_that_makes_no_loops_leaves_them_native() -> None:
    import rondel

    class Policy(asyncio.DefaultEventLoopPolicy):
        def get_event_loop(self) -> Any:
            return super().get_event_loop()

    async def main() -> Any:
        return rondel.get_running_loop()

    for policy in (None, asyncio.DefaultEventLoopPolicy(), Policy(), rondel.EventLoopPolicy()):
        asyncio.set_event_loop_policy(policy)
        assert type(rondel.run(main())) is rondel.EventLoop
        with rondel.Runner() as runner:
            assert type(runner.get_loop()) is rondel.EventLoop


@needs_rondel
def test_names_bound_before_install_still_work() -> None:
    ended = python("""
import asyncio
from asyncio import TaskGroup, create_task, gather, sleep, timeout, wait_for
import rondel
rondel.install()
async def main():
    async with TaskGroup() as group:
        task = group.create_task(sleep(0.001, "old names"))
    async with timeout(5):
        return await gather(wait_for(create_task(sleep(0, 1)), 5), task)
print(asyncio.run(main()))
""")
    assert ended.stderr == ""
    assert ended.stdout == "[1, 'old names']\n"


@needs_rondel
def test_a_loop_inherited_by_a_fork_says_so_or_works_after_it() -> None:
    # The child must neither hang nor disturb the parent's loop.
    ended = python("""
import os, warnings, rondel
warnings.simplefilter("ignore", DeprecationWarning)
async def main():
    pid = os.fork()
    if pid == 0:
        try:
            rondel.run(child())
        except RuntimeError:
            pass
        else:
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    await rondel.sleep(0.001)
    return os.waitstatus_to_exitcode(status)
async def child(): ...
import sys
sys.stderr = open(os.devnull, "w")
print(rondel.run(main()))
""")
    assert ended.stdout in ("0\n", "3\n"), ended.stderr


@needs_rondel
def test_a_fresh_loop_runs_in_a_forked_child() -> None:
    ended = python("""
import os, rondel
async def work():
    await rondel.sleep(0.001)
    return 7
assert rondel.run(work()) == 7
pid = os.fork()
if pid == 0:
    os._exit(rondel.run(work()))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), rondel.run(work()))
""")
    assert ended.stdout == "7 7\n", ended.stderr


def test_interpreter_exit_with_an_unfinished_loop_is_clean() -> None:
    module = "asyncio" if ONLY_ASYNCIO else "rondel"
    ended = python(f"""
import {module} as aio
loop = aio.new_event_loop()
async def wait():
    await aio.sleep(3600)
task = loop.create_task(wait())
future = loop.create_future()
loop.call_later(3600, print)
loop.call_soon(loop.stop)
loop.run_forever()
print("leaving")
""")
    assert ended.stdout == "leaving\n"
    assert ended.returncode == 0, ended.stderr


@needs_rondel
def test_anyio_can_be_imported_after_install_and_knows_our_eager_tasks() -> None:
    # It tells asyncio's eager factory by its code, and takes the constructor from its closure.
    ended = python("""
import sys, rondel
rondel.install()
import asyncio, anyio, anyio._backends._asyncio
async def main():
    if sys.version_info >= (3, 12):
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0)
    return "done"
print(rondel.run(main()))
""")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "done\n"
