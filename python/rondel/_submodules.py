"""asyncio's submodules under Rondel's name: ``rondel.subprocess``, ``import rondel.timeouts``.

Programs name them (``asyncio.subprocess.PIPE``, ``asyncio.timeouts.timeout``), so ``import rondel
as asyncio`` has to offer them. One whose public names are all asyncio's own is asyncio's very
module. One that has a native name (``timeouts``, ``runners``, ``futures`` ...) is a view of
asyncio's module: native names first, everything else, private names included, is read from and
written to asyncio's.

Two are files of this package, ``rondel.tasks`` and ``rondel.transports``; they answer for asyncio's
modules of the same names by a ``__getattr__`` of their own.

Invariant: which names are native is decided by the table that the package itself exports.
"""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["adopt", "of_asyncio"]


class _View(ModuleType):
    """A submodule of asyncio with native names before its own."""

    def __init__(self, stock: ModuleType, natives: Mapping[str, object]) -> None:
        name = stock.__name__.replace("asyncio", "rondel", 1)
        super().__init__(name, stock.__doc__)
        # Past our own `__setattr__`, which writes to asyncio's.
        vars(self).update(natives)
        vars(self).update(
            {key: getattr(stock, key) for key in ("__all__", "__file__", "__spec__")},
            _rondel_stock=stock,
        )

    def __getattr__(self, name: str) -> Any:
        stock: ModuleType = vars(self)["_rondel_stock"]
        try:
            return getattr(stock, name)
        except AttributeError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: object) -> None:
        if name in vars(self):
            super().__setattr__(name, value)
        else:
            setattr(vars(self)["_rondel_stock"], name, value)

    def __delattr__(self, name: str) -> None:
        if name in vars(self):
            super().__delattr__(name)
        else:
            delattr(vars(self)["_rondel_stock"], name)

    def __dir__(self) -> list[str]:
        return dir(vars(self)["_rondel_stock"])


def adopt(natives: Mapping[str, object]) -> dict[str, ModuleType]:
    """Offer each imported submodule of asyncio, in ``sys.modules`` too, where imports look.

    Args:
        natives: every name of asyncio's that is not asyncio's here, with its object.

    Returns:
        The submodules by their bare names.
    """
    offered = {}
    for full_name, module in list(sys.modules.items()):
        package, _, name = full_name.partition(".")
        if package != "asyncio" or not name or name.startswith("_") or "." in name:
            continue
        own = sys.modules.get(f"rondel.{name}")
        if own is None:
            public = getattr(module, "__all__", ())
            native = {key: natives[key] for key in public if key in natives}
            own = _View(module, native) if native else module
            sys.modules[f"rondel.{name}"] = own
        offered[name] = own
    return offered


def of_asyncio(name: str, module: str) -> Any:
    """An attribute that a file of this package leaves to asyncio's module of the same name."""
    try:
        return getattr(getattr(asyncio, module), name)
    except AttributeError:
        raise AttributeError(f"module 'rondel.{module}' has no attribute {name!r}") from None
