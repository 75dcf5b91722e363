"""The embeddings of one grid's tiles, in memory or in the slide's store."""

from __future__ import annotations

from collections import OrderedDict
from itertools import count

import numpy as np
from numpy.typing import NDArray

from chrep_model.embeddings.store import SEGMENT, Indices, Rows, Store
from chrep_model.slides.tiles import TileGrid

MEMORY = 128 * 2**20
"""Largest number of bytes of embeddings in memory if there is a store to read them from again."""


class GridRows:
    """The embeddings of one grid's tiles, in blocks of rows that were computed together.

    With a store, each block is written as a segment, and the least recently used blocks are removed from
    memory, so that a large slide does not need more of it. Without a store all blocks stay in memory.

    Parameters
    ----------
    grid : TileGrid
        The grid.
    dim : int
        Length of an embedding.
    store : Store or None
        Store on disk, if any.
    """

    def __init__(self, grid: TileGrid, dim: int, store: Store | None) -> None:
        self.grid, self.dim = grid, dim
        self._store = store
        self._name = f"stride-{grid.stride:g}"
        self._block = np.full(grid.size, -1, np.int32)  # block of each tile; -1 if unknown
        self._row = np.zeros(grid.size, np.int32)  # row of each tile in its block
        self._loaded: OrderedDict[int, Rows] = OrderedDict()  # blocks in memory, the last used at the end
        self._segments: dict[int, str] = {}  # names of the blocks in the store
        self._members: dict[int, Indices] = {}
        self._numbers = count()
        self._open_block = _OpenBlock(next(self._numbers), dim)

    def listed(self, indices: Indices) -> NDArray[np.bool_]:
        """Return which tiles are listed as known, (n,) bool, without reading their embeddings."""
        self._list_segments()
        known: NDArray[np.bool_] = self._block[indices] >= 0
        return known

    def has(self, indices: Indices) -> NDArray[np.bool_]:
        """Return which tiles are known, (n,) bool; their embeddings are available until the next call.

        Tiles that other processes have added to the store are included.
        """
        self._trim()
        if (self._block[indices] < 0).any():
            self._list_segments()
        for number in np.unique(self._block[indices]).tolist():
            self._load(number)
        known: NDArray[np.bool_] = self._block[indices] >= 0
        return known

    def __getitem__(self, indices: Indices) -> Rows:
        """Return the embeddings (n, dim) of tiles that the last call of `has` found."""
        out = np.empty((len(indices), self.dim), np.float32)
        blocks, rows, growing = self._block[indices], self._row[indices], self._open_block
        for number in np.unique(blocks).tolist():
            here = blocks == number
            out[here] = (growing.values if number == growing.number else self._loaded[number])[rows[here]]
        return out

    def add(self, indices: Indices, values: Rows) -> None:
        """Add embeddings (n, dim) of tiles that are not known yet."""
        while len(indices):
            first, taken = self._open_block.count, self._open_block.take(indices, values)
            part, indices, values = indices[:taken], indices[taken:], values[taken:]
            self._block[part], self._row[part] = self._open_block.number, np.arange(first, first + taken)
            if self._open_block.count == SEGMENT:
                self._close_block()

    def flush(self) -> None:
        """Write all embeddings that are not in the store yet."""
        if self._store is not None and self._open_block.count:
            self._close_block()

    def _close_block(self) -> None:
        number, indices, values = self._open_block.number, *self._open_block.filled()
        self._loaded[number], self._members[number] = values, indices
        if self._store is not None:
            self._segments[number] = self._store.add_segment(self._name, indices, values)
        self._open_block = _OpenBlock(next(self._numbers), self.dim)

    def _list_segments(self) -> None:
        """List the segments that were added to the store since the last call."""
        if self._store is None:
            return
        known = set(self._segments.values())
        for name in self._store.segments(self._name):
            if name not in known:
                number, indices = next(self._numbers), self._store.indices(self._name, name)
                self._segments[number], self._members[number] = name, indices
                new = self._block[indices] < 0
                self._block[indices[new]], self._row[indices[new]] = number, np.flatnonzero(new)

    def _load(self, number: int) -> None:
        """Read a block into memory; tiles that were deleted from the store become unknown."""
        if number in self._loaded:
            self._loaded.move_to_end(number)
        elif number in self._segments and self._store is not None:
            indices = self._members[number]
            values = self._store.values(self._name, self._segments[number], len(indices))
            self._loaded[number] = values
            lost = np.isnan(values[:, 0])
            self._block[indices[lost & (self._block[indices] == number)]] = -1

    def _trim(self) -> None:
        """Remove blocks that can be read again from memory, starting with the least recently used."""
        held = sum(values.nbytes for values in self._loaded.values())
        for number in [number for number in self._loaded if number in self._segments]:
            if held <= MEMORY:
                break
            held -= self._loaded.pop(number).nbytes


class _OpenBlock:
    """The block to which rows are added."""

    def __init__(self, number: int, dim: int) -> None:
        self.number, self.count = number, 0
        self.values = np.empty((SEGMENT, dim), np.float32)
        self._indices = np.empty(SEGMENT, np.int64)

    def take(self, indices: Indices, values: Rows) -> int:
        """Add as many rows as fit into the block; return their number."""
        taken = min(len(indices), SEGMENT - self.count)
        here = slice(self.count, self.count + taken)
        self._indices[here], self.values[here] = indices[:taken], values[:taken]
        self.count += taken
        return taken

    def filled(self) -> tuple[Indices, Rows]:
        """Return copies of the added indices (n,) and embeddings (n, dim)."""
        return self._indices[: self.count].copy(), self.values[: self.count].copy()
