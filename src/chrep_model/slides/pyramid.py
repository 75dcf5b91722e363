"""Lazy pyramids for display, and the thumbnail; coarse levels are added where the file has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from PIL import Image

from chrep_model.slides.backends import RgbArray

#: Takes row, col, height, width and level, as `Slide.read` does.
ReadRegion = Callable[[int, int, int, int, int], RgbArray]

# napari loads the coarsest level at once when a layer is added.
_COARSEST = 1024
_CHUNK = 1024


class _LevelPixels:
    """What dask needs to see of a level to cut chunks from it."""

    ndim = 3
    dtype = np.dtype(np.uint8)

    def __init__(self, shape: tuple[int, int], level: int, read: ReadRegion) -> None:
        self._read, self._level = read, level
        self.shape = (*shape, 3)

    def __getitem__(self, index: tuple[slice, slice, slice]) -> RgbArray:
        (top, bottom, _), (left, right, _) = (
            s.indices(n) for s, n in zip(index[:2], self.shape, strict=False)
        )
        return self._read(top, left, bottom - top, right - left, self._level)[..., index[2]]


def lazy_levels(
    shapes: Sequence[tuple[int, int]], tiles: Sequence[tuple[int, int]], read: ReadRegion, name: str
) -> list[da.Array]:
    """Return the levels of a slide as dask arrays, level 0 first.

    Parameters
    ----------
    shapes, tiles
        (rows, cols) of each level, and of the tiles in which it is stored.
    read
        Reads regions; it is called as long as the arrays are used.
    name
        Equal chunks of arrays of the same name are found in dask's caches.

    Returns
    -------
    list of uint8 dask arrays (rows, cols, 3)
        Shapes strictly decrease; the longest side of the last is at most 1024. Chunks are whole tiles of the
        file, about 512 to 1024 pixels a side. Added levels are 2 x 2 means of the one before, chunk by chunk:
        computing one reads finer levels piece by piece, never whole.
    """
    arrays = [
        _level(shape, tile, level, name, read)
        for level, (shape, tile) in enumerate(zip(shapes, tiles, strict=True))
    ]
    while max(arrays[-1].shape[:2]) > _COARSEST and min(arrays[-1].shape[:2]) > 1:
        arrays.append(_halved(arrays[-1]))
    return arrays


def reduced(levels: Sequence[da.Array], max_px: int) -> RgbArray:
    """Return a slide, given its `lazy_levels`, in at most `max_px` a side; read-only."""
    fine_enough = [array for array in levels if max(array.shape[:2]) >= max_px]
    source = fine_enough[-1] if fine_enough else levels[0]
    rows, cols = source.shape[:2]
    shrink = max(1.0, max(rows, cols) / max_px)
    pixels = np.empty((max(1, round(rows / shrink)), max(1, round(cols / shrink)), 3), np.uint8)
    down, done, top, at_hand = rows / len(pixels), 0, 0, np.empty((0, cols, 3), np.uint8)
    # One row of chunks at a time: the level may be larger than anything else that is ever in memory.
    for bottom in np.cumsum(source.chunks[0]).tolist():
        # The threads of this process, also where a distributed client is the default: the file is open here.
        more = source[top + len(at_hand) : bottom].compute(scheduler="threads")
        at_hand = np.concatenate([at_hand, more])
        ready = len(pixels) if bottom == rows else int(bottom / down)
        if ready > done:
            box = (0, done * down - top, cols, min(ready * down, bottom) - top)
            size = (pixels.shape[1], ready - done)
            pixels[done:ready] = Image.fromarray(at_hand).resize(size, Image.Resampling.BOX, box=box)
            done, used = ready, math.floor(ready * down) - top
            at_hand, top = at_hand[used:], top + used
    pixels.flags.writeable = False
    return pixels


def _level(
    shape: tuple[int, int], tile: tuple[int, int], level: int, name: str, read: ReadRegion
) -> da.Array:
    rows, cols = (_grouped(n) for n in tile)
    return da.from_array(  # type: ignore[no-untyped-call]
        _LevelPixels(shape, level, read),
        chunks=(rows, cols, 3),
        name=f"{name}-{level}",
        asarray=False,
    )


def _grouped(tile: int) -> int:
    """Return a chunk of whole tiles near 1024 pixels; even, so that it can be halved."""
    if tile > 2 * _CHUNK:
        return _CHUNK
    chunk = tile * max(1, _CHUNK // tile)
    return chunk if chunk % 2 == 0 else 2 * chunk


def _halved(array: da.Array) -> da.Array:
    half = da.coarsen(_mean_of_four, array, {0: 2, 1: 2, 2: 1}, trim_excess=True)
    return half.rechunk((_CHUNK, _CHUNK, 3))


def _mean_of_four(blocks: npt.NDArray[np.uint8], axis: Any = None) -> RgbArray:
    """Reduce what dask's coarsen hands over, (rows, 2, cols, 2, 3, 1), to (rows, cols, 3)."""
    if blocks.ndim != 6:  # dask asks with a dummy what type comes out
        return blocks
    # Sums of slices are several times faster than a sum over axes. The 2 rounds: cut off, each level would be
    # half a grey value darker than the one before.
    total = np.full((blocks.shape[0], blocks.shape[2], blocks.shape[4]), 2, np.uint16)
    for row in (0, 1):
        for col in (0, 1):
            total += blocks[:, row, :, col, :, 0]
    return (total // 4).astype(np.uint8)
