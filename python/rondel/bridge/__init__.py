"""asgiref's ``sync_to_async`` and ``async_to_sync`` on native threads, with asgiref's semantics.

``install()`` replaces two methods, ``SyncToAsync.__call__`` and
``ThreadSensitiveContext.__aexit__``, as soon as ``asgiref.sync`` is imported; ``uninstall()`` puts
asgiref's own back. Everything else stays asgiref's: the classes, their subclasses, their
attributes. Whoever patches ``SyncToAsync.__call__`` (monitoring tools do) patches or wraps ours.

On a loop that is not Rondel's the replaced methods do what asgiref's do.

* ``calls``: the calls themselves. ``inline``: functions that need no thread.
* ``threads``: which pool the threads come from.
"""

import sys
import threading
from types import ModuleType
from typing import Any

from rondel.bridge import _late
from rondel.bridge.inline import inline, runs_inline
from rondel.bridge.threads import bridge_pool, set_bridge_pool

__all__ = [
    "bridge_pool",
    "calls_are_ours",
    "inline",
    "install",
    "installed",
    "runs_inline",
    "set_bridge_pool",
    "uninstall",
]

_lock = threading.Lock()
# Guarded by `_lock`: whether it is wanted, and the patches while asgiref has them.
_wanted = False
_patches: list[tuple[Any, str, object, object]] = []


def install() -> None:
    """Replace asgiref's calls, now or when it is imported. Calling it again changes nothing."""
    global _wanted
    with _lock:
        if _wanted:
            return
        _wanted = True
    module = sys.modules.get("asgiref.sync")
    if module is not None and hasattr(module, "sync_to_async"):
        _patch(module)
    else:
        _late.watch("asgiref.sync", _patch)


def uninstall() -> None:
    """Put asgiref's own calls back. What somebody else replaced in between stays."""
    global _wanted
    with _lock:
        _wanted = False
        for owner, name, original, ours in _patches:
            if vars(owner).get(name) is ours:
                setattr(owner, name, original)
        _patches.clear()
    _late.forget("asgiref.sync")


def installed() -> bool:
    """Whether asgiref, once imported, has the native calls."""
    with _lock:
        return _wanted


def calls_are_ours() -> bool:
    """Whether ``SyncToAsync.__call__`` is the native one: put there, and replaced by nobody."""
    # A slice: `uninstall` may be emptying the list in another thread. Its call comes first.
    put = _patches[:1]
    return bool(put) and put[0][0].__call__ is put[0][3]


def _patch(module: ModuleType) -> None:
    from rondel.bridge import calls

    with _lock:
        if not _wanted or _patches:
            return
        for owner, name, ours in calls.replacements(module):
            _patches.append((owner, name, vars(owner)[name], ours))
            setattr(owner, name, ours)
