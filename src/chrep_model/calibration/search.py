"""Exact search of the k most similar gallery rows: fast approximate products, then exact ones for candidates.

The first pass multiplies all queries with all rows. The error of these products is bounded, so all rows that
can be among the k best are known; their exact similarity is computed by `similarities`, and ties go to the
smaller row. `similarities` depends on the query and the row alone, not on the block, the device or the
precision of the first pass. So the result is always the same, bit for bit.

The first pass is in half precision on a GPU, and in single precision on a CPU, where converting a block takes
as long as multiplying it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chrep_model.mapped_arrays import read_rows, slices

#: Number of gallery rows in one product.
BLOCK = 65_536
#: Largest number of similarities in memory, and of queries in one product.
SIMILARITIES, QUERIES = 2**24, 2048
#: With more candidates than this per query and block, the first pass itself reduces them.
CANDIDATES = 1024
#: Number of exact similarities computed at once.
PAIRS = 2**14
#: Assumed largest length of a row.
LENGTH = 1.001

Barred = Callable[[NDArray[np.int64], slice], Tensor | None]


def nearest(
    queries: NDArray[np.float32],
    rows: Any,
    k: int,
    barred: Barred | None = None,
    *,
    device: str = "cpu",
    half: bool | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k rows with the largest dot product for each query.

    All rows are read only once, in blocks, for any number of queries.

    Parameters
    ----------
    queries : ndarray
        (n, d) float32, finite.
    rows : array-like
        (m, d) float32, finite, of at most unit length; an array, a memory map, or anything else whose slices
        are arrays, such as a zarr array.
    k : int
        Number of rows to find, at most m.
    barred : callable, optional
        ``barred(numbers of queries, slice of rows)`` returns a bool array (queries, rows), True for rows that
        must not be found, or None if all are allowed.
    device : str
        Device for the products; it changes the speed, not the result.
    half : bool, optional
        Whether the first pass is in half precision; by default everywhere but on a CPU.

    Returns
    -------
    index : ndarray
        (n, k) int64, most similar first; ties go to the smaller row.
    similarity : ndarray
        (n, k) float32; -inf, with index 0, if fewer than k rows are allowed.
    """
    place = torch.device(device)
    half = place.type != "cpu" if half is None else half
    step = max(1, min(QUERIES, SIMILARITIES // max(1, min(BLOCK, rows.shape[0]))))
    parts = [
        _Best.empty(np.arange(start, min(start + step, len(queries))), queries, k, place, half)
        for start in range(0, len(queries), step)
    ]
    with _full_precision_sums():
        for block, on_host, on_device in _blocks_on_device(rows, place):
            cast = _Vectors.cast(on_device, half)
            for part in parts:
                part.update(block, on_host, cast, None if barred is None else barred(part.numbers, block))
    if not parts:
        return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
    return np.concatenate([p.index for p in parts]), np.concatenate([p.similarity for p in parts])


def similarities(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the dot product of each pair of rows of two (n, d) float32 arrays, (n,) float32.

    The order of summation depends on d alone, whereas that of a matrix product depends on its shape.
    """
    out: NDArray[np.float32] = np.einsum("nd,nd->n", a, b)
    return out


@dataclass(frozen=True)
class _Vectors:
    """Vectors in the precision of the first pass; `error` is the largest length of their rounding errors."""

    x: Tensor
    error: float

    @classmethod
    def cast(cls, x: Tensor, half: bool) -> _Vectors:
        if not half:
            return cls(x, 0.0)
        cast = x.half()
        return cls(cast, float(torch.linalg.vector_norm(x - cast.float(), dim=1).max()) * LENGTH)


@dataclass
class _Best:
    """Most similar rows found so far for some of the queries, with their exact similarities."""

    numbers: NDArray[np.int64]
    queries: NDArray[np.float32]
    cast: _Vectors
    length: float
    index: NDArray[np.int64]
    similarity: NDArray[np.float32]

    @classmethod
    def empty(
        cls, numbers: NDArray[np.int64], queries: NDArray[np.float32], k: int, place: torch.device, half: bool
    ) -> _Best:
        own = np.require(queries[numbers], np.float32, "C")
        shape = (len(numbers), k)
        return cls(
            numbers,
            own,
            _Vectors.cast(torch.from_numpy(own).to(place), half),
            float(np.linalg.norm(own, axis=1).max()) * LENGTH,
            np.zeros(shape, np.int64),
            np.full(shape, -np.inf, np.float32),
        )

    def update(self, block: slice, rows: NDArray[np.float32], cast: _Vectors, barred: Tensor | None) -> None:
        """Compare the queries with a block of rows: `rows` exact in memory, `cast` on the device."""
        s = self.cast.x @ cast.x.T
        if barred is not None:
            s[barred.to(s.device)] = -torch.inf
        query, column = self._candidates(s, self._error(cast))
        if barred is not None:
            allowed = ~barred.numpy()[query, column]
            query, column = query[allowed], column[allowed]
        exact = np.empty(len(query), np.float32)
        for part in slices(len(query), PAIRS):
            exact[part] = similarities(self.queries[query[part]], rows[column[part]])
        self._merge(query, column + block.start, exact)

    def _candidates(self, s: Tensor, error: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find entries of the approximate similarities `s` (n, m) that can be among the k best, sorted."""
        k = self.index.shape[1]
        least = torch.from_numpy(self.similarity[:, -1:] - np.float32(error)).to(s.device)
        if bool(torch.isfinite(least).all()) or s.shape[1] <= k:
            query, column = _pairs(s >= least)
            if len(query) <= (k + CANDIDATES) * len(s):
                return query, column
        # At least k rows have an exact similarity of no less than the k-th approximate one minus the error.
        kth = s.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True).float()
        return _pairs(s >= torch.maximum(least, kth - 2 * error))

    def _error(self, rows: _Vectors) -> float:
        """Bound the difference between the approximate products and `similarities`.

        Three errors add up: casting the vectors (bounded by Cauchy-Schwarz), rounding of the product, and
        rounding of the sums in single precision on both sides. The last is taken four times as large as for
        additions rounded to nearest, because some units truncate.
        """
        error, row_error = self.cast.error, rows.error
        largest = (self.length + error) * (LENGTH + row_error)
        unit = 2.0**-11 if rows.x.dtype == torch.float16 else 0.0
        sums = 2 * rows.x.shape[1] * 2.0**-22
        return self.length * row_error + error * (LENGTH + row_error) + largest * (unit + sums) + 2.0**-24

    def _merge(self, query: NDArray[np.int64], row: NDArray[np.int64], value: NDArray[np.float32]) -> None:
        """Merge candidates, sorted by query and row, with the best of earlier blocks (smaller rows)."""
        count = np.bincount(query, minlength=len(self.numbers))
        place = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
        k, width = self.index.shape[1], int(count.max(initial=0))
        values = np.full((len(count), k + width), -np.inf, np.float32)
        rows = np.zeros(values.shape, np.int64)
        values[:, :k], rows[:, :k] = self.similarity, self.index
        values[query, k + place], rows[query, k + place] = value, row
        order = np.argsort(-values, axis=1, kind="stable")[:, :k]
        self.similarity = np.take_along_axis(values, order, axis=1)
        self.index = np.take_along_axis(rows, order, axis=1)


def _pairs(mask: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows and columns of a mask's true entries, row by row."""
    if mask.device.type == "cpu":  # many times faster than torch's nonzero
        row, column = np.divmod(np.flatnonzero(mask.numpy()), mask.shape[1])
        return row, column
    row, column = (part.cpu().numpy() for part in mask.nonzero(as_tuple=True))
    return row, column


def _blocks_on_device(rows: Any, place: torch.device) -> Iterator[tuple[slice, NDArray[np.float32], Tensor]]:
    """Yield blocks of rows in memory and on the device; the next block is copied while one is in use."""
    waiting = None
    for block in slices(rows.shape[0], BLOCK):
        on_host = read_rows(rows, block)
        on_device = torch.from_numpy(on_host)
        if place.type == "cuda":
            on_device = on_device.pin_memory()
        item = block, on_host, on_device.to(place, non_blocking=True)
        if waiting is not None:
            yield waiting
        waiting = item
    if waiting is not None:
        yield waiting


@contextmanager
def _full_precision_sums() -> Iterator[None]:
    """Keep GPUs from summing in half precision, which the error bound does not cover."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_fp16_reduced_precision_reduction
    matmul.allow_fp16_reduced_precision_reduction = False
    try:
        yield
    finally:
        matmul.allow_fp16_reduced_precision_reduction = before
