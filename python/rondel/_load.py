"""Loading of the native module, and refusals that say what to do.

Invariant: importing this module never succeeds half-way. Either ``native`` is the working extension
module for the running interpreter, or the import fails with one line that names the cause and the
remedy. Only this module imports ``rondel._rondel`` first, so that every way into the package meets
the same message.
"""

import sys
from pathlib import Path

__all__ = ["native"]

_REINSTALL = "python -m pip install --force-reinstall rondel"


def _refusal() -> str | None:
    """Why this interpreter cannot run Rondel, or None when it can."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.implementation.name != "cpython":
        return f"rondel needs CPython; this is {sys.implementation.name} {version}"
    # "t" in the ABI flags names a free-threaded build without importing sysconfig (milliseconds).
    if "t" in sys.abiflags:
        return (
            f"rondel does not support free-threaded builds of CPython yet (this is {version}t): "
            f"use the regular build of Python {version}"
        )
    return None


def _explain(error: ImportError) -> str:
    """One line about a native module that is absent or does not load."""
    if "subinterpreters" in str(error):
        return (
            "rondel works in the main interpreter only, not in subinterpreters "
            "(under mod_wsgi: WSGIApplicationGroup %{GLOBAL})"
        )
    wanted = f"CPython {sys.version_info[0]}.{sys.version_info[1]}"
    if not isinstance(error, ModuleNotFoundError) or error.name != "rondel._rondel":
        return f"rondel's native module does not load in {wanted} ({error}): try `{_REINSTALL}`"
    present = sorted(path.name for path in Path(__file__).parent.glob("_rondel*.so"))
    if present:
        found = ", ".join(present)
        return (
            f"rondel was built for another Python: {wanted} cannot load {found}; "
            f"install it with this interpreter: `{_REINSTALL}`"
        )
    return (
        f"rondel's native module is missing for {wanted}: install a wheel (`{_REINSTALL}`), "
        "or in a checkout run `make build`"
    )


if (_reason := _refusal()) is not None:
    raise ImportError(_reason, name="rondel")

try:
    from rondel import _rondel as native
except ImportError as _error:
    # The interpreter says "cannot import name '_rondel' from partially initialized module
    # 'rondel'": ask for the submodule itself, whose error tells absence from a load failure.
    try:
        import rondel._rondel  # noqa: F401
    except ImportError as _cause:
        raise ImportError(_explain(_cause), name="rondel._rondel") from None
    raise ImportError(_explain(_error), name="rondel._rondel") from None
