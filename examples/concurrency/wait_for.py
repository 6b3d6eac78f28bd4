"""wait_for: one awaitable with a deadline; when that is over, the work is cancelled."""

import asyncio

from stopwatch import Stopwatch


async def main() -> None:
    """Once in time, once too late, once too late but shielded."""
    watch = Stopwatch()

    watch.say(f"got {await asyncio.wait_for(watch.brew('tea', 0.2), timeout=0.5)}")

    try:
        await asyncio.wait_for(watch.brew("stew", 1.0), timeout=0.3)
    except TimeoutError:
        watch.say("no stew: it was cancelled and cannot be taken up again")

    # shield() takes the cancellation on itself, so the work behind it goes on.
    bread = asyncio.create_task(watch.brew("bread", 0.5))
    try:
        await asyncio.wait_for(asyncio.shield(bread), timeout=0.3)
    except TimeoutError:
        watch.say("the bread needs longer, and gets it")
    watch.say(f"got {await bread}")
    watch.draw()


if __name__ == "__main__":
    asyncio.run(main())
