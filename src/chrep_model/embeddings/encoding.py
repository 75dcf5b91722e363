"""Encoding of a slide's tiles: read ahead by threads, encoded in full batches, stored as rows of a grid."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chrep_model.embeddings.pipelines import Pipeline, pipeline
from chrep_model.embeddings.rows import GridRows
from chrep_model.embeddings.store import Indices, Rows
from chrep_model.encoders.encoder import Encoder, SlideState
from chrep_model.mapped_arrays import slices
from chrep_model.progress import SILENT, Progress
from chrep_model.slides.tiles import TileReader


@dataclass(frozen=True)
class Need:
    """Tiles (n,) of a grid whose embeddings are needed."""

    rows: GridRows
    indices: Indices


class TileEncoding:
    """Encoding of one slide's tiles in batches.

    Parameters
    ----------
    reader : TileReader
        Reader of the tiles.
    encoder : Encoder
        Network or statistics that turn tiles into embeddings.
    batch_size : int
        Tiles per call of the encoder; halved permanently when the device runs out of memory.
    in_bulk : bool
        Whether total speed matters more than the time until the first result; see `pipelines`.
    """

    def __init__(
        self, reader: TileReader, encoder: Encoder, batch_size: int, *, in_bulk: bool = False
    ) -> None:
        self.reader, self.encoder, self.batch_size, self.in_bulk = reader, encoder, batch_size, in_bulk

    def of_parts(
        self,
        parts: Iterable[Indices],
        needs: Callable[[Indices], list[Need]],
        state: SlideState,
        progress: Progress = SILENT,
    ) -> Iterator[Indices]:
        """Yield each part once the embeddings of all tiles that it needs are known.

        Tiles of several parts are combined to full batches, so that parts that need few tiles do not slow the
        encoder down. The next part is only taken when there is room to read ahead.

        Raises
        ------
        Cancelled
            `progress.cancelled` returned True; what was encoded so far is kept.
        """
        coming, queue = iter(parts), _Queue()
        more = True
        try:
            with self._pipeline(state) as under_way:
                while more or queue.waiting:
                    while under_way.has_room and not queue.is_ready:
                        if batch := queue.batch(self.batch_size, rest=not more):
                            under_way.ask(np.concatenate([n.rows.grid.centres(n.indices) for n in batch]))
                        elif more and (part := next(coming, None)) is not None:
                            queue.add(part, needs(part))
                        elif more:
                            more = False
                        else:
                            break
                    progress.raise_if_cancelled()
                    if queue.is_ready:
                        yield queue.pop()
                    elif len(under_way):
                        queue.take(under_way.get())
        finally:
            for rows in queue.touched:
                rows.flush()

    def of_points(
        self,
        centres_xy: NDArray[np.float64],
        state: SlideState,
        progress: Progress = SILENT,
    ) -> Iterator[tuple[slice, Rows]]:
        """Yield embeddings around points (n, 2), (x, y) in level-0 px, batch by batch; see `of_parts`."""
        coming = slices(len(centres_xy), self.batch_size)
        asked: deque[slice] = deque()
        more = True
        with self._pipeline(state) as under_way:
            while more or asked:
                while more and under_way.has_room:
                    part = next(coming, None)
                    more = part is not None
                    if part is not None:
                        asked.append(part)
                        under_way.ask(centres_xy[part])
                progress.raise_if_cancelled()
                if asked:
                    yield asked.popleft(), under_way.get()

    def encode(self, tiles: NDArray[np.uint8], state: SlideState) -> Rows:
        """Encode tiles (n, px, px, 3); the batch is halved until it fits into the device's memory."""
        import torch

        try:
            return self.encoder.encode(tiles, state)
        except torch.OutOfMemoryError:
            if len(tiles) == 1:
                raise
        torch.cuda.empty_cache()
        self.batch_size = max(1, len(tiles) // 2)
        return np.concatenate([self.encode(half, state) for half in np.array_split(tiles, 2)])

    def _pipeline(self, state: SlideState) -> AbstractContextManager[Pipeline]:
        return pipeline(
            self.reader, self.encoder, lambda tiles: self.encode(tiles, state), in_bulk=self.in_bulk
        )


class _Queue:
    """Queue of tiles to encode, in batches that may hold tiles of several grids.

    Attributes
    ----------
    waiting : deque
        Parts that were added and not popped, each with the number of tiles encoded when it is ready.
    touched : list of GridRows
        Grids of the queued tiles.
    """

    def __init__(self) -> None:
        self.waiting: deque[tuple[Indices, int]] = deque()
        self._total = self._done = 0
        self.touched: list[GridRows] = []
        self._queued: list[NDArray[np.bool_]] = []
        self._gathering: deque[Need] = deque()
        self._gathered = 0
        self._asked: deque[list[Need]] = deque()

    @property
    def is_ready(self) -> bool:
        """Whether all tiles that the first part needs are known."""
        return bool(self.waiting) and self.waiting[0][1] <= self._done

    def pop(self) -> Indices:
        """Remove and return the first part."""
        return self.waiting.popleft()[0]

    def add(self, part: Indices, needs: list[Need]) -> None:
        """Add a part, and queue the tiles it needs that are neither known nor queued."""
        for need in needs:
            if need.rows not in self.touched:
                self.touched.append(need.rows)
                self._queued.append(np.zeros(need.rows.grid.size, bool))
            queued = self._queued[self.touched.index(need.rows)]
            new = np.unique(need.indices[~queued[need.indices]])
            new = new[~need.rows.has(new)]
            if len(new):
                queued[new] = True
                self._total += len(new)
                self._gathered += len(new)
                self._gathering.append(Need(need.rows, new))
        self.waiting.append((part, self._total))

    def batch(self, size: int, *, rest: bool) -> list[Need]:
        """Take a full batch of queued tiles, or with `rest` an incomplete one; empty if there is none."""
        batch: list[Need] = []
        room = size if rest or self._gathered >= size else 0
        while self._gathering and room:
            need = self._gathering.popleft()
            batch.append(Need(need.rows, need.indices[:room]))
            if len(need.indices) > room:
                self._gathering.appendleft(Need(need.rows, need.indices[room:]))
            room -= len(batch[-1].indices)
            self._gathered -= len(batch[-1].indices)
        if batch:
            self._asked.append(batch)
        return batch

    def take(self, values: Rows) -> None:
        """Store the embeddings (n, dim) of the oldest batch that is being encoded."""
        start = 0
        for need in self._asked.popleft():
            need.rows.add(need.indices, values[start : start + len(need.indices)])
            start += len(need.indices)
        self._done += start
