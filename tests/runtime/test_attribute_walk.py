"""Every attribute of Future and Task is read and called, and behaves as on stock asyncio.

Native classes derive from asyncio's, whose own fields stay unused: an inherited method or
getset that was not overridden reads uninitialised memory. The walk runs in a child process
(a crash is a failure), over objects in each state, and compares the outcome of each access
by type, attribute by attribute, with the same walk on stock asyncio.
"""

import json

import pytest

from tests.support import ONLY_ASYNCIO, python

WALK = r"""
import asyncio, contextvars, io, json, sys, warnings
warnings.simplefilter("ignore")
sys.stderr = io.StringIO()   # reports of forgotten errors are not what is compared
if sys.argv[1] == "asyncio":
    new_event_loop = asyncio.SelectorEventLoop
else:
    import rondel
    new_event_loop = rondel.new_event_loop

SKIP = {
    # Address-bound or implementation text.
    "__doc__", "__module__", "__dict__", "__weakref__", "__sizeof__", "__init_subclass__",
    "__subclasshook__", "__class__", "__new__", "__reduce__", "__reduce_ex__", "__getstate__",
    "__hash__", "__dir__",
}
ARGUMENTS = [(), (None,), (1,), (KeyError("argument"),), (print,), ("text", 2)]

def outcome(call):
    try:
        value = call()
    except BaseException as error:
        return "raises " + type(error).__name__
    if isinstance(value, asyncio.Task):
        return "Task"
    if isinstance(value, asyncio.Future):
        return "Future"
    if isinstance(value, asyncio.AbstractEventLoop):
        return "loop"
    if value is None or isinstance(value, (bool, int)):
        return repr(value)
    if callable(value):
        return "callable"
    return type(value).__name__.replace("FutureIter", "iterator")

def make(loop, kind, state):
    if kind == "future":
        future = loop.create_future()
        if state == "result": future.set_result(5)
        if state == "exception": future.set_exception(KeyError("state")); future.exception()
        if state == "cancelled": future.cancel()
        return future
    gate = loop.create_future()
    async def work():
        if state == "waiting": await gate
        if state == "exception": raise KeyError("state")
        return 5
    task = loop.create_task(work(), name="walked")
    if state == "cancelled": task.cancel()
    if state != "new":
        async def turns():
            for _ in range(3): await asyncio.sleep(0)
        loop.run_until_complete(turns())
    if state == "exception": task.exception()
    return task

def walk(loop, kind, state):
    seen = {}
    for name in sorted(set(dir(make(loop, kind, state))) | {"__iter__", "__await__"}):
        if name in SKIP:
            continue
        victim = make(loop, kind, state)
        seen[name] = outcome(lambda: getattr(victim, name))
        attribute = getattr(victim, name, None)
        if not callable(attribute):
            if name.startswith("_") and not name.startswith("__"):
                for value in (None, 1, "text", True, []):
                    victim = make(loop, kind, state)
                    seen[f"{name} = {value!r}"] = outcome(lambda: setattr(victim, name, value))
                    outcome(lambda: (repr(victim), victim.done(), victim.cancel()))
            continue
        for arguments in ARGUMENTS:
            victim = make(loop, kind, state)
            label = f"{name}({', '.join(map(repr, arguments))})"
            seen[label] = outcome(lambda: getattr(victim, name)(*arguments))
            # and the object is still in one piece
            outcome(lambda: (repr(victim), victim.done(), victim.cancel(), victim.get_loop()))
    return seen

loop = new_event_loop()
loop.set_exception_handler(lambda loop, context: None)
result = {}
for kind, states in {
    "future": ["pending", "result", "exception", "cancelled"],
    "task": ["new", "waiting", "result", "exception", "cancelled"],
}.items():
    for state in states:
        result[f"{kind} {state}"] = walk(loop, kind, state)
async def turns():
    for _ in range(5): await asyncio.sleep(0)
loop.run_until_complete(turns())
loop.close()
print(json.dumps(result))
"""

# Outcomes that may differ, with the reason.
ALLOWED: dict[str, str] = {
    "__init__": "re-initialising a live object: refused or ignored natively",
    "__del__": "called by hand; natively a slot may be all there is",
    "__setattr__": "by hand with odd arguments",
    "_must_cancel": "read-only on asyncio's C task; writable natively, as on its Python task",
}


def walk(runtime: str) -> dict[str, dict[str, str]]:
    ended = python(WALK, runtime, timeout=120)
    assert ended.returncode == 0, f"the walk died ({ended.returncode}):\n{ended.stderr[-3000:]}"
    result = json.loads(ended.stdout.splitlines()[-1])
    assert isinstance(result, dict)
    return result


def test_the_walk_itself_reaches_what_matters() -> None:
    result = walk("asyncio")
    assert set(result["task waiting"]) >= {"cancel()", "get_stack()", "print_stack()", "_state"}
    assert result["task waiting"]["result()"] == "raises InvalidStateError"
    assert result["future result"]["result()"] == "5"


@pytest.mark.skipif(ONLY_ASYNCIO, reason="RONDEL_TEST_ONLY_ASYNCIO is set")
@pytest.mark.timeout(150)
def test_every_attribute_behaves_as_on_asyncio() -> None:
    stock, native = walk("asyncio"), walk("rondel")
    differences = []
    for state, outcomes in stock.items():
        for label, expected in outcomes.items():
            got = native[state].get(label, "absent")
            name = label.partition("(")[0].partition(" ")[0]
            if got != expected and name not in ALLOWED:
                differences.append(f"{state}: {label}: asyncio {expected}, rondel {got}")
    assert not differences, "\n".join(differences)
