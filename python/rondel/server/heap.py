"""What a server's process keeps for as long as it serves, put out of the garbage collector's reach.

A full collection looks at each object that there is and stops every thread of Python while it does.
Modules, classes, models and settings are most of them, and none of them is ever garbage: what is
there when a server starts to answer is set aside (``gc.freeze``), and full collections look at what
requests have left.

What it costs: an object that was there at the start, is in a cycle, and is dropped while the server
runs, is not freed before the server stops. ``gc.get_objects()`` does not list what is set aside.

Any thread with the GIL; the whole interpreter is concerned, so this is for a process that does
nothing but serve.
"""

import gc

__all__ = ["set_aside", "take_back"]


def set_aside() -> None:
    """Collect what is garbage, and have collections leave alone what is there."""
    gc.collect()
    gc.freeze()


def take_back() -> None:
    """Collections look at everything again, also at what others have set aside.

    What is garbage by then is found when the process ends at the latest, so that finalizers run as
    they would have.
    """
    gc.unfreeze()
