"""The ways of concurrency, one function each. The pages show this very source.

Each function records what it awaits on a `Timeline` and returns the lines it has to say. Together
they follow the chapters of the asyncio tutorial: 如何并发多个协程, 等待, 超时, 在线程中运行协程.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from .models import Book, Note
from .timeline import Timeline


async def fetch(name: str, seconds: float) -> str:
    """Stands for a slow service: waits without holding the loop up."""
    await asyncio.sleep(seconds)
    return name


async def create_task(timeline: Timeline) -> list[str]:
    """Two tasks start at once; awaiting them one after the other costs the longer one."""
    first = asyncio.create_task(timeline.watch("weather, 0.3 s", fetch("weather", 0.3)))
    second = asyncio.create_task(timeline.watch("news, 0.5 s", fetch("news", 0.5)))
    return [f"first: {await first}", f"second: {await second}"]


async def gather(timeline: Timeline) -> list[str]:
    """Three slow services and two database queries, all at once, results in order."""
    weather, news, prices, books, notes = await asyncio.gather(
        timeline.watch("weather, 0.3 s", fetch("weather", 0.3)),
        timeline.watch("news, 0.4 s", fetch("news", 0.4)),
        timeline.watch("prices, 0.5 s", fetch("prices", 0.5)),
        timeline.watch("Book.objects.acount()", Book.objects.acount()),
        timeline.watch("Note.objects.acount()", Note.objects.acount()),
    )
    return [f"{weather}, {news}, {prices}", f"{books} books, {notes} notes"]


async def task_group(timeline: Timeline) -> list[str]:
    """A group ends when all of its tasks have; the block is left with every result there."""
    async with asyncio.TaskGroup() as group:
        weather = group.create_task(timeline.watch("weather, 0.3 s", fetch("weather", 0.3)))
        news = group.create_task(timeline.watch("news, 0.5 s", fetch("news", 0.5)))
        books = group.create_task(timeline.watch("acount()", Book.objects.acount()))
    return [f"{weather.result()}, {news.result()}", f"{books.result()} books"]


async def task_group_failing(timeline: Timeline) -> list[str]:
    """One task fails after 0.2 s, so the group cancels the other and raises both in one."""

    async def fail() -> None:
        await asyncio.sleep(0.2)
        raise ConnectionError("the service hung up")

    said: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(timeline.watch("fails after 0.2 s", fail()))
            group.create_task(timeline.watch("would need 1 s", fetch("slow", 1.0)))
    except* ConnectionError as group_error:
        said += [f"caught: {error}" for error in group_error.exceptions]
    return said


async def as_completed(timeline: Timeline) -> list[str]:
    """Each result as soon as it is there, the quickest first."""
    slow_first = [("prices", 0.5), ("weather", 0.3), ("news", 0.1)]
    tasks = [
        asyncio.create_task(timeline.watch(f"{name}, {s} s", fetch(name, s)))
        for name, s in slow_first
    ]
    said = []
    for nearest in asyncio.as_completed(tasks):
        name = await nearest
        said.append(f"{name} arrived after {timeline.now():.1f} s")
    return said


async def wait(timeline: Timeline) -> list[str]:
    """What is finished after 0.3 s, and what is not: nothing is cancelled, nothing raised."""
    tasks = [
        asyncio.create_task(timeline.watch(f"{name}, {s} s", fetch(name, s)), name=name)
        for name, s in [("news", 0.1), ("weather", 0.2), ("prices", 0.6)]
    ]
    done, pending = await asyncio.wait(tasks, timeout=0.3)
    said = [f"done: {', '.join(sorted(task.get_name() for task in done))}"]
    said.append(f"pending: {', '.join(sorted(task.get_name() for task in pending))}")
    said += [f"later: {name}" for name in await asyncio.gather(*pending)]
    return said


async def timeout(timeline: Timeline) -> list[str]:
    """The block has 0.4 s; what is awaited when they are over is cancelled."""
    said = []
    try:
        async with asyncio.timeout(0.4):
            said.append(await timeline.watch("quick, 0.2 s", fetch("quick", 0.2)))
            said.append(await timeline.watch("slow, 1 s", fetch("slow", 1.0)))
    except TimeoutError:
        said.append(f"timed out after {timeline.now():.1f} s")
    return said


async def to_thread(timeline: Timeline) -> list[str]:
    """A blocking call goes to a thread, and the loop goes on ticking meanwhile."""

    def blocking() -> str:
        time.sleep(0.5)  # a library without an asynchronous version
        return "blocking call returned"

    async def tick() -> int:
        ticks = 0
        while True:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                return ticks
            ticks += 1

    ticking = asyncio.create_task(timeline.watch("the loop, ticking", tick()))
    answer = await timeline.watch("time.sleep(0.5) in a thread", asyncio.to_thread(blocking))
    ticking.cancel()
    return [answer, f"the loop ticked {await ticking} times meanwhile"]


@dataclass(frozen=True)
class Way:
    """One way of concurrency and what its page says about it."""

    slug: str
    run: Callable[[Timeline], Coroutine[Any, Any, list[str]]]
    title: str
    title_zh: str
    text: str
    text_zh: str


_TUTORIAL = "如何并发多个协程"

WAYS = {
    way.slug: way
    for way in (
        Way(
            "create-task", create_task,
            "create_task", f"{_TUTORIAL} · 创建任务",
            "Both tasks run from the moment they are created, not from the await on.",
            "任务在创建后就开始运行，而不是等到 await 时才开始。",
        ),
        Way(
            "gather", gather,
            "Several awaits at once: gather", f"{_TUTORIAL} · gather",
            "Three sleeps and two ORM calls in one view. The page takes as long as the slowest.",
            "一个视图里同时等待三个 sleep 和两次 ORM 查询，总耗时约等于最慢的那一个。",
        ),
        Way(
            "task-group", task_group,
            "TaskGroup", f"{_TUTORIAL} · 任务组",
            "Structured concurrency: no task outlives the block that started it.",
            "结构化并发：任务不会比创建它的代码块活得更久。",
        ),
        Way(
            "task-group-failing", task_group_failing,
            "TaskGroup, when one fails", "任务组 · 其中一个抛出异常",
            "The first failure cancels the other tasks; except* receives what went wrong.",
            "一个任务失败，其余任务会被取消；用 except* 捕获异常组。",
        ),
        Way(
            "as-completed", as_completed,
            "as_completed", f"{_TUTORIAL} · as_completed",
            "Results in the order in which they arrive, not in which they were asked for.",
            "按完成的先后取得结果，而不是按传入的顺序。",
        ),
        Way(
            "wait", wait,
            "wait", "等待 · wait",
            "Two sets, done and pending. The pending ones go on and can be awaited later.",
            "返回已完成和未完成两个集合；未完成的任务继续运行，之后还可以等待。",
        ),
        Way(
            "timeout", timeout,
            "timeout", "超时 · asyncio.timeout",
            "A deadline for a block. What it awaits at that moment is cancelled.",
            "给一段代码设定期限，到时正在等待的操作会被取消。",
        ),
        Way(
            "to-thread", to_thread,
            "to_thread", "在线程中运行协程 · to_thread",
            "A call that blocks runs in a thread; every other request goes on being served.",
            "阻塞调用放进线程里执行，事件循环继续为其他请求服务。",
        ),
    )
}  # fmt: skip
