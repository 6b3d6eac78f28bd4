"""wait: what is done and what is pending, without raising and without cancelling."""

import asyncio

from stopwatch import Stopwatch


def names(tasks: set[asyncio.Task[str]]) -> str:
    """Names of the tasks, sorted: a set has no order to rely on."""
    return ", ".join(sorted(task.get_name() for task in tasks)) or "none"


async def main() -> None:
    """Wait for the first, for a while, for all."""
    watch = Stopwatch()
    drinks = [
        asyncio.create_task(watch.brew(name, seconds), name=name)
        for name, seconds in [("water", 0.1), ("tea", 0.3), ("coffee", 0.6)]
    ]

    done, pending = await asyncio.wait(drinks, return_when=asyncio.FIRST_COMPLETED)
    watch.say(f"first: done {names(done)}; pending {names(pending)}")

    # A timeout is no error here: it only ends the wait.
    done, pending = await asyncio.wait(pending, timeout=0.3)
    watch.say(f"then: done {names(done)}; pending {names(pending)}")

    done, pending = await asyncio.wait(pending)
    watch.say(f"last: done {names(done)}; pending {names(pending)}")
    watch.draw()


if __name__ == "__main__":
    asyncio.run(main())
