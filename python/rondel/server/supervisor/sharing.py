"""Memory that a process and its forks share.

A page is shared until one of them writes to it. ``settle`` is called before the first fork, when
what the forks are to have is there:

* what is garbage is freed, and the rest is put out of reach of the forks' collections, which would
  write to each object (``gc.freeze``);
* before 3.12 the cache of looked-up attributes is emptied: what a fork looks up would take the
  place of what was looked up before, whose name is counted down, on whatever page that lies. From
  3.12 on such names are not counted;
* the heap's holes are filled, so that what a fork allocates lies together, on pages of its own
  (``_rondel._fill_holes``).
"""

import gc
import sys

from rondel import _rondel

__all__ = ["settle"]


def settle(*, freeze: bool = True) -> None:
    """Have what is there stay shared for long. No other thread may run.

    Without ``freeze`` the forks' collections look at it, and take pages of their own by that.
    """
    gc.collect()
    if sys.version_info < (3, 12):
        sys._clear_type_cache()
    _rondel._fill_holes()
    if freeze:
        gc.freeze()
