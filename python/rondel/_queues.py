"""asyncio's queues with native hand-offs (Python docs: *Queues*).

Each class derives from a native base and from asyncio's class. A subclass that overrides ``_init``,
``_get``, ``_put`` or anything else is served by asyncio's own methods over native futures.

``rondel.queues`` offers them beside asyncio's other names.
"""

from __future__ import annotations

import asyncio
from typing import Any

from rondel import _rondel
from rondel._locks import Copied, Event

__all__ = ["LifoQueue", "PriorityQueue", "Queue"]


class Queue(Copied, _rondel.QueueBase, asyncio.Queue[Any]):
    """A queue of items between tasks, first in, first out (``asyncio.Queue``).

    ``maxsize`` (an int, 0 by default): ``put()`` waits while there are so many items; zero or less
    for no limit.
    """

    __module__ = "rondel.queues"

    _fields = (
        "_maxsize",
        "_queue",
        "_getters",
        "_putters",
        "_unfinished_tasks",
        "_finished",
        "_is_shutdown",
        "_loop",
    )


class PriorityQueue(asyncio.PriorityQueue[Any], Queue):
    """A queue that gives its lowest item first (``asyncio.PriorityQueue``)."""

    __module__ = "rondel.queues"


class LifoQueue(asyncio.LifoQueue[Any], Queue):
    """A queue that gives its newest item first (``asyncio.LifoQueue``)."""

    __module__ = "rondel.queues"


_rondel._adopt_queues(Queue, LifoQueue, PriorityQueue, Event)
