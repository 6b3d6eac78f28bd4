"""What blocks the loop: which call of the program's it is, and what to write instead.

The watchdog tells of a step that takes too long while it lasts, with the stack of the loop's thread
(``rondel.inspect.on_stall``). The hint names the innermost line of the user's. What is called there
is known from the library's frame above it, or, as C functions have none, from the line's syntax and
the objects that its names stand for: modules' and instances' dictionaries are read, no attribute is
computed, so that nothing of the program runs in the watchdog's thread.

```
socket.py    create_connection     library: what the user's line calls
client.py    get                   the user's, innermost: the line that blocks
program.py   load                  the user's
program.py   main                  the user's, a coroutine: where `await` can be written
```
"""

import ast
import builtins
import sys
import sysconfig
import types
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from rondel import inspect
from rondel.hints.report import tell
from rondel.hints.source import (
    Place,
    calls_at,
    function_at,
    is_users,
    last_name,
    named,
    text_of,
)
from rondel.hints.texts import say
from rondel.inspect import Frame, Stall

__all__ = ["enable"]


class _Kind(Enum):
    SLEEP = auto()
    PROCESS = auto()
    SHELL = auto()
    DATABASE = auto()
    LOCK = auto()
    QUEUE = auto()
    FUTURE = auto()
    OTHER = auto()


# By module, or module and name; the longest that fits decides.
_KINDS = {
    "time.sleep": _Kind.SLEEP,
    "subprocess": _Kind.PROCESS,
    "os.popen": _Kind.SHELL,
    "os.walk": _Kind.OTHER,
    "posix.system": _Kind.SHELL,
    "posix.read": _Kind.OTHER,
    "posix.write": _Kind.OTHER,
    "posix.fsync": _Kind.OTHER,
    "posix.wait": _Kind.OTHER,
    "posix.waitpid": _Kind.OTHER,
    "sqlite3": _Kind.DATABASE,
    "psycopg": _Kind.DATABASE,
    "psycopg2": _Kind.DATABASE,
    "pymysql": _Kind.DATABASE,
    "MySQLdb": _Kind.DATABASE,
    "queue": _Kind.QUEUE,
    "_queue": _Kind.QUEUE,
    "concurrent.futures": _Kind.FUTURE,
    "threading": _Kind.LOCK,
    "_thread.acquire": _Kind.LOCK,
    "multiprocessing": _Kind.OTHER,
    "socket": _Kind.OTHER,
    "_socket": _Kind.OTHER,
    "ssl": _Kind.OTHER,
    "_ssl": _Kind.OTHER,
    "select": _Kind.OTHER,
    "selectors": _Kind.OTHER,
    "http": _Kind.OTHER,
    "urllib": _Kind.OTHER,
    "urllib3": _Kind.OTHER,
    "requests": _Kind.OTHER,
    "httpx": _Kind.OTHER,
    "smtplib": _Kind.OTHER,
    "ftplib": _Kind.OTHER,
    "imaplib": _Kind.OTHER,
    "redis": _Kind.OTHER,
    "shutil": _Kind.OTHER,
    "pathlib": _Kind.OTHER,
    "builtins.input": _Kind.OTHER,
    "_io": _Kind.OTHER,
    "io": _Kind.OTHER,
}


@dataclass(frozen=True, slots=True)
class _Blocker:
    """A call of a line that keeps the loop."""

    kind: _Kind
    call: ast.Call


def enable() -> None:
    """Tell of stalls from now on."""
    inspect.on_stall(_stalled)


def _stalled(stall: Stall) -> None:
    try:
        _tell(stall)
    except Exception:
        return  # no hint, then: the program is not to hear of it


def _tell(stall: Stall) -> None:
    frames = _of_the_step(stall)
    users = [number for number, frame in enumerate(frames) if is_users(frame.file)]
    if not users:
        return
    first = users[0]
    place = _place(frames[first])
    chain = [_place(frames[number]) for number in users]
    variables, still = _variables(stall, place)
    blocker = _blocker(stall, place, frames[:first], variables)
    seconds = f"{stall.seconds:.1f}"
    if blocker is None:
        # Of a step that has ended nobody knows any more what its names stood for.
        what = say("computes" if still else "held", function=place.function, seconds=seconds)
        tell("blocked", place, what, _compute_fixes(chain))
    else:
        called = f"{ast.unparse(blocker.call.func)}()"
        what = say("blocked", call=called, seconds=seconds)
        tell("blocked", place, what, _fixes(blocker, chain))


def _of_the_step(stall: Stall) -> list[Frame]:
    """The frames of the step, innermost first: those above the one that runs the loop."""
    found: list[Frame] = []
    for frame in stall.stack:
        if frame.function.rpartition(".")[2] in ("run_forever", "_run_once"):
            break
        found.append(frame)
    return found


def _place(frame: Frame) -> Place:
    name = named(frame.file, frame.line, frame.function.rpartition(".")[2])
    return Place(frame.file, frame.line, name or "<module>")


# ----------------------------------------------------------------------- which call it is


def _blocker(
    stall: Stall, place: Place, library: list[Frame], variables: dict[str, Any]
) -> _Blocker | None:
    """The call of this line that waits; None if none is known to: then the line computes.

    ``library`` are the frames above it, innermost first.
    """
    calls = list(calls_at(place.file, place.line))
    if not library:
        for call in calls:
            known = _known(call, variables)
            if known is not None:
                return _Blocker(known, call)
        return None
    kind = _kind_of_library(stall, library)
    if kind is None or not calls:
        return None
    name = library[-1].function.rpartition(".")[2]
    fitting = [call for call in calls if last_name(call.func) == name]
    # Where __init__ is in the stack, the line has its class's name.
    known_ones = [call for call in calls if _known(call, variables) is not None]
    call = (fitting or known_ones or calls)[0]
    return _Blocker(_known(call, variables) or kind, call)


def _kind_of_library(stall: Stall, library: list[Frame]) -> _Kind | None:
    """What the frames of libraries above a line of the user's wait for."""
    kinds = [_kind_of(_module_of(frame.file)) for frame in library]
    if kinds[-1] is not None:
        return kinds[-1]
    inner = _place(library[0])
    variables, _ = _variables(stall, inner)
    waits = any(_known(call, variables) is not None for call in calls_at(inner.file, inner.line))
    # How another's library waits is its own matter: it is given to a thread.
    return _Kind.OTHER if waits or any(kinds) else None


def _known(call: ast.Call, variables: dict[str, Any]) -> _Kind | None:
    target = _value(call.func, variables)
    if target is not None:
        return _kind_of(_dotted(target))
    if isinstance(call.func, ast.Attribute):
        owner = _value(call.func.value, variables)
        if owner is not None and not isinstance(owner, types.ModuleType):
            return _kind_of(f"{type(owner).__module__}.{call.func.attr}")
    return None


def _kind_of(dotted: str) -> _Kind | None:
    """The kind of ``module.name``, by its longest known beginning."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        kind = _KINDS.get(".".join(parts[:end]))
        if kind is not None:
            return kind
    return None


def _dotted(target: Any) -> str:
    if isinstance(target, types.ModuleType):
        return ""
    if isinstance(target, (types.MethodType, types.BuiltinMethodType)) and not isinstance(
        target.__self__, (types.ModuleType, type(None))
    ):
        return f"{type(target.__self__).__module__}.{target.__name__}"
    if isinstance(target, (types.FunctionType, types.BuiltinFunctionType, type)):
        return f"{target.__module__}.{target.__name__}"
    return type(target).__module__


def _module_of(file: str) -> str:
    """``http.client`` of ``.../python3.13/http/client.py``."""
    if file == "<native>" or file.startswith("<"):
        return ""
    paths = sysconfig.get_paths()
    for folder in (paths["purelib"], paths["platlib"], paths["stdlib"], paths["platstdlib"]):
        if file.startswith(folder + "/"):
            parts = PurePath(file[len(folder) + 1 :]).with_suffix("").parts
            return ".".join(part for part in parts if part != "__init__")
    return PurePath(file).stem


def _variables(stall: Stall, place: Place) -> tuple[dict[str, Any], bool]:
    """What the names of a line stand for, and whether the thread is in that line still."""
    frame = sys._current_frames().get(stall.thread)
    while frame is not None:
        if frame.f_code.co_filename == place.file and frame.f_lineno == place.line:
            return {**vars(builtins), **frame.f_globals, **frame.f_locals}, True
        frame = frame.f_back
    for module in list(sys.modules.values()):
        if isinstance(module, types.ModuleType) and vars(module).get("__file__") == place.file:
            return {**vars(builtins), **vars(module)}, False
    return dict(vars(builtins)), False


def _value(node: ast.expr, variables: dict[str, Any]) -> Any:
    """What an expression of names and dots stands for, None if that can't be told."""
    if isinstance(node, ast.Name):
        return variables.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, variables)
        if isinstance(owner, (types.ModuleType, type)):
            return vars(owner).get(node.attr)
        # An instance's own attribute: its dictionary, if it has an ordinary one.
        found = type(owner).__dict__.get("__dict__")
        if isinstance(found, types.GetSetDescriptorType):
            return found.__get__(owner).get(node.attr)
    return None


# ------------------------------------------------------------------------ what to write


def _fixes(blocker: _Blocker, chain: list[Place]) -> list[str]:
    here = chain[0]
    function = function_at(here.file, here.line)
    direct = _instead(blocker, here)
    if isinstance(function, ast.AsyncFunctionDef) or function is None:
        return _joined(direct)
    found = _way_out(chain)
    if found is None:
        return [say("blocked.callback", function=chain[-1].function)]
    fixes = [found]
    if direct:
        fixes.append(say("blocked.async", function=function.name, code=direct[0]))
    return fixes


def _joined(direct: list[str]) -> list[str]:
    return [say("blocked.or", code=code) if number else code for number, code in enumerate(direct)]


def _instead(blocker: _Blocker, here: Place) -> list[str]:
    """What a coroutine writes instead of a call."""
    call = blocker.call
    values = ", ".join(
        text_of(here.file, one) for one in [*call.args, *(word.value for word in call.keywords)]
    )
    in_thread = f"await asyncio.to_thread({_arguments(here, call)})"
    owner = text_of(here.file, call.func.value) if isinstance(call.func, ast.Attribute) else "..."
    name = last_name(call.func)
    match blocker.kind:
        case _Kind.SLEEP:
            return [f"await asyncio.sleep({values})"]
        case _Kind.PROCESS:
            first = call.args[0] if call.args else None
            if isinstance(first, (ast.List, ast.Tuple)):
                words = ", ".join(text_of(here.file, word) for word in first.elts)
                made = f"process = await asyncio.create_subprocess_exec({words})"
                return [f"{made}; await process.wait()", in_thread]
            return [in_thread]
        case _Kind.SHELL:
            made = f"process = await asyncio.create_subprocess_shell({values})"
            return [f"{made}; await process.wait()", in_thread]
        case _Kind.DATABASE:
            return [say("blocked.database")]
        case _Kind.QUEUE if name in ("get", "put"):
            # Their further arguments are about blocking.
            given = text_of(here.file, call.args[0]) if name == "put" and call.args else ""
            return [f"await {owner}.{name}({given})   # {owner} = asyncio.Queue()", in_thread]
        case _Kind.FUTURE if name == "result":
            return [f"await asyncio.wrap_future({owner})"]
        case _Kind.LOCK if name == "acquire":
            return [f"async with {owner}:   # {owner} = asyncio.Lock()", in_thread]
        case _Kind.LOCK if name == "wait":
            return [f"await {owner}.wait()   # {owner} = asyncio.Event()", in_thread]
        case _:
            return [in_thread]


def _arguments(here: Place, call: ast.Call) -> str:
    """``f, 1, x=2`` of ``f(1, x=2)``."""
    parts = [text_of(here.file, call.func)]
    parts += [text_of(here.file, one) for one in call.args]
    parts += [
        f"{word.arg}={text_of(here.file, word.value)}"
        if word.arg
        else f"**{text_of(here.file, word.value)}"
        for word in call.keywords
    ]
    return ", ".join(parts)


def _call_out(chain: list[Place]) -> tuple[Place, ast.Call] | None:
    """The nearest line of a coroutine around, and what it calls there that ends in the block."""
    for inner, outer in pairwise(chain):
        if isinstance(function_at(outer.file, outer.line), ast.AsyncFunctionDef):
            for call in calls_at(outer.file, outer.line):
                if last_name(call.func) == inner.function:
                    return outer, call
            return None
    return None


def _way_out(chain: list[Place]) -> str | None:
    found = _call_out(chain)
    if found is None:
        return None
    place, call = found
    code = f"await asyncio.to_thread({_arguments(place, call)})"
    return say("blocked.at", place=place, code=code)


def _compute_fixes(chain: list[Place]) -> list[str]:
    found = _call_out(chain)
    inner = function_at(chain[0].file, chain[0].line)
    if found is not None and not isinstance(inner, ast.AsyncFunctionDef):
        way = _way_out(chain)
        arguments = _arguments(*found)
        return [str(way), say("computes.process", arguments=arguments)]
    return [say("computes.inline")]
