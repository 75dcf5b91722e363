"""Tiles of a slide: their size, their positions on a grid, and reading of their pixels.

A model defines the size of its tiles in µm (`TileSpec`). The grid of tiles starts at the slide's top left
corner (`TileGrid`), not at that of the view, so that tiles are always the same. `TileReader` reads tiles from
the nearest finer level and resamples them; a tile's pixels depend only on its centre, not on its batch.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from chrep_model.errors import ScaleError, SettingsError
from chrep_model.geometry import Rect, base_to_level, um_to_px
from chrep_model.slides.backends import RgbArray
from chrep_model.slides.region import Region
from chrep_model.slides.slide import Slide

if TYPE_CHECKING:
    from chrep_model.slides.tissue import TissueMask

# A slide may be coarser than the model's tiles by this factor; at more, tiles would lack detail.
MAX_UPSAMPLING = 1.10
# A level coarser by less than this factor counts as equal; levels are rarely exact multiples (4.00012).
_SAME_SCALE = 1.01

# Number of threads that read tiles: one per core, up to a number that a disk can serve.
THREADS = min(8, os.cpu_count() or 2)

# Width of a strip in tiles: the file's tiles stay in the cache until the next row of the strip is read.
STRIP = 32

Indices = npt.NDArray[np.int64]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TileSpec:
    """Size of a model's tiles: squares of `px` pixels at `mpp` µm per pixel."""

    mpp: float
    px: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mpp) and self.mpp > 0 and self.px > 0):
            what = f"a tile of {self.px} px at {self.mpp} µm per pixel has no size"
            raise SettingsError(what, remedy="Both have to be above zero.")

    @classmethod
    def from_um(cls, tile_um: float, px: int) -> TileSpec:
        """Return the size of tiles that are `tile_um` µm wide in `px` pixels."""
        return cls(tile_um / px, px) if px > 0 else cls(tile_um, px)

    @property
    def um(self) -> float:
        """Side in µm."""
        return self.mpp * self.px


class TileGrid:
    """Regular grid of tiles over a slide, starting at its top left corner.

    Tile (row, col) covers ``[col * step, col * step + tile)`` across and the same with row down, in level-0
    pixels. The grid holds all tiles whose centre is inside the slide. Flat indices count along the rows.

    Parameters
    ----------
    slide_shape
        (rows, cols) of level 0.
    slide_mpp
        µm per level-0 pixel.
    spec
        Size of the tiles.
    stride
        Distance between neighbouring tiles as a fraction of a tile: 1 for adjacent tiles, 0.5 for tiles that
        overlap by half, 2 for gaps.

    Attributes
    ----------
    shape
        (rows, cols) of the grid.
    step_px, tile_px
        Distance between neighbouring tiles and side of a tile in level-0 pixels, not rounded.
    """

    def __init__(
        self, slide_shape: tuple[int, int], slide_mpp: float, spec: TileSpec, stride: float = 1.0
    ) -> None:
        if not (math.isfinite(stride) and stride > 0):
            raise SettingsError(
                f"a stride of {stride} tiles leads nowhere", remedy="It has to be above zero."
            )
        if not (math.isfinite(slide_mpp) and slide_mpp > 0):
            raise ScaleError(
                f"{slide_mpp} µm per pixel is no scale of a slide", remedy="Give one above zero."
            )
        self.slide_shape, self.spec, self.stride = slide_shape, spec, stride
        self.tile_px = um_to_px(spec.um, slide_mpp)
        self.step_px = self.tile_px * stride
        # Centres are at k * step + tile / 2; count those inside the slide.
        rows, cols = (max(0, math.ceil((n - self.tile_px / 2) / self.step_px)) for n in slide_shape)
        self.shape = (rows, cols)

    @property
    def size(self) -> int:
        """Number of tiles."""
        return self.shape[0] * self.shape[1]

    def centres(self, indices: npt.ArrayLike | None = None) -> Points:
        """Return the centres of tiles (all by default) as float64 (n, 2), (x, y) in level-0 pixels."""
        flat = np.arange(self.size) if indices is None else np.asarray(indices, np.int64)
        if flat.size and (flat.min() < 0 or flat.max() >= self.size):
            raise IndexError(f"tile {flat.min()} to {flat.max()} of a grid with {self.size}")
        row, col = np.divmod(flat, max(self.shape[1], 1))
        return np.stack([col, row], axis=-1).reshape(-1, 2) * self.step_px + self.tile_px / 2

    def index_at(self, x: float, y: float) -> int | None:
        """Return the flat index of the tile whose centre is nearest to (x, y) in level-0 pixels.

        A heatmap with one pixel per tile shows this tile there. None outside the grid.
        """
        (index,) = self.indices_at([(x, y)])
        return None if index < 0 else int(index)

    def indices_at(self, xy: npt.ArrayLike) -> Indices:
        """Return the flat indices of the tiles at points (n, 2), (x, y); int64 (n,), -1 outside the grid."""
        cols, rows = np.floor((np.asarray(xy, np.float64) - self.tile_px / 2) / self.step_px + 0.5).T
        inside = (rows >= 0) & (rows < self.shape[0]) & (cols >= 0) & (cols < self.shape[1])
        return np.where(inside, rows * self.shape[1] + cols, -1).astype(np.int64)

    def indices_in(self, rect: Rect) -> Indices:
        """Return the flat indices, ascending, of tiles that overlap a rectangle in level-0 pixels."""
        rows = self._overlapping(self.shape[0], rect.y, rect.bottom)
        cols = self._overlapping(self.shape[1], rect.x, rect.right)
        return (rows[:, None] * self.shape[1] + cols).ravel()

    def is_in(self, area: Rect | Region | None, indices: Indices) -> npt.NDArray[np.bool_]:
        """Return which tiles are in an area, (n,) bool.

        Tiles are in a rectangle (level-0 pixels) if they overlap it, and in a region if their centre is
        inside; for None, all tiles are.
        """
        if area is None:
            return np.ones(len(indices), bool)
        if isinstance(area, Region):
            return area.contains(self.centres(indices))
        return np.isin(indices, self.indices_in(area))

    def _overlapping(self, count: int, start: float, stop: float) -> Indices:
        edges = np.arange(count) * self.step_px
        return np.flatnonzero((edges < stop) & (edges + self.tile_px > start)).astype(np.int64)

    def order_from(self, xy: tuple[float, float], indices: npt.ArrayLike) -> Indices:
        """Sort `indices` by the distance of their centres from (x, y), nearest first, with a stable sort."""
        flat = np.asarray(indices, np.int64)
        distance = ((self.centres(flat) - np.asarray(xy, np.float64)) ** 2).sum(axis=1)
        return flat[np.argsort(distance, kind="stable")]

    def scan_order(self, indices: npt.ArrayLike) -> Indices:
        """Sort `indices` row by row in vertical strips, so that a tile of the file is decoded only once."""
        flat = np.asarray(indices, np.int64)
        rows, cols = np.divmod(flat, max(self.shape[1], 1))
        return flat[np.lexsort((cols, rows, cols // STRIP))]

    def tissue(self, mask: TissueMask, min_fraction: float = 0.25) -> Indices:
        """Return the flat indices, ascending, of tiles of which at least `min_fraction` is tissue."""
        return np.flatnonzero(mask.fraction(self.centres(), self.tile_px) >= min_fraction).astype(np.int64)


class TileReader:
    """Reader of a slide's tiles around given centres.

    Parameters
    ----------
    slide
        The slide; its µm per pixel must be known.
    spec
        Size of the tiles.

    Attributes
    ----------
    level
        Level from which tiles are read: the coarsest that is at least as fine as `spec`.

    Raises
    ------
    ScaleError
        The slide has no µm per pixel, or is more than 10 % coarser than `spec`.
    """

    def __init__(self, slide: Slide, spec: TileSpec) -> None:
        mpp = slide.require_mpp()
        if mpp > spec.mpp * MAX_UPSAMPLING:
            raise ScaleError(
                f"the slide has {mpp:g} µm per pixel, too coarse for tiles of {spec.mpp:g} µm per pixel",
                path=slide.path,
                remedy=f"Use a finer scan, or a model for {mpp:g} µm per pixel or more.",
            )
        self.slide, self.spec = slide, spec
        fine = [i for i, lv in enumerate(slide.levels) if mpp * lv.downsample <= spec.mpp * _SAME_SCALE]
        self.level = fine[-1] if fine else 0
        self._downsample = slide.levels[self.level].downsample
        self._side = um_to_px(spec.um, mpp) / self._downsample  # side of a tile in pixels of the level
        # The filter needs this many pixels beyond the tile's border.
        self._margin = math.ceil(max(self._side / spec.px, 1.0)) + 1

    def read(self, centres_xy: npt.ArrayLike) -> RgbArray:
        """Read tiles, uint8 (n, px, px, 3), around centres (n, 2), (x, y) in level-0 pixels.

        Tiles are resampled from the level to `spec` with a triangle filter, which averages pixels when it
        reduces, at positions that need not be whole pixels. Pixels outside the slide are white.

        Raises
        ------
        SlideError
            Pixels cannot be read.
        """
        out = self.blank(len(np.asarray(centres_xy)))
        self.fill(out, self.corners(centres_xy))
        return out

    def blank(self, n: int) -> RgbArray:
        """Return an uninitialised array for n tiles, (n, px, px, 3) uint8."""
        return np.empty((n, self.spec.px, self.spec.px, 3), np.uint8)

    def fill(self, out: RgbArray, corners: Points, stopped: threading.Event | None = None) -> None:
        """Read the tiles at `corners` (n, 2) into `out`; end after the current tile if `stopped` is set."""
        for tile, (x, y) in zip(out, corners, strict=True):
            if stopped is not None and stopped.is_set():
                return
            tile[:] = self.tile(x, y)

    def batches(
        self, centres_xy: npt.ArrayLike, batch_size: int, threads: int = THREADS, prefetch: int = 2
    ) -> Iterator[tuple[slice, RgbArray]]:
        """Iterate over tiles in batches, read ahead by threads.

        Parameters
        ----------
        centres_xy
            (n, 2), (x, y) in level-0 pixels.
        batch_size
            Tiles per batch; the last may be smaller.
        threads
            Number of reading threads.
        prefetch
            Number of batches that are read ahead.

        Yields
        ------
        slice
            Slice of the centres in the batch.
        uint8 array (b, px, px, 3)
            Their tiles, equal to those of `read`.

        Notes
        -----
        Closing or deleting the iterator stops the threads after their current tile.
        """
        if batch_size < 1 or threads < 1 or prefetch < 0:
            raise SettingsError(
                f"cannot read batches of {batch_size} with {threads} threads", remedy="Give more."
            )
        return self._batches(np.asarray(centres_xy, np.float64), batch_size, threads, prefetch)

    def _batches(
        self, centres: Points, batch_size: int, threads: int, prefetch: int
    ) -> Iterator[tuple[slice, RgbArray]]:
        parts = deque(slice(i, min(i + batch_size, len(centres))) for i in range(0, len(centres), batch_size))
        under_way: deque[slice] = deque()
        with self.ahead(threads) as ahead:
            while parts or under_way:
                while parts and len(under_way) <= prefetch:
                    under_way.append(parts.popleft())
                    ahead.ask(centres[under_way[-1]])
                yield under_way.popleft(), ahead.get()

    @contextmanager
    def ahead(self, threads: int = THREADS) -> Iterator[ReadAhead]:
        """Context manager for reading batches of tiles in threads, which stop when the block ends."""
        ahead = ReadAhead(self, threads)
        try:
            yield ahead
        finally:
            ahead.close()

    def corners(self, centres_xy: npt.ArrayLike) -> Points:
        """Convert centres of tiles to their top left corners in continuous pixels of the level."""
        return base_to_level(centres_xy, self._downsample) - self._side / 2

    def tile(self, x: float, y: float) -> RgbArray:
        """Read the tile (px, px, 3) with its top left corner at (x, y), in continuous pixels of the level."""
        if self._side == self.spec.px and x.is_integer() and y.is_integer():  # nothing to resample
            return self.slide.read(int(y), int(x), self.spec.px, self.spec.px, level=self.level)
        left, top = math.floor(x) - self._margin, math.floor(y) - self._margin
        width = math.ceil(x + self._side) + self._margin - left
        height = math.ceil(y + self._side) + self._margin - top
        pixels = Image.fromarray(self.slide.read(top, left, height, width, level=self.level))
        box = (x - left, y - top, x - left + self._side, y - top + self._side)
        size = (self.spec.px, self.spec.px)
        return np.asarray(pixels.resize(size, Image.Resampling.BILINEAR, box=box))


class ReadAhead:
    """Queue of batches of tiles that threads read in the background; see `TileReader.ahead`.

    Parameters
    ----------
    reader
        Reader of the tiles.
    threads
        Number of reading threads.
    """

    def __init__(self, reader: TileReader, threads: int) -> None:
        self._reader, self._threads = reader, threads
        self._under_way: deque[tuple[RgbArray, list[Future[None]]]] = deque()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="chrep-tiles")

    def __len__(self) -> int:
        """Return the number of batches that were requested with `ask` and not taken with `get` yet."""
        return len(self._under_way)

    def ask(self, centres_xy: npt.ArrayLike) -> None:
        """Start reading a batch of tiles around centres (n, 2), (x, y) in level-0 pixels."""
        corners = self._reader.corners(centres_xy)
        out = self._reader.blank(len(corners))
        # All threads share one batch, so that the first batch is complete sooner than if each read its own.
        # Each reads consecutive tiles, so that threads rarely need the same tile of the file.
        count = min(self._threads, len(out)) or 1
        parts = zip(np.array_split(out, count), np.array_split(corners, count), strict=True)
        jobs = [self._pool.submit(self._reader.fill, *part, self._stop) for part in parts]
        self._under_way.append((out, jobs))

    def finish(self) -> None:
        """Wait until all requested batches are read; errors are raised by `get`."""
        for _, jobs in self._under_way:
            wait(jobs)

    def get(self) -> RgbArray:
        """Wait for the first batch not taken yet, and return its tiles (n, px, px, 3).

        Raises
        ------
        SlideError
            Pixels cannot be read.
        """
        out, jobs = self._under_way.popleft()
        for job in jobs:
            job.result()
        return out

    def close(self) -> None:
        """Stop the threads after their current tile."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
