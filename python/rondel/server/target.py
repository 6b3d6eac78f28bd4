"""From ``module:attribute`` to the application, with errors that say which part was wrong.

Invariant: a missing *target* module is one line; an error *inside* the user's module is the user's,
so its traceback is kept (``TargetImportError.__cause__``), cut to the user's own frames.
"""

import difflib
import importlib
import inspect
import os
import pkgutil
import sys
from types import ModuleType, TracebackType
from typing import Any, cast

from rondel.server.config import ASGIApp
from rondel.server.errors import ServeError, TargetImportError, UsageError

__all__ = ["check_asgi", "load", "parse", "put_on_path"]


def parse(target: str) -> tuple[str, str]:
    """Split ``module:attribute``; a mistake is answered with what was probably meant."""
    module, colon, attribute = target.partition(":")
    if os.sep in module or module.endswith(".py"):
        dotted = os.path.normpath(module).removesuffix(".py").strip("./").replace(os.sep, ".")
        meant = f"{dotted}:{attribute or 'application'}"
        raise UsageError(f"{target!r} is a path; name the module instead: {meant}")
    if not colon or not attribute:
        if not module:
            raise UsageError(f"{target!r} is not MODULE:ATTRIBUTE, as in mysite.asgi:application")
        raise UsageError(
            f"{target!r} names no attribute; did you mean {module.rstrip('.')}:application?"
        )
    parts = [*module.split("."), *attribute.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise UsageError(f"{target!r} is not MODULE:ATTRIBUTE, as in mysite.asgi:application")
    return module, attribute


def put_on_path(directory: str) -> None:
    """Let modules of ``directory`` be found first, as ``python -m`` does for its directory."""
    path = os.path.abspath(directory)
    if not os.path.isdir(path):
        raise UsageError(f"--app-dir {directory!r} is not a directory")
    if not sys.path or os.path.abspath(sys.path[0] or os.getcwd()) != path:
        sys.path.insert(0, path)


def load(target: str, *, factory: bool = False) -> ASGIApp:
    """Import and return the application (with ``factory``, what the named callable returns)."""
    module_name, attribute = parse(target)
    module = _import(module_name, target)
    found: Any = module
    for depth, part in enumerate(attribute.split(".")):
        try:
            found = getattr(found, part)
        except AttributeError:
            owner = ".".join([module_name, *attribute.split(".")[:depth]])
            raise ServeError(_no_attribute(owner, found, part)) from None
    if factory:
        if not callable(found):
            raise ServeError(f"{target} is {_a(found)}, not a factory: it cannot be called")
        try:
            found = found()
        except Exception as error:
            error.__traceback__ = _user_frames(error.__traceback__)
            raise TargetImportError(f"calling {target} failed: {_summary(error)}") from error
        target = f"{target}()"
    check_asgi(found, target)
    return cast(ASGIApp, found)


def check_asgi(app: object, name: str) -> None:
    """Refuse what is plainly no ASGI 3 application before the first request meets it."""
    if not callable(app):
        raise ServeError(f"{name} is {_a(app)}, not an ASGI application: it cannot be called")
    try:
        signature = inspect.signature(app)
    except (TypeError, ValueError):
        return  # a native callable without a signature: let it speak for itself
    if _accepts(signature, 3):
        return
    if _accepts(signature, 2):
        raise ServeError(
            f"{name} takes two arguments, as WSGI applications do; rondel serves ASGI: "
            "with Django name the module made by get_asgi_application(), mysite.asgi:application"
        )
    if _accepts(signature, 0):
        raise ServeError(f"{name} takes no arguments: if it makes the application, add --factory")
    raise ServeError(f"{name} is not an ASGI 3 application: it must accept (scope, receive, send)")


def _accepts(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _import(name: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        error.__traceback__ = _user_frames(error.__traceback__)
        if error.__traceback__ is None and _is_part(error.name, name):
            raise ServeError(_no_module(error.name or name, name)) from None
        raise TargetImportError(f"importing {name!r} failed: {_summary(error)}") from error
    except Exception as error:
        error.__traceback__ = _user_frames(error.__traceback__)
        raise TargetImportError(f"importing {name!r} failed: {_summary(error)}") from error


def _is_part(missing: str | None, name: str) -> bool:
    return missing is not None and f"{name}.".startswith(f"{missing}.")


def _user_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Skip our frames and the import machinery's at the head; None if nothing else is there."""
    machinery = {__file__, importlib.__file__}
    while traceback is not None:
        filename = traceback.tb_frame.f_code.co_filename
        if filename not in machinery and not filename.startswith("<frozen importlib"):
            return traceback
        traceback = traceback.tb_next
    return None


def _summary(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _no_module(missing: str, name: str) -> str:
    parent, _, last = missing.rpartition(".")
    if parent:
        search = getattr(sys.modules.get(parent), "__path__", None)
        if search is None:
            return f"no module {name!r}: {parent!r} is a module, not a package"
    else:
        search = None
    directory = os.path.abspath(sys.path[0] or os.getcwd())
    names = [module.name for module in pkgutil.iter_modules(search or [directory])]
    hint = _suggest(last, names, prefix=f"{parent}." if parent else "")
    if parent:
        return f"no module {last!r} in package {parent!r}{hint}"
    where = "run it from the project's directory or give --app-dir"
    return f"no module named {missing!r}{hint or f'; looked in {directory}: {where}'}"


def _no_attribute(owner: str, found: object, part: str) -> str:
    names = [name for name in dir(found) if not name.startswith("_")]
    hint = _suggest(part, names)
    if not hint:
        usual = [name for name in ("application", "app") if name in names]
        hint = f"; did you mean {usual[0]!r}?" if usual else ""
    return f"{owner!r} has no attribute {part!r}{hint}"


def _suggest(word: str, names: list[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(word, names, n=2, cutoff=0.5)
    if not close:
        return ""
    return "; did you mean " + " or ".join(repr(prefix + name) for name in close) + "?"


def _a(value: object) -> str:
    name = type(value).__qualname__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
