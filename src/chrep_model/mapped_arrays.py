"""Arrays larger than the memory, which are mapped from files, and read and written in parts."""

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
    """Return an iterator over the slices of `size` rows that make up n rows; the last may be shorter."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def read_rows(source: Any, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
    """Return some rows of an array as an array in memory.

    Parameters
    ----------
    source : array-like
        (n, ...) array, memory map, or another object whose slices are arrays, such as a zarr array.
    rows : slice or ndarray
        Rows to read; indices in any order, if the source can be indexed by them.

    Returns
    -------
    ndarray
        float32, contiguous and writeable. A view of `source` if that is such an array in memory and `rows` is
        a slice; otherwise a copy.
    """
    if not isinstance(source, np.memmap):
        return np.require(source[rows], np.float32, ("C", "W"))
    if isinstance(rows, slice):
        out = np.array(source[rows], np.float32, order="C", subok=False)
    else:
        order = np.argsort(rows, kind="stable")  # the file is read from its start to its end
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
        The disk has no room for it. The room is reserved here, because a full disk later would crash the
        process.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, np.dtype(dtype).itemsize * math.prod(shape))
    return np.memmap(file, dtype, "r+", shape=shape, order=order)


def temporary_array(shape: tuple[int, ...], dtype: Any = "<f4") -> np.memmap[Any, Any]:
    """Create an array in a temporary file, which is deleted when the array is no longer used.

    Raises
    ------
    SettingsError
        The disk has no room for it.
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
    """Fill a mapped array, (n, ...), with pieces that make up its rows, and keep none of them in memory."""
    start = 0
    for piece in pieces:
        target[start : start + len(piece)] = piece
        start += len(piece)
        release_pages(target)


def move_to_disk(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Move arrays to one mapped temporary file; if the disk has no room, return them as they are.

    All arrays share one file, because a process may have only few files open (1024 by default).
    """
    size = sum(values.nbytes for values in arrays.values())
    if not size:
        return dict(arrays)
    try:
        file = temporary_array((size,), np.uint8)
    except SettingsError:
        return dict(arrays)
    out, start = {}, 0
    # Arrays with large items come first, so that all starts are aligned.
    for name, values in sorted(arrays.items(), key=lambda item: -item[1].itemsize):
        out[name] = file[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
        out[name][...] = values
        start += values.nbytes
    release_pages(file)
    return out


def release_pages(source: NDArray[Any]) -> None:
    """Release the memory of a mapped array, which otherwise counts as memory of this process.

    Values written to a map are in its file. A copy-on-write map is left alone, because its values are only in
    memory. Systems without this call release pages themselves when they need memory.
    """
    base: object = source
    while isinstance(base, np.ndarray):
        base = base.base
    is_file = isinstance(source, np.memmap) and source.mode != "c"
    if is_file and isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
