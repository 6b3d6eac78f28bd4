"""What ``rondel run --hints`` says of the classic mistakes: the line, and what to write instead.

=====================  ==============================================================  ============
mistake                how it is noticed                                               module
=====================  ==============================================================  ============
never awaited          the interpreter's own warning, with the line of ``cr_origin``   ``lost``
exception not taken    asyncio's report, when the task is collected; a look at exit    ``lost``
task dropped           asyncio's report, and what ``asyncio.run`` has to cancel         ``lost``
gather failed          a done callback on what ``gather`` returns                       ``lost``
``asyncio.run`` again  a note on the RuntimeError                                       ``nested``
loop blocked           the watchdog (``rondel.inspect.on_stall``)                       ``blocking``
=====================  ==============================================================  ============

Invariants:

* off, only this module is imported and no name of asyncio's is touched: a program's stderr is what
  ``python`` would write. On, what python and asyncio write stays as it is, and hints come besides,
  each place once (``report``);
* what happened is told, not what might: a hint is of something that was lost or stood still in
  this run;
* nothing here raises into a program: what fails while a hint is made is dropped with the hint.

The words are in ``texts``, in English and Chinese; source lines and their syntax in ``source``.
"""

import os

__all__ = ["enable", "enabled", "from_environment"]

enabled = False


def enable() -> None:
    """Give hints in this process from now on, on stderr. There is no way back."""
    global enabled
    if enabled:
        return
    enabled = True
    from rondel import _watch
    from rondel.hints import blocking, lost, nested

    _watch.remember_lines()
    lost.enable()
    nested.enable()
    blocking.enable()


def from_environment() -> None:
    """What ``RONDEL_HINTS`` asks for: anything but nothing and 0 turns hints on."""
    if os.environ.get("RONDEL_HINTS", "0") not in ("", "0"):
        enable()
