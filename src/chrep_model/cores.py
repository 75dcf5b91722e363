"""Cores that compute side by side, each on something of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def each_core() -> Iterator[ThreadPoolExecutor]:
    """Give threads, as many as torch computes with here, in each of which it computes on one core.

    Networks that run in them side by side never wait for each other, as the cores do that share a layer.
    """
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
