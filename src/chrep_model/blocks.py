"""Rows of arrays that may be larger than the memory: read in parts, and none of them kept."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def blocks(n: int, size: int) -> Iterator[slice]:
    """Cut n rows into slices of `size`; the last one may be shorter."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def read(source: Any, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
    """Read some rows into the memory.

    Parameters
    ----------
    source : array-like
        (n, ...) array, memory map, or anything else whose slices are arrays, such as a zarr array.
    rows : slice or ndarray
        Which; numbers in any order, for sources that can be asked by them.

    Returns
    -------
    ndarray
        float32, contiguous and writeable. It is a part of `source` itself where that is such an array in
        memory and `rows` a slice, and a copy otherwise.
    """
    if not isinstance(source, np.memmap):
        return np.require(source[rows], np.float32, ("C", "W"))
    if isinstance(rows, slice):
        out = np.array(source[rows], np.float32, order="C", subok=False)
    else:
        order = np.argsort(rows, kind="stable")  # the disk is read from its beginning to its end
        out = np.empty((len(rows), *source.shape[1:]), np.float32)
        out[order] = source[rows[order]]
    _forget(source)
    return out


def scratch(shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Make a float32 map of a temporary file, which is gone once nobody uses the map."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def write(target: np.memmap[Any, Any], pieces: Iterable[NDArray[np.float32]]) -> None:
    """Fill a map, (n, ...), with the pieces that make up its rows, and keep none in the memory."""
    start = 0
    for piece in pieces:
        target[start : start + len(piece)] = piece
        start += len(piece)
        _forget(target)


def _forget(mapped: np.memmap[Any, Any]) -> None:
    """Hand the pages of a map back: they would count as this process's memory up to the size of the file.

    What was written to a map is in its file; but of a copy on write the pages are all there is.
    Where the system has no such call, it takes pages back itself once they are wanted.
    """
    base: object = mapped
    while isinstance(base, np.ndarray):
        base = base.base
    if mapped.mode != "c" and isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
