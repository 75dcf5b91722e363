"""Choice of the device to compute on, use of all cores, and settings of the memory allocator."""

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

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # constants of glibc's malloc.h


def choose_device(wanted: str) -> str:
    """Return the best device of this machine for ``"auto"``; check any other one and return it.

    Raises
    ------
    PredictionError
        The machine does not have the device.
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

    Networks that run in these threads never wait for each other, unlike cores that share the work of a layer.
    """
    import torch

    count = torch.get_num_threads()
    all_started = threading.Barrier(count)

    def start() -> None:
        torch.get_num_threads()  # a thread adopts the process's number at its first call, and not later
        torch.set_num_threads(1)
        all_started.wait()

    with ThreadPoolExecutor(count, thread_name_prefix="chrep-core", initializer=start) as threads:
        for started in [threads.submit(torch.get_num_threads) for _ in range(count)]:
            started.result()
        torch.set_num_threads(count)  # their setting of 1 would also apply to new threads
        yield threads


def keep_freed_memory() -> None:
    """Let glibc keep freed memory in this process for the next batch; without glibc do nothing.

    By default glibc returns large blocks, such as activations, to the system, and requests them again with
    every layer; the system then has to clear their pages, which on a CPU can double the time of a batch. The
    workers of a dask cluster are even set to return all memory at once (MALLOC_TRIM_THRESHOLD_).
    """
    with suppress(AttributeError):  # other C libraries have no mallopt, and do not need it
        mallopt = _c_library().mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, 512 << 20)


def share_one_arena() -> None:
    """Let glibc allocate the memory of all new threads in one arena; for processes without a window.

    By default threads have arenas of their own, which hold no block above 64 MB, and memory that is freed in
    one cannot be used in another. With one arena a window would wait for its lock.
    """
    with suppress(AttributeError):
        _c_library().mallopt(_M_ARENA_MAX, 1)


def hand_back_freed_memory() -> None:
    """Let glibc return free memory to the system; not for use between batches, which need it again."""
    with suppress(AttributeError):
        _c_library().malloc_trim(0)


def _c_library() -> Any:
    return ctypes.CDLL(None) if sys.platform == "linux" else None
