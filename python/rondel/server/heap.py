"""What a server's process keeps for as long as it serves, put out of the garbage collector's reach.

A full collection looks at each object that there is and stops every thread of Python while it does.
Modules, classes, models and settings are most of them, and none of them is ever garbage: what is
there when a server starts to answer is set aside (``gc.freeze``), and full collections look at what
requests have left. As they are cheap then, they come more often: what requests leave in cycles, and
with it the process's memory, does not pile up for as long.

What it costs: an object that was there at the start, is in a cycle, and is dropped while the server
runs, is not freed before the server stops. ``gc.get_objects()`` does not list what is set aside.

Any thread with the GIL; the whole interpreter is concerned, so this is for a process that does
nothing but serve.
"""

import gc

__all__ = ["SetAside"]

# Collections of the middle generation before a full one: as Python has it, and while serving. A
# Django site's garbage of 10 is some 6 MiB; a full collection for every second takes the collector
# a fifth more time, which is 0.3 % of all.
_USUAL, _SERVING = 10, 2


class SetAside:
    """What was there when this was made, until ``take_back``; garbage is collected first."""

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()
        self._thresholds = first, second, third = gc.get_threshold()
        # A program that has chosen its own knows why.
        if third == _USUAL:
            gc.set_threshold(first, second, _SERVING)
        self._ours = gc.get_threshold()

    def take_back(self) -> None:
        """Collections look at everything again, also at what others have set aside.

        What is garbage by then is found when the process ends at the latest, so that finalizers run
        as they would have.
        """
        gc.unfreeze()
        if gc.get_threshold() == self._ours:
            gc.set_threshold(*self._thresholds)
