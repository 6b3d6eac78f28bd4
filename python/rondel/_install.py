"""``install()``: asyncio's public names become the native ones in this process, and back.

What changes: the event loop policy; and each public name that is native, in ``asyncio`` and in each
of its imported submodules where the name is bound to the very object the package exports. Aliases
under other names (``tasks._c_current_task``) stay.

What stays asyncio's own, and why:

* ``Future`` and ``Task``. The native classes derive from them, so ``isinstance`` and ``issubclass``
  accept native and stock objects alike only as long as the name means the base class: after a
  replacement ``isinstance(stock_future, asyncio.Future)`` would be false, and so would every
  subclass defined before ``install()``. Native tasks come from ``loop.create_task``, native
  futures from ``loop.create_future``; ``asyncio.Future()`` and ``asyncio.Task(coro)`` make stock
  objects that run on the native loop. (Rejected: a proxy class with ``__instancecheck__``; its
  metaclass breaks ``class T(asyncio.Task, metaclass=...)``, and ``type(x) is asyncio.Future``
  would hold for nothing.)
* ``StreamReader``, ``StreamWriter`` and ``StreamReaderProtocol``, for the same reason: asyncio
  asserts that a writer's reader is a ``StreamReader``, which stock ones still have to be. What
  ``open_connection`` and ``start_server`` give is native.
* ``Handle``, ``TimerHandle`` and ``Timeout``: stock loops in other threads build theirs through
  these names.

Servers that name their loop's class, or start processes, have hooks of their own (``_servers``).

Threads: ``install`` and ``uninstall`` hold one lock and are idempotent. The replaced names serve
any thread: on a loop that is not Rondel's the native functions do what asyncio's do.
"""

import asyncio
import sys
import threading
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from rondel import _servers
from rondel import bridge as _bridge
from rondel._policy import EventLoopPolicy, get_policy, set_policy
from rondel.loop import EventLoop
from rondel.tasks import NATIVE

__all__ = ["install", "installed", "uninstall"]

KEPT = frozenset(
    {
        "Future",
        "Handle",
        "StreamReader",
        "StreamReaderProtocol",
        "StreamWriter",
        "Task",
        "Timeout",
        "TimerHandle",
    }
)


@dataclass(slots=True)
class _Patch:
    """One name bound to a native object, and what it was bound to."""

    module: ModuleType
    name: str
    original: object
    native: object


@dataclass(slots=True)
class _Installation:
    """What ``uninstall`` undoes."""

    policy: EventLoopPolicy
    previous_policy: Any
    patches: list[_Patch] = field(default_factory=list)


_lock = threading.Lock()
# Guarded by `_lock`; None while asyncio is untouched.
_installation: _Installation | None = None


def install(*, bridge: bool = True) -> None:
    """Make Rondel this process's asyncio. Calling it again changes nothing.

    With ``bridge``, asgiref's ``sync_to_async`` runs on native threads too (``rondel.bridge``), now
    or as soon as asgiref is imported.
    """
    global _installation
    with _lock:
        if _installation is None:
            installation = _Installation(EventLoopPolicy(), get_policy(), _plan())
            for patch in installation.patches:
                setattr(patch.module, patch.name, patch.native)
            set_policy(installation.policy)
            _installation = installation
    _servers.install()
    if bridge:
        _bridge.install()


def uninstall() -> None:
    """Undo ``install()``: every name and the policy are again the objects they were.

    A name or a policy that somebody else replaced in between is theirs and stays.
    """
    global _installation
    with _lock:
        if _installation is None:
            return
        for patch in _installation.patches:
            if vars(patch.module).get(patch.name) is patch.native:
                setattr(patch.module, patch.name, patch.original)
        if get_policy() is _installation.policy:
            set_policy(_installation.previous_policy)
        _installation = None
    _servers.uninstall()
    _bridge.uninstall()


def installed() -> bool:
    """Whether ``install()`` is in force."""
    with _lock:
        return _installation is not None


def _plan() -> list[_Patch]:
    """Every binding of a native name in asyncio's package and imported submodules."""
    natives = {name: native for name, native in NATIVE.items() if name not in KEPT}
    # 3.13 on: the alias of "the most efficient loop class", which asyncio.run's callers may name.
    natives["EventLoop"] = EventLoop
    modules = [
        module
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType) and (name == "asyncio" or name.startswith("asyncio."))
    ]
    patches = []
    for name, native in natives.items():
        original = vars(asyncio).get(name)
        if original is None or original is native:
            continue
        patches += [
            _Patch(module, name, original, native)
            for module in modules
            if vars(module).get(name) is original
        ]
    return patches
