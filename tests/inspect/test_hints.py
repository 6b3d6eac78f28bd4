"""`rondel run --hints`: each classic mistake is told with its line and what to write instead.

Each program is run three ways: by `python` (the oracle), by `rondel run`, which must write the
same, and with hints, which come besides: what else is written is the same still.
"""

import re
from pathlib import Path

import pytest

from ..cli.support import PYTHON, RONDEL, call, without_loop_frames
from .hints_support import ENGLISH, HINTED, Hint, hints, marked, without_hints

UNAWAITED = """\
import asyncio

async def fetch(url, *, again=False):
    await asyncio.sleep(0)

async def main():
    BODY

asyncio.run(main())
"""

# What stands in `main`, and the fixes.
NEVER_AWAITED = {
    "statement": (
        'fetch("a", again=True)  # !',
        'await fetch("a", again=True)',
        'or, to go on meanwhile: task = asyncio.create_task(fetch("a", again=True)), and later: '
        "await task",
    ),
    "value": (
        'page = fetch("a")  # !',
        'page = await fetch("a")',
        'or, to go on meanwhile: task = asyncio.create_task(fetch("a")), and later: await task',
    ),
    "list": (
        'pages = [fetch(url) for url in "a"]  # !',
        'await asyncio.gather(*[fetch(url) for url in "a"])',
    ),
    "generator": (
        'pages = list(fetch(url) for url in "a")  # !',
        'await asyncio.gather(*(fetch(url) for url in "a"))',
    ),
    "native": (
        "asyncio.sleep(1)  # !",
        "await asyncio.sleep(1)",
        "or, to go on meanwhile: task = asyncio.create_task(asyncio.sleep(1)), and later: "
        "await task",
    ),
    "function": (
        "def button():\n        fetch(1)  # !\n    button()",
        "button() is an ordinary function: make it `async def button`, and in it: await fetch(1)",
    ),
    "returned": (
        "def later():\n        return fetch(1)  # !\n    later()",
        "later() returns the coroutine: who calls it has to await: await later(...)",
    ),
}


@pytest.mark.parametrize("name", NEVER_AWAITED)
def test_a_coroutine_that_is_never_awaited(tmp_path: Path, name: str) -> None:
    body, *fixes = NEVER_AWAITED[name]
    program = UNAWAITED.replace("BODY", body)
    (tmp_path / "program.py").write_text(program)
    got = call(HINTED, tmp_path, env=ENGLISH)
    what = "sleep" if name == "native" else "fetch"
    (line,) = marked(program)
    assert hints(got.errors) == [
        Hint(
            line,
            f"the coroutine {what}() was never awaited: nothing of it has run",
            program.splitlines()[line - 1].strip(),
            tuple(fixes),
        )
    ]
    assert f"RuntimeWarning: coroutine '{what}' was never awaited\n" in got.errors


def test_a_coroutine_at_the_top_is_run(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("async def main():\n    pass\n\nmain()\n")
    (hint,) = hints(call(HINTED, tmp_path, env=ENGLISH).errors)
    assert (hint.line, hint.source, hint.fixes) == (4, "main()", ("asyncio.run(main())",))


def test_a_coroutine_that_no_line_of_the_user_made_is_told_by_its_definition(
    tmp_path: Path,
) -> None:
    body = "asyncio.get_running_loop().call_soon(fetch, 1)\n    await asyncio.sleep(0)"
    (tmp_path / "program.py").write_text(UNAWAITED.replace("BODY", body))
    (hint,) = hints(call(HINTED, tmp_path, env=ENGLISH).errors)
    assert (hint.line, hint.source) == (3, "async def fetch(url, *, again=False):")
    assert "asyncio.create_task(fetch(...))" in hint.fixes[0]


TASKS = """\
import asyncio, gc

async def fails(delay=0):
    await asyncio.sleep(delay)
    raise ValueError("no page")

async def sleeps():
    await asyncio.sleep(100)

async def lonely():
    await asyncio.get_running_loop().create_future()

async def ends():
    await asyncio.sleep(0)

class Shop:
    async def open(self):
        asyncio.create_task(sleeps())  # shop
        await asyncio.sleep(0.01)

kept = []

async def main():
    BODY
    await asyncio.sleep(0.01)
    gc.collect()

asyncio.run(main())
"""
FAILED = (
    "task 'Task-2' (fails()) failed with ValueError: no page (raised at program.py:5, in fails), "
    "and nobody took the exception"
)
CUT_OFF = (
    "task 'Task-2' (sleeps()) was not over when the program's main coroutine was, and was "
    "cancelled while it waited at program.py:8, in sleeps"
)
LOST = (
    "task 'Task-2' (lonely()) was lost before its end: nobody kept it, and the garbage collector "
    "took it"
)
UNTAKEN_GROUP = (
    "or in a group, whose end raises it: "
    "async with asyncio.TaskGroup() as tg: tg.create_task(fails())"
)

LOST_TASKS = {
    "failed": (
        "asyncio.create_task(fails())  # !",
        FAILED,
        "keep the task and await it, and the exception is raised there: "
        "task = asyncio.create_task(fails()), later: await task",
        UNTAKEN_GROUP,
    ),
    "failed, with a name": (
        "page = asyncio.create_task(fails())  # !",
        FAILED,
        "await it, and the exception is raised there: await page",
        UNTAKEN_GROUP,
    ),
    "failed, and kept to the end": (
        "kept.append(asyncio.create_task(fails()))  # !",
        FAILED,
        "keep the task and await it, and the exception is raised there: "
        "task = asyncio.create_task(fails()), later: await task",
        UNTAKEN_GROUP,
    ),
    "failed in a gather that nobody awaits": (
        "asyncio.gather(fails(), ends())  # !",
        "what gather() returned failed with ValueError: no page, and nobody awaited it",
        "await asyncio.gather(fails(), ends())",
    ),
    "collected": (
        "asyncio.create_task(lonely())  # !",
        LOST,
        "await it before the end: task = asyncio.create_task(lonely()), later: await task",
        "keep the task until it is done: tasks.add(task); task.add_done_callback(tasks.discard)",
        "or in a group, which waits for it: "
        "async with asyncio.TaskGroup() as tg: tg.create_task(lonely())",
    ),
    "cut off": (
        "asyncio.get_running_loop().create_task(sleeps())  # !",
        CUT_OFF,
        "await it before the end: task = asyncio.get_running_loop().create_task(sleeps()), "
        "later: await task",
        "keep the task until it is done: tasks.add(task); task.add_done_callback(tasks.discard)",
        "or in a group, which waits for it: "
        "async with asyncio.TaskGroup() as tg: tg.create_task(sleeps())",
    ),
    "cut off, with a name that nobody reads": (
        "ticker = asyncio.create_task(sleeps())  # !",
        CUT_OFF,
        "await it before the end: await ticker",
        "keep the task until it is done: tasks.add(task); task.add_done_callback(tasks.discard)",
        "or in a group, which waits for it: "
        "async with asyncio.TaskGroup() as tg: tg.create_task(sleeps())",
    ),
}


@pytest.mark.parametrize("name", LOST_TASKS)
def test_a_task_that_is_lost(tmp_path: Path, name: str) -> None:
    body, what, *fixes = LOST_TASKS[name]
    program = TASKS.replace("BODY", body)
    (tmp_path / "program.py").write_text(program)
    got = call(HINTED, tmp_path, env=ENGLISH)
    (line,) = marked(program)
    assert hints(got.errors) == [
        Hint(line, what, program.splitlines()[line - 1].strip(), tuple(fixes))
    ]


def test_a_method_keeps_its_tasks_in_the_object(tmp_path: Path) -> None:
    program = TASKS.replace("BODY", "await Shop().open()")
    (tmp_path / "program.py").write_text(program)
    (hint,) = hints(call(HINTED, tmp_path, env=ENGLISH).errors)
    assert hint.source == "asyncio.create_task(sleeps())  # shop"
    assert "self.tasks.add(task); task.add_done_callback(self.tasks.discard)" in hint.fixes[1]


GATHER = """\
import asyncio

async def fails(delay=0):
    await asyncio.sleep(delay)
    raise ValueError(delay)

async def sleeps(delay):
    await asyncio.sleep(delay)

async def main():
    try:
        await GATHER  # !
    except ValueError:
        pass
    await asyncio.sleep(0.05)

asyncio.run(main())
"""
RUNNING = (
    "gather() failed with ValueError: 0, but its other awaitables went on, unnoticed; still "
    "running at the end: "
)

GATHERS = {
    "running": (
        "asyncio.gather(fails(), sleeps(60))",
        RUNNING + "sleeps()",
        "tg.create_task(fails()); tg.create_task(sleeps(60))",
        "asyncio.gather(fails(), sleeps(60), return_exceptions=True)",
    ),
    "running, of a list": (
        "asyncio.gather(fails(), *[sleeps(n) for n in (60, 70)])",
        RUNNING + "sleeps(), sleeps()",
        "tg.create_task(fails()); for n in (60, 70): tg.create_task(sleeps(n))",
        "asyncio.gather(fails(), *[sleeps(n) for n in (60, 70)], return_exceptions=True)",
    ),
    "failed at once": (
        "asyncio.gather(fails(), fails())",
        "gather() failed with ValueError: 0, its other awaitables went on, and fails() failed as "
        "well, unnoticed, with ValueError: 0 (raised at program.py:5, in fails)",
        "tg.create_task(fails()); tg.create_task(fails())",
        "asyncio.gather(fails(), fails(), return_exceptions=True)",
    ),
    "failed later": (
        "asyncio.gather(fails(), fails(0.01))",
        "gather() failed with ValueError: 0, its other awaitables went on, and fails() failed as "
        "well, unnoticed, with ValueError: 0.01 (raised at program.py:5, in fails)",
        "tg.create_task(fails()); tg.create_task(fails(0.01))",
        "asyncio.gather(fails(), fails(0.01), return_exceptions=True)",
    ),
}


@pytest.mark.parametrize("name", GATHERS)
def test_what_a_failed_gather_leaves_behind(tmp_path: Path, name: str) -> None:
    gather, what, each, whole = GATHERS[name]
    (tmp_path / "program.py").write_text(GATHER.replace("GATHER", gather))
    (hint,) = hints(call(HINTED, tmp_path, env=ENGLISH).errors)
    assert (hint.line, hint.what, hint.source) == (12, what, f"await {gather}  # !")
    assert hint.fixes == (
        f"let the first failure end the others: async with asyncio.TaskGroup() as tg: {each}",
        f"or wait for all of them and look at each: results = await {whole}",
    )


NESTED = """\
import asyncio

async def fetch():
    return "a page"

DEF helper():
    return asyncio.run(fetch())  # !

async def main():
    CALL

asyncio.run(main())
"""
STOCK_NESTED = "RuntimeError: asyncio.run() cannot be called from a running event loop\n"


@pytest.mark.parametrize(
    ("kind", "fixes"),
    [
        ("async def", ("await fetch()",)),
        (
            "def",
            (
                "make helper() a coroutine: `async def helper`, and in it: await fetch()",
                "or, if helper() must stay as it is, call it in a thread: "
                "await asyncio.to_thread(helper, ...)",
            ),
        ),
    ],
)
def test_a_loop_in_a_loop(tmp_path: Path, kind: str, fixes: tuple[str, ...]) -> None:
    waits = "await helper()" if kind == "async def" else "helper()"
    program = NESTED.replace("DEF", kind).replace("CALL", waits)
    (tmp_path / "program.py").write_text(program)
    got = call(HINTED, tmp_path, env=ENGLISH)
    what = "asyncio.run() starts a loop, but this code runs on one already"
    assert hints(got.errors) == [Hint(7, what, "return asyncio.run(fetch())  # !", fixes)]
    assert STOCK_NESTED + "hint: " in got.errors
    assert got.status == 1


def test_a_loop_that_runs_is_told_of_by_the_loop_itself(tmp_path: Path) -> None:
    body = "asyncio.get_running_loop().run_until_complete(fetch())"
    (tmp_path / "program.py").write_text(NESTED.replace("DEF", "def").replace("CALL", body))
    got = call(HINTED, tmp_path, env=ENGLISH)
    (hint,) = hints(got.errors)
    assert (hint.line, hint.fixes) == (10, ("await fetch()",))
    assert "RuntimeError: This event loop is already running\nhint: " in got.errors


def test_who_expects_the_error_is_told_nothing_of_it(tmp_path: Path) -> None:
    body = "try:\n        helper()\n    except RuntimeError as error:\n        print(error)"
    (tmp_path / "program.py").write_text(NESTED.replace("DEF", "def").replace("CALL", body))
    got = call(HINTED, tmp_path, env=ENGLISH)
    assert got.output == STOCK_NESTED.partition(": ")[2]
    assert hints(got.errors) == []


CLEAN = """\
import asyncio

async def work(n):
    await asyncio.sleep(0)
    if n == 3: raise ValueError
    return n

async def ticker():
    while True: await asyncio.sleep(0.001)

async def main():
    tick = asyncio.create_task(ticker())
    awaited = asyncio.create_task(work(3))
    await asyncio.sleep(0.01)
    try: await awaited
    except ValueError: pass
    print(await asyncio.gather(work(1), work(3), return_exceptions=True))
    try: await asyncio.gather(work(3), work(2))
    except ValueError: pass
    await asyncio.sleep(0.01)
    async with asyncio.TaskGroup() as group: group.create_task(work(1))
    asyncio.create_task(work(4))
    await asyncio.sleep(0.01)
    asyncio.run_coroutine_threadsafe(work(5), asyncio.get_running_loop())
    work(6).close()
    tick.cancel()

asyncio.run(main())
"""


def test_a_program_without_such_a_mistake_gets_no_hints(tmp_path: Path) -> None:
    """A late `await`, a gather whose rest ends well, a task that ends though nobody kept it."""
    (tmp_path / "program.py").write_text(CLEAN)
    got = call(HINTED, tmp_path, env=ENGLISH)
    assert (got.status, got.errors) == (0, "")


def all_programs() -> dict[str, str]:
    """Programs whose stderr is the same, whoever runs them."""
    found = {f"unawaited {k}": UNAWAITED.replace("BODY", v[0]) for k, v in NEVER_AWAITED.items()}
    found |= {f"tasks {k}": TASKS.replace("BODY", v[0]) for k, v in LOST_TASKS.items()}
    # What is left when the interpreter ends can't be logged: it has no `open` any more.
    del found["tasks failed, and kept to the end"]
    found |= {f"gather {k}": GATHER.replace("GATHER", v[0]) for k, v in GATHERS.items()}
    found["nested"] = NESTED.replace("DEF", "def").replace("CALL", "helper()")
    return found


@pytest.mark.parametrize("name", all_programs())
def test_without_hints_a_run_writes_what_python_writes(tmp_path: Path, name: str) -> None:
    (tmp_path / "program.py").write_text(all_programs()[name])
    stock = call([*PYTHON, "program.py"], tmp_path, env=ENGLISH)
    plain = call([*RONDEL, "run", "program.py"], tmp_path, env=ENGLISH)
    hinted = call(HINTED, tmp_path, env=ENGLISH)
    expected = comparable(stock.errors)
    assert (plain.status, plain.output, comparable(plain.errors)) == (
        stock.status,
        stock.output,
        expected,
    )
    assert hints(hinted.errors)
    assert comparable(without_hints(hinted.errors)) == expected
    assert hinted.status == stock.status


def comparable(errors: str) -> str:
    # A task that is destroyed: stock's coroutine still has its frame.
    errors = re.sub(r"coro=<lonely\(\).*?> wait_for=.*", "coro=<lonely()>", errors)
    # A coroutine that lasts as long as its frame: the warning names the loop's line.
    errors = re.sub(r"^/.*/(asyncio|rondel)/\w+\.py:\d+: (.*\n).*\n", r"\2", errors, flags=re.M)
    return without_loop_frames(errors)


def test_chinese_where_the_locale_is(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(UNAWAITED.replace("BODY", "fetch(1)"))
    chinese = {"LC_ALL": "", "LC_MESSAGES": "", "LANG": "zh_CN.UTF-8", "RONDEL_INSPECT": "0"}
    (hint,) = hints(call(HINTED, tmp_path, env=chinese).errors)
    assert hint.what == "协程 fetch() 从未被 await：它的代码一行也没有执行"
    assert hint.fixes[0] == "await fetch(1)"
    narrow = {**chinese, "PYTHONIOENCODING": "ascii"}
    (hint,) = hints(call(HINTED, tmp_path, env=narrow).errors)
    assert hint.what == "the coroutine fetch() was never awaited: nothing of it has run"


def test_every_text_is_in_both_languages_with_the_same_values() -> None:
    from rondel.hints.texts import TEXTS

    values = re.compile(r"{(\w+)")
    for key, (english, chinese) in TEXTS.items():
        assert set(values.findall(english)) == set(values.findall(chinese)), key


@pytest.mark.parametrize("way", ["environment", "explain", "-c", "stdin"])
def test_other_ways_to_hints(tmp_path: Path, way: str) -> None:
    program = "async def main():\n    pass\n\nmain()\n"
    (tmp_path / "program.py").write_text(program)
    commands = {
        "environment": [*RONDEL, "run", "program.py"],
        "explain": [*RONDEL, "explain", "program.py"],
        "-c": [*RONDEL, "run", "--hints", "-c", program],
        "stdin": [*RONDEL, "run", "--hints", "-"],
    }
    env = {**ENGLISH, "RONDEL_HINTS": "1" if way == "environment" else "0"}
    stdin = program if way == "stdin" else ""
    got = call(commands[way], tmp_path, stdin=stdin, env=env)
    name = {"-c": "<string>", "stdin": "<stdin>"}.get(way, "program.py")
    assert (
        f"hint: {name}:4: the coroutine main() was never awaited: nothing of it has run\n"
        "    main()\n"
        "  → asyncio.run(main())\n"
    ) in got.errors


def test_tasks_that_are_watched_are_told_of_at_once(tmp_path: Path) -> None:
    body = "task = asyncio.create_task(fails())  # !\n    await asyncio.sleep(0.01)"
    tail = '\n    import sys; print("later", file=sys.stderr)'
    (tmp_path / "program.py").write_text(TASKS.replace("BODY", body + tail))
    command = [*RONDEL, "run", "--watch-tasks", "--hints", "program.py"]
    got = call(command, tmp_path, env=ENGLISH)
    (hint,) = hints(got.errors)
    assert (hint.what, hint.fixes[0][-10:]) == (FAILED, "await task")
    assert got.errors.index("hint: ") < got.errors.index("later\n")


def test_a_program_that_imports_rondel_as_asyncio(tmp_path: Path) -> None:
    gather, what, *_ = GATHERS["running"]
    program = (
        GATHER.replace("GATHER", gather)
        .replace("asyncio, ", "")
        .replace("import asyncio", "import rondel as asyncio")
    )
    (tmp_path / "program.py").write_text(program)
    env = {**ENGLISH, "RONDEL_HINTS": "1"}
    (hint,) = hints(call([*PYTHON, "program.py"], tmp_path, env=env).errors)
    assert (hint.line, hint.what) == (12, what)


def test_stock_loops_are_told_of_too(tmp_path: Path) -> None:
    """Under the switch, but not of Rondel's: a task is known by its coroutine's definition."""
    program = TASKS.replace("BODY", LOST_TASKS["failed"][0]).replace(
        "asyncio.run(main())", "asyncio.SelectorEventLoop().run_until_complete(main())"
    )
    (tmp_path / "program.py").write_text(program)
    (hint,) = hints(call(HINTED, tmp_path, env=ENGLISH).errors)
    assert (hint.line, hint.source) == (3, "async def fails(delay=0):")
    assert "failed with ValueError: no page" in hint.what


def test_a_place_is_told_once(tmp_path: Path) -> None:
    body = "for n in range(5): fetch(n)  # !"
    (tmp_path / "program.py").write_text(UNAWAITED.replace("BODY", body))
    assert len(hints(call(HINTED, tmp_path, env=ENGLISH).errors)) == 1


def test_a_warning_that_is_an_error_is_told_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(UNAWAITED.replace("BODY", "fetch(1)"))
    command = [*PYTHON, "-W", "error", "-m", "rondel", "run", "--hints", "program.py"]
    got = call(command, tmp_path, env=ENGLISH)
    assert "RuntimeWarning: coroutine 'fetch' was never awaited\n" in got.errors
    assert len(hints(got.errors)) == 1


def test_a_program_without_stderr_goes_on(tmp_path: Path) -> None:
    body = "import sys; sys.stderr = None; fetch(1); print('on')"
    (tmp_path / "program.py").write_text(UNAWAITED.replace("BODY", body))
    got = call(HINTED, tmp_path, env=ENGLISH)
    assert (got.status, got.output) == (0, "on\n")


def test_a_fork_does_not_tell_of_its_parent(tmp_path: Path) -> None:
    program = TASKS.replace("BODY", LOST_TASKS["failed, and kept to the end"][0])
    forks = "import os, sys\nchild = os.fork()\nif not child: sys.exit()\nos.waitpid(child, 0)\n"
    (tmp_path / "program.py").write_text(program + forks)
    assert len(hints(call(HINTED, tmp_path, env=ENGLISH).errors)) == 1


def test_a_notebook_is_told_that_its_cells_can_await(tmp_path: Path) -> None:
    body = "import sys; sys.modules['ipykernel'] = sys; helper()"
    (tmp_path / "program.py").write_text(NESTED.replace("DEF", "def").replace("CALL", body))
    (hint,) = hints(call(HINTED, tmp_path, env=ENGLISH).errors)
    assert hint.fixes == ("a notebook has a loop of its own, await works in a cell: await fetch()",)
