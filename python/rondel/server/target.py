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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any, cast

from rondel.server.config import ASGIApp, Interface, Receive, Scope, Send
from rondel.server.errors import ServeError, TargetImportError, UsageError
from rondel.server.wsgi import WSGI

__all__ = ["Application", "adapt", "load", "parse", "put_on_path"]


@dataclass(frozen=True, slots=True)
class Application:
    """Which application, and how it is found: what a worker process is told."""

    target: str
    factory: bool = False
    directory: str = "."

    @property
    def name(self) -> str:
        """How people are told of it."""
        return f"{self.target}()" if self.factory else self.target


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


def load(target: str, *, factory: bool = False, interface: Interface = "auto") -> ASGIApp:
    """Import the application (with ``factory``, what the named callable returns); ``adapt`` it."""
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
    return adapt(found, target, interface)


def adapt(app: Any, name: str, interface: Interface = "auto") -> ASGIApp:
    """What the server calls for an application: ASGI 3 as it is, ASGI 2 and WSGI wrapped.

    Refuses what is plainly none of them before the first request meets it.
    """
    if isinstance(app, WSGI):
        return app
    if not callable(app):
        kind = {"asgi": "an ASGI", "wsgi": "a WSGI"}.get(interface, "an ASGI or WSGI")
        raise ServeError(f"{name} is {_a(app)}, not {kind} application: it cannot be called")
    kind = _kind(app, name, interface)
    if kind == "wsgi":
        return WSGI(app)
    return _from_asgi2(app) if kind == "asgi2" else cast(ASGIApp, app)


def _kind(app: Any, name: str, interface: Interface) -> str:
    """``asgi``, ``asgi2`` or ``wsgi``; raises ServeError."""
    try:
        signature = inspect.signature(app)
    except (TypeError, ValueError):
        # A native callable without a signature: let it speak for itself.
        return "wsgi" if interface == "wsgi" else "asgi"
    three, two, one, none = (_accepts(signature, count) for count in (3, 2, 1, 0))
    # Of a class its call makes an instance, whatever those do.
    called = app if inspect.isclass(app) else app.__call__
    is_async = any(map(inspect.iscoroutinefunction, (app, called)))
    if interface == "wsgi":
        if two and not is_async:
            return "wsgi"
        raise ServeError(
            f"{name} is not a WSGI application: it must be a callable that accepts "
            "(environ, start_response) and is not async"
        )
    if interface == "auto" and two and not is_async:
        first, second = [*signature.parameters, "", ""][:2]
        if not three or first in ("environ", "env") or second == "start_response":
            return "wsgi"
        if first != "scope":
            raise ServeError(
                f"{name} takes any arguments, which does not tell what it is: "
                "say --interface asgi or --interface wsgi"
            )
    if three:
        return "asgi"
    if one and not (two or none or is_async):
        return "asgi2"
    if none:
        raise ServeError(f"{name} takes no arguments: if it makes the application, add --factory")
    if two and not is_async:
        raise ServeError(
            f"{name} takes two arguments, as WSGI applications do, and --interface asgi was given"
        )
    known = "an ASGI 3" if interface == "asgi" else "an ASGI 3 or WSGI"
    wanted = "(scope, receive, send)"
    if interface == "auto":
        wanted += " or (environ, start_response)"
    raise ServeError(f"{name} is not {known} application: it must accept {wanted}")


def _from_asgi2(app: Callable[[Scope], Callable[[Receive, Send], Awaitable[None]]]) -> ASGIApp:
    """An ASGI 2 application (``app(scope)(receive, send)``) as one of ASGI 3."""

    async def asgi3(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope)(receive, send)

    return asgi3


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
