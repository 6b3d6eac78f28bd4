"""What calls are named in reports: as their authors know them.

Nothing of Django is imported, so that these names serve any application; Django's objects are known
by what they have.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

__all__ = ["MATCH", "VIEW", "call_name", "view_name", "view_of"]

# The scope's key for the view's function, once it is known.
VIEW = "rondel.view"
# And the match that led there.
MATCH = "rondel.match"


def view_of(scope: Mapping[str, Any]) -> str:
    """The view that the request of this scope got; ``(no view)`` if it came to none."""
    # Starlette and what is built on it call it the endpoint.
    view = scope.get(VIEW) or scope.get("endpoint")
    return "(no view)" if view is None else view_name(view)


def view_name(view: Callable[..., Any]) -> str:
    """A view with its module: ``books.views.index``; of a class-based one, the class."""
    named: Any = getattr(view, "view_class", None) or _unwrapped(view)
    if not hasattr(named, "__qualname__"):
        named = type(named)
    return f"{named.__module__}.{named.__qualname__}"


def call_name(func: Callable[..., Any]) -> str:
    """``SessionMiddleware.process_request``, ``QuerySet.get(Book)``, ``books.views.index``.

    The closures in which Django's signals call their receivers get the receivers' names.
    """
    while isinstance(func, partial):
        func = func.func
    if receivers := _receivers(func):
        return receivers
    owner = getattr(func, "__self__", None)
    if owner is None or inspect.ismodule(owner):
        return _plain_name(func)
    method = getattr(func, "__name__", "__call__")
    cls = owner if isinstance(owner, type) else type(owner)
    model = getattr(owner, "model", None)
    if isinstance(model, type):
        # A manager or a queryset: of which model says more than which class.
        return f"{cls.__name__}.{method}({model.__name__})"
    return f"{cls.__name__}.{method}"


def _unwrapped(func: Any) -> Any:
    try:
        return inspect.unwrap(func)
    except ValueError:
        return func


def _plain_name(func: Any) -> str:
    if view := getattr(func, "view_class", None):
        return view_name(view)
    func = _unwrapped(func)
    if getattr(func, "__self__", None) is not None and not inspect.ismodule(func.__self__):
        return call_name(func)
    name = getattr(func, "__qualname__", None)
    if name is None:
        # An object that can be called: a middleware that is a class.
        return type(func).__qualname__
    module = getattr(func, "__module__", None)
    return f"{module}.{name}" if module and module != "builtins" else str(name)


def _receivers(func: Any) -> str | None:
    """For ``Signal.asend``'s closure: the signal and whom it calls."""
    code = getattr(func, "__code__", None)
    if code is None or "sync_receivers" not in code.co_freevars:
        return None
    cells: dict[str, Any] = dict(zip(code.co_freevars, func.__closure__ or (), strict=False))
    try:
        receivers = cells["sync_receivers"].cell_contents
        signal = cells["self"].cell_contents if "self" in cells else None
    except ValueError:
        return None
    names = ", ".join(call_name(receiver) for receiver in receivers)
    return f"{_signal_name(signal)}: {names}"


def _signal_name(signal: Any) -> str:
    known = sys.modules.get("django.core.signals")
    for name, found in vars(known).items() if known is not None else ():
        if found is signal:
            return name
    return "signal"
