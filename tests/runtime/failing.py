"""Coroutines that fail, and where a line is."""

import asyncio


class Boom(Exception):
    """What fails in these tests."""


async def boom(turns: int = 0) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    raise Boom


def line_of(path: str, marker: str) -> str:
    """`path:line` of the line that ends with the comment `marker`."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"# {marker}")]
    return f"{path}:{number}"
