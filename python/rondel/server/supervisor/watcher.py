"""What runs in a watcher process (``--reload``): it tells the supervisor that files have changed.

A process of its own, as watching takes a thread and the supervisor has none. Each directory is
watched by itself, so that those that nobody edits (hidden ones, caches, environments, what is
excluded) cost nothing; new directories join as they come.
"""

import contextlib
import fnmatch
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

from rondel import _rondel
from rondel.server.errors import UsageError
from rondel.server.supervisor.worker import Spec, tell_failure

__all__ = ["Selection", "main"]

# Directories in which nobody edits, by name; hidden ones are among them.
_SKIPPED = ("__pycache__", "node_modules", "venv", "site-packages")
# Seconds between two looks at whether the supervisor is still there.
_PATIENCE = 0.5


class Selection:
    """Which directories are watched, and which of their files count."""

    def __init__(
        self, directories: tuple[str, ...], include: tuple[str, ...], exclude: tuple[str, ...]
    ) -> None:
        self.roots = [os.path.abspath(directory) for directory in directories]
        self._include, self._exclude = include, exclude
        for root in self.roots:
            if not os.path.isdir(root):
                raise UsageError(f"reload_dir: {root} is not a directory")

    def counts(self, path: str) -> bool:
        """Whether a change of this file brings a reload."""
        name = os.path.basename(path)
        return self._matches(self._include, path, name) and not self._matches(
            self._exclude, path, name
        )

    def walk(self, root: str) -> Iterator[str]:
        """The directory and those in it that are worth watching."""
        for directory, below, _ in os.walk(root):
            yield directory
            below[:] = [name for name in below if self._is_open(os.path.join(directory, name))]

    def _is_open(self, directory: str) -> bool:
        name = os.path.basename(directory)
        if name.startswith(".") or name in _SKIPPED:
            return False
        # A virtual environment by any name.
        if os.path.exists(os.path.join(directory, "pyvenv.cfg")):
            return False
        return not self._matches(self._exclude, directory, name)

    def _matches(self, patterns: tuple[str, ...], path: str, name: str) -> bool:
        relative = [
            os.path.relpath(path, root)
            for root in self.roots
            if path == root or path.startswith(root + os.sep)
        ]
        return any(
            fnmatch.fnmatch(text, pattern.rstrip("/"))
            for pattern in patterns
            for text in (name, path, *relative)
        )


def main() -> NoReturn:
    """The process's program."""
    spec = Spec.read()
    try:
        _watch(spec)
    except KeyboardInterrupt:
        pass
    except BaseException as error:
        sys.exit(tell_failure(spec.channel, error))
    sys.exit(0)


def _with_new(changed: list[str], selection: Selection, watch: _rondel.FileWatch) -> Iterator[str]:
    """What has changed, and the files of directories that are new: they may have come before the
    directory was watched, so one is watched first and looked through then.
    """
    for path in changed:
        yield path
        if not os.path.isdir(path):
            continue
        for directory in selection.walk(path):
            with contextlib.suppress(OSError):  # gone again
                watch.add(directory)
                for name in os.listdir(directory):
                    yield os.path.join(directory, name)


def _watch(spec: Spec) -> None:
    config = spec.config
    directories = tuple(config.reload_dir) or (spec.app.directory,)
    selection = Selection(directories, tuple(config.reload_include), tuple(config.reload_exclude))
    watch = _rondel.file_watch()
    for root in selection.roots:
        for directory in selection.walk(root):
            watch.add(directory)
    channel = spec.channel
    channel.send("ready")
    while True:
        changed = watch.wait(_PATIENCE)
        for _ in channel.received():
            pass
        if channel.ended:
            return
        told = sorted(
            {path for path in _with_new(changed, selection, watch) if selection.counts(path)}
        )
        if told:
            names = [os.path.relpath(path) for path in told[:3]]
            more = f" and {len(told) - 3} more" if len(told) > 3 else ""
            channel.send("changed", paths=", ".join(names) + more)
