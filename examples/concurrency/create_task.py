"""create_task: work starts in the background now, its result is collected later."""

import asyncio

from stopwatch import Stopwatch


async def main() -> None:
    """Start two tasks, then wait for both."""
    watch = Stopwatch()

    # A task is scheduled at once and begins as soon as main() gives the loop a turn.
    tea = asyncio.create_task(watch.brew("tea", 0.3), name="tea")
    # Keep the reference: the loop itself holds tasks only weakly.
    coffee = asyncio.create_task(watch.brew("coffee", 0.5), name="coffee")
    watch.say("both are scheduled, neither has begun")

    # While main() waits for the tea, the coffee brews as well.
    watch.say(f"got {await tea}")
    watch.say(f"got {await coffee}")
    watch.draw()


if __name__ == "__main__":
    asyncio.run(main())
