"""`install()` and `uninstall()`: what changes, what stays, and that it comes back exactly.

They change a whole process, so each test runs in one of its own.
"""

import subprocess
import sys
import textwrap

import pytest

SNAPSHOT = """
import asyncio, sys, threading
import rondel
def snapshot():
    return {
        (module, name): value
        for module in list(sys.modules)
        if module == "asyncio" or module.startswith("asyncio.")
        for name, value in vars(sys.modules[module]).items()
    }
before = snapshot()
"""


def check(body: str) -> None:
    """Run assertions in a fresh interpreter in which every warning is an error."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", SNAPSHOT + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""


def test_names_become_native_everywhere_and_come_back() -> None:
    check(
        """
        rondel.install()
        assert rondel.installed()
        for name in ("sleep", "gather", "create_task", "current_task", "all_tasks", "wait_for"):
            assert getattr(asyncio, name) is getattr(rondel, name), name
            assert getattr(asyncio.tasks, name) is getattr(rondel, name), name
        assert asyncio.TaskGroup is asyncio.taskgroups.TaskGroup is rondel.TaskGroup
        assert asyncio.timeout is asyncio.timeouts.timeout is rondel.timeout
        changed = {key for key, value in snapshot().items() if before.get(key) is not value}
        assert len(changed) > 10
        assert all(not name.startswith("_c_") for _, name in changed), changed
        rondel.uninstall()
        assert not rondel.installed()
        after = snapshot()
        assert after.keys() == before.keys()
        assert [key for key in before if after[key] is not before[key]] == []
        """
    )


def test_installing_twice_is_installing_once() -> None:
    check(
        """
        rondel.install(); first = snapshot()
        rondel.install(); assert all(first[k] is v for k, v in snapshot().items())
        rondel.uninstall(); assert not rondel.installed()
        assert all(before[k] is v for k, v in snapshot().items())
        rondel.uninstall()
        rondel.install(); assert asyncio.sleep is rondel.sleep
        """
    )


def test_many_threads_install_and_uninstall_at_once() -> None:
    check(
        """
        gate = threading.Barrier(8)
        def churn():
            gate.wait()
            for _ in range(50):
                rondel.install()
                rondel.uninstall()
        threads = [threading.Thread(target=churn) for _ in range(8)]
        for t in threads: t.start()
        for t in threads: t.join()
        rondel.uninstall()
        assert all(before[k] is v for k, v in snapshot().items())
        """
    )


def test_what_somebody_replaced_in_between_stays_theirs() -> None:
    check(
        """
        rondel.install()
        mine = lambda *a: None
        asyncio.sleep = mine
        rondel.uninstall()
        assert asyncio.sleep is mine
        assert asyncio.tasks.sleep is before["asyncio.tasks", "sleep"]
        """
    )


def test_loops_and_tasks_are_native_while_installed() -> None:
    check(
        """
        async def main():
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            return type(loop), type(task), type(loop.create_future())
        stock = asyncio.run(main())
        rondel.install()
        assert asyncio.run(main()) == (rondel.EventLoop, rondel.Task, rondel.Future)
        rondel.uninstall()
        assert asyncio.run(main()) == stock
        """
    )


def test_a_childs_streams_are_native_while_installed() -> None:
    check(
        """
        async def main(kind):
            for module in (asyncio, asyncio.subprocess):
                child = await module.create_subprocess_shell("cat", stdin=-1, stdout=-1)
                assert type(child.stdout) is kind, type(child.stdout)
                assert await child.communicate(b"x") == (b"x", None)
        rondel.install()
        asyncio.run(main(rondel.StreamReader))
        rondel.uninstall()
        asyncio.run(main(asyncio.StreamReader))
        """
    )


def test_future_and_task_mean_stock_and_native_alike() -> None:
    check(
        """
        import inspect, _asyncio
        class Old(asyncio.Task): pass
        class OldFuture(asyncio.Future): pass
        stock_loop = asyncio.new_event_loop()
        stock = stock_loop.create_future()
        rondel.install()
        class New(asyncio.Task): pass
        async def one(): return 1
        async def main():
            loop = asyncio.get_running_loop()
            native, task = loop.create_future(), loop.create_task(one())
            assert type(native) is rondel.Future and type(task) is rondel.Task
            for future in (stock, native, task, OldFuture(loop=loop)):
                assert isinstance(future, asyncio.Future)
                assert isinstance(future, asyncio.futures.Future)
                assert asyncio.isfuture(future)
            assert isinstance(task, asyncio.Task) and not isinstance(native, asyncio.Task)
            assert issubclass(rondel.Task, asyncio.Task) and issubclass(Old, asyncio.Task)
            made = asyncio.Task(one())
            assert type(made) is asyncio.Task and await made == 1
            assert await Old(one()) == 1 and await New(one(), loop=loop) == 1
            plain = asyncio.Future(loop=loop)
            assert type(plain) is asyncio.Future is _asyncio.Future
            loop.call_soon(plain.set_result, 2)
            assert await plain == 2
            loop.call_soon(native.set_result, 3)
            assert await native == 3 and await task == 1
            assert inspect.isclass(asyncio.Task)
            assert asyncio.Future[int].__origin__ is asyncio.Future
            async def who(): return asyncio.current_task()
            stock_task = asyncio.Task(who())
            assert await stock_task is stock_task
        asyncio.run(main())
        stock_loop.close()
        """
    )


def test_a_stock_loop_of_another_thread_works_while_installed() -> None:
    check(
        """
        rondel.install()
        seen = []
        def library():
            async def main():
                async def add(a, b):
                    await asyncio.sleep(0)
                    return a + b
                async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                    task = group.create_task(add(1, 2))
                both = await asyncio.gather(add(1, 1), add(2, 2))
                waited = await asyncio.wait_for(asyncio.create_task(add(5, 5)), 5)
                assert asyncio.current_task() in asyncio.all_tasks()
                return task.result(), both, waited
            loop = asyncio.SelectorEventLoop()
            try:
                seen.append(loop.run_until_complete(main()))
            finally:
                loop.close()
        thread = threading.Thread(target=library)
        thread.start(); thread.join()
        assert seen == [(3, [2, 4], 10)], seen
        """
    )


def test_the_policy_in_force_comes_back() -> None:
    check(
        """
        if sys.version_info >= (3, 14): sys.exit()
        class Mine(asyncio.DefaultEventLoopPolicy): pass
        mine = Mine()
        asyncio.set_event_loop_policy(mine)
        rondel.install()
        assert isinstance(asyncio.get_event_loop_policy(), rondel.EventLoopPolicy)
        loop = asyncio.new_event_loop()
        assert type(loop) is rondel.EventLoop
        loop.close()
        rondel.uninstall()
        assert asyncio.get_event_loop_policy() is mine
        """
    )


@pytest.mark.parametrize("way", ["policy", "loop_factory", "run", "runner", "as asyncio"])
def test_each_way_in_without_install_leaves_asyncio_alone(way: str) -> None:
    bodies = {
        "policy": "asyncio.set_event_loop_policy(rondel.EventLoopPolicy()); asyncio.run(main())",
        "loop_factory": (
            "runner = asyncio.Runner(loop_factory=rondel.new_event_loop)\n"
            "with runner: runner.run(main())"
        ),
        "run": "rondel.run(main())",
        "runner": "with rondel.Runner() as r: r.run(main()); r.run(main())",
        "as asyncio": "import rondel as aio; aio.run(main())",
    }
    if way == "policy" and sys.version_info >= (3, 14):
        pytest.skip("policies are deprecated")
    check(
        f"""
async def main():
    assert type(asyncio.get_running_loop()) is rondel.EventLoop
    assert type(asyncio.current_task()) is rondel.Task
    assert await asyncio.gather(asyncio.sleep(0, 1), rondel.sleep(0, 2)) == [1, 2]
{bodies[way]}
assert not rondel.installed()
changed = [k for k, v in snapshot().items() if before.get(k) is not v]
assert [k for k in changed if k[1] not in ("_event_loop_policy",)] == [], changed
        """
    )
