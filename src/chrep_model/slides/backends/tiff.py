"""Tiled and pyramidal TIFF: Aperio SVS, OME-TIFF, and plain TIFF of 8-bit RGB.

tifffile reads the directories and decodes; the bytes are read here, tile by tile, so that a tile that is cut
short or damaged is an error with its place and never a patch of invented pixels. It also scales with threads,
which tifffile's zarr view does not.
"""

from __future__ import annotations

import logging
import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from chrep_model.errors import SlideError
from chrep_model.slides.backends import COPY_AGAIN, NeedsOpenSlideError, RgbArray, over_white
from chrep_model.slides.backends.tiff_metadata import describe, scale
from chrep_model.slides.backends.tiled import TiledBackend

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Formats of vendors that are TIFF on the outside but lay out their tiles in ways of their own.
_LEFT_TO_OPENSLIDE = {"is_ndpi": "Hamamatsu NDPI", "is_bif": "Ventana BIF", "is_scn": "Leica SCN"}
_LEFT_TO_OPENSLIDE |= {"is_philips": "Philips TIFF"}
_APERIO_JP2K_YCC = 33003  # JPEG 2000 in YCbCr without a mark in the stream: tifffile would return it as RGB
_JPEG = (7, 33007)
_MAX_PAGES = 64  # a pyramid has fewer; a file with thousands of pages is a stack
_MAX_SEGMENT_PX = 512 * 2**20
_CONVERT = "Convert it to a tiled, pyramidal TIFF with 8-bit RGB, for example with QuPath or vips."

# tifffile logs each oddity of a directory; where it matters, an error of ours says so. Programs that ask for
# the log still get it, it just does not go to stderr by default.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TiffBackend(TiledBackend):
    """A slide in a TIFF file.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    SlideError
        It is damaged, cut short, or not 8-bit RGB.
    NeedsOpenSlideError
        It is in a vendor's format that OpenSlide reads.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        with _damage_is_slide_error(path):
            # Other files named in OME metadata are not followed: one slide is one file.
            self._tif = tifffile.TiffFile(path, _multifile=False)
        try:
            with _damage_is_slide_error(path):
                pages = _levels(self._tif, path)
                self._levels = [_Level(page) for page in pages]
                self.mpp_xy = scale(self._tif, pages[0])
                self.properties = describe(self._tif, pages[0])
            self.shapes = tuple(level.shape for level in self._levels)
            self.chunks = tuple(level.tile for level in self._levels)
            self._refuse_if_cut_short()
        except BaseException:
            self._tif.close()
            raise
        self._file_lock = threading.Lock()

    def _refuse_if_cut_short(self) -> None:
        size = self._tif.filehandle.size
        for number, level in enumerate(self._levels):
            behind = np.flatnonzero(level.offsets + level.counts > size)
            if behind.size:
                row, col = level.place(int(behind[0]))
                raise SlideError(
                    f"the file is cut short: {behind.size} of {len(level.offsets)} tiles of level {number} "
                    f"lie behind its end, the first of them at row {row}, column {col}",
                    path=self.path,
                    remedy=COPY_AGAIN,
                )

    def decode(self, level: int, i: int, j: int) -> RgbArray:
        """Return tile (i, j) of a level."""
        return self._levels[level].decode(i, j, self._bytes)

    def close(self) -> None:
        """Release the file and the decoded tiles."""
        with self._file_lock:
            self._tif.close()
        super().close()

    def _bytes(self, offset: int, count: int) -> bytes:
        file = self._tif.filehandle
        with self._file_lock:
            if file.closed:
                raise ValueError("the slide has been closed")
            file.seek(offset)
            data: bytes = file.read(count)
        if len(data) != count:
            raise ValueError(f"{len(data)} of {count} bytes are there")
        return data


class _Level:
    """One level: a TIFF directory, its grid of tiles (or strips), and how to decode one of them."""

    def __init__(self, page: tifffile.TiffPage) -> None:
        self._page = page
        self.shape = (int(page.imagelength), int(page.imagewidth))
        strip = (min(int(page.rowsperstrip), self.shape[0]), self.shape[1])
        self.tile = (int(page.tilelength), int(page.tilewidth)) if page.is_tiled else strip
        self._grid = tuple(math.ceil(n / m) for n, m in zip(self.shape, self.tile, strict=True))
        self._planes = 1 if page.planarconfig == 1 else int(page.samplesperpixel)
        self.offsets = np.array(page.dataoffsets, np.int64)
        self.counts = np.array(page.databytecounts, np.int64)
        if not len(self.offsets) == len(self.counts) == self._planes * math.prod(self._grid):
            raise ValueError("the number of tiles does not fit the size of the image")
        self._decode = page.decode  # made on first access, which is not safe in threads
        self._tables = page.jpegtables
        self._decode(None, 0)  # what cannot be decoded at all says so now

    def place(self, index: int) -> tuple[int, int]:
        """Return the (row, col) of the first pixel of a tile from its number in the file."""
        i, j = divmod(index % math.prod(self._grid), self._grid[1])
        return i * self.tile[0], j * self.tile[1]

    def decode(self, i: int, j: int, read: Any) -> RgbArray:
        """Decode tile (i, j), whose bytes are fetched with ``read(offset, count)``."""
        first, step = i * self._grid[1] + j, math.prod(self._grid)
        planes = []
        for index in range(first, first + self._planes * step, step):
            segment = self._segment(index, read)
            if segment is None:  # scanners leave out tiles that saw nothing but glass
                return np.full((*self.tile, 3), 255, np.uint8)
            planes.append(segment)
        tile = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
        if tile.shape[-1] == 4 and self._page.extrasamples and self._page.extrasamples[0] in (1, 2):
            tile = over_white(tile, premultiplied=self._page.extrasamples[0] == 1)
        return np.ascontiguousarray(tile[..., :3])

    def _segment(self, index: int, read: Any) -> Any:
        offset, count = int(self.offsets[index]), int(self.counts[index])
        if offset == 0 or count == 0:
            return None
        data = read(offset, count)
        if self._page.compression in _JPEG:
            self._check_jpeg(data, index)
        segment, _, _ = self._decode(data, index, jpegtables=self._tables)
        return None if segment is None else segment[0]  # without the depth axis

    def _check_jpeg(self, data: bytes, index: int) -> None:
        # libjpeg fills what is missing with grey and only warns, and any size with the right number of pixels
        # would be folded into the tile.
        if data.rfind(b"\xff\xd9", max(len(data) - 64, 0)) < 0:
            raise ValueError("its JPEG data end too early")
        found = _jpeg_size(data)
        row, col = self.place(index)
        rest = min(self.shape[0] - row, self.tile[0]), min(self.shape[1] - col, self.tile[1])
        if found not in (self.tile, rest):
            raise ValueError(f"its JPEG data have {found} pixels instead of {self.tile}")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Return (rows, cols) from the frame header of a JPEG stream."""
    at = 2
    while at + 9 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == 0xFFFF:  # markers may be padded
            at += 1
            continue
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            rows, cols = struct.unpack_from(">HH", data, at + 5)
            return rows, cols
        at += 2 + length
    raise ValueError("its JPEG data have no frame header")


@contextmanager
def _damage_is_slide_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (SlideError, NeedsOpenSlideError):
        raise
    except Exception as error:  # a damaged directory can make tifffile raise anything
        what = f"the TIFF file is damaged or of an unknown kind ({error or type(error).__name__})"
        raise SlideError(what, path=path, remedy=f"{COPY_AGAIN} If that does not help: {_CONVERT}") from error


def _levels(tif: tifffile.TiffFile, path: Path) -> list[tifffile.TiffPage]:
    """Return the directories of the pyramid, level 0 first."""
    for flag, name in _LEFT_TO_OPENSLIDE.items():
        if getattr(tif, flag):
            raise NeedsOpenSlideError(name)
    base, *smaller = _levels_by_series(tif, path) if tif.is_svs or tif.is_ome else _levels_by_size(tif)
    reason = _why_not_rgb(base)
    if reason:
        raise SlideError(reason, path=path, remedy=f"CHRep reads H&E in 8-bit RGB. {_CONVERT}")
    kept = [base]
    for page in smaller:
        if _is_next_level(base, kept[-1], page) and not _why_not_rgb(page):
            kept.append(page)
    return kept


def _levels_by_series(tif: tifffile.TiffFile, path: Path) -> list[tifffile.TiffPage]:
    """Aperio and OME say themselves what belongs together, and tifffile understands them."""
    series = max(tif.series, key=lambda s: math.prod(s.keyframe.shape)) if tif.is_ome else tif.series[0]
    planes = math.prod(n for n, axis in zip(series.shape, series.axes, strict=True) if axis not in "YXS")
    if planes != 1:
        raise SlideError(
            f"it is a stack or has separate channels (axes {series.axes}, shape {series.shape}), "
            "not one RGB image as H&E is",
            path=path,
            remedy="Export a single RGB plane; fluorescence images cannot be used.",
        )
    return [level.keyframe for level in series.levels]


def _levels_by_size(tif: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """Take the first page as the slide, and what lies in its sub-directories or behind it as candidates.

    tifffile's own grouping knows only pyramids with one factor of 2, 3 or 4 throughout.
    """
    first = tif.pages.first
    others = list(first.pages or ()) or list(islice(tif.pages, 1, _MAX_PAGES))
    smaller = [p for p in others if isinstance(p, tifffile.TiffPage) and (p.is_tiled or p.is_reduced)]
    return [first, *sorted(smaller, key=lambda page: -page.imagewidth * page.imagelength)]


def _is_next_level(base: tifffile.TiffPage, last: tifffile.TiffPage, page: tifffile.TiffPage) -> bool:
    smaller = page.imagewidth < last.imagewidth and page.imagelength < last.imagelength
    if not smaller or page.imagewidth < 1 or page.imagelength < 1:
        return False
    # Of the same proportions, but for the rounding of the shorter side.
    factor = max(base.imagewidth, base.imagelength) / max(page.imagewidth, page.imagelength)
    short = min(base.imagewidth, base.imagelength) / factor
    return bool(abs(short - min(page.imagewidth, page.imagelength)) <= 1.5)


def _why_not_rgb(page: tifffile.TiffPage) -> str | None:
    """Say why a directory cannot be read as 8-bit RGB; ``None`` where it can."""
    photometric = getattr(page.photometric, "name", str(page.photometric))
    compression = getattr(page.compression, "name", str(page.compression))
    if page.compression == _APERIO_JP2K_YCC:
        raise NeedsOpenSlideError("Aperio SVS with JPEG 2000 in YCbCr")
    if page.dtype != np.uint8:
        return f"it has {page.bitspersample}-bit pixels ({page.dtype}, {photometric}) instead of 8-bit RGB"
    if page.samplesperpixel not in (3, 4) or photometric not in ("RGB", "YCBCR"):
        return f"it has {page.samplesperpixel} channel(s) of kind {photometric} instead of RGB"
    if photometric == "YCBCR" and page.compression not in _JPEG:
        return f"it stores YCbCr colours with the compression {compression}, which cannot be read"
    if page.imagedepth != 1 or 0 in (page.imagewidth, page.imagelength):
        return "it has no pixels, or is a volume"
    segment = page.tilewidth * page.tilelength if page.is_tiled else page.rowsperstrip * page.imagewidth
    if min(segment, page.imagewidth * page.imagelength) > _MAX_SEGMENT_PX or segment == 0:
        return "it is one huge picture without tiles"
    return None


def is_slide(path: Path) -> bool:
    """Say whether the file is a tiled or pyramidal TIFF with 8-bit RGB; may raise on damaged files."""
    with tifffile.TiffFile(path, _multifile=False) as tif:
        pages = _levels(tif, path)
        return bool(pages[0].is_tiled or len(pages) > 1)
