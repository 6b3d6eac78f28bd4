"""Task: its name, its state, its result or exception, and how it is cancelled."""

import asyncio

from stopwatch import Stopwatch


async def fail() -> None:
    """Fail at once."""
    raise LookupError("no such dish")


async def tidy(watch: Stopwatch) -> None:
    """Work for long, but clean up when cancelled."""
    try:
        async with watch.span("tidying"):
            await asyncio.sleep(5)
    except asyncio.CancelledError as cancelled:
        watch.say(f"tidying is asked to stop: {cancelled}")
        raise  # a task that swallows this does not count as cancelled


async def main() -> None:
    """Look at one task of each ending."""
    watch = Stopwatch()
    print(f"main() runs in {asyncio.current_task().get_name()}")  # type: ignore[union-attr]

    tea = asyncio.create_task(watch.brew("tea", 0.2))
    tea.set_name("tea-maker")
    print(f"{tea.get_name()}: done {tea.done()}")
    await tea
    print(f"{tea.get_name()}: done {tea.done()}, result {tea.result()!r}")
    print(f"{tea.get_name()}: exception {tea.exception()!r}")

    failing = asyncio.create_task(fail(), name="failing")
    await asyncio.wait([failing])
    # Reading the exception also tells the loop that somebody has seen it.
    print(f"failing: exception {failing.exception()!r}")

    tidying = asyncio.create_task(tidy(watch), name="tidying")
    await asyncio.sleep(0.2)
    # cancel() only asks; the task ends in one of the loop's next turns.
    print(f"tidying: cancel() {tidying.cancel('closing time')}, done {tidying.done()}")
    try:
        await tidying
    except asyncio.CancelledError:
        print(f"tidying: cancelled {tidying.cancelled()}")
    print(f"tidying: cancel() again {tidying.cancel()}")
    watch.draw()


if __name__ == "__main__":
    asyncio.run(main())
