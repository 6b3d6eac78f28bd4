"""Functions that `sync_to_async` calls on the loop: who is listed, for which calls, the way out."""

import threading
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async

import rondel
from rondel import bridge
from tests.support import python


def ident() -> int:
    return threading.get_ident()


def on_loop(func: Callable[..., int], *args: Any) -> bool:
    async def main() -> bool:
        return await sync_to_async(func)(*args) == threading.get_ident()

    bridge.install()
    try:
        return rondel.run(main())
    finally:
        bridge.uninstall()


def test_an_unlisted_function_runs_on_a_thread() -> None:
    assert not on_loop(ident)


def test_a_listed_function_runs_on_the_loop() -> None:
    @bridge.inline
    def listed() -> int:
        return ident()

    assert on_loop(listed)


def test_a_condition_is_asked_for_each_call() -> None:
    @bridge.inline(when=lambda small: small < 10)
    def listed(small: int) -> int:
        return ident()

    assert on_loop(listed, 1)
    assert not on_loop(listed, 10)


def test_a_method_is_listed_for_its_class_and_an_override_is_not() -> None:
    class Base:
        @bridge.inline
        def hook(self) -> int:
            return ident()

    class Inherits(Base): ...

    class Overrides(Base):
        def hook(self) -> int:
            return super().hook()

    assert on_loop(Base().hook)
    assert on_loop(Inherits().hook)
    assert not on_loop(Overrides().hook)


def test_a_forbidden_function_stays_on_its_thread() -> None:
    from rondel.bridge.inline import allow, forbid

    def listed() -> int:
        return ident()

    allow(listed)
    forbid(listed)
    allow(listed)
    assert not on_loop(listed)


def test_the_whole_list_can_be_turned_off() -> None:
    done = python(
        "import threading, rondel\n"
        "from asgiref.sync import sync_to_async\n"
        "from rondel.bridge.inline import inline, turn_off\n"
        "rondel.install()\n"
        "before = inline(threading.get_ident)\n"
        "turn_off()\n"
        "async def main(): return await sync_to_async(inline(before))()\n"
        "print(rondel.run(main()) == threading.get_ident())\n"
    )
    assert done.stdout == "False\n", done.stderr
