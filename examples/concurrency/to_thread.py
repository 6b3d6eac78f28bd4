"""to_thread: a call that blocks runs in a thread, while the loop goes on with everything else."""

import asyncio
import threading
import time

from stopwatch import Stopwatch


def grind(watch: Stopwatch) -> str:
    """Block for 0.4 s, as a library without an asynchronous version does."""
    time.sleep(0.4)
    on_main = threading.current_thread() is threading.main_thread()
    watch.say(f"ground; on the loop's thread: {on_main}")
    return "coffee powder"


async def main() -> None:
    """Grind in a thread while water boils on the loop."""
    watch = Stopwatch()

    async def grinding() -> str:
        async with watch.span("grinding"):
            return await asyncio.to_thread(grind, watch)

    # Had grind() been called directly, the water would not have started until it returned.
    powder, water = await asyncio.gather(grinding(), watch.brew("water", 0.3))
    watch.say(f"got {powder} and {water}")
    watch.draw()


if __name__ == "__main__":
    asyncio.run(main())
