"""When a worker's loop last ran: told by the worker, read by the supervisor and ``--health-port``.

Numbers in the worker's page of the shared file (``metrics``), behind its gauges: the process, when
its loop last answered a ping, when its watchdog's thread last ran; nanoseconds of
``time.monotonic_ns``, which is one clock for all processes. A process that is alone has a file of
its own. Each page is written by its process alone, from any thread.
"""

import os
import struct
import time
from dataclasses import dataclass

from rondel.server.metrics import PAGE, room

__all__ = ["Beat", "Beats"]

# Of the page's numbers.
_AT = 96
_FORMAT = struct.Struct("=3Q")


@dataclass(frozen=True, slots=True)
class Beat:
    """What a page says: seconds since either ran."""

    pid: int
    loop: float
    thread: float


class Beats:
    """``shared`` as in ``Metrics``: the file, how many pages it has, which is this process's."""

    def __init__(self, shared: tuple[int, int, int] | None = None) -> None:
        self._own = shared is None
        if shared is None:
            self._fd, self._pages, self._mine = os.memfd_create("rondel-beats"), 1, 0
            self._first = 0
            os.ftruncate(self._fd, room(0, 1))
        else:
            self._fd, self._pages, self._mine = shared
            self._first = self._pages
        self._pid = os.getpid()
        self._ended = False

    def loop_runs(self) -> None:
        """Now."""
        self._write(0, self._pid, time.monotonic_ns())

    def thread_runs(self) -> None:
        """Now."""
        self._write(2, time.monotonic_ns())

    def retire(self) -> None:
        """This process is not to be judged any more."""
        if not self._ended:
            if self.read(self._mine).pid == self._pid:
                self._write(0, 0, 0, 0)
            self._ended = True
            if self._own:
                os.close(self._fd)

    def read(self, page: int) -> Beat:
        """What a worker's page says; its ``pid`` is 0 if nobody writes there."""
        now = time.monotonic_ns()
        if self._ended:
            return Beat(0, 0.0, 0.0)
        pid, loop, thread = _FORMAT.unpack(os.pread(self._fd, _FORMAT.size, self._at(page)))
        # A process writes its first beat before its thread's.
        return Beat(pid, max(0, now - loop) / 1e9, max(0, now - max(loop, thread)) / 1e9)

    def _at(self, page: int) -> int:
        return 8 * (self._first + PAGE * page + _AT)

    def _write(self, offset: int, *numbers: int) -> None:
        if not self._ended:
            os.pwrite(
                self._fd,
                struct.pack(f"={len(numbers)}Q", *numbers),
                self._at(self._mine) + 8 * offset,
            )
