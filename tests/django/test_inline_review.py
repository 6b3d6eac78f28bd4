"""Each function of Django's on the inline list was read, in the Django that runs here.

`inline_reviewed.txt` has what was read: a digest of each listed function, or of the whole class of
a listed method (its other methods are what it calls), and of the one method that is replaced
(`rondel.django.hooks`), without comments and docstrings, and the series of Django that have it. A
Django with other code fails here until somebody has read that, too, and has added its line; what is
to be added is in the failure.
"""

import json
import subprocess
import sys
from pathlib import Path

import django
import pytest

from .project_copy import needs_rondel

pytestmark = needs_rondel

REVIEWED = Path(__file__).parent / "inline_reviewed.txt"
SERIES = ".".join(django.__version__.split(".")[:2])

_LISTED = """
import ast, hashlib, inspect, json, sys, textwrap
import django
from django.conf import settings

apps = ["auth", "contenttypes", "messages", "sessions"]
settings.configure(INSTALLED_APPS=[f"django.contrib.{app}" for app in apps])
django.setup()
from rondel.django import hooks, inlining


def plain(node):
    # The same for every Python: no positions, nothing that is empty, no docstrings.
    if isinstance(node, list):
        return [plain(each) for each in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    found = [type(node).__name__]
    for name, value in ast.iter_fields(node):
        if value is None or value == [] or name in ("ctx", "kind", "type_comment"):
            continue
        if name == "body" and isinstance(value, list) and isinstance(value[0], ast.Expr):
            if isinstance(value[0].value, ast.Constant):
                value = value[1:]
        found.append([name, plain(value)])
    return found


def digest(read):
    tree = ast.parse(textwrap.dedent(inspect.getsource(read)))
    return hashlib.sha256(json.dumps(plain(tree)).encode()).hexdigest()[:16]


def named(function):
    return f"{function.__module__}.{function.__qualname__}"


found = {named(hooks.STOCK): digest(hooks.STOCK)}
for function, _ in inlining._entries():
    owner, dot, _ = function.__qualname__.rpartition(".")
    module = sys.modules[function.__module__]
    found[named(function)] = digest(getattr(module, owner) if dot else function)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def listed() -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", _LISTED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def reviewed() -> dict[str, dict[str, str]]:
    """By series: the digest of each entry."""
    found: dict[str, dict[str, str]] = {}
    for line in REVIEWED.read_text().splitlines():
        if line and not line.startswith("#"):
            name, digest, *every = line.split()
            for series in every:
                assert name not in found.setdefault(series, {}), f"{name} is there twice"
                found[series][name] = digest
    return found


def test_every_entry_was_read_in_this_django(listed: dict[str, str]) -> None:
    known = reviewed().get(SERIES)
    assert known is not None, f"nothing of Django {SERIES} was read"
    unread = [f"{name} {digest} {SERIES}" for name, digest in listed.items()
              if known.get(name) != digest]  # fmt: skip
    assert not unread, f"read these in Django {django.__version__}: " + "; ".join(unread)
    assert not known.keys() - listed.keys(), "what was read is on the list no more"


def test_each_supported_series_was_read() -> None:
    assert {*reviewed()} == {"4.2", "5.2", "6.0", "6.1"}
