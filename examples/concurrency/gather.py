"""gather: several awaitables at once, results in the order in which they were given."""

import asyncio

from stopwatch import Stopwatch


async def drop(watch: Stopwatch) -> str:
    """Fail after 0.1 s."""
    async with watch.span("milk"):
        await asyncio.sleep(0.1)
        raise ValueError("the milk is sour")


async def main() -> None:
    """Gather with and without a failure."""
    watch = Stopwatch()

    # The quickest is given last, and still its result comes last.
    drinks = await asyncio.gather(
        watch.brew("coffee", 0.5), watch.brew("tea", 0.3), watch.brew("water", 0.1)
    )
    watch.say(f"got {drinks}")

    # With return_exceptions a failure is one of the results.
    mixed = await asyncio.gather(drop(watch), watch.brew("juice", 0.3), return_exceptions=True)
    watch.say(f"got {mixed}")

    # Without it the first failure is raised at once, but unlike in a TaskGroup the others go on.
    syrup = asyncio.create_task(watch.brew("syrup", 0.4))
    try:
        await asyncio.gather(drop(watch), syrup)
    except ValueError as error:
        watch.say(f"caught: {error}; syrup done: {syrup.done()}")
    watch.say(f"got {await syrup} all the same")
    watch.draw()


if __name__ == "__main__":
    asyncio.run(main())
