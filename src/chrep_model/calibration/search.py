"""Exact retrieval: a fast look at every row, and a second one at the few that can be among the k best.

The similarity of a query and a row is one number, `similarities`: it depends on these two alone, not on what
else is in a block, on the device or on the precision of the first look. The first look is a matrix product
whose error is bounded; whatever that error may hide is kept, ranked by `similarities`, and ties go to the
smaller row. So the rows found are the same ones, bit for bit, however they were looked for.

On a GPU the first look is in half precision. On a CPU it is in single precision: without matrix units for
half precision, to convert a block takes as long as to multiply it.
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

#: Rows of the gallery in one product.
BLOCK = 65_536
#: Similarities in memory at once, and queries in one product at most.
SIMILARITIES, QUERIES = 2**24, 2048
#: More candidates than this per query and block are first cut down by the first look itself.
CANDIDATES = 1024
#: Pairs whose similarity is computed at once.
PAIRS = 2**14
#: Rows count as no longer than this.
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

    All rows are read once, a block at a time, whatever the number of queries.

    Parameters
    ----------
    queries : ndarray
        (n, d) float32, finite.
    rows : array-like
        (m, d) float32, finite and no longer than one; an array, a memory map, or anything else whose slices
        are arrays, such as a zarr array.
    k : int
        At most m.
    barred : callable, optional
        ``barred(numbers of queries, slice of rows)`` -> bool (queries, rows) that must not be retrieved, or
        None for nothing.
    device : str
        Where the products are computed; it changes nothing but the time.
    half : bool, optional
        Whether the first look is in half precision; on everything but a CPU unless given.

    Returns
    -------
    index : ndarray
        (n, k) int64, most similar first; ties go to the smaller row.
    similarity : ndarray
        (n, k) float32; -inf, and row 0, where fewer than k were allowed.
    """
    place = torch.device(device)
    halved = place.type != "cpu" if half is None else half
    step = max(1, min(QUERIES, SIMILARITIES // max(1, min(BLOCK, rows.shape[0]))))
    parts = [
        _Best.empty(np.arange(start, min(start + step, len(queries))), queries, k, place, halved)
        for start in range(0, len(queries), step)
    ]
    with _whole_sums():
        for block, here, there in _streamed(rows, place):
            looked = _Look.at(there, halved)
            for part in parts:
                part.update(block, here, looked, None if barred is None else barred(part.numbers, block))
    if not parts:
        return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
    return np.concatenate([p.index for p in parts]), np.concatenate([p.similarity for p in parts])


def similarities(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dot products of the rows of two (n, d) float32 arrays, pair by pair, (n,) float32.

    Each is summed up in an order that depends on d alone; a matrix product's order depends on its shape.
    """
    out: NDArray[np.float32] = np.einsum("nd,nd->n", a, b)
    return out


@dataclass(frozen=True)
class _Look:
    """Vectors as the first look reads them.

    `off` is the length of the largest difference to what they are.
    """

    x: Tensor
    off: float

    @classmethod
    def at(cls, x: Tensor, half: bool) -> _Look:
        if not half:
            return cls(x, 0.0)
        cast = x.half()
        return cls(cast, float(torch.linalg.vector_norm(x - cast.float(), dim=1).max()) * LENGTH)


@dataclass
class _Best:
    """The best rows so far of some of the queries, by `similarities`."""

    numbers: NDArray[np.int64]
    queries: NDArray[np.float32]
    looked: _Look
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
            _Look.at(torch.from_numpy(own).to(place), half),
            float(np.linalg.norm(own, axis=1).max()) * LENGTH,
            np.zeros(shape, np.int64),
            np.full(shape, -np.inf, np.float32),
        )

    def update(self, block: slice, here: NDArray[np.float32], looked: _Look, never: Tensor | None) -> None:
        """Look at a block of rows, `here` in the memory and `looked` on the device."""
        s = self.looked.x @ looked.x.T
        if never is not None:
            s[never.to(s.device)] = -torch.inf
        query, column = self._candidates(s, self._error(looked))
        if never is not None:
            allowed = ~never.numpy()[query, column]
            query, column = query[allowed], column[allowed]
        exact = np.empty(len(query), np.float32)
        for part in slices(len(query), PAIRS):
            exact[part] = similarities(self.queries[query[part]], here[column[part]])
        self._merge(query, column + block.start, exact)

    def _candidates(self, s: Tensor, error: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Queries and columns of (n, m) first looks that can be among the k best, sorted."""
        k = self.index.shape[1]
        least = torch.from_numpy(self.similarity[:, -1:] - np.float32(error)).to(s.device)
        if bool(torch.isfinite(least).all()) or s.shape[1] <= k:
            query, column = _pairs(s >= least)
            if len(query) <= (k + CANDIDATES) * len(s):
                return query, column
        # Here are k rows at least as similar as the k-th by the first look is, less the error.
        kth = s.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True).float()
        return _pairs(s >= torch.maximum(least, kth - 2 * error))

    def _error(self, looked: _Look) -> float:
        """Bound of the difference between the first look and `similarities`.

        What casting the vectors changes, by Cauchy-Schwarz; the rounding of the product to its own precision;
        and that of the sums in single precision on both sides, four times as large as it is if each addition
        is rounded to nearest, for units that cut off instead.
        """
        off, their_off = self.looked.off, looked.off
        largest = (self.length + off) * (LENGTH + their_off)
        unit = 2.0**-11 if looked.x.dtype == torch.float16 else 0.0
        sums = 2 * looked.x.shape[1] * 2.0**-22
        return self.length * their_off + off * (LENGTH + their_off) + largest * (unit + sums) + 2.0**-24

    def _merge(self, query: NDArray[np.int64], row: NDArray[np.int64], value: NDArray[np.float32]) -> None:
        """Rank candidates, sorted by query and row, among the best so far, whose rows are smaller."""
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
    """Rows and columns of what is true, row by row."""
    if mask.device.type == "cpu":  # many times faster than torch's own
        row, column = np.divmod(np.flatnonzero(mask.numpy()), mask.shape[1])
        return row, column
    row, column = (part.cpu().numpy() for part in mask.nonzero(as_tuple=True))
    return row, column


def _streamed(rows: Any, place: torch.device) -> Iterator[tuple[slice, NDArray[np.float32], Tensor]]:
    """Blocks in memory and on the device; the next one is on its way while one is worked at."""
    waiting = None
    for block in slices(rows.shape[0], BLOCK):
        here = read_rows(rows, block)
        there = torch.from_numpy(here)
        if place.type == "cuda":
            there = there.pin_memory()
        item = block, here, there.to(place, non_blocking=True)
        if waiting is not None:
            yield waiting
        waiting = item
    if waiting is not None:
        yield waiting


@contextmanager
def _whole_sums() -> Iterator[None]:
    """Let no GPU add up in half precision, which the bound of the error does not cover."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_fp16_reduced_precision_reduction
    matmul.allow_fp16_reduced_precision_reduction = False
    try:
        yield
    finally:
        matmul.allow_fp16_reduced_precision_reduction = before
