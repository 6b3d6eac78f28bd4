"""Something to do as soon as a module has been imported, without importing it.

A finder at the head of ``sys.meta_path`` that finds nothing by itself: for a watched name it has
the others look, and wraps the loader they found, so that the function is called when the module's
own code has run. An exception of the function does not keep the module from being imported: it is
reported as unraisable.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType

__all__ = ["forget", "watch"]

_lock = threading.Lock()
_watched: dict[str, Callable[[ModuleType], None]] = {}


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module is as if nobody had watched: its own loader is what `inspect` and others ask.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        with _lock:
            then = _watched.pop(module.__name__, None)
        if then is not None:
            try:
                then(module)
            except Exception as error:
                sys.unraisablehook(
                    # The hook's argument has no public constructor.
                    _Unraisable(type(error), error, error.__traceback__, None, then)  # type: ignore[arg-type]
                )


class _Unraisable:
    def __init__(self, *values: object) -> None:
        self.exc_type, self.exc_value, self.exc_traceback, self.err_msg, self.object = values


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _watched:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


_finder = _Finder()


def watch(name: str, then: Callable[[ModuleType], None]) -> None:
    """Call ``then(module)`` once, when the module of that name has been imported."""
    with _lock:
        _watched[name] = then
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)


def forget(name: str) -> None:
    """No longer wait for it."""
    with _lock:
        _watched.pop(name, None)
        if not _watched and _finder in sys.meta_path:
            sys.meta_path.remove(_finder)
