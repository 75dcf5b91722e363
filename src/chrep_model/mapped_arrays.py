"""Arrays that may be larger than the memory: mapped from files, read and written in parts."""

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


def slices(n: int, size: int) -> Iterator[slice]:
    """Yield the slices of `size` that make up n rows; the last one may be shorter."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def read_rows(source: Any, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
    """Return some rows of an array, in the memory.

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
    release_pages(source)
    return out


def map_file(
    file: IO[bytes], shape: tuple[int, ...], order: Any = "C", dtype: Any = "<f4"
) -> np.memmap[Any, Any]:
    """Map an empty file into an array that can be read and written.

    Raises
    ------
    OSError
        The disk has no room for it. It is taken at once: what is missing later ends the process.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, np.dtype(dtype).itemsize * math.prod(shape))
    return np.memmap(file, dtype, "r+", shape=shape, order=order)


def temporary_array(shape: tuple[int, ...], dtype: Any = "<f4") -> np.memmap[Any, Any]:
    """Make an array in a temporary file, which is gone once nobody uses the array.

    Raises
    ------
    SettingsError
        There is no room for it.
    """
    try:
        with tempfile.TemporaryFile() as file:
            return map_file(file, shape, dtype=dtype)
    except OSError as error:
        size = np.dtype(dtype).itemsize * math.prod(shape) / 1e9
        raise SettingsError(
            f"{size:.1f} GB of temporary files cannot be written ({error.strerror})",
            path=tempfile.gettempdir(),
            remedy="Set TMPDIR to a folder that has room.",
        ) from error


def write_rows(target: np.memmap[Any, Any], pieces: Iterable[NDArray[np.float32]]) -> None:
    """Fill a mapped array, (n, ...), with the pieces that make up its rows, and keep none in the memory."""
    start = 0
    for piece in pieces:
        target[start : start + len(piece)] = piece
        start += len(piece)
        release_pages(target)


def move_to_disk(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Move arrays to one temporary file that is mapped; without room for it, return them as they are.

    One file: each takes one of the few (1024, if nothing is set) that a process may hold open.
    """
    size = sum(values.nbytes for values in arrays.values())
    if not size:
        return dict(arrays)
    try:
        file = temporary_array((size,), np.uint8)
    except SettingsError:
        return dict(arrays)
    out, start = {}, 0
    for name, values in sorted(arrays.items(), key=lambda item: -item[1].itemsize):  # starts stay aligned
        out[name] = file[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
        out[name][...] = values
        start += values.nbytes
    release_pages(file)
    return out


def release_pages(source: NDArray[Any]) -> None:
    """Give the memory of a mapped array back: it would count as this process's up to the size of the file.

    What was written to a map is in its file; but of a copy on write the pages are all there is.
    Where the system has no such call, it takes pages back itself once they are wanted.
    """
    base: object = source
    while isinstance(base, np.ndarray):
        base = base.base
    is_file = isinstance(source, np.memmap) and source.mode != "c"
    if is_file and isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
