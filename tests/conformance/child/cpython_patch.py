"""Shape test.test_asyncio for a foreign loop and, with --primitives, foreign Task and Future.

Only what reads private attributes of the stock loop, or names the stock classes, is changed;
each change says what the original does.
"""

import asyncio
import importlib
import os
import types
from typing import Any

import inject


def prepare(modules: list[str]) -> None:
    from test import support
    from test.test_asyncio import utils

    support.use_resources = ["cpu", "subprocess", "walltime", "curses", "largefile", "decimal"]
    _shape_loops(utils)
    for module in map(importlib.import_module, modules):
        if module.__name__.endswith(".test_runners"):
            module.BaseTest.new_loop = _runner_loop  # type: ignore[attr-defined]
        elif module.__name__.endswith(".test_tasks"):
            module.GatherTestsBase._run_loop = _gather_run_loop  # type: ignore[attr-defined]
        elif module.__name__.endswith(".test_sslproto"):
            _use_ssl_protocol(module)
        if inject.primitives:
            _use_primitives(module)


def _shape_loops(utils: Any) -> None:
    original_new, original_close = utils.TestCase.new_test_loop, utils.TestCase.close_loop
    virtual = os.environ.get("CONF_NO_VIRTUAL") != "1"

    def close_loop(loop: Any) -> None:
        # The original reads the private loop._default_executor.
        if inject.is_stdlib or hasattr(loop, "_default_executor"):
            original_close(loop)
            return
        if not loop.is_closed():
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    def new_test_loop(self: Any, gen: Any = None) -> Any:
        if gen is not None:  # the test steers the time: only TestLoop can do that
            if not virtual:
                self.skipTest("needs the virtual-time TestLoop")
            inject.virtual = True
            return original_new(self, gen)
        loop = inject.factory()
        self.set_event_loop(loop)
        return loop

    utils.TestCase.close_loop = staticmethod(close_loop)
    utils.TestCase.new_test_loop = new_test_loop


def _use_ssl_protocol(module: Any) -> None:
    """The original makes the stock SSLProtocol, whatever the loop has in its place."""
    replacement = getattr(inject.loop_type, "_ssl_protocol_class", None)
    if replacement is not None:
        module.sslproto = types.SimpleNamespace(**vars(module.sslproto))
        module.sslproto.SSLProtocol = replacement


def _gather_run_loop(self: Any, loop: Any) -> None:
    """The original spins on the private loop._ready."""
    from test.test_asyncio import utils

    for _ in range(10):
        utils.run_briefly(loop)


def _runner_loop(self: Any) -> Any:
    """test_runners' own new_loop() is a BaseEventLoop with a mock selector."""
    loop = inject.factory()
    original = loop.shutdown_asyncgens

    async def shutdown_asyncgens() -> None:
        loop.shutdown_ag_run = True
        await original()

    loop.shutdown_ag_run = False
    loop.shutdown_asyncgens = shutdown_asyncgens
    return loop


# Prefixes of the stock library's pure-Python and mixed twins of its test classes.
TWINS = (
    "PyTask",
    "PyFuture",
    "CTask_PyFuture",
    "CTaskSubclass",
    "PyIntrospection",
    "PyCurrentLoop",
    "PyEager",
    "NonEagerPy",
    "EagerPy",
    "CIntrospection",
    "TestPyGetEventLoop",
)


def _use_primitives(module: Any) -> None:
    task = inject.primitives.get("Task", asyncio.Task)
    future = inject.primitives.get("Future", asyncio.Future)
    for name in list(vars(module)):
        if isinstance(getattr(module, name), type) and name.startswith(TWINS):
            delattr(module, name)
    shape = SHAPES.get(module.__name__.rpartition(".")[2])
    if shape is not None:
        shape(module, task, future)


def _drop(module: Any, *names: str) -> None:
    for name in names:
        if hasattr(module, name):
            delattr(module, name)


def _shape_tasks(module: Any, task: Any, future: Any) -> None:
    def add(name: str, bases: tuple[Any, ...], **attributes: Any) -> Any:
        made = type(name, bases, {**attributes, "__module__": module.__name__})
        setattr(module, name, made)
        return made

    case = module.test_utils.TestCase
    module.CTask_CFuture_Tests.Task, module.CTask_CFuture_Tests.Future = task, future
    _drop(module, "CTask_CFuture_SubclassTests")
    both = {"Task": task, "Future": future}
    try:
        module.add_subclass_tests(type("Probe", (module.BaseTaskTests,), dict(both)))
    except TypeError:  # not subclassable: leave the failure visible as one test
        add(
            "Task_Future_SubclassTests",
            (case,),
            test_subclassable=lambda self: type("Sub", (task,), {}),
        )
    else:
        subclass_tests = add("Task_Future_SubclassTests", (module.BaseTaskTests, case), **both)
        module.add_subclass_tests(subclass_tests)
    module.CCurrentLoopTests.current_task = staticmethod(asyncio.current_task)
    module.CCurrentLoopTests.new_task = lambda self, coro: task(coro, loop=self.loop)


def _shape_futures(module: Any, task: Any, future: Any) -> None:
    module.CFutureTests.cls = future
    try:
        subclass: Any = type("SubFuture", (future,), {})
    except TypeError:
        _drop(module, "CSubFutureTests", "CSubFutureDoneCallbackTests", "CFutureInheritanceTests")
    else:
        module.CSubFutureTests.cls = subclass
        module.CSubFutureDoneCallbackTests._new_future = lambda self: subclass(loop=self.loop)
        module.CFutureInheritanceTests._get_future_cls = lambda self: future
    module.CFutureDoneCallbackTests._new_future = lambda self: future(loop=self.loop)


def _shape_futures2(module: Any, task: Any, future: Any) -> None:
    module.CFutureTests.cls = task


def _shape_eager(module: Any, task: Any, future: Any) -> None:
    for name in ("CEagerTaskFactoryLoopTests", "NonEagerCTaskTests", "EagerCTaskTests"):
        getattr(module, name).Task = task


SHAPES = {
    "test_tasks": _shape_tasks,
    "test_futures": _shape_futures,
    "test_futures2": _shape_futures2,
    "test_eager_task_factory": _shape_eager,
}
