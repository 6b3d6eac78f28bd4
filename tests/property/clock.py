"""Loops on a virtual clock: it stands still while anything is ready, then jumps to a timer."""

import asyncio
import selectors
from typing import Any


class _Jumping(selectors.DefaultSelector):
    """Never waits: tells the loop's clock to jump instead."""

    loop: Any

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found and (timeout is None or timeout > 0):
            if not self.loop._scheduled:
                raise RuntimeError("nothing is left that could wake the program")
            self.loop.now = max(self.loop.now, self.loop._scheduled[0].when())
        return found


class StockLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop on a virtual clock."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _Jumping()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        return self.now


def native_loop() -> asyncio.AbstractEventLoop:
    """Rondel's loop on a virtual clock."""
    import rondel

    loop = rondel.new_event_loop()
    loop._use_virtual_clock()
    return loop
