"""Read tiled and pyramidal TIFF: Aperio SVS, OME-TIFF, and plain TIFF of 8-bit RGB.

tifffile reads the directories and decodes tiles. The bytes of each tile are read here, so that a truncated or
damaged tile raises an error with its position instead of returning wrong pixels. Unlike tifffile's zarr view,
this also becomes faster with several threads.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tifffile

from chrep_model.errors import SlideError, damage_as_error
from chrep_model.slides.backends import (
    COPY_AGAIN,
    DARK,
    RgbArray,
    chosen_scene,
    fingerprint,
)
from chrep_model.slides.backends.level_geometry import Claim, Placing, busiest, fitting, is_drawn, placings
from chrep_model.slides.backends.tiff_levels import TiffLevel, make_level
from chrep_model.slides.backends.tiff_metadata import describe, resolution, scale
from chrep_model.slides.backends.tiff_pages import (
    CONVERT,
    Pages,
    TiffPicture,
    may_be_level,
    pictures,
    slides,
)
from chrep_model.slides.backends.tiled import TiledBackend

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_MAX_SCENES = 16
_LARGE_PX = 16_000_000  # a picture without tiles or levels of at least this size is assumed to be a slide

# tifffile logs every irregularity of a directory; those that matter raise errors here. The log remains
# available to programs, but is not written to stderr by default.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


_DAMAGED = "the TIFF file is damaged or of an unknown kind"
_REMEDY = f"{COPY_AGAIN} If that does not help: {CONVERT}"


class TiffBackend(TiledBackend):
    """A slide in a TIFF file.

    Parameters
    ----------
    path
        The file.
    scene
        Picture to use, by name or number; the largest if not given.

    Raises
    ------
    SlideError
        The file is damaged, truncated, or not 8-bit RGB, or there is no such scene.
    NeedsOpenSlideError
        The file is in a vendor's format that OpenSlide reads.
    """

    def __init__(self, path: Path, scene: str | None = None) -> None:
        super().__init__()
        self.path = path
        self._file_lock = threading.Lock()
        with damage_as_error(SlideError, _DAMAGED, path, _REMEDY):
            # Other files named in OME metadata are not opened: a slide is one file.
            self._tif = tifffile.TiffFile(path, _multifile=False)
        try:
            with damage_as_error(SlideError, _DAMAGED, path, _REMEDY):
                found = pictures(self._tif)
                pyramids = self._pyramids(found)
                names = _unique([pyramid.picture.name for pyramid in pyramids])
                likeliest = max(pyramids, key=lambda pyramid: -pyramid.rank)
                chosen = likeliest if scene is None else pyramids[chosen_scene(scene, names, path)]
                if len(pyramids) > 1:
                    self.scenes, self.part = tuple(names), names[pyramids.index(chosen)]
                self._is_default = chosen is likeliest
                picture = chosen.picture
                self.mpp_xy = scale(self._tif, picture.page, picture.image)
                self.properties = describe(self._tif, picture.page, picture.image)
            self._levels = [level for level, _ in chosen.levels]
            self.downsamples = tuple(placing.factor for _, placing in chosen.levels)
            self.shapes = tuple(level.shape for level in self._levels)
            self.chunks = tuple(level.chunk for level in self._levels)
            self._refuse_dark(picture)
        except BaseException:
            self._tif.close()
            raise

    def decode(self, level: int, i: int, j: int) -> RgbArray:
        """Return tile (i, j) of a level."""
        return self._levels[level].decode(i, j)

    def close(self) -> None:
        """Close the file and free the decoded tiles."""
        with self._file_lock:
            self._tif.close()
        super().close()

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the file's content, and of the scene's name unless it is the default."""
        digest = fingerprint(self.path)
        return digest if self._is_default else hashlib.sha256(f"{digest}:{self.part}".encode()).hexdigest()

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

    def _pyramids(self, found: Sequence[TiffPicture]) -> list[_Pyramid]:
        """Return the pictures that can be the slide, with their levels, in the order of the file."""
        left = slides(found, self.path)
        pyramids: list[_Pyramid] = []
        while left and len(pyramids) < _MAX_SCENES:
            pyramid = self._pyramid(left, found, len(pyramids))
            pyramids.append(pyramid)
            left = [picture for picture in left[1:] if picture not in pyramid.reductions]
        if len(pyramids) > 1:
            pyramids = [
                p for p in pyramids if not is_drawn(p.levels[0][0].read, p.levels[0][0].shape)
            ] or pyramids
        return sorted(pyramids, key=lambda pyramid: found.index(pyramid.picture))

    def _pyramid(self, left: Sequence[TiffPicture], found: Sequence[TiffPicture], rank: int) -> _Pyramid:
        """Find the levels of the first picture of `left`, and smaller pictures that show the same.

        The other pictures of `left` are compared too, since a smaller copy is not a scene of its own.
        """
        picture = left[0]
        base = make_level(picture.levels[0], self._bytes)
        self._refuse_if_cut_short(base, 0)
        candidates = [_Candidate(pages, picture) for pages in picture.levels[1:]]
        candidates += [
            _Candidate(pages, other)
            for other in found
            if other is not picture and (other in left or may_be_level(other, picture, found))
            for pages in other.levels
        ]
        candidates = [candidate for candidate in candidates if candidate.placings(self._tif, picture)]
        candidates.sort(key=lambda candidate: -candidate.area)
        levels = [(base, Placing(1.0, base.shape))]
        reductions: list[TiffPicture] = []
        places = self._places(picture, candidates, found)
        for candidate in candidates:
            own = candidate.picture is picture
            counts = own or may_be_level(candidate.picture, picture, found)
            above, placing_above = levels[-1]
            try:
                level = make_level(candidate.pages, self._bytes)
            except Exception:  # damaged, or not supported
                if own:
                    raise
                continue
            possible = [
                placing
                for placing in candidate.placings(self._tif, picture)
                if all(a < b for a, b in zip(placing.shape, placing_above.shape, strict=True))
            ]
            if not possible:
                continue
            if counts:
                self._refuse_if_cut_short(level, len(levels))
            claim: Claim = "of this" if own else "some" if candidate.picture.is_reduced else "nothing"
            placing = fitting(possible, level.read, above.read, placing_above, places, claim)
            if placing is not None:
                reductions.append(candidate.picture)
                if counts:
                    level.shape = placing.shape
                    levels.append((level, placing))
        return _Pyramid(picture, levels, reductions, rank)

    def _places(
        self, picture: TiffPicture, candidates: Sequence[_Candidate], found: Sequence[TiffPicture]
    ) -> list[tuple[float, float]]:
        """Return positions at which to compare levels: those with most structure in the smallest level."""
        for candidate in reversed(candidates):
            if candidate.picture is not picture and not may_be_level(candidate.picture, picture, found):
                continue
            with suppress(Exception):  # damaged: reported when it is read
                level = make_level(candidate.pages, self._bytes)
                return busiest(level.read, candidate.placings(self._tif, picture)[0].shape)
        return [(0.5, 0.5)]

    def _refuse_if_cut_short(self, level: TiffLevel, number: int) -> None:
        behind = np.flatnonzero(level.offsets + level.counts > self._tif.filehandle.size)
        if behind.size:
            row, col = level.place(int(behind[0]))
            raise SlideError(
                f"the file is cut short: {behind.size} of {len(level.offsets)} tiles of level {number} "
                f"lie behind its end, the first of them at row {row}, column {col}",
                path=self.path,
                remedy=COPY_AGAIN,
            )

    def _refuse_dark(self, picture: TiffPicture) -> None:
        """Check that three unnamed channels are bright like glass, not dark like fluorescence."""
        if picture.named_channels:
            return
        rows, cols = self.shapes[-1]
        height, width = min(rows, 512), min(cols, 512)
        middle = self.read(len(self.shapes) - 1, (rows - height) // 2, (cols - width) // 2, height, width)
        if middle.mean() < DARK:
            raise SlideError(
                "its three separate channels have no names and are dark, as those of fluorescence are",
                path=self.path,
                remedy="Fluorescence cannot be used. For H&E, name the channels Red, Green and Blue.",
            )


@dataclass(frozen=True)
class _Candidate:
    """A possible level of a picture: directories of its own, or of another picture."""

    pages: Pages
    picture: TiffPicture

    @property
    def area(self) -> int:
        return int(self.pages[0].imagelength) * int(self.pages[0].imagewidth)

    def placings(self, tif: tifffile.TiffFile, base: TiffPicture) -> list[Placing]:
        """Return its possible placings on level 0, by its size and its resolution tags."""
        page, whole = self.pages[0], base.page
        shape = int(page.imagelength), int(page.imagewidth)
        tile = (int(page.tilelength), int(page.tilewidth)) if page.is_tiled else None
        here, there = resolution(tif, page), resolution(tif, whole)
        stated = here[0] / there[0] if here is not None and there is not None else None
        return placings((int(whole.imagelength), int(whole.imagewidth)), shape, tile, stated)


@dataclass(frozen=True, eq=False)
class _Pyramid:
    """A picture, its levels and their placings, smaller pictures of the same, and its rank."""

    picture: TiffPicture
    levels: list[tuple[TiffLevel, Placing]]
    reductions: list[TiffPicture]
    rank: int


def is_slide(path: Path) -> bool:
    """Return whether a file is an 8-bit RGB TIFF that is likely a slide; may raise if damaged.

    A TIFF counts as a slide if it has tiles or levels, states its µm per pixel, or is large.
    """
    with tifffile.TiffFile(path, _multifile=False) as tif:
        found = pictures(tif)
        picture = slides(found, path)[0]
        if not picture.named_channels:  # their pixels decide
            TiffBackend(path).close()
        levels = len(picture.levels) > 1 or any(other.is_reduced for other in found)
        scaled = scale(tif, picture.page, picture.image) is not None
        return bool(picture.page.is_tiled or levels or scaled or picture.area >= _LARGE_PX)


def _unique(names: Sequence[str]) -> list[str]:
    """Return the names, with a number appended to those that occur more than once."""
    return [
        f"{name} #{names[:i].count(name) + 1}" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
