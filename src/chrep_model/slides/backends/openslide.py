"""Vendors' formats through OpenSlide (NDPI, MRXS, BIF, SCN, DICOM, ...), where that package is installed."""

from __future__ import annotations

import hashlib
import importlib.util
import stat
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from chrep_model.errors import SlideError
from chrep_model.slides.backends import Backend, RgbArray, fingerprint, over_white

# Formats that can be told by name; DICOM also by its content.
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
# The named file is only the door to others, so its own bytes do not tell two slides apart.
_MANY_FILES = ("dicom", "mirax", "hamamatsu")
_MAX_SERIES_FILES = 64


class OpenSlideBackend(Backend):
    """A slide that OpenSlide opens.

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
        import openslide

        self._file = dicom_file(path) if path.is_dir() else path
        try:
            self._slide = openslide.OpenSlide(self._file)
            known = dict(self._slide.properties)
        except Exception as error:
            raise self._error("OpenSlide cannot open it", error) from error
        self.shapes = tuple((height, width) for width, height in self._slide.level_dimensions)
        sizes = [
            [known.get(f"openslide.level[{i}].tile-{s}") for s in ("height", "width")] for i in self._range
        ]
        self.chunks = tuple((int(rows or 512), int(cols or 512)) for rows, cols in sizes)
        self.mpp_xy = _mpp(known)
        self._vendor = known.get("openslide.vendor", "")
        self._quickhash = known.get("openslide.quickhash-1")
        self.properties = {"format": "OpenSlide", "vendor": self._vendor}
        if "openslide.objective-power" in known:
            self.properties["objective"] = known["openslide.objective-power"]

    @property
    def _range(self) -> range:
        return range(len(self.shapes))

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the content; of OpenSlide's own hash of it where that is spread over many files."""
        if self._vendor in _MANY_FILES and self._quickhash:
            return hashlib.sha256(f"{self._vendor}:{self._quickhash}".encode()).hexdigest()
        return fingerprint(self._file)

    def read(self, level: int, row: int, col: int, height: int, width: int) -> RgbArray:
        """Return a new uint8 array (height, width, 3) of a region that lies inside the level."""
        factor = self._slide.level_downsamples[level]
        # OpenSlide wants whole level-0 pixels; the nearest one is off by less than half of one.
        corner = round(col * factor), round(row * factor)
        try:
            return over_white(np.asarray(self._slide.read_region(corner, level, (width, height))))
        except Exception as error:
            what = f"OpenSlide cannot read level {level} at row {row}, column {col}"
            raise self._error(what, error) from error

    def close(self) -> None:
        """Release the file."""
        self._slide.close()

    def _error(self, what: str, error: Exception) -> SlideError:
        return SlideError(f"{what} ({error})", path=self.path, remedy="Copy or download the slide again.")


def available() -> bool:
    """Say whether OpenSlide is installed, without loading it."""
    return importlib.util.find_spec("openslide") is not None


def require(path: Path, kind: str = "") -> None:
    """Raise a `SlideError` that says what to install unless OpenSlide is there."""
    if not available():
        kind = kind or SUFFIXES.get(path.suffix.lower(), "DICOM" if is_dicom(path) else "this format")
        raise SlideError(
            f"{kind} is read with OpenSlide, which is not installed",
            path=path,
            remedy='Install it with: pip install "napari-chrep[openslide]"',
        )


def handles(path: Path) -> bool:
    """Say whether OpenSlide is installed and knows the file (or the folder of DICOM files)."""
    if not available():
        return False
    import openslide

    file = next(iter(dicom_files(path)), None) if path.is_dir() else path
    return file is not None and openslide.OpenSlide.detect_format(file) is not None


def is_dicom(path: Path) -> bool:
    """Say whether a file has the mark of DICOM, or a folder has such files."""
    if path.is_dir():
        return bool(dicom_files(path))
    if not stat.S_ISREG(path.stat().st_mode):
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files of a folder, by name."""
    return [file for file in sorted(folder.glob("*")) if file.suffix.lower() == ".dcm" and is_dicom(file)]


def dicom_file(folder: Path) -> Path:
    """Return a file by which OpenSlide opens the DICOM slide in a folder.

    OpenSlide collects the other files of the same series itself, from whichever it is given.

    Raises
    ------
    SlideError
        None of them can be opened, or they belong to several slides.
    """
    import openslide

    files = dicom_files(folder)
    series: dict[Any, Path] = {}
    failure: Exception | None = None
    for file in files[:_MAX_SERIES_FILES]:
        try:
            with openslide.OpenSlide(file) as slide:
                series.setdefault(slide.properties.get("dicom.SeriesInstanceUID"), file)
        except openslide.OpenSlideError as error:  # an overview or label without its slide
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
