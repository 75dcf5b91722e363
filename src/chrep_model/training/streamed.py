"""Features of more spots than fit into memory, read from files batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from chrep_model.mapped_arrays import read_rows, slices

LARGE = 2**18
"""Tables with more spots than this are streamed, also if their features are in memory.

The result then does not depend on where the features are; sums over parts differ in rounding from sums over
the whole.
"""

BLOCK = 4096
"""Number of rows read at once in a pass over all rows."""

Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Function that changes rows, such as a standardisation; returns as many rows."""


class Streamed:
    """Concatenated rows of several arrays, read from their files on each access and changed after reading.

    Indexed like an array, by a slice, row numbers or a mask, it returns an array.

    Parameters
    ----------
    parts : sequence of array-like
        (n_i, d) float32 arrays or memory maps.
    changes : sequence of callable
        Functions applied in turn to the rows after reading.
    chosen : ndarray, optional
        (n,) int64 numbers of the rows to use; all unless given.
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
        """Number of rows and of values per row."""
        return len(self), self._changed(np.zeros((1, self.parts[0].shape[1]), np.float32)).shape[1]

    def __getitem__(self, rows: slice | NDArray[Any]) -> NDArray[np.float32]:
        if isinstance(rows, slice):
            wanted = np.arange(*rows.indices(len(self)))
        else:
            wanted = np.flatnonzero(rows) if rows.dtype == bool else rows
        return self._changed(self._read(wanted if self.chosen is None else self.chosen[wanted]))

    def changed(self, change: Change) -> Streamed:
        """Return the same rows with one more change."""
        return Streamed(self.parts, (*self.changes, change), self.chosen)

    def only(self, keep: NDArray[np.bool_]) -> Streamed:
        """Return the rows for which `keep`, (n,) bool, is true."""
        chosen = np.flatnonzero(keep) if self.chosen is None else self.chosen[keep]
        return Streamed(self.parts, self.changes, chosen)

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Yield all rows in order, `BLOCK` at a time."""
        return (self[block] for block in slices(len(self), BLOCK))

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute mean (d,) and covariance (d, d) of the rows in one pass.

        Sums are in double precision. Features are standardised, so their means are small and the difference
        E[x x'] - mean mean' is accurate.
        """
        total: Any = 0.0
        gram: Any = 0.0
        for piece in self.pieces():
            wide = piece.astype(np.float64)
            total = total + wide.sum(0)
            gram = gram + wide.T @ wide
        mean = total / len(self)
        return mean, gram / len(self) - np.outer(mean, mean)

    def _read(self, wanted: NDArray[np.int64]) -> NDArray[np.float32]:
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
    """Concatenate features (n_i, d) of sections to an array, or to a `Streamed` if there are many spots.

    The return type is an array, because a `Streamed` can be indexed like one; methods that need more than
    rows (see `Method.streams`) never receive one.
    """
    if sum(len(part) for part in parts) <= LARGE:
        return np.concatenate(parts)
    return cast("NDArray[np.float32]", Streamed(parts))


def kept(features: NDArray[np.float32], keep: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the rows of features for which `keep`, (n,) bool, is true; streamed features stay streamed."""
    if isinstance(features, Streamed):
        return cast("NDArray[np.float32]", features.only(keep))
    return features[keep]
