"""Pipelines that read and encode batches of tiles in the background, and return them in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from chrep_model.device import hand_back_freed_memory
from chrep_model.embeddings.store import Rows
from chrep_model.encoders.encoder import Encoder
from chrep_model.slides.tiles import THREADS, Points, ReadAhead, TileReader

AHEAD = 4
"""Number of batches that are read ahead of the encoder."""

TRIMMED = 8192
"""Number of tiles after which each core's freed memory is returned to the system, against fragmentation."""

Encode = Callable[[NDArray[np.uint8]], Rows]
"""Function from tiles (n, px, px, 3) to embeddings (n, dim)."""


class Pipeline(Protocol):
    """Interface of a pipeline."""

    def __len__(self) -> int:
        """Return the number of requested batches that were not taken yet."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether another batch may be requested now."""
        ...

    def ask(self, centres_xy: Points) -> None:
        """Request the tiles around centres (n, 2), (x, y) in level-0 px."""
        ...

    def get(self) -> Rows:
        """Wait for the first requested batch, and take its embeddings (n, dim)."""
        ...


@contextmanager
def pipeline(reader: TileReader, encoder: Encoder, encode: Encode, *, in_bulk: bool) -> Iterator[Pipeline]:
    """Open the pipeline that is fastest on the encoder's device.

    Parameters
    ----------
    encode : callable
        Function that runs the encoder.
    in_bulk : bool
        Whether total speed matters more than the time until the first result.
    """
    import torch

    on_cpu = encoder.device.type == "cpu"
    if on_cpu and in_bulk:
        from chrep_model.device import each_core

        with each_core() as cores:
            side_by_side = EachCore(cores, torch.get_num_threads(), reader, encode)
            try:
                yield side_by_side
            finally:
                side_by_side.stop()
        return
    threads = min(THREADS, torch.get_num_threads()) if on_cpu else THREADS
    with reader.ahead(threads) as ahead:
        yield OneEncoder(ahead, encode, in_turns=on_cpu)


class OneEncoder:
    """Pipeline in which several threads read, and one batch at a time is encoded.

    With a GPU, tiles are read all the time. On a CPU, reading and encoding alternate, because a layer whose
    threads share cores with others is as slow as its slowest thread. The first turn is a single batch, for an
    early first result.
    """

    def __init__(self, ahead: ReadAhead, encode: Encode, *, in_turns: bool) -> None:
        self._ahead, self._encode, self._in_turns = ahead, encode, in_turns
        self._most = 1 if in_turns else AHEAD
        self._is_reading = True

    def __len__(self) -> int:
        return len(self._ahead)

    @property
    def has_room(self) -> bool:
        """See `Pipeline`."""
        return self._is_reading and len(self) < self._most

    def ask(self, centres_xy: Points) -> None:
        """See `Pipeline`."""
        self._ahead.ask(centres_xy)

    def get(self) -> Rows:
        """See `Pipeline`."""
        if self._in_turns and self._is_reading:
            self._ahead.finish()
            self._is_reading, self._most = False, min(AHEAD, 2 * self._most)
        values = self._encode(self._ahead.get())
        self._is_reading = self._is_reading or not len(self)
        return values


class EachCore:
    """Pipeline for a CPU in which every core reads and encodes its own batches.

    It encodes more tiles per second than `OneEncoder`, but with n cores the first batch takes n times as
    long, and n batches are in memory.
    """

    def __init__(self, cores: ThreadPoolExecutor, count: int, reader: TileReader, encode: Encode) -> None:
        self._cores, self._reader, self._encode = cores, reader, encode
        self._most, self._done = 2 * count, 0
        self._jobs: deque[Future[Rows]] = deque()
        self._stopped = threading.Event()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def has_room(self) -> bool:
        """See `Pipeline`."""
        return len(self) < self._most

    def ask(self, centres_xy: Points) -> None:
        """See `Pipeline`."""
        self._jobs.append(self._cores.submit(self._work, centres_xy))

    def get(self) -> Rows:
        """See `Pipeline`."""
        values = self._jobs.popleft().result()
        self._done += len(values)
        if self._done >= TRIMMED:
            hand_back_freed_memory()
            self._done = 0
        return values

    def stop(self) -> None:
        """Stop reading; batches that are being encoded are completed."""
        self._stopped.set()
        for job in self._jobs:
            job.cancel()

    def _work(self, centres_xy: Points) -> Rows:
        tiles = self._reader.blank(len(centres_xy))
        self._reader.fill(tiles, self._reader.corners(centres_xy), self._stopped)
        if self._stopped.is_set():
            raise CancelledError
        return self._encode(tiles)
