"""timeout, timeout_at: one deadline for a whole block, however many awaits it has."""

import asyncio

from stopwatch import Stopwatch


async def two_awaits(watch: Stopwatch) -> None:
    """0.2 s and 0.4 s do not fit into half a second, so the second is cancelled."""
    try:
        async with asyncio.timeout(0.5):
            await watch.brew("tea", 0.2)
            await watch.brew("coffee", 0.4)
    except TimeoutError:
        # Raised behind the block: inside, the coroutine sees a CancelledError.
        watch.say("the time for tea and coffee is over")


async def more_time(watch: Stopwatch) -> None:
    """A deadline can be moved while the block runs, and asked whether it struck."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(0.2) as deadline:
        deadline.reschedule(loop.time() + 0.6)
        await watch.brew("bread", 0.4)
    watch.say(f"bread in time; expired: {deadline.expired()}")


async def at_a_moment(watch: Stopwatch) -> None:
    """timeout_at takes a moment on the loop's own clock; loop.time() is not time.time()."""
    moment = asyncio.get_running_loop().time() + 0.2
    try:
        async with asyncio.timeout_at(moment):
            await watch.brew("stew", 1.0)
    except TimeoutError:
        watch.say("the moment has come, without stew")


async def main() -> None:
    """Show all three."""
    watch = Stopwatch()
    await two_awaits(watch)
    await more_time(watch)
    await at_a_moment(watch)
    watch.draw()


if __name__ == "__main__":
    asyncio.run(main())
