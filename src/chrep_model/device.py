"""What this machine computes with: its GPUs, its cores, and how its memory is handed on."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from chrep_model.errors import PredictionError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h


def choose_device(wanted: str) -> str:
    """Return the best device of this machine for ``"auto"``; check any other one and return it.

    Raises
    ------
    PredictionError
        The device is not there.
    """
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise PredictionError(
            f"there is no device {wanted!r} here", remedy="Use --device auto or cpu."
        ) from error
    return wanted


def gpus() -> list[str]:
    """Return the names of this process's CUDA devices, in the form that CUDA_VISIBLE_DEVICES takes."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] or [str(number) for number in range(count)]


@contextmanager
def each_core() -> Iterator[ThreadPoolExecutor]:
    """Yield a pool with one thread per core of torch; in each thread, torch computes on one core.

    Networks that run in them side by side never wait for each other, as the cores do that share a layer.
    """
    import torch

    count = torch.get_num_threads()
    all_started = threading.Barrier(count)

    def start() -> None:
        torch.get_num_threads()  # a thread takes over the process's number when it first asks, not later
        torch.set_num_threads(1)
        all_started.wait()

    with ThreadPoolExecutor(count, thread_name_prefix="chrep-core", initializer=start) as threads:
        for started in [threads.submit(torch.get_num_threads) for _ in range(count)]:
            started.result()
        torch.set_num_threads(count)  # what they have set is also what new threads begin with
        yield threads


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
