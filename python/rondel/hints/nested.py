"""A loop that is started where one runs: the hint is a note on the RuntimeError.

A note is printed with the traceback, and only if somebody prints it: a program that expects the
error and catches it is told nothing.
"""

import ast
import functools
import sys
from asyncio import base_events, events, runners
from collections.abc import Callable
from typing import Any

from rondel import _runners
from rondel.hints import report
from rondel.hints.source import Place, call_at, function_at, is_users, last_name, text_of
from rondel.hints.texts import say

__all__ = ["enable"]

_STARTERS = ("run", "run_until_complete", "run_forever")


def enable() -> None:
    """Put notes on such errors from now on."""
    # What `raise RuntimeError(...)` finds in these modules; neither catches any. A function around
    # `run` would stand in the traceback of all that a program's main coroutine raises.
    for module in (runners, _runners):
        vars(module)["RuntimeError"] = _noted
    owner = base_events.BaseEventLoop
    owner._check_running = _noting(owner._check_running)  # type: ignore[attr-defined]


def _noted(*arguments: object) -> RuntimeError:
    error = RuntimeError(*arguments)
    if events._get_running_loop() is not None:
        _note(error)
    return error


def _noting(original: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(original)
    def _check_running(self: Any) -> None:
        try:
            original(self)
        except RuntimeError as error:
            _note(error)
            raise

    return _check_running


def _note(error: BaseException) -> None:
    """Add the hint, if a line of the user's made the call and the error has none yet."""
    if getattr(error, "__notes__", None):
        return
    try:
        frame = sys._getframe(1)
        while frame.f_back is not None and not is_users(frame.f_code.co_filename):
            frame = frame.f_back
        code = frame.f_code
        if not is_users(code.co_filename):
            return
        place = Place(code.co_filename, frame.f_lineno, code.co_name)
        call = call_at(place.file, place.line, *_STARTERS)
        what = say("nested", call=f"{ast.unparse(call.func)}()" if call else "this")
        error.add_note(report.text(place, what, _fixes(place, call)))
        # The coroutine that it was given will not be awaited either; this is the hint for both.
        report.covered("unawaited", place)
    except Exception:
        return  # no hint, then; the error itself goes on


def _fixes(place: Place, call: ast.Call | None) -> list[str]:
    main = "main()"
    if call is not None and call.args:
        main = text_of(place.file, call.args[0])
    elif call is not None and last_name(call.func) == "run_forever":
        main = "..."
    if "ipykernel" in sys.modules:
        return [say("nested.notebook", main=main)]
    function = function_at(place.file, place.line)
    if isinstance(function, ast.FunctionDef):
        name = function.name
        return [
            say("nested.sync", function=name, main=main),
            say("nested.thread", function=name),
        ]
    return [f"await {main}"]
