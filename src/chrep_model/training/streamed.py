"""Features of more spots than the memory holds: read from their arrays a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from chrep_model.mapped_arrays import read_rows, slices

LARGE = 2**18
"""Tables of more spots than this are streamed, whether their features are in memory or on the disk.

So that where they are makes no difference to a result: sums in parts are rounded otherwise than those of the
whole.
"""

BLOCK = 4096
"""Rows that a pass over all of them reads at once."""

Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From some rows to as many others."""


class Streamed:
    """Rows of several arrays one after the other, changed as they are read; nothing of them is kept.

    It is asked as an array is, by a slice, by row numbers or by a mask, and what it gives is one.

    Parameters
    ----------
    parts : sequence of array-like
        (n_i, d) float32 arrays or memory maps.
    changes : sequence of callable
        Applied in turn to rows that were read.
    chosen : ndarray, optional
        (n,) int64 numbers of the rows that it consists of; all unless given.
    """

    def __init__(
        self, parts: Sequence[Any], changes: Sequence[Change] = (), chosen: NDArray[np.int64] | None = None
    ) -> None:
        self.parts, self.changes, self.chosen = tuple(parts), tuple(changes), chosen
        self._ends = np.cumsum([part.shape[0] for part in self.parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.chosen is None else len(self.chosen)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and numbers per row."""
        return len(self), self._changed(np.zeros((1, self.parts[0].shape[1]), np.float32)).shape[1]

    def __getitem__(self, rows: slice | NDArray[Any]) -> NDArray[np.float32]:
        if isinstance(rows, slice):
            wanted = np.arange(*rows.indices(len(self)))
        else:
            wanted = np.flatnonzero(rows) if rows.dtype == bool else rows
        return self._changed(self._raw(wanted if self.chosen is None else self.chosen[wanted]))

    def changed(self, change: Change) -> Streamed:
        """Give the same rows, with one more change."""
        return Streamed(self.parts, (*self.changes, change), self.chosen)

    def only(self, keep: NDArray[np.bool_]) -> Streamed:
        """Give the rows where `keep`, (n,) bool, is true."""
        chosen = np.flatnonzero(keep) if self.chosen is None else self.chosen[keep]
        return Streamed(self.parts, self.changes, chosen)

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Give all rows in their order, `BLOCK` of them at a time."""
        return (self[block] for block in slices(len(self), BLOCK))

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean (d,) and covariance (d, d) of the rows, in one pass.

        Sums are in double precision; features are standardised, so that the squares of their means do not
        drown what is left.
        """
        total: Any = 0.0
        gram: Any = 0.0
        for piece in self.pieces():
            wide = piece.astype(np.float64)
            total = total + wide.sum(0)
            gram = gram + wide.T @ wide
        mean = total / len(self)
        return mean, gram / len(self) - np.outer(mean, mean)

    def _raw(self, wanted: NDArray[np.int64]) -> NDArray[np.float32]:
        out = np.empty((len(wanted), self.parts[0].shape[1]), np.float32)
        of = np.searchsorted(self._ends, wanted, side="right")
        for number in np.unique(of):
            rows, here = wanted[of == number] - self._start(number), of == number
            whole = len(rows) and rows[-1] - rows[0] + 1 == len(rows) and (np.diff(rows) == 1).all()
            out[here] = read_rows(self.parts[number], slice(rows[0], rows[-1] + 1) if whole else rows)
        return out

    def _start(self, number: int) -> int:
        return int(self._ends[number - 1]) if number else 0

    def _changed(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        for change in self.changes:
            rows = change(rows)
        return rows


def stacked(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Put features (n_i, d) of sections together: an array, or a `Streamed` where there are many spots.

    The type says array: a `Streamed` passes for one where rows are asked for, and those that ask for more
    (see `Method.streams`) are never given one.
    """
    if sum(len(part) for part in parts) <= LARGE:
        return np.concatenate(parts)
    return cast("NDArray[np.float32]", Streamed(parts))


def kept(features: NDArray[np.float32], keep: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Give the rows of features where `keep`, (n,) bool, is true; streamed ones stay so."""
    if isinstance(features, Streamed):
        return cast("NDArray[np.float32]", features.only(keep))
    return features[keep]
