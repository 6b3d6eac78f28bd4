"""A recording as a page of one file, which a browser opens from disk: ``rondel run --profile``.

The page's own modules and style sheets are written into it, with the recording as JSON. Its policy
(by hashes) lets nothing else run, and nothing be loaded from anywhere.

The modules are joined as they are: their imports and the word ``export`` are taken out, so
top-level names must differ among them.
"""

import base64
import hashlib
import json
import re
import time
from importlib import resources
from typing import IO

from rondel.inspect.recording import Recording
from rondel.inspect.web.timeline import timeline

__all__ = ["write"]

# Each after those that it imports from.
_MODULES = (
    *("theme", "dom", "format", "keys"),
    *("timeline/model", "timeline/draw", "timeline/words", "timeline/view", "profile"),
)
_SHEETS = ("theme", "page", "views", "timeline")

_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=function|const|class|async)", re.MULTILINE)
_HOLE = re.compile(r"\{(script_hash|style_hash|style|script|data)\}")


def write(recording: Recording, file: IO[str], *, program: str) -> None:
    """Write the page to a text file in UTF-8; ``program`` is how it names what was run."""
    static = resources.files("rondel.inspect.web") / "static"
    sheets = [(static / "css" / f"{name}.css").read_text("utf-8") for name in _SHEETS]
    modules = [(static / "js" / f"{name}.js").read_text("utf-8") for name in _MODULES]
    style = "\n".join(sheets)
    script = "\n".join(_EXPORT.sub("", _IMPORT.sub("", module)) for module in modules)
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    told = {**timeline(recording), "program": program, "when": when}
    parts = {
        "style": style,
        "script": script,
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "data": _inert(json.dumps(told, separators=(",", ":"))),
    }
    template = (static / "profile.html").read_text("utf-8")
    file.write(_HOLE.sub(lambda hole: parts[hole[1]], template))


def _inert(text: str) -> str:
    """JSON that no parser of HTML sees a tag or the beginning of a comment in."""
    return text.replace("<", "\\u003c")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
