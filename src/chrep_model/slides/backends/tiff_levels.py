"""Decoding of one level of a slide in a TIFF file, from its tiles or strips."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tifffile

from chrep_model.slides.backends import RgbArray, over_white
from chrep_model.slides.backends.jpeg import complete, frame_size
from chrep_model.slides.backends.tiled import region

Bytes = Callable[[int, int], bytes]
"""Function that returns `count` bytes of the file from an `offset`."""

JPEG = (7, 33007)
_UNCOMPRESSED = 1
_LARGE_STRIP_PX = 32 * 2**20  # larger strips would displace all other tiles from the cache
_CHUNK = 512
_ASSOCIATED, _UNASSOCIATED = 1, 2  # values of the tag ExtraSamples for alpha


def make_level(pages: Sequence[tifffile.TiffPage], read: Bytes) -> TiffLevel:
    """Build a level from one directory of a file, or from three that hold one colour each.

    Raises
    ------
    ValueError
        The directory is damaged, or cannot be decoded.
    """
    page = pages[0]
    if page.is_tiled:
        return TiffLevel(pages, read)
    if page.compression == _UNCOMPRESSED and page.predictor == 1 and page.fillorder == 1:
        return _RowsLevel(pages, read)
    strip = min(int(page.rowsperstrip), int(page.imagelength)) * int(page.imagewidth)
    return (_WholeLevel if strip > _LARGE_STRIP_PX else TiffLevel)(pages, read)


class TiffLevel:
    """A level stored in tiles or small strips.

    Parameters
    ----------
    pages
        The directory, or those of red, green and blue.
    read
        Function that reads bytes of the file.

    Attributes
    ----------
    shape
        (rows, cols) of the picture; may be set to less than the stored size if the level is padded.
    chunk
        (rows, cols) of the unit that is decoded at once.
    offsets, counts
        Offset and number of bytes of each tile or strip in the file.
    """

    def __init__(self, pages: Sequence[tifffile.TiffPage], read: Bytes) -> None:
        page = pages[0]
        self._pages, self._read = tuple(pages), read
        self._stored = (int(page.imagelength), int(page.imagewidth))
        self.shape = self._stored
        strip = (min(int(page.rowsperstrip), self.shape[0]), self.shape[1])
        self._segment_shape = (int(page.tilelength), int(page.tilewidth)) if page.is_tiled else strip
        self.chunk = self._segment_shape
        self._grid = tuple(math.ceil(n / m) for n, m in zip(self.shape, self._segment_shape, strict=True))
        self._samples = 1 if page.planarconfig == 1 else int(page.samplesperpixel)
        self.offsets = np.concatenate([np.array(p.dataoffsets, np.int64) for p in pages])
        self.counts = np.concatenate([np.array(p.databytecounts, np.int64) for p in pages])
        if not len(self.offsets) == len(self.counts) == len(pages) * self._samples * math.prod(self._grid):
            raise ValueError("the number of tiles does not fit the size of the image")
        for each in self._pages:  # created on first access, which is not thread-safe
            each.decode(None, 0)  # raises if the level cannot be decoded at all

    def place(self, index: int) -> tuple[int, int]:
        """Return the (row, col) of a tile's first pixel, from the tile's index among `offsets`."""
        i, j = divmod(index % math.prod(self._grid), self._grid[1])
        return i * self._segment_shape[0], j * self._segment_shape[1]

    def decode(self, i: int, j: int) -> RgbArray:
        """Decode chunk (i, j); thread-safe."""
        return self._colours(self._segments(i, j), self._segment_shape)

    def read(self, row: int, col: int, height: int, width: int) -> RgbArray:
        """Decode a region inside the level, without caching its tiles.

        Raises
        ------
        ValueError
            A tile of the region is damaged, or was omitted by the scanner.
        """
        rows, cols = self._segment_shape
        down = np.arange(row // rows, (row + height - 1) // rows + 1)
        across = np.arange(col // cols, (col + width - 1) // cols + 1)
        if not self.counts[(down[:, None] * self._grid[1] + across).ravel()].all():
            raise ValueError("it is not in the file")
        return region(self.decode, self.chunk, row, col, height, width)

    def _segments(self, i: int, j: int) -> list[Any] | None:
        """Return segment (i, j) of each plane; ``None`` if the file has none."""
        first, step = i * self._grid[1] + j, math.prod(self._grid)
        planes = []
        for index in range(first, len(self.offsets), step):
            segment = self._segment(index)
            if segment is None:  # scanners omit tiles that show only glass
                return None
            planes.append(segment)
        return planes

    def _colours(self, planes: list[Any] | None, shape: tuple[int, int]) -> RgbArray:
        if planes is None:
            return np.full((*shape, 3), 255, np.uint8)
        tile = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
        extra = self._pages[0].extrasamples
        if tile.shape[-1] == 4 and extra and extra[0] in (_ASSOCIATED, _UNASSOCIATED):
            tile = over_white(tile, premultiplied=extra[0] == _ASSOCIATED)
        return np.ascontiguousarray(tile[..., :3])

    def _segment(self, index: int) -> Any:
        offset, count = int(self.offsets[index]), int(self.counts[index])
        if offset == 0 or count == 0:
            return None
        data = self._read(offset, count)
        page, number = self._page_of(index)

        def decode(data: bytes) -> Any:
            segment, _, _ = page.decode(data, number, jpegtables=page.jpegtables)
            return None if segment is None else segment[0]  # without the depth axis

        if page.compression in JPEG:
            self._check_size(frame_size(data), index)
            data = complete(data, decode)
        return decode(data)

    def _page_of(self, index: int) -> tuple[tifffile.TiffPage, int]:
        page, number = divmod(index, self._samples * math.prod(self._grid))
        return self._pages[page], number

    def _check_size(self, found: tuple[int, int], index: int) -> None:
        # tifffile would reshape any size with the right number of pixels.
        row, col = self.place(index)
        rows, cols = self._segment_shape
        rest = min(self._stored[0] - row, rows), min(self._stored[1] - col, cols)
        if found not in (self._segment_shape, rest):
            raise ValueError(f"its JPEG data have {found} pixels instead of {self._segment_shape}")


class _RowsLevel(TiffLevel):
    """A level in uncompressed strips, of which single rows are read, so that strips may be of any size."""

    def __init__(self, pages: Sequence[tifffile.TiffPage], read: Bytes) -> None:
        super().__init__(pages, read)
        self.chunk = (min(_CHUNK, self.shape[0]), min(_CHUNK, self.shape[1]))
        self._depth = int(pages[0].samplesperpixel) if self._samples == 1 else 1  # bytes per pixel of a plane
        # Computed, because some programs write counts that are too small for large pictures.
        rows, (height, width) = self._segment_shape[0], self._stored
        number = np.arange(len(self.offsets)) % self._grid[0]
        needed = np.minimum(rows, height - number * rows) * width * self._depth
        self.counts = np.where((self.offsets == 0) | (self.counts == 0), 0, needed)

    def decode(self, i: int, j: int) -> RgbArray:
        """Read chunk (i, j); thread-safe."""
        top, left = i * self.chunk[0], j * self.chunk[1]
        height = min(self.chunk[0], self._stored[0] - top)
        width = min(self.chunk[1], self._stored[1] - left)
        planes = [np.empty((height, width, self._depth), np.uint8) for _ in range(self._n_planes)]
        for plane, pixels in enumerate(planes):
            for row in range(height):
                pixels[row] = self._row(plane, top + row, left, width)
        return self._colours(planes, (height, width))

    @property
    def _n_planes(self) -> int:
        return len(self._pages) * self._samples

    def _row(self, plane: int, row: int, left: int, width: int) -> Any:
        strip, within = divmod(row, self._segment_shape[0])
        index = plane * self._grid[0] + strip
        if self.counts[index] == 0:  # an omitted strip
            return 255
        at = int(self.offsets[index]) + (within * self._stored[1] + left) * self._depth
        return np.frombuffer(self._read(at, width * self._depth), np.uint8).reshape(width, self._depth)


class _WholeLevel(TiffLevel):
    """A level in large compressed strips, decoded as a whole when pixels are first read."""

    def __init__(self, pages: Sequence[tifffile.TiffPage], read: Bytes) -> None:
        super().__init__(pages, read)
        self.chunk = (min(_CHUNK, self.shape[0]), min(_CHUNK, self.shape[1]))
        self._lock = threading.Lock()
        self._pixels: RgbArray | None = None

    def decode(self, i: int, j: int) -> RgbArray:
        """Return chunk (i, j); thread-safe."""
        with self._lock:
            if self._pixels is None:
                self._pixels = self._decode_all()
            rows, cols = self.chunk
            return self._pixels[i * rows : (i + 1) * rows, j * cols : (j + 1) * cols].copy()

    def _decode_all(self) -> RgbArray:
        pixels = np.empty((*self._stored, 3), np.uint8)
        for i in range(self._grid[0]):
            top = i * self._segment_shape[0]
            height = min(self._segment_shape[0], self._stored[0] - top)
            strip = self._colours(self._segments(i, 0), (height, self._stored[1]))
            pixels[top : top + height] = strip[:height]
        return pixels
