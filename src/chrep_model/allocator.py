"""How the C library treats memory that a network frees between two batches."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep what one batch has freed for the next, for this process; elsewhere nothing is done.

    By itself it hands large pieces, such as activations are, back to the system and asks for them again with
    every layer, to get pages that have to be cleared first: on a CPU that can double the time of a batch. The
    workers of a dask cluster are even told to hand back all at once (MALLOC_TRIM_THRESHOLD_).
    """
    with suppress(AttributeError):  # C libraries other than glibc have no mallopt, and no need of it
        mallopt = _c_library().mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, 512 << 20)


def share_one_arena() -> None:
    """Have glibc serve threads that start from now on out of one arena, in a process without a window.

    Those that it makes for threads hold no piece above 64 MB, and what one has freed serves no other. A
    window would wait for the lock of the one.
    """
    with suppress(AttributeError):
        _c_library().mallopt(_M_ARENA_MAX, 1)


def hand_back_freed_memory() -> None:
    """Let glibc hand back what is free by now; what is done between batches would be in the way of them."""
    with suppress(AttributeError):
        _c_library().malloc_trim(0)


def _c_library() -> Any:
    return ctypes.CDLL(None) if sys.platform == "linux" else None
