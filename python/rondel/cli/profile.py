"""``rondel run --profile FILE``: the whole run as a page of one file, written at the exit.

It is written whatever ends the program, but for a signal that kills it and ``os._exit``; after the
program's own exit handlers, and its exit status is left alone.
"""

import atexit
import os
import sys

__all__ = ["begin", "writable"]


def writable(path: str) -> str:
    """The whole path of a file that was made, empty. Raises OSError."""
    path = os.path.abspath(path)
    with open(path, "w", encoding="utf-8"):
        pass
    return path


def begin(path: str, program: str) -> None:
    """Record from now on. Raises OSError if the page cannot be written there.

    Before anything of the program runs: the first exit handler is called last.
    """
    # Now, not when the work of the program would be lost; and where the paths stand now.
    path = writable(path)
    from rondel.inspect.recording import record

    recorder = record()
    pid = os.getpid()

    def write() -> None:
        if os.getpid() != pid:
            return  # a fork of the program
        from rondel.inspect.web import single

        recording = recorder.stop()
        try:
            with open(path, "w", encoding="utf-8") as file:
                single.write(recording, file, program=program)
        except OSError as error:
            sys.stderr.write(f"rondel run: cannot write {path}: {error.strerror}\n")
            return
        if recording.lost:
            sys.stderr.write(
                f"rondel run: {path} has the first {recording.seconds:.1f} s; {recording.lost} "
                "events had no room\n"
            )

    atexit.register(write)
