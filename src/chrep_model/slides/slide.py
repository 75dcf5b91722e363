"""A slide: pixels at several resolutions, and the µm per pixel with its source."""

from __future__ import annotations

import math
import numbers
import os
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import numpy as np

from chrep_model.errors import ScaleError, SlideError
from chrep_model.slides.backends import (
    Backend,
    NeedsOpenSlideError,
    RgbArray,
    chosen_scene,
    how_to_mend,
    image,
    omezarr,
    openslide,
    tiff,
)
from chrep_model.slides.backends.level_geometry import factor_by_size

if TYPE_CHECKING:
    import dask.array as da

    from chrep_model.slides.pyramid import ReadRegion

# Finer than any light microscope resolves, coarser than any overview of a slide: outside is a mistake.
MPP_RANGE = (0.05, 100.0)
_MPP_SIDES_DIFFER = 0.01
_GIVE_MPP = "Give the µm per pixel: --mpp on the command line, or the field in the plugin's panel."
_READABLE = (
    "CHRep reads Aperio SVS, TIFF, OME-TIFF and OME-Zarr in 8-bit RGB, JPEG, PNG, JPEG 2000, WebP and BMP"
)
_FOLDER_SUFFIXES = (".zarr", ".sdata", ".ome")


@dataclass(frozen=True)
class Mpp:
    """µm per level-0 pixel, and its source: ``"file"``, ``"user"`` or ``"cohort"``."""

    value: float
    source: str


@dataclass(frozen=True)
class Level:
    """One resolution of a slide.

    Attributes
    ----------
    shape
        (rows, cols) in pixels of this level.
    downsample
        How many level-0 pixels one of its pixels is wide; a float, at least 1.
    """

    shape: tuple[int, int]
    downsample: float


class Slide:
    """An open slide; make one with `open_slide`.

    Attributes
    ----------
    path
        The file or folder.
    name
        Its name without the suffixes of slides: ``a.ome.tif`` is ``a``; of a store with several images also
        which of them this is.
    levels
        What the file holds, level 0 first, strictly decreasing.
    mpp
        µm per level-0 pixel and their source, or ``None``.
    scene, scenes
        Which picture of the file it is, and the names of all that could be the slide; empty where there is
        one.
    properties
        What else the reader knows: ``format``, and where known ``vendor``, ``objective``, ``compression``.
    bounds
        (x, y, width, height) in level-0 pixels of the scanned part, where the format has a larger canvas.
    """

    def __init__(self, backend: Backend, mpp: Mpp | None = None) -> None:
        self._backend = backend
        self.path = backend.path
        self.name = slide_name(backend.path) + (f" {backend.part}" if backend.part else "")
        self.levels = _levels(backend)
        self.scene, self.scenes = backend.part, backend.scenes
        self.properties: Mapping[str, str] = MappingProxyType(dict(backend.properties))
        self.mpp = mpp or _mpp_of_file(backend.mpp_xy)
        self.bounds = backend.bounds
        self._thumbnails: dict[int, tuple[RgbArray, float]] = {}
        self._thumbnail_lock = threading.Lock()

    def __repr__(self) -> str:
        rows, cols = self.shape
        scale = f"{self.mpp.value:g} µm/px ({self.mpp.source})" if self.mpp else "no scale"
        return f"<Slide {self.name!r}: {cols} x {rows} px, {len(self.levels)} level(s), {scale}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file, which slides made by `with_mpp` share."""
        self._backend.close()

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) of level 0."""
        return self.levels[0].shape

    @property
    def fingerprint(self) -> str:
        """Hex digest of the file's content, computed on first use.

        SHA-256 of everything below 64 MiB, of the size and of blocks spread over the file above.

        Raises
        ------
        SlideError
            The file cannot be read any more.
        """
        try:
            return self._backend.fingerprint
        except OSError as error:
            what = f"the slide cannot be read ({error.strerror or error})"
            raise SlideError(what, path=self.path, remedy=how_to_mend(self.path)) from error

    def require_mpp(self) -> float:
        """Return the µm per level-0 pixel.

        Raises
        ------
        ScaleError
            The file has none, or contradicts itself, and nobody gave one.
        """
        if self.mpp is not None:
            return self.mpp.value
        given = self._backend.mpp_xy
        what = "the slide does not say its µm per pixel"
        if given is not None:
            what = f"the µm per pixel in the file, {given[0]:g} across and {given[1]:g} down, cannot be used"
        raise ScaleError(what, path=self.path, remedy=_GIVE_MPP)

    def with_mpp(self, value: float, source: str = "user") -> Slide:
        """Return the same slide, sharing the open file, with other µm per pixel.

        Raises
        ------
        ScaleError
            `value` is not between 0.05 and 100.
        """
        if not _plausible(value):
            low, high = MPP_RANGE
            raise ScaleError(
                f"{value} µm per pixel is no scale of a slide",
                path=self.path,
                remedy=f"Give a value between {low:g} and {high:g}, for example 0.5 for a 20x scan.",
            )
        return Slide(self._backend, Mpp(float(value), source))

    def read(self, row: int, col: int, height: int, width: int, level: int = 0) -> RgbArray:
        """Read a region; safe to call from several threads.

        Parameters
        ----------
        row, col
            Top left pixel, in pixels of `level`; may lie outside the image.
        height, width
            Size in pixels of `level`.
        level
            Which of `levels`.

        Returns
        -------
        uint8 array (height, width, 3)
            RGB; white (255) outside the image.

        Raises
        ------
        SlideError
            Pixels cannot be read or decoded.
        """
        if height < 0 or width < 0 or not 0 <= level < len(self.levels):
            raise ValueError(f"no region of {height} x {width} pixels in level {level} of {len(self.levels)}")
        rows, cols = self.levels[level].shape
        top, bottom = max(row, 0), min(row + height, rows)
        left, right = max(col, 0), min(col + width, cols)
        if bottom <= top or right <= left:
            return np.full((height, width, 3), 255, np.uint8)
        inside = self._backend.read(level, top, left, bottom - top, right - left)
        if inside.shape[:2] == (height, width):
            return inside
        out = np.full((height, width, 3), 255, np.uint8)
        out[top - row : bottom - row, left - col : right - col] = inside
        return out

    def pyramid(self, read: ReadRegion | None = None) -> list[da.Array]:
        """Return lazy uint8 arrays (rows, cols, 3), level 0 first, for napari.

        Levels that the file does not have are appended as 2 x 2 means until the longest side is at most 1024.
        The slide has to stay open as long as the arrays are used; equal chunks are found in dask's caches, by
        the content of the file. With `read`, pixels are asked of it in place of `Slide.read`, for a viewer
        that shows something where a file cannot be read.
        """
        from chrep_model.slides.pyramid import lazy_levels

        # What something else has read must never be taken from a cache for the slide's own pixels.
        name = f"slide-{self.fingerprint[:32]}" if read is None else f"shown-{uuid4().hex}"
        shapes = [level.shape for level in self.levels]
        return lazy_levels(shapes, self._backend.chunks, read or self.read, name)

    def thumbnail(self, max_px: int = 1024) -> tuple[RgbArray, float]:
        """Return the whole slide in at most `max_px` a side.

        Returns
        -------
        image
            uint8 array (rows, cols, 3), read-only; made once and kept.
        downsample
            Level-0 pixels per pixel of it, at least 1.
        """
        from chrep_model.slides.pyramid import reduced

        with self._thumbnail_lock:
            if max_px not in self._thumbnails:
                picture = reduced(self.pyramid(), max_px)
                self._thumbnails[max_px] = picture, max(self.shape) / max(picture.shape[:2])
            return self._thumbnails[max_px]


def open_slide(path: str | os.PathLike[str], *, mpp: float | None = None, scene: str | None = None) -> Slide:
    """Open a slide.

    Parameters
    ----------
    path
        Aperio SVS, TIFF or OME-TIFF in 8-bit RGB, JPEG, PNG, JPEG 2000, WebP or BMP; the folder of an
        OME-Zarr image or a SpatialData store; with OpenSlide installed also NDPI, MRXS, DICOM (a file, or the
        folder of one slide) and the other formats of that library.
    mpp
        µm per level-0 pixel, for files that do not say it or say it wrongly.
    scene
        Which picture of a file that holds several, by its name or its number, counted from 1; the largest RGB
        picture where none is given.

    Raises
    ------
    SlideError
        There is no such file or scene, it is damaged, or it is no slide that can be read.
    ScaleError
        `mpp` is no plausible scale.
    """
    file = Path(path).expanduser()
    try:
        backend = _open_backend(file, scene)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SlideError(f"cannot be opened ({reason})", path=path, remedy="Check the name.") from error
    slide = Slide(backend)
    if mpp is None:
        return slide
    try:
        return slide.with_mpp(mpp)
    except ScaleError:
        slide.close()
        raise


def is_slide(path: str | os.PathLike[str]) -> bool:
    """Return whether a file looks like a readable slide, by a quick look inside; never raises.

    A TIFF has to be tiled, pyramidal or large, or to say its scale: small plain ones are pictures of other
    kinds more often than slides.
    Tiles are not looked at, so that `open_slide` may still find the file damaged and say so.
    """
    try:
        file = Path(path).expanduser()
        if file.is_dir():
            return omezarr.is_slide(file) if omezarr.is_zarr(file) else openslide.handles(file)
        if not file.is_file():  # a pipe would be waited for
            return False
        head = _head(file)
        if file.suffix.lower() in openslide.SUFFIXES or openslide.is_dicom(file):
            return openslide.handles(file)
        if head.startswith(tiff.SIGNATURES):
            try:
                return tiff.is_slide(file)
            except NeedsOpenSlideError:
                return openslide.handles(file)
        if image.knows(head):
            return image.is_slide(file)
        return openslide.handles(file)
    except Exception:  # whatever is wrong with it: not a slide
        return False


def _open_backend(file: Path, scene: str | None) -> Backend:
    mode = file.stat().st_mode
    if stat.S_ISDIR(mode):
        if openslide.is_dicom(file):
            return _only(openslide.OpenSlideBackend(file), scene)
        if omezarr.is_zarr(file):
            return omezarr.OmeZarrBackend(file, scene)
        what = "this is a folder without DICOM files or OME-Zarr, not a slide"
        raise SlideError(what, path=file, remedy="Name the slide file itself.")
    if not stat.S_ISREG(mode):
        raise SlideError("this is no regular file", path=file, remedy="Name a slide file.")
    head = _head(file)
    if not head:
        raise SlideError("the file is empty", path=file, remedy="Copy or download it again.")
    if head.startswith(b"PK\3\4"):
        raise SlideError("it is a zip archive", path=file, remedy="Unpack it, and open the folder in it.")
    # By name first where the content misleads: a MIRAX index file is a JPEG picture.
    if file.suffix.lower() in openslide.SUFFIXES or openslide.is_dicom(file):
        return _only(openslide.OpenSlideBackend(file), scene)
    if head.startswith(tiff.SIGNATURES):
        try:
            return tiff.TiffBackend(file, scene)
        except NeedsOpenSlideError as needs:
            openslide.require(file, kind=str(needs))
            return _only(openslide.OpenSlideBackend(file), scene)
    if image.knows(head):
        return _only(image.ImageBackend(file), scene)
    if openslide.handles(file):
        return _only(openslide.OpenSlideBackend(file), scene)
    more = "" if openslide.available() else '; "napari-chrep[openslide]" adds NDPI, MRXS, DICOM and others'
    raise SlideError("this is no slide that can be read", path=file, remedy=f"{_READABLE}{more}.")


def _only(backend: Backend, scene: str | None) -> Backend:
    """Return the only picture of a file; SlideError if another scene was asked for."""
    if scene not in (None, "1"):
        backend.close()
        chosen_scene(scene, backend.scenes, backend.path)
    return backend


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(16)


def slide_name(path: Path) -> str:
    """Return the name of a file or folder without its slide suffixes."""
    if path.is_dir():
        name = path.name
        for suffix in _FOLDER_SUFFIXES:
            if name.lower().endswith(suffix):
                name = name[: -len(suffix)]
        return name or path.name
    stem = path.stem
    return stem[:-4] if stem.lower().endswith(".ome") else stem


def _levels(backend: Backend) -> tuple[Level, ...]:
    shapes = backend.shapes
    factors = backend.downsamples or [factor_by_size(shapes[0], shape) for shape in shapes]
    return tuple(Level(shape, float(factor)) for shape, factor in zip(shapes, factors, strict=True))


def _mpp_of_file(given: tuple[float, float] | None) -> Mpp | None:
    if given is None or not all(_plausible(side) for side in given):
        return None
    across, down = given
    if abs(across - down) > _MPP_SIDES_DIFFER * min(across, down):
        return None
    return Mpp((across + down) / 2, "file")


def _plausible(value: Any) -> bool:
    low, high = MPP_RANGE
    return isinstance(value, numbers.Real) and math.isfinite(value) and low <= float(value) <= high
