"""From tiles that are wanted to rows that are known: read ahead by threads, encoded in whole batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chrep_model.embeddings.rows import GridRows
from chrep_model.embeddings.store import Indices, Rows
from chrep_model.errors import Cancelled
from chrep_model.networks.encoder import Encoder, SlideState
from chrep_model.slides.tiles import THREADS, TileReader

AHEAD = 4
"""Batches that are read, or being read, before the encoder wants them."""


@dataclass(frozen=True)
class Need:
    """Tiles (n,) of a grid whose embeddings are wanted."""

    rows: GridRows
    indices: Indices


class TileEncoding:
    """Encodes tiles of one slide.

    Parameters
    ----------
    reader : TileReader
        Reads them.
    encoder : Encoder
        Encodes them.
    batch_size : int
        Tiles per call of the encoder; halved, and left so, when the device runs out of memory.
    """

    def __init__(self, reader: TileReader, encoder: Encoder, batch_size: int) -> None:
        self.reader, self.encoder, self.batch_size = reader, encoder, batch_size

    def of_parts(
        self,
        parts: Iterable[Indices],
        needs: Callable[[Indices], list[Need]],
        state: SlideState,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[Indices]:
        """Hand out each part once all that it needs is known.

        Tiles are gathered over the parts into whole batches: the encoder never waits for a part that needs
        few of them. A part is taken when there is room to read ahead, and not before.

        Beside a GPU, reading never stops. On a CPU it takes turns with the encoder, on as many threads: a
        layer whose threads share their cores with others is as slow as the slowest of them. Turns start with
        a single batch, for the first result to come soon.

        Raises
        ------
        Cancelled
            `cancelled` said so; what was encoded so far is kept.
        """
        import torch

        coming, queue, ended = iter(parts), _Queue(), False
        in_turns = self.encoder.device.type == "cpu"
        threads, most = (min(THREADS, torch.get_num_threads()), 1) if in_turns else (THREADS, AHEAD)
        waiting: deque[tuple[Indices, int]] = (
            deque()
        )  # parts, and how many tiles must have been done for them
        try:
            with self.reader.ahead(threads) as ahead:
                while waiting or not ended:
                    refill = not (in_turns and len(ahead))
                    while refill and not ended and len(ahead) < most and not _ready(waiting, queue):
                        part = next(coming, None)
                        ended = part is None
                        if part is not None:
                            queue.add(needs(part))
                            waiting.append((part, queue.total))
                        for batch in queue.batches(self.batch_size, rest=ended):
                            ahead.ask(np.concatenate([n.rows.grid.centres(n.indices) for n in batch]))
                    while _ready(waiting, queue):
                        _check(cancelled, self.reader)
                        yield waiting.popleft()[0]
                    if in_turns and refill and len(ahead):
                        ahead.finish()
                        most = min(AHEAD, 2 * most)
                    if len(ahead):
                        _check(cancelled, self.reader)
                        queue.take(self.encode(ahead.get(), state))
        finally:
            for rows in queue.touched:
                rows.flush()

    def of_points(
        self,
        centres_xy: NDArray[np.float64],
        state: SlideState,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[tuple[slice, Rows]]:
        """Embeddings around any points (n, 2), (x, y) in level-0 px, batch by batch; see `of_parts`."""
        for part, tiles in self.reader.batches(centres_xy, self.batch_size):
            _check(cancelled, self.reader)
            yield part, self.encode(tiles, state)

    def encode(self, tiles: NDArray[np.uint8], state: SlideState) -> Rows:
        """Encode (n, px, px, 3), in halves of halves where the device has no room for the whole batch."""
        import torch

        try:
            return self.encoder.encode(tiles, state)
        except torch.OutOfMemoryError:
            if len(tiles) == 1:
                raise
        torch.cuda.empty_cache()
        self.batch_size = max(1, len(tiles) // 2)
        return np.concatenate([self.encode(half, state) for half in np.array_split(tiles, 2)])


def _ready(waiting: deque[tuple[Indices, int]], queue: _Queue) -> bool:
    return bool(waiting) and waiting[0][1] <= queue.done


def _check(cancelled: Callable[[], bool] | None, reader: TileReader) -> None:
    if cancelled is not None and cancelled():
        raise Cancelled("cancelled", path=reader.slide.path)


class _Queue:
    """Tiles on their way to the encoder, in batches that may hold tiles of several grids.

    Attributes
    ----------
    total, done : int
        Tiles that were queued so far, and that came back.
    touched : list of GridRows
        Whose they are.
    """

    def __init__(self) -> None:
        self.total = self.done = 0
        self.touched: list[GridRows] = []
        self._queued: list[NDArray[np.bool_]] = []
        self._gathering: deque[Need] = deque()
        self._gathered = 0
        self._asked: deque[list[Need]] = deque()

    def add(self, needs: list[Need]) -> None:
        """Queue those tiles that are neither known nor queued."""
        for need in needs:
            if need.rows not in self.touched:
                self.touched.append(need.rows)
                self._queued.append(np.zeros(need.rows.grid.size, bool))
            queued = self._queued[self.touched.index(need.rows)]
            new = np.unique(need.indices[~queued[need.indices]])
            new = new[~need.rows.has(new)]
            if len(new):
                queued[new] = True
                self.total += len(new)
                self._gathered += len(new)
                self._gathering.append(Need(need.rows, new))

    def batches(self, size: int, *, rest: bool) -> Iterator[list[Need]]:
        """Take whole batches of what was gathered; the `rest` too, if nothing more comes."""
        while self._gathered >= size or (rest and self._gathered):
            batch: list[Need] = []
            room = size
            while self._gathering and room:
                need = self._gathering.popleft()
                batch.append(Need(need.rows, need.indices[:room]))
                if len(need.indices) > room:
                    self._gathering.appendleft(Need(need.rows, need.indices[room:]))
                room -= len(batch[-1].indices)
            self._gathered -= size - room
            self._asked.append(batch)
            yield batch

    def take(self, values: Rows) -> None:
        """Take in the embeddings (n, dim) of the batch that was taken first and has not come back yet."""
        start = 0
        for need in self._asked.popleft():
            need.rows.add(need.indices, values[start : start + len(need.indices)])
            start += len(need.indices)
        self.done += start
