"""Servers from PyPI that would go by ``install()``: they run on Rondel's loop while it is in force.

* uvicorn names its loop's class. ``--loop auto``, its default, is uvloop's where that is installed
  and else ``asyncio.SelectorEventLoop``, a name that ``install()`` leaves; here it is Rondel's.
  Whoever names a loop (``--loop asyncio``, ``--loop uvloop``) gets that one.
* uvicorn with ``--workers`` or ``--reload``, and Hypercorn always, serve from fresh interpreters
  (``spawn``), in which nothing is installed. What they start there installs Rondel first.

Names of their modules are replaced as soon as those are imported, and put back by ``uninstall()``;
what somebody else replaced in between stays.

Threads: one lock guards it all; the replaced functions run where the server calls them.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from typing import TYPE_CHECKING, Any

from rondel.bridge import _late
from rondel.loop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["install", "uninstall"]

_lock = threading.Lock()
# Guarded by `_lock`: whether it is wanted, and the replaced names of imported modules.
_wanted = False
_patches: list[tuple[ModuleType, str, Any, Any]] = []


def install() -> None:
    """Replace the names, now or when their modules are imported. Again: nothing."""
    global _wanted
    with _lock:
        if _wanted:
            return
        _wanted = True
    for name, replacements in _REPLACED.items():
        module = sys.modules.get(name)
        if module is not None and not vars(module).keys().isdisjoint(replacements):
            _patch(module)
        else:
            _late.watch(name, _patch)


def uninstall() -> None:
    """Put the servers' own functions back."""
    global _wanted
    with _lock:
        _wanted = False
        for module, name, original, ours in _patches:
            if vars(module).get(name) is ours:
                setattr(module, name, original)
        _patches.clear()
    for name in _REPLACED:
        _late.forget(name)


def _patch(module: ModuleType) -> None:
    with _lock:
        if not _wanted:
            return
        for name, replacement in _REPLACED[module.__name__].items():
            original = vars(module).get(name)
            if original is not None:  # not in each release
                ours = replacement(module.__name__, name, original)
                _patches.append((module, name, original, ours))
                setattr(module, name, ours)


# ------------------------------------------------------------------ which loop


def _auto_factory(module: str, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """uvicorn 0.36 on: what gives the factory of loops."""

    @functools.wraps(original)
    def auto_loop_factory(use_subprocess: bool = False) -> Any:
        # Whoever has kept this function after `uninstall()` gets uvicorn's answer.
        return EventLoop if _wanted else original(use_subprocess=use_subprocess)

    return auto_loop_factory


def _auto_setup(module: str, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """Before that: what sets a policy, as which Rondel's is in force already."""

    @functools.wraps(original)
    def auto_loop_setup(use_subprocess: bool = False) -> Any:
        return None if _wanted else original(use_subprocess)

    return auto_loop_setup


# ------------------------------------------------------------------ other processes


class _InWorker:
    """A server's function that runs in a process of its own, where Rondel is installed first.

    Pickled by the function's name, as the function itself would be; unpickling installs.
    """

    def __init__(self, module: str, name: str, original: Callable[..., Any]) -> None:
        self._where = module, name
        functools.update_wrapper(self, original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]

    def __reduce__(self) -> Any:
        from rondel import bridge

        return _arrive, (*self._where, _wanted, bridge.installed())


def _arrive(module: str, name: str, wanted: bool, bridge: bool) -> Any:
    """In the worker: the function, and before it Rondel."""
    if wanted:
        from rondel._install import install

        install(bridge=bridge)
    return getattr(importlib.import_module(module), name)


_REPLACED: dict[str, dict[str, Callable[[str, str, Callable[..., Any]], Any]]] = {
    "uvicorn.loops.auto": {"auto_loop_factory": _auto_factory, "auto_loop_setup": _auto_setup},
    "uvicorn._subprocess": {"subprocess_started": _InWorker},
    "hypercorn.asyncio.run": {"asyncio_worker": _InWorker},
}
