"""Callbacks: what a task calls when it is done, and what the loop calls at a given time."""

import asyncio
from functools import partial

from stopwatch import Stopwatch


def served(watch: Stopwatch, guest: str, task: asyncio.Task[str]) -> None:
    """Run on the loop, in one of its next turns after the task ended; must not block."""
    watch.say(f"{guest} is served {task.result()}")


async def main() -> None:
    """Add callbacks to tasks, then to the loop."""
    watch = Stopwatch()
    loop = asyncio.get_running_loop()

    tea = asyncio.create_task(watch.brew("tea", 0.3))
    # A callback gets the task and nothing else; partial() fixes what comes before it.
    tea.add_done_callback(partial(served, watch, "Ana"))
    coffee = asyncio.create_task(watch.brew("coffee", 0.5))
    coffee.add_done_callback(partial(served, watch, "Tom"))

    # The loop's own callbacks run between the steps of the tasks.
    loop.call_soon(watch.say, "call_soon: in the next turn")
    loop.call_later(0.2, watch.say, "call_later: 0.2 s on")
    never = loop.call_later(0.4, watch.say, "this line is never printed")
    never.cancel()

    await asyncio.gather(tea, coffee)
    watch.draw()


if __name__ == "__main__":
    asyncio.run(main())
