"""Rows of arrays that may be larger than the memory: read in parts, and none of them kept."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from chrep_model.errors import SettingsError


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
    forget(source)
    return out


def mapped(
    file: IO[bytes], shape: tuple[int, ...], order: Any = "C", dtype: Any = "<f4"
) -> np.memmap[Any, Any]:
    """Make a map of an empty file that can be read and written.

    Raises
    ------
    OSError
        The disk has no room for it. It is taken at once: what is missing later ends the process.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, np.dtype(dtype).itemsize * math.prod(shape))
    return np.memmap(file, dtype, "r+", shape=shape, order=order)


def scratch(shape: tuple[int, ...], dtype: Any = "<f4") -> np.memmap[Any, Any]:
    """Make a map of a temporary file, which is gone once nobody uses the map.

    Raises
    ------
    SettingsError
        There is no room for it.
    """
    try:
        with tempfile.TemporaryFile() as file:
            return mapped(file, shape, dtype=dtype)
    except OSError as error:
        size = np.dtype(dtype).itemsize * math.prod(shape) / 1e9
        raise SettingsError(
            f"{size:.1f} GB of temporary files cannot be written ({error.strerror})",
            path=tempfile.gettempdir(),
            remedy="Set TMPDIR to a folder that has room.",
        ) from error


def write(target: np.memmap[Any, Any], pieces: Iterable[NDArray[np.float32]]) -> None:
    """Fill a map, (n, ...), with the pieces that make up its rows, and keep none in the memory."""
    start = 0
    for piece in pieces:
        target[start : start + len(piece)] = piece
        start += len(piece)
        forget(target)


def on_disk(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Move arrays to one temporary file that is mapped; where there is no room for it, they stay as they are.

    One file: each takes one of the few (1024, if nothing is set) that a process may hold open.
    """
    size = sum(values.nbytes for values in arrays.values())
    if not size:
        return dict(arrays)
    try:
        file = scratch((size,), np.uint8)
    except SettingsError:
        return dict(arrays)
    out, start = {}, 0
    for name, values in sorted(arrays.items(), key=lambda item: -item[1].itemsize):  # starts stay aligned
        out[name] = file[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
        out[name][...] = values
        start += values.nbytes
    forget(file)
    return out


def forget(source: NDArray[Any]) -> None:
    """Hand the pages of a map back: they would count as this process's memory up to the size of the file.

    What was written to a map is in its file; but of a copy on write the pages are all there is.
    Where the system has no such call, it takes pages back itself once they are wanted.
    """
    base: object = source
    while isinstance(base, np.ndarray):
        base = base.base
    is_file = isinstance(source, np.memmap) and source.mode != "c"
    if is_file and isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
