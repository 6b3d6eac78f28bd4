"""What to write instead, in the program's own terms, by the syntax around a line."""

import ast

from rondel.hints.source import (
    Place,
    call_at,
    function_at,
    last_name,
    parent_of,
    statement_at,
    text_of,
)
from rondel.hints.texts import say

__all__ = ["dropped", "drops", "gather", "gather_call", "gather_untaken", "unawaited", "untaken"]

_MAKERS = ("create_task", "ensure_future", "background")


# ----------------------------------------------------------------------- coroutines


def unawaited(place: Place, name: str) -> list[str]:
    """A coroutine that was made in this line and never awaited."""
    call = call_at(place.file, place.line, name)
    if call is None:
        return [f"await {name}(...)"]
    code = text_of(place.file, call)
    around = _comprehension(call)
    function = function_at(place.file, place.line)
    if function is None:
        return [f"asyncio.run({code})"]
    if isinstance(function, ast.FunctionDef):
        if isinstance(statement_at(place.file, place.line), ast.Return):
            return [say("unawaited.returned", function=function.name)]
        return [say("unawaited.sync", function=function.name, call=code)]
    if around is not None:
        return [f"await asyncio.gather(*{text_of(place.file, around)})"]
    kept = _kept_as(call)
    awaited = f"{kept} = await {code}" if kept is not None else f"await {code}"
    return [awaited, say("unawaited.beside", call=code)]


def _comprehension(call: ast.Call) -> ast.AST | None:
    """The comprehension that has the call as its element."""
    node = parent_of(call)
    kinds = (ast.ListComp, ast.SetComp, ast.GeneratorExp)
    return node if isinstance(node, kinds) and node.elt is call else None


# ---------------------------------------------------------------------------- tasks


def untaken(place: Place) -> list[str]:
    """A task of this line failed and nobody took the exception."""
    made = _made(place)
    if made is None:
        return [say("untaken.await", task="task")]
    call, coro = made
    kept = _kept_as(call)
    if kept is not None:
        first = say("untaken.await", task=kept)
    else:
        first = say("untaken.keep", call=text_of(place.file, call))
    return [first, say("untaken.group", coro=coro)]


def dropped(place: Place) -> list[str]:
    """A task of this line ended early as nobody kept it or waited for it."""
    made = _made(place)
    if made is None:
        return [say("dropped.await_name", task="task")]
    call, coro = made
    kept = _kept_as(call)
    if kept is not None:
        first = say("dropped.await_name", task=kept)
    else:
        first = say("dropped.await", call=text_of(place.file, call))
    tasks = "self.tasks" if _in_method(place) else "tasks"
    return [first, say("dropped.keep", tasks=tasks), say("dropped.group", coro=coro)]


def drops(place: Place) -> bool:
    """Whether the line makes a task that nobody can wait for.

    Its value is thrown away, or goes to a local name that the function never reads. A group's
    ``create_task`` is not such a line: the group waits.
    """
    made = _made(place)
    if made is None or not _is_ungrouped(made[0]):
        return False
    statement = statement_at(place.file, place.line)
    if isinstance(statement, ast.Expr) and statement.value is made[0]:
        return True
    name = _kept_as(made[0])
    function = function_at(place.file, place.line)
    if name is None or function is None or not name.isidentifier():
        return False
    return not any(
        isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Store)
        for node in ast.walk(function)
    ) and not any(
        name in node.names
        for node in ast.walk(function)
        if isinstance(node, (ast.Global, ast.Nonlocal))
    )


def _is_ungrouped(call: ast.Call) -> bool:
    """``asyncio.create_task``, ``loop.create_task`` and their like, no method of a group."""
    func = call.func
    if isinstance(func, ast.Name) or last_name(func) == "ensure_future":
        return True
    owner = func.value if isinstance(func, ast.Attribute) else None
    if isinstance(owner, ast.Call):
        return last_name(owner.func) in ("get_running_loop", "get_event_loop", "new_event_loop")
    name = last_name(owner) if owner is not None else None
    return name in ("asyncio", "rondel", "aio") or (name is not None and "loop" in name)


def _made(place: Place) -> tuple[ast.Call, str] | None:
    """The call in this line that makes a task, and the code of its coroutine."""
    call = call_at(place.file, place.line, *_MAKERS)
    if call is None or not call.args:
        return None
    return call, text_of(place.file, call.args[0])


def _kept_as(call: ast.Call) -> str | None:
    """What the value of a call is assigned to."""
    node = parent_of(call)
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
    elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)):
        target = node.target
    else:
        return None
    return ast.unparse(target) if isinstance(target, (ast.Name, ast.Attribute)) else None


def _in_method(place: Place) -> bool:
    function = function_at(place.file, place.line)
    return function is not None and bool(function.args.args) and function.args.args[0].arg == "self"


# --------------------------------------------------------------------------- gather


def gather_call(place: Place) -> ast.Call | None:
    """The call of ``gather`` in this line."""
    return call_at(place.file, place.line, "gather")


def gather(place: Place) -> list[str]:
    """A gather in this line failed, its siblings went on."""
    call = gather_call(place)
    if call is None:
        return [say("gather.group", each="tg.create_task(...)")]
    each = []
    for one in call.args:
        code = text_of(place.file, one.value if isinstance(one, ast.Starred) else one)
        if not isinstance(one, ast.Starred):
            each.append(f"tg.create_task({code})")
        elif isinstance(one.value, (ast.ListComp, ast.GeneratorExp)):
            each.append(_loop_of(place, one.value))
        else:
            each.append(f"for one in {code}: tg.create_task(one)")
    code = text_of(place.file, call).removesuffix(")").rstrip(", ")
    return [
        say("gather.group", each="; ".join(each)),
        say("gather.all", call=f"{code}, return_exceptions=True)"),
    ]


def _loop_of(place: Place, comprehension: ast.ListComp | ast.GeneratorExp) -> str:
    """``for x in xs: tg.create_task(f(x))`` of ``[f(x) for x in xs]``."""
    words = []
    for generator in comprehension.generators:
        target, source = ast.unparse(generator.target), text_of(place.file, generator.iter)
        words.append(f"for {target} in {source}:")
        words += [f"if {ast.unparse(condition)}:" for condition in generator.ifs]
    return f"{' '.join(words)} tg.create_task({text_of(place.file, comprehension.elt)})"


def gather_untaken(place: Place) -> list[str]:
    """A gather in this line failed and nobody awaited it."""
    call = gather_call(place)
    if call is None:
        return []
    return [f"await {text_of(place.file, call)}"]
