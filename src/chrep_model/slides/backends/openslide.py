"""Read vendors' formats through OpenSlide (NDPI, MRXS, BIF, SCN, DICOM, ...) if that package is installed."""

from __future__ import annotations

import hashlib
import importlib.util
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from chrep_model.errors import SlideError
from chrep_model.slides.backends import Backend, RgbArray, dicom, fingerprint, over_white
from chrep_model.slides.backends.levels import common_factor, placed_levels

# Formats recognised by the file name; DICOM also by its content.
SUFFIXES = {
    ".ndpi": "Hamamatsu NDPI",
    ".vms": "Hamamatsu VMS",
    ".vmu": "Hamamatsu VMU",
    ".mrxs": "MIRAX",
    ".bif": "Ventana BIF",
    ".scn": "Leica SCN",
    ".svslide": "Sakura",
    ".czi": "Zeiss CZI",
    ".dcm": "DICOM",
}
# Formats of many files, for which the content of the named file does not identify the slide.
_MANY_FILES = ("dicom", "mirax", "hamamatsu")
_MAX_SERIES_FILES = 64


class OpenSlideBackend(Backend):
    """Backend for slides that the OpenSlide library reads.

    Parameters
    ----------
    path
        The file, or the folder with the files of one DICOM slide.

    Raises
    ------
    SlideError
        OpenSlide is not installed, or cannot read the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        require(path)

        self._file = dicom_file(path) if path.is_dir() else path
        self._lock = threading.Lock()
        try:
            self._shared: _Handle | None = self._open()
            known = dict(self._shared.slide.properties)
            sizes = [(height, width) for width, height in self._shared.slide.level_dimensions]
            self._factors = tuple(self._shared.slide.level_downsamples)
        except Exception as error:
            raise self._error("OpenSlide cannot open it", error) from error
        tiles = [
            [known.get(f"openslide.level[{i}].tile-{s}") for s in ("height", "width")]
            for i in range(len(sizes))
        ]
        stored = [(int(rows or 512), int(cols or 512)) for rows, cols in tiles]
        self._vendor = known.get("openslide.vendor", "")
        stated = dicom.pixel_sizes(self._file, sizes) if self._vendor == "dicom" else ()
        factors = [common_factor(pair) for pair in stated] or _stated_factors(sizes, self._factors)
        levels = placed_levels(sizes, stored, factors, self._read)
        self._numbers = tuple(number for number, _ in levels)
        self.shapes = tuple(placing.shape for _, placing in levels)
        self.downsamples = tuple(placing.factor for _, placing in levels)
        self.chunks = tuple(stored[number] for number in self._numbers)
        self.mpp_xy = _mpp(known)
        self.bounds = _bounds(known)
        self._quickhash = known.get("openslide.quickhash-1")
        self.properties = {"format": "OpenSlide", "vendor": self._vendor}
        if "openslide.objective-power" in known:
            self.properties["objective"] = known["openslide.objective-power"]

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the content; computed from OpenSlide's hash for formats of many files."""
        if self._vendor in _MANY_FILES and self._quickhash:
            return hashlib.sha256(f"{self._vendor}:{self._quickhash}".encode()).hexdigest()
        return fingerprint(self._file)

    def read(self, level: int, row: int, col: int, height: int, width: int) -> RgbArray:
        """Read a region inside a level as a new uint8 array (height, width, 3)."""
        return self._read(self._numbers[level], row, col, height, width)

    def _read(self, level: int, row: int, col: int, height: int, width: int) -> RgbArray:
        """Read a region of the level with this number in the file."""
        factor = self._factors[level]
        # OpenSlide takes whole level-0 pixels; rounding shifts the region by less than half a pixel.
        region = (round(col * factor), round(row * factor)), level, (width, height)
        with self._reading() as handle:
            try:
                return _pixels(handle, region)
            except Exception:
                broken = handle
        # After one failure OpenSlide refuses all reads of a handle, so another thread may have caused this
        # one. Reading with a new handle tells.
        try:
            fresh = self._open()
        except Exception as error:
            raise self._error("OpenSlide cannot open it again", error) from error
        try:
            pixels = _pixels(fresh, region)
        except Exception as error:
            fresh.slide.close()
            what = f"OpenSlide cannot read level {level} at row {row}, column {col}"
            raise self._error(what, error) from error
        self._replace(broken, fresh)
        return pixels

    def close(self) -> None:
        """Close the file as soon as reads in progress have ended."""
        with self._lock:
            handle, self._shared = self._shared, None
            idle = handle is not None and not handle.readers
        if handle is not None and idle:
            handle.slide.close()

    def _open(self) -> _Handle:
        import openslide

        return _Handle(openslide.OpenSlide(self._file))

    @contextmanager
    def _reading(self) -> Iterator[_Handle]:
        """Keep the handle open during a read; the last reader closes a handle that was replaced."""
        with self._lock:
            handle = self._shared
            if handle is None:
                raise SlideError("the slide has been closed", path=self.path, remedy="Open it again.")
            handle.readers += 1
        try:
            yield handle
        finally:
            with self._lock:
                handle.readers -= 1
                last = handle.readers == 0 and handle is not self._shared
            if last:
                handle.slide.close()

    def _replace(self, broken: _Handle, fresh: _Handle) -> None:
        """Replace a broken handle by a new one, unless another thread has done so."""
        with self._lock:
            if self._shared is broken:
                self._shared = fresh
                unused = broken if not broken.readers else None
            else:
                unused = fresh
        if unused is not None:
            unused.slide.close()

    def _error(self, what: str, error: Exception) -> SlideError:
        return SlideError(f"{what} ({error})", path=self.path, remedy="Copy or download the slide again.")


@dataclass(eq=False)
class _Handle:
    """An open OpenSlide slide, and the number of threads that read from it."""

    slide: Any
    readers: int = 0


def _pixels(handle: _Handle, region: tuple[tuple[int, int], int, tuple[int, int]]) -> RgbArray:
    return over_white(np.asarray(handle.slide.read_region(*region)))


def available() -> bool:
    """Return whether OpenSlide is installed, without loading it."""
    return importlib.util.find_spec("openslide") is not None


def require(path: Path, kind: str = "") -> None:
    """Check that OpenSlide is installed; the `SlideError` names the package to install."""
    if not available():
        kind = kind or SUFFIXES.get(path.suffix.lower(), "DICOM" if is_dicom(path) else "this format")
        raise SlideError(
            f"{kind} is read with OpenSlide, which is not installed",
            path=path,
            remedy='Install it with: pip install "napari-chrep[openslide]"',
        )


def handles(path: Path) -> bool:
    """Return whether OpenSlide is installed and can open the file (or the folder of DICOM files)."""
    if not available():
        return False
    import openslide

    file = next(iter(dicom_files(path)), None) if path.is_dir() else path
    return file is not None and openslide.OpenSlide.detect_format(file) is not None


def is_dicom(path: Path) -> bool:
    """Return whether a file starts like DICOM, or a folder has such files."""
    if path.is_dir():
        return bool(dicom_files(path))
    if not stat.S_ISREG(path.stat().st_mode):
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files of a folder, by name; archives often name them without a suffix."""
    files = [file for file in sorted(folder.glob("*")) if file.suffix.lower() in ("", ".dcm")]
    return [file for file in files if file.is_file() and is_dicom(file)]


def dicom_file(folder: Path) -> Path:
    """Return a file with which OpenSlide opens the DICOM slide in a folder.

    Given any file of a series, OpenSlide finds the others itself.

    Raises
    ------
    SlideError
        No file can be opened, or the files belong to several slides.
    """
    import openslide

    files = dicom_files(folder)
    series: dict[Any, Path] = {}
    failure: Exception | None = None
    for file in files[:_MAX_SERIES_FILES]:
        try:
            with openslide.OpenSlide(file) as slide:
                series.setdefault(slide.properties.get("dicom.SeriesInstanceUID"), file)
        except openslide.OpenSlideError as error:  # an overview or label image only
            failure = error
    if len(series) > 1:
        raise SlideError(
            f"the folder holds {len(series)} DICOM slides",
            path=folder,
            remedy=f"Name a file of the one that is meant, for example {next(iter(series.values())).name}.",
        )
    if not series:
        what = f"no DICOM slide can be opened in this folder ({failure})"
        raise SlideError(what, path=folder, remedy="It has to hold all files of one whole-slide series.")
    return next(iter(series.values()))


def _mpp(properties: dict[str, str]) -> tuple[float, float] | None:
    try:
        return float(properties["openslide.mpp-x"]), float(properties["openslide.mpp-y"])
    except (KeyError, ValueError):
        return None


def _bounds(properties: dict[str, str]) -> tuple[int, int, int, int] | None:
    """Return (x, y, width, height) of the scanned part of the canvas; None if it is not stated."""
    try:
        x, y, width, height = (
            int(properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height")
        )
    except (KeyError, ValueError):
        return None
    return (x, y, width, height) if width > 0 and height > 0 else None


def _stated_factors(sizes: Sequence[tuple[int, int]], factors: Sequence[float]) -> list[float | None]:
    """Return each level's factor if it is stated in the file, or None if OpenSlide computed it from sizes."""
    of_sizes = [(sizes[0][0] / rows + sizes[0][1] / cols) / 2 for rows, cols in sizes]
    return [
        None if abs(factor - mean) < 1e-6 * factor else factor
        for factor, mean in zip(factors, of_sizes, strict=True)
    ]
