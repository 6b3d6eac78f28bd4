"""Where options come from besides the command line: the environment and a configuration file.

    rondel.toml             keys at the top level, or in [tool.rondel]
    pyproject.toml          keys in [tool.rondel]

Without ``--config`` the first of these that exists in the working directory, and has such a table,
is read. A key that is no option, and a value that is no good, are ``UsageError``: a typing mistake
must not be a default silently.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rondel.server.config import Config
from rondel.server.errors import UsageError
from rondel.server.options import Option, flag_words, options_of

__all__ = ["APP_KEYS", "Settings", "read_settings"]

_USUAL = ("rondel.toml", "pyproject.toml")
# What a file may say of the application itself, and by which option of the command line.
APP_KEYS = {"app": str, "app_dir": str, "factory": bool}
# The same in the environment. RONDEL_APP_DIR and the others are spelled as options are.
_CONFIG = "RONDEL_CONFIG"


@dataclass(slots=True)
class Settings:
    """Values by option key, and what is said of the application (``app``, ``app_dir``,
    ``factory``).
    """

    values: dict[str, Any] = field(default_factory=dict)
    application: dict[str, Any] = field(default_factory=dict)


def read_settings(
    config: str | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """The file's values with the environment's over them; raises UsageError.

    ``config`` is the file that was asked for, None for the usual ones; ``RONDEL_CONFIG`` names one
    as well.
    """
    env = os.environ if environment is None else environment
    known = {one.key: one for one in options_of(Config)}
    settings = Settings()
    path, table = _find(config or env.get(_CONFIG) or None)
    for name, value in table.items():
        _take(settings, name.replace("-", "_"), name, value, known, path)
    for key, one in known.items():
        text = env.get(one.environment)
        if text is not None:
            try:
                settings.values[key] = one.parse(text)
            except ValueError as error:
                raise UsageError(f"{one.environment}: {error}") from None
    for key, kind in APP_KEYS.items():
        text = env.get(f"RONDEL_{key.upper()}")
        if text is not None:
            settings.application[key] = _word(key, text) if kind is bool else text
    return settings


def _word(key: str, text: str) -> bool:
    try:
        return flag_words(text)
    except ValueError:
        raise UsageError(f"RONDEL_{key.upper()}: {text!r} is not on or off") from None


def _find(asked: str | None) -> tuple[str, Mapping[str, Any]]:
    """The file's name and its table; an empty one if there is no file."""
    if asked is not None:
        table = _load(asked, must=True)
        if os.path.basename(asked) == "pyproject.toml" and not table:
            raise UsageError(f"{asked} has no table [tool.rondel]")
        return asked, table
    for name in _USUAL:
        table = _load(name, must=False)
        if table:
            return name, table
    return "", {}


def _load(path: str, *, must: bool) -> Mapping[str, Any]:
    try:
        text = Path(path).read_bytes().decode()
        whole = tomllib.loads(text)
    except FileNotFoundError:
        if must:
            raise UsageError(f"no configuration file {path!r}") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        if not must and os.path.basename(path) == "pyproject.toml":
            return {}  # another tool's to complain about
        raise UsageError(f"{path} cannot be read: {error}") from None
    tool = whole.get("tool", {})
    table = tool.get("rondel") if isinstance(tool, dict) else None
    if os.path.basename(path) == "pyproject.toml":
        found = table if table is not None else {}
    else:
        found = table if table is not None else {k: v for k, v in whole.items() if k != "tool"}
    if not isinstance(found, dict):
        raise UsageError(f"{path}: tool.rondel must be a table")
    return found


def _take(
    settings: Settings,
    key: str,
    name: str,
    value: Any,
    known: Mapping[str, Option],
    path: str,
) -> None:
    if key in APP_KEYS:
        if type(value) is not APP_KEYS[key]:
            kind = "true or false" if APP_KEYS[key] is bool else "a text"
            raise UsageError(f"{path}: {name}: {value!r} is not {kind}")
        settings.application[key] = value
        return
    one = known.get(key)
    if one is None:
        spelled = [option.toml for option in known.values()] + [
            k.replace("_", "-") for k in APP_KEYS
        ]
        close = difflib.get_close_matches(name, spelled, n=1)
        hint = f"; did you mean {close[0]}?" if close else " (see rondel serve --help)"
        raise UsageError(f"{path}: {name} is not an option{hint}")
    try:
        settings.values[key] = one.accept(value)
    except ValueError as error:
        raise UsageError(f"{path}: {name}: {error}") from None
