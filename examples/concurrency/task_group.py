"""TaskGroup: a block that ends when all of its tasks have ended; one failure cancels the rest."""

import asyncio

from stopwatch import Stopwatch


async def burn(watch: Stopwatch) -> None:
    """Fail after 0.2 s."""
    async with watch.span("toast"):
        await asyncio.sleep(0.2)
        raise RuntimeError("the toast is burnt")


async def all_well(watch: Stopwatch) -> None:
    """Two tasks that end well."""
    async with asyncio.TaskGroup() as group:
        tea = group.create_task(watch.brew("tea", 0.3))
        coffee = group.create_task(watch.brew("coffee", 0.5))
    # Behind the block every task is done, so result() cannot raise InvalidStateError.
    watch.say(f"got {tea.result()} and {coffee.result()}")


async def one_fails(watch: Stopwatch) -> None:
    """A task fails while another still works: that other one is cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(burn(watch))
            group.create_task(watch.brew("soup", 1.0))
    except* RuntimeError as group_error:
        # Several tasks can fail at once, so what is raised is always a group.
        for error in group_error.exceptions:
            watch.say(f"caught: {error}; the soup was cancelled")


async def main() -> None:
    """Show both."""
    watch = Stopwatch()
    await all_well(watch)
    await one_fails(watch)
    watch.draw()


if __name__ == "__main__":
    asyncio.run(main())
