"""What a case of the network's benchmark is, and where the cases are.

A group is a module of `net/groups` with

    ORDER     an int: its place in the report
    TITLE     of its table
    NOTE      what is below the title
    CASES     a tuple of `Served` and `Own`

and its table is the part `net-<module's name>`, which `limits.toml` can name.  A new case is a line
there; a new group is a new file.  Groups are imported under every loop, after `rondel.install()`:
they say `asyncio.` and import nothing but the standard library and `net`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType

LOOPS = ("rondel", "asyncio", "uvloop", "rloop")
BARE = "bare"
"""`crates/rondel-core/examples/bare_echo.rs`: the same system calls, and nothing else."""
KEEPING = "bare keeping"
"""The same where each message is kept until the next, as a stream's user does."""


@dataclass(frozen=True)
class Place:
    """Where a server is to listen, and what it may need for that."""

    path: str
    """A free path for a Unix socket."""
    certificate: str
    """A PEM file with a key and a self-signed certificate for localhost."""


Serve = Callable[[Place], Awaitable[int | str]]
"""Starts a server and gives the port (of 127.0.0.1) or the path it listens on."""


@dataclass(frozen=True)
class Served:
    """A server under messages from another process: its CPU time per message, µs."""

    name: str
    title: str
    serve: Serve
    load: str
    """tcp, udp, unix, connect (`load.c`) or tls (`load_tls.py`)."""
    connections: int
    size: int
    """Bytes of a message."""
    messages: int
    """Of one turn."""
    floors: Mapping[str, str] = field(default_factory=dict)
    """The bare servers that are its limit, if there are any, each with its mode of `bare_echo`."""
    also: Mapping[str, tuple[str, Serve]] = field(default_factory=dict)
    """Further subjects: another server on a named loop."""
    lacking: Mapping[str, str] = field(default_factory=dict)
    """Loops that can't do it, and why."""


@dataclass(frozen=True)
class Own:
    """What a process does by itself: its CPU time per operation, µs; children's does not count."""

    name: str
    title: str
    run: Callable[[int], Awaitable[object]]
    """Does so many operations."""
    operations: int
    """Of one turn."""
    floors: Mapping[str, str] = field(default_factory=dict)
    """As a server's; `bare_echo` is told the port of the greeter."""
    lacking: Mapping[str, str] = field(default_factory=dict)


Case = Served | Own


@dataclass(frozen=True)
class Group:
    name: str
    module: ModuleType
    cases: tuple[Case, ...]

    @property
    def part(self) -> str:
        return f"net-{self.name}"

    @property
    def title(self) -> str:
        return str(self.module.TITLE)

    @property
    def note(self) -> str:
        return str(self.module.NOTE)


def groups() -> list[Group]:
    found = []
    package = importlib.import_module("net.groups")
    for entry in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"net.groups.{entry.name}")
        found.append(Group(entry.name, module, module.CASES))
    return sorted(found, key=lambda group: int(group.module.ORDER))


def find(part: str, name: str) -> Case:
    for group in groups():
        for case in group.cases:
            if (group.part, case.name) == (part, name):
                return case
    raise LookupError(f"no case {name} in {part}")
