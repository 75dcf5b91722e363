"""Base class of readers of tiled formats: regions assembled from tiles, and a cache of decoded tiles."""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from chrep_model.errors import SlideError
from chrep_model.slides.backends import Backend, RgbArray, how_to_mend

_CACHE_BYTES = 128 * 2**20


class TiledBackend(Backend):
    """A slide whose levels are stored in tiles of the size `Backend.chunks`.

    A tile that cannot be decoded raises an error with its position.
    """

    def __init__(self) -> None:
        self._cache_lock = threading.Lock()
        self._cache: OrderedDict[tuple[int, int, int], RgbArray] = OrderedDict()
        self._cached_bytes = 0
        self._decoding: dict[tuple[int, int, int], Future[RgbArray]] = {}

    @abstractmethod
    def decode(self, level: int, i: int, j: int) -> RgbArray:
        """Decode tile (i, j) of a level, or its part inside the level; thread-safe."""

    def read(self, level: int, row: int, col: int, height: int, width: int) -> RgbArray:
        """Read a region inside a level as a new uint8 array (height, width, 3)."""
        return region(lambda i, j: self._tile(level, i, j), self.chunks[level], row, col, height, width)

    def close(self) -> None:
        """Free the decoded tiles."""
        with self._cache_lock:
            self._cache.clear()
            self._cached_bytes = 0

    def _tile(self, level: int, i: int, j: int) -> RgbArray:
        """Return a decoded tile; if several threads need it, one decodes it and the others wait."""
        key = (level, i, j)
        with self._cache_lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            future = self._decoding.get(key)
            mine = future is None
            if future is None:
                future = self._decoding[key] = Future()
        if not mine:
            return future.result()
        try:
            tile = self._decoded(level, i, j)
        except BaseException as error:
            future.set_exception(error)
            raise
        else:
            self._keep(key, tile)
            future.set_result(tile)
        finally:
            with self._cache_lock:
                del self._decoding[key]
        return tile

    def _decoded(self, level: int, i: int, j: int) -> RgbArray:
        try:
            tile = self.decode(level, i, j)
        except Exception as error:  # decoders may raise any error for damaged data
            rows, cols = self.chunks[level]
            raise SlideError(
                f"the tile at row {i * rows}, column {j * cols} of level {level} cannot be read ({error})",
                path=self.path,
                remedy=how_to_mend(self.path),
            ) from error
        tile.flags.writeable = False
        return tile

    def _keep(self, key: tuple[int, int, int], tile: RgbArray) -> None:
        with self._cache_lock:
            self._cache[key] = tile
            self._cached_bytes += tile.nbytes
            while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes


def region(
    tile_at: Callable[[int, int], RgbArray],
    size: tuple[int, int],
    row: int,
    col: int,
    height: int,
    width: int,
) -> RgbArray:
    """Assemble a region (height, width, 3) from tiles of a size (rows, cols)."""
    out = np.empty((height, width, 3), np.uint8)
    rows, cols = size
    for i in range(row // rows, math.ceil((row + height) / rows)):
        top, bottom = max(row, i * rows), min(row + height, (i + 1) * rows)
        for j in range(col // cols, math.ceil((col + width) / cols)):
            left, right = max(col, j * cols), min(col + width, (j + 1) * cols)
            part = tile_at(i, j)[top - i * rows : bottom - i * rows, left - j * cols : right - j * cols]
            out[top - row : bottom - row, left - col : right - col] = part
    return out
