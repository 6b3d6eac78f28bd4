"""Source lines of the program: which files are the user's, what stands in a line, around it, in it.

Files are read through ``linecache`` and parsed once; a file that can't be read or parsed has no
lines and no syntax, and hints do without. May be used from any thread.
"""

import ast
import linecache
import os
import site
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

__all__ = [
    "Place",
    "call_at",
    "calls_at",
    "function_at",
    "is_users",
    "named",
    "parent_of",
    "remember",
    "statement_at",
    "text_of",
    "tree_of",
]

#: Characters of a piece of source in a hint.
_MOST = 100
# Text of programs that have no file: `-c`.
_remembered: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the program."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        function = named(self.file, self.line, self.function)
        return f"{shown(self.file)}:{self.line}{f', in {function}' if function else ''}"

    @property
    def source(self) -> str:
        """The line itself, without its indentation; empty if it is not known."""
        lines = _lines(self.file)
        return lines[self.line - 1].strip() if 0 < self.line <= len(lines) else ""


def shown(file: str) -> str:
    """The path as people write it: relative if it is below the current folder."""
    try:
        relative = os.path.relpath(file)
    except (OSError, ValueError):
        return file
    return file if file.startswith("<") or relative.startswith("..") else relative


def named(file: str, line: int, function: str) -> str:
    """A function's name; of a comprehension or a lambda that of the function around."""
    if not function.startswith("<"):
        return function
    around = function_at(file, line)
    return around.name if around is not None else ""


def _folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    found = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found |= {*site.getsitepackages(), site.getusersitepackages()}
    # This package's own, wherever it was installed from.
    found.add(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return tuple(os.path.join(os.path.realpath(folder), "") for folder in found)


_LIBRARIES = _folders()


@lru_cache(maxsize=4096)
def is_users(file: str) -> bool:
    """Whether a file is the program's own: no part of Python, of Rondel, or of a package."""
    if file.startswith("<"):
        return file in ("<string>", "<stdin>", "<console>") or file.startswith("<python-input")
    whole = os.path.realpath(file)
    if "/site-packages/" in whole or "/dist-packages/" in whole:
        return False
    return not whole.startswith(_LIBRARIES)


def remember(file: str, text: str) -> None:
    """Keep the text of what has no file."""
    _remembered[file] = text


def _lines(file: str) -> list[str]:
    if file in _remembered:
        return _remembered[file].splitlines(keepends=True)
    return linecache.getlines(file)


@lru_cache(maxsize=64)
def tree_of(file: str) -> ast.Module | None:
    """The syntax of a file, each node with its parent (:func:`parent_of`)."""
    try:
        tree = ast.parse("".join(_lines(file)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            child._parent = node  # type: ignore[attr-defined]
    return tree


def parent_of(node: ast.AST) -> ast.AST | None:
    """The node around one."""
    found: ast.AST | None = getattr(node, "_parent", None)
    return found


def _around(file: str, line: int, kind: type[ast.AST]) -> ast.AST | None:
    """The smallest node of a kind that has the line."""
    tree = tree_of(file)
    found: ast.AST | None = None
    size = 0
    for node in ast.walk(tree) if tree is not None else ():
        end = getattr(node, "end_lineno", None)
        if not isinstance(node, kind) or end is None or not node.lineno <= line <= end:  # type: ignore[attr-defined]
            continue
        if found is None or end - node.lineno < size:  # type: ignore[attr-defined]
            found, size = node, end - node.lineno  # type: ignore[attr-defined]
    return found


def statement_at(file: str, line: int) -> ast.stmt | None:
    """The innermost statement in a line."""
    found = _around(file, line, ast.stmt)
    return found if isinstance(found, ast.stmt) else None


def function_at(file: str, line: int) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The function whose body has the line; None at the top of a module or in a class's body."""
    node: ast.AST | None = statement_at(file, line)
    while node is not None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if node.body[0].lineno <= line:
                return node
        node = parent_of(node)
    return None


def calls_at(file: str, line: int) -> Iterator[ast.Call]:
    """The calls that a line has a part of: those of few lines first, outer before inner ones."""
    tree = tree_of(file)
    found = [
        (call.end_lineno - call.lineno, call)
        for call in (ast.walk(tree) if tree is not None else ())
        if isinstance(call, ast.Call) and call.end_lineno is not None
        if call.lineno <= line <= call.end_lineno
    ]
    yield from (call for _, call in sorted(found, key=lambda entry: entry[0]))


def call_at(file: str, line: int, *names: str) -> ast.Call | None:
    """The first call in a line of something whose last name is one of these."""
    for call in calls_at(file, line):
        if last_name(call.func) in names:
            return call
    return None


def last_name(node: ast.expr) -> str | None:
    """``c`` of ``a.b.c``."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def text_of(file: str, node: ast.AST) -> str:
    """A node's source in one line, cut if it is long."""
    text = ast.get_source_segment("".join(_lines(file)), node)
    if text is None or "\n" in text:
        text = ast.unparse(node)
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"
