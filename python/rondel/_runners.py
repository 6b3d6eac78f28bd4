"""``rondel.run`` and ``rondel.Runner``: asyncio's, with native loops by default.

Invariant: apart from the loop's class nothing differs from ``asyncio.run``/``asyncio.Runner`` of
the running Python: SIGINT cancels the main task, the default loop is also the thread's current
loop for as long as the runner lives, a policy of the program's own decides about the loop, and
errors read the same.
"""

import asyncio
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rondel._policy import new_run_loop

__all__ = ["Runner", "run"]

T = TypeVar("T")


class Runner(asyncio.Runner):  # type: ignore[misc]  # final for checkers only; see the class note
    """``asyncio.Runner`` whose default loop is Rondel's, unless the program has set an event loop
    policy that makes loops of its own: then that policy's, as on asyncio.

    A subclass, because code that receives a runner may ask ``isinstance(r, asyncio.Runner)``.
    """

    def __init__(
        self,
        *,
        debug: bool | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        if loop_factory is None:
            loop_factory = self._new_current_loop
        super().__init__(debug=debug, loop_factory=loop_factory)

    def _new_current_loop(self) -> asyncio.AbstractEventLoop:
        """What asyncio's runner does without a factory: the new loop becomes the current one."""
        loop = new_run_loop()
        if not self._set_event_loop:
            events.set_event_loop(loop)
            # Tells asyncio's close() to unset it again.
            self._set_event_loop = True
        return loop

    _set_event_loop: bool


def run(
    main: Coroutine[Any, Any, T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run a coroutine on a new native loop and close the loop: ``asyncio.run`` on Rondel.

    The loop comes from ``loop_factory``; without one from the event loop policy, if the program
    has set one that makes loops of its own; else it is native.

    ``loop_factory`` is there on every Python (asyncio has it from 3.12 on), so that
    ``import rondel as asyncio`` needs no change in the call.
    """
    if events._get_running_loop() is not None:
        # Fail fast with a short traceback, in asyncio's words.
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main)
