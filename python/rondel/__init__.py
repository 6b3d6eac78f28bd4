"""asyncio end to end in Rust, and an ASGI server in the same loop.

Three ways in, one behaviour:

* ``rondel.run(main())``, ``asyncio.Runner(loop_factory=rondel.new_event_loop)`` or the policy: the
  loop and the tasks it creates are native, asyncio's own names stay as they are;
* ``rondel.install()``, and ``rondel run``/``rondel serve``/``python -m rondel``, which call it:
  asyncio's public names become the native ones in this process;
* ``import rondel as asyncio``: this package offers every public name of the running Python's
  asyncio, native where it is native, and asyncio's submodules as attributes.

Invariant: each public name is exported here once; every other module of the package is private, but
for ``rondel.server``.
"""

import asyncio as _asyncio
from asyncio import *  # noqa: F403  (the static types of the native names are asyncio's)

from rondel._load import native as _native
from rondel.loop import EventLoop as EventLoop
from rondel.tasks import NATIVE as _NATIVE

# Native names over asyncio's: same signatures, so asyncio's types (above) stay true.
globals().update(_NATIVE)

from rondel._background import background as background
from rondel._install import install as install
from rondel._install import installed as installed
from rondel._install import uninstall as uninstall
from rondel._policy import EventLoopPolicy as EventLoopPolicy
from rondel._policy import new_event_loop as new_event_loop
from rondel._runners import Runner as Runner
from rondel._runners import run as run
from rondel._timed import Timed as Timed
from rondel._timed import Timing as Timing
from rondel._timed import timed as timed
from rondel._watch import watch_from_environment as _watch_from_environment
from rondel._watch import watch_tasks as watch_tasks

__version__: str = _native.__version__

__all__ = [  # noqa: PLE0604
    *_asyncio.__all__,
    "EventLoop",
    "EventLoopPolicy",
    "Runner",
    "Timed",
    "Timing",
    "background",
    "install",
    "installed",
    "new_event_loop",
    "run",
    "timed",
    "uninstall",
    "watch_tasks",
]

_watch_from_environment()


def __getattr__(name: str) -> object:
    """asyncio's submodules (``rondel.subprocess``) and what asyncio itself serves lazily."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(_asyncio, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
