"""as_completed: results as they arrive, the quickest first."""

import asyncio

from stopwatch import Stopwatch


async def main() -> None:
    """Ask for the slowest first and receive the quickest first; then run out of patience."""
    watch = Stopwatch()

    # Tasks rather than bare coroutines: as_completed() would start those in any order.
    orders = [
        asyncio.create_task(watch.brew(name, seconds))
        for name, seconds in [("coffee", 0.5), ("tea", 0.3), ("water", 0.1)]
    ]
    for nearest in asyncio.as_completed(orders):
        watch.say(f"served {await nearest}")

    # When the timeout is over the iterator raises; what is under way is not cancelled.
    slow = asyncio.create_task(watch.brew("stew", 0.6))
    quick = asyncio.create_task(watch.brew("salad", 0.1))
    try:
        for nearest in asyncio.as_completed([slow, quick], timeout=0.3):
            watch.say(f"served {await nearest}")
    except TimeoutError:
        watch.say(f"out of patience; stew cancelled: {slow.cancelled()}")
    watch.say(f"served {await slow} in the end")
    watch.draw()


if __name__ == "__main__":
    asyncio.run(main())
