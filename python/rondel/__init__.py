"""asyncio end to end in Rust, and an ASGI server in the same loop.

Three ways in, one behaviour:

* ``rondel.run(main())``, ``asyncio.Runner(loop_factory=rondel.new_event_loop)`` or the policy: the
  loop and the tasks it creates are native, asyncio's own names stay as they are;
* ``rondel.install()``, and ``rondel run``/``rondel serve``/``python -m rondel``, which call it:
  asyncio's public names become the native ones in this process;
* ``import rondel as asyncio``: this package offers every public name of the running Python's
  asyncio, native where it is native, and asyncio's submodules as attributes.

Invariant: each public name is exported here once; every other module of the package is private, but
for ``rondel.server`` and ``rondel.inspect``.
"""

import asyncio as _asyncio
from asyncio import *  # noqa: F403  (the static types of the native names are asyncio's)
from importlib import import_module as _import_module
from typing import TYPE_CHECKING

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
from rondel._submodules import adopt as _adopt
from rondel._timed import Timed as Timed
from rondel._timed import Timing as Timing
from rondel._timed import timed as timed
from rondel._watch import watch_from_environment as _watch_from_environment
from rondel._watch import watch_tasks as watch_tasks
from rondel.hints import from_environment as _hints_from_environment

if TYPE_CHECKING:  # at runtime by `__getattr__`: most programs start no processes
    from rondel._process import WorkerDied as WorkerDied
    from rondel._process import to_process as to_process
    from rondel._worker import RemoteError as RemoteError

if TYPE_CHECKING:  # at runtime by `_adopt`, native names first
    from asyncio import base_events as base_events
    from asyncio import base_futures as base_futures
    from asyncio import base_subprocess as base_subprocess
    from asyncio import base_tasks as base_tasks
    from asyncio import constants as constants
    from asyncio import coroutines as coroutines
    from asyncio import events as events
    from asyncio import exceptions as exceptions
    from asyncio import format_helpers as format_helpers
    from asyncio import futures as futures
    from asyncio import locks as locks
    from asyncio import log as log
    from asyncio import mixins as mixins
    from asyncio import protocols as protocols
    from asyncio import queues as queues
    from asyncio import runners as runners
    from asyncio import selector_events as selector_events
    from asyncio import sslproto as sslproto
    from asyncio import staggered as staggered
    from asyncio import streams as streams
    from asyncio import subprocess as subprocess
    from asyncio import taskgroups as taskgroups
    from asyncio import threads as threads
    from asyncio import timeouts as timeouts
    from asyncio import trsock as trsock
    from asyncio import unix_events as unix_events

__version__: str = _native.__version__

_OWN = [
    "EventLoop",
    "EventLoopPolicy",
    "RemoteError",
    "Runner",
    "Timed",
    "Timing",
    "WorkerDied",
    "background",
    "install",
    "installed",
    "new_event_loop",
    "run",
    "timed",
    "to_process",
    "uninstall",
    "watch_tasks",
]

__all__ = [  # noqa: PLE0604
    *_asyncio.__all__,
    *(name for name in _OWN if name not in _asyncio.__all__),
]

_submodules = _adopt(
    _NATIVE | {name: globals()[name] for name in _OWN if hasattr(_asyncio, name)},
)

_watch_from_environment()
_hints_from_environment()

# Imported when first asked for.
_LAZY = {
    "RemoteError": "rondel._worker",
    "WorkerDied": "rondel._process",
    "to_process": "rondel._process",
}


def __getattr__(name: str) -> object:
    """asyncio's submodules (``rondel.subprocess``) and what asyncio itself serves lazily."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _LAZY:
        globals()[name] = found = getattr(_import_module(_LAZY[name]), name)
        return found
    if name == "inspect":
        return _import_module("rondel.inspect")
    if name in _submodules:
        return _submodules[name]
    try:
        return getattr(_asyncio, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_submodules, *dir(_asyncio)})
