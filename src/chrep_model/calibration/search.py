"""Exact retrieval: the k most similar rows, by matrix products in blocks and a running best."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Rows of the gallery in one product: their similarities stay in the processor's cache while they are ranked.
BLOCK = 65_536
#: Similarities in memory at once, and queries in one product at most.
SIMILARITIES, QUERIES = 2**24, 2048
#: Up to so many columns a full sort costs no more than to look for ties afterwards.
SORTED = 4096

Barred = Callable[[NDArray[np.int64], slice], Tensor | None]


def nearest(
    queries: NDArray[np.float32], rows: NDArray[np.float32], k: int, barred: Barred | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k rows with the largest dot product for each query.

    Parameters
    ----------
    queries : ndarray
        (n, d) float32.
    rows : ndarray
        (m, d) float32; may be a memory map, of which one block is read at a time.
    k : int
        At most m.
    barred : callable, optional
        ``barred(numbers of queries, slice of rows)`` -> bool (queries, rows) that must not be retrieved, or
        None for nothing.

    Returns
    -------
    index : ndarray
        (n, k) int64, most similar first; ties go to the smaller row, whatever the blocks.
    similarity : ndarray
        (n, k) float32; -inf where fewer than k were allowed.
    """
    index = np.empty((len(queries), k), np.int64)
    similarity = np.empty((len(queries), k), np.float32)
    step = max(1, min(QUERIES, SIMILARITIES // max(1, min(BLOCK, len(rows)))))
    for start in range(0, len(queries), step):
        numbers = np.arange(start, min(start + step, len(queries)))
        asked = torch.from_numpy(queries[numbers])
        best: tuple[Tensor, Tensor] | None = None
        for block in _blocks(len(rows)):
            s = asked @ torch.from_numpy(np.require(rows[block], np.float32, ("C", "W"))).T
            never = None if barred is None else barred(numbers, block)
            if never is not None:
                s[never] = -torch.inf
            values, found = top(s, min(k, s.shape[1]))
            best = _merged(best, (values, found + block.start), k)
        if best is not None:
            similarity[numbers], index[numbers] = best[0].numpy(), best[1].numpy()
    return index, similarity


def top(s: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Give the k largest of each row of (n, m), largest first, and their columns; ties by column.

    `torch.topk` takes whichever it meets of equal numbers; rows where that matters are sorted as a whole.
    """
    if s.shape[1] <= SORTED:
        values, columns = s.sort(dim=1, descending=True, stable=True)
        return values[:, :k], columns[:, :k]
    values, columns = s.topk(k, dim=1, sorted=False)
    tied = torch.nonzero((s >= values.min(1, keepdim=True).values).sum(1) > k).ravel()
    columns, order = columns.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, order)
    for row in tied.tolist():
        whole = s[row].sort(descending=True, stable=True)
        values[row], columns[row] = whole.values[:k], whole.indices[:k]
    return values, columns


def _merged(
    former: tuple[Tensor, Tensor] | None, new: tuple[Tensor, Tensor], k: int
) -> tuple[Tensor, Tensor]:
    """Put the best of two blocks together; the columns of the former are the smaller ones."""
    if former is None:
        return new
    values, columns = (torch.cat(both, dim=1) for both in zip(former, new, strict=True))
    values, order = values.sort(dim=1, descending=True, stable=True)
    return values[:, :k], columns.gather(1, order)[:, :k]


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK))
