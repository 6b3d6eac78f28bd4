"""What is counted: references, blocks, bytes of the C library, descriptors, the process's size."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def _mallinfo2() -> Callable[[], int] | None:
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)  # glibc 2.33 and later
    if function is None:
        return None
    function.restype = _Mallinfo2

    def in_use() -> int:
        info = function()
        return int(info.uordblks + info.hblkhd)

    return in_use


references: Callable[[], int] | None = getattr(sys, "gettotalrefcount", None)
"""All references there are: in a debug build of CPython only."""

blocks: Callable[[], int] = sys.getallocatedblocks
"""Blocks of Python's own allocator that are in use."""

malloced: Callable[[], int] | None = _mallinfo2()
"""Bytes given out by the C library (the main thread's arena): Rust's memory, large objects."""


def _malloc_trim() -> Callable[[int], int]:
    function = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    return function if function is not None else lambda pad: 0


_trim = _malloc_trim()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """The process's resident size in bytes, without what the C library keeps although it is free.

    A burst of large writes makes glibc's arenas grow, and it gives back only their ends: some MiB
    more or less for minutes, which nobody holds.
    """
    _trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children() -> set[int]:
    """The process's children, also those that have ended and were not waited for."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        # A thread that ends meanwhile has left its children to another.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, (task / "children").read_text().split()))
    return found
