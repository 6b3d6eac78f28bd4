"""Coroutines do nothing until they are awaited, and awaiting in a row overlaps nothing.

The starting point that the other programs improve on.
"""

import asyncio

from stopwatch import Stopwatch


async def main() -> None:
    """Await two coroutines, one after the other."""
    watch = Stopwatch()

    # Calling an async function only makes a coroutine object: no line of it has run yet.
    tea = watch.brew("tea", 0.3)
    watch.say(f"calling gave a {type(tea).__name__}, and nothing has started")

    await tea
    # This one is made, and so started, only when the tea is ready.
    await watch.brew("coffee", 0.4)
    watch.draw()


if __name__ == "__main__":
    asyncio.run(main())
