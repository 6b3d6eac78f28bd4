"""The file that the workers share, from the supervisor's side: who has been silent for too long.

In it workers count the connections that they took, so that they share fairly; then each has a page,
of what its metrics say and of when its loop and its watchdog last ran (``metrics``, ``beats``).

Made before the first worker and closed after the last. ``Pulse.told`` is called by the health
port's thread, everything else by the supervisor's own.
"""

import dataclasses
import logging
import os
import signal
import time
from collections.abc import Iterable, Mapping

from rondel.server.beats import Beat, Beats
from rondel.server.metrics import room
from rondel.server.supervisor.channel import WORKERS
from rondel.server.supervisor.child import Child, State
from rondel.server.supervisor.slots import Slot

__all__ = ["LOOK", "Pulse"]

logger = logging.getLogger("rondel.server")

# Seconds between two looks at the workers' beats, and for one to end that was told to abort.
LOOK = 1.0
_ABORT = 5.0


class Pulse:
    """``slots`` are the supervisor's own."""

    def __init__(self, slots: Mapping[int, Slot]) -> None:
        self._slots = slots
        # Its descriptor is what workers are given.
        self.file = os.memfd_create("rondel-ledger")
        os.ftruncate(self.file, room(WORKERS, WORKERS))
        self._beats = Beats((self.file, WORKERS, 0))

    def close(self) -> None:
        """Nobody is left who writes there."""
        os.close(self.file)

    def told(self) -> list[tuple[int, Beat]]:
        """Of the workers that serve, by their numbers."""
        found = []
        for number, slot in sorted(dict(self._slots).items()):
            current = slot.current
            if current is not None:
                beat = self._of(number)
                # Of two in a change of places the later one writes, if not at once.
                pid = beat.pid or current.pid
                found.append(
                    (
                        number,
                        dataclasses.replace(beat, pid=pid) if beat.pid else Beat(pid, 0.0, 0.0),
                    )
                )
        return found

    def end_silent(self, processes: Iterable[Child], limit: float) -> None:
        """Whose loop and watchdog have both been silent for ``limit`` seconds and more is held by
        native code, or was stopped: it can't even be asked.
        """
        for process in processes:
            if process.state is not State.SERVING or not process.number or process.aborted:
                continue
            beat = self._of(process.number)
            if beat.pid == process.pid and min(beat.loop, beat.thread) >= limit + LOOK:
                logger.error(
                    "%s (pid %d) has done nothing for %.3g s, not even its watchdog: it is ended",
                    process.name,
                    process.pid,
                    beat.thread,
                )
                process.aborted = True
                process.signal(signal.SIGABRT)
                process.deadline = time.monotonic() + _ABORT

    def _of(self, number: int) -> Beat:
        return self._beats.read((number - 1) % WORKERS)
