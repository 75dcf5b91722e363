"""Batches of tiles that are read, then encoded, and come back in the order in which they were asked for."""

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
"""Batches that are read, or being read, before the encoder wants them."""

TRIMMED = 8192
"""Tiles after which each core's freed memory is handed back: what others keep between splits it up."""

Encode = Callable[[NDArray[np.uint8]], Rows]
"""Tiles (n, px, px, 3) to embeddings (n, dim)."""


class Pipeline(Protocol):
    """What all have in common."""

    def __len__(self) -> int:
        """Return how many batches were asked for and not taken yet."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether more may be asked for by now."""
        ...

    def ask(self, centres_xy: Points) -> None:
        """Ask for the tiles around centres (n, 2), (x, y) in level-0 px."""
        ...

    def get(self) -> Rows:
        """Take the embeddings (n, dim) of the batch that was asked for first."""
        ...


@contextmanager
def pipeline(reader: TileReader, encoder: Encoder, encode: Encode, *, in_bulk: bool) -> Iterator[Pipeline]:
    """Choose for the device.

    Parameters
    ----------
    encode : callable
        What runs the encoder.
    in_bulk : bool
        Many tiles are to come, and nobody waits for the first.
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
    """Threads read, and one batch at a time is encoded.

    Beside a GPU, reading never stops. On a CPU it takes turns with the encoder, on as many threads: a layer
    whose threads share their cores with others is as slow as the slowest of them. Turns start with a single
    batch, for the first result to come soon.
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
    """Every core reads and encodes batches of its own, and waits for no other.

    More tiles per second than `OneEncoder` on a CPU, but the first take as many times longer as there are
    cores, and memory is taken by as many batches.
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
        """Read no more; what is being encoded is finished."""
        self._stopped.set()
        for job in self._jobs:
            job.cancel()

    def _work(self, centres_xy: Points) -> Rows:
        tiles = self._reader.blank(len(centres_xy))
        self._reader.fill(tiles, self._reader.corners(centres_xy), self._stopped)
        if self._stopped.is_set():
            raise CancelledError
        return self._encode(tiles)
