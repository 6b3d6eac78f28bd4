"""The words of hints, in English and in Chinese: one table, so that no translation is forgotten.

Code in a text stays code in both. The language is the user's locale's (``LC_ALL``, ``LC_MESSAGES``,
``LANG``, in this order, as everywhere), and English where stderr cannot write Chinese.
"""

import os
import sys
from functools import cache

__all__ = ["TEXTS", "language", "say"]

TEXTS: dict[str, tuple[str, str]] = {
    "hint": ("hint", "提示"),
    # A coroutine that was never awaited.
    "unawaited": (
        "the coroutine {name}() was never awaited: nothing of it has run",
        "协程 {name}() 从未被 await：它的代码一行也没有执行",
    ),
    "unawaited.beside": (
        "or, to go on meanwhile: task = asyncio.create_task({call}), and later: await task",
        "或者让它与后面的代码同时进行：task = asyncio.create_task({call})，之后再 await task",
    ),
    "unawaited.sync": (
        "{function}() is an ordinary function: make it `async def {function}`, and in it: "
        "await {call}",
        "{function}() 是普通函数：改成 `async def {function}`，在其中写 await {call}",
    ),
    "unawaited.returned": (
        "{function}() returns the coroutine: who calls it has to await: await {function}(...)",
        "{function}() 把协程返回了：调用者要 await 它：await {function}(...)",
    ),
    "unawaited.handed": (
        "it was called where an ordinary function belongs (a callback, a thread): there, write "
        "asyncio.create_task({name}(...)) or await {name}(...)",
        "它被当作普通函数调用了（回调或线程）：应改用 asyncio.create_task({name}(...)) 或 "
        "await {name}(...)",
    ),
    # A task whose exception nobody took.
    "untaken": (
        "task {name!r} ({coro}) failed with {error}, and nobody took the exception",
        "任务 {name!r}（{coro}）因 {error} 失败，而没有人取走这个异常",
    ),
    "raised": ("{error} (raised at {place})", "{error}（抛出位置：{place}）"),
    "untaken.await": (
        "await it, and the exception is raised there: await {task}",
        "await 它，异常就会在那里抛出：await {task}",
    ),
    "untaken.keep": (
        "keep the task and await it, and the exception is raised there: "
        "task = {call}, later: await task",
        "保存任务并 await 它，异常就会在那里抛出：task = {call}，之后 await task",
    ),
    "untaken.group": (
        "or in a group, whose end raises it: "
        "async with asyncio.TaskGroup() as tg: tg.create_task({coro})",
        "或者放进任务组，任务组结束时会抛出它："
        "async with asyncio.TaskGroup() as tg: tg.create_task({coro})",
    ),
    "gather.untaken": (
        "what gather() returned failed with {error}, and nobody awaited it",
        "gather() 的返回值因 {error} 失败，而没有人 await 它",
    ),
    # A task that was dropped.
    "dropped": (
        "task {name!r} ({coro}) was lost before its end: nobody kept it, and the garbage "
        "collector took it{where}",
        "任务 {name!r}（{coro}）没有做完就丢失了：没有人引用它，被垃圾回收{where}",
    ),
    "dropped.where": (" while it waited at {place}", "，当时正在 {place} 等待"),
    "cancelled": (
        "task {name!r} ({coro}) was not over when the program's main coroutine was, and was "
        "cancelled{where}",
        "主协程结束时，任务 {name!r}（{coro}）还没有做完，因而被取消{where}",
    ),
    "dropped.await": (
        "await it before the end: task = {call}, later: await task",
        "在结束之前 await 它：task = {call}，之后 await task",
    ),
    "dropped.await_name": (
        "await it before the end: await {task}",
        "在结束之前 await 它：await {task}",
    ),
    "dropped.keep": (
        "keep the task until it is done: {tasks}.add(task); "
        "task.add_done_callback({tasks}.discard)",
        "在任务完成之前保留引用：{tasks}.add(task); task.add_done_callback({tasks}.discard)",
    ),
    "dropped.group": (
        "or in a group, which waits for it: "
        "async with asyncio.TaskGroup() as tg: tg.create_task({coro})",
        "或者放进任务组，任务组会等待它："
        "async with asyncio.TaskGroup() as tg: tg.create_task({coro})",
    ),
    # gather, when one of its awaitables fails.
    "gather.running": (
        "gather() failed with {error}, but its other awaitables went on, unnoticed; still "
        "running at the end: {names}",
        "gather() 因 {error} 失败，但其余的任务仍在无人知晓地运行；到结束时还没有做完：{names}",
    ),
    "gather.later": (
        "gather() failed with {error}, its other awaitables went on, and {name} failed as well, "
        "unnoticed, with {second}",
        "gather() 因 {error} 失败，其余的任务继续运行，随后 {name} 也失败了，却没有人知道："
        "{second}",
    ),
    "gather.group": (
        "let the first failure end the others: async with asyncio.TaskGroup() as tg: {each}",
        "让第一个失败结束其余任务：async with asyncio.TaskGroup() as tg: {each}",
    ),
    "gather.all": (
        "or wait for all of them and look at each: results = await {call}",
        "或者等待全部完成，再逐个检查结果：results = await {call}",
    ),
    # asyncio.run on a running loop.
    "nested": (
        "{call} starts a loop, but this code runs on one already",
        "{call} 会启动事件循环，但这段代码已经在事件循环中运行",
    ),
    "nested.notebook": (
        "a notebook has a loop of its own, await works in a cell: await {main}",
        "笔记本自带事件循环，单元格里可以直接写：await {main}",
    ),
    "nested.sync": (
        "make {function}() a coroutine: `async def {function}`, and in it: await {main}",
        "把 {function}() 改成协程：`async def {function}`，在其中写 await {main}",
    ),
    "nested.thread": (
        "or, if {function}() must stay as it is, call it in a thread: "
        "await asyncio.to_thread({function}, ...)",
        "如果 {function}() 不能改，就在线程中调用它：await asyncio.to_thread({function}, ...)",
    ),
    # What blocks the loop.
    "blocked": (
        "{call} has kept the loop for {seconds} s so far: no other task can run",
        "{call} 已占用事件循环 {seconds} 秒：其他任务都无法运行",
    ),
    "computes": (
        "{function}() has kept the loop for {seconds} s so far, computing: no other task can run",
        "{function}() 已连续计算 {seconds} 秒，占用着事件循环：其他任务都无法运行",
    ),
    "held": (
        "{function}() has kept the loop for {seconds} s here: no other task could run",
        "{function}() 在这里占用事件循环 {seconds} 秒：其他任务都无法运行",
    ),
    "blocked.or": ("or: {code}", "或者：{code}"),
    "blocked.at": ("at {place}: {code}", "在 {place}：{code}"),
    "blocked.async": (
        "or make {function}() a coroutine, and in it: {code}",
        "或者把 {function}() 改成协程，在其中写：{code}",
    ),
    "blocked.database": (
        "put all that uses the database into one function, and: "
        "await asyncio.to_thread(that_function)",
        "把用到数据库的代码放进一个函数，然后：await asyncio.to_thread(该函数)",
    ),
    "computes.process": (
        "or on another core: await rondel.to_process({arguments})",
        "或者使用另一个处理器核心：await rondel.to_process({arguments})",
    ),
    "computes.inline": (
        "put the computing into a function, and: await asyncio.to_thread(that_function) "
        "(or await rondel.to_process(that_function), for another core)",
        "把计算放进一个函数，然后：await asyncio.to_thread(该函数)"
        "（要使用另一个处理器核心：await rondel.to_process(该函数)）",
    ),
    "blocked.callback": (
        "{function}() is a callback, which can't await; in a thread: "
        "asyncio.get_running_loop().run_in_executor(None, {function}, ...)",
        "{function}() 是回调，不能 await；放进线程："
        "asyncio.get_running_loop().run_in_executor(None, {function}, ...)",
    ),
}


@cache
def language() -> str:
    """``zh`` or ``en``."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            return "zh" if value.lower().startswith("zh") and _writes_chinese() else "en"
    return "en"


def _writes_chinese() -> bool:
    try:
        "提示".encode(getattr(sys.stderr, "encoding", None) or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def say(key: str, /, **values: object) -> str:
    """A text, with its values in it."""
    return TEXTS[key][language() == "zh"].format(**values)
