"""Pixel spacing of each level of a DICOM slide, which OpenSlide returns for the largest level only.

Only the header of each file is read, up to the functional groups shared by its frames; pixels are read by
OpenSlide. Source: DICOM PS3.3 C.8.12.4 (whole slide microscopy image).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SHARED_GROUPS = 0x52009229
_WANTED = (
    *("SeriesInstanceUID", "ImageType", "TotalPixelMatrixColumns", "TotalPixelMatrixRows"),
    "SharedFunctionalGroupsSequence",
)
_MAX_FILES = 256


def pixel_sizes(file: Path, sizes: Sequence[tuple[int, int]]) -> tuple[tuple[float, float] | None, ...]:
    """Compute the reduction factors of a DICOM slide's levels from their pixel spacing.

    Parameters
    ----------
    file
        Any file of the series; the others are in the same folder.
    sizes
        (rows, cols) of each level, the largest first.

    Returns
    -------
    tuple
        Level-0 pixels per pixel (down, across) of each level, or None if its file has no pixel spacing; empty
        if that of the largest level is missing.
    """
    own = _header(file)
    levels = [] if own is None else [own, *(_header(other) for other in _beside(file))]
    spacing = {
        (level.rows, level.cols): level.spacing
        for level in levels
        if level is not None and own is not None and level.series == own.series
    }
    base = spacing.get(sizes[0])
    if base is None:
        return ()
    found = [spacing.get(size) for size in sizes]
    return tuple(None if s is None else (s[0] / base[0], s[1] / base[1]) for s in found)


def _beside(file: Path) -> Iterator[Path]:
    for number, other in enumerate(sorted(file.parent.iterdir())):
        if number >= _MAX_FILES:
            return
        if other != file and other.suffix.lower() == file.suffix.lower() and other.is_file():
            yield other


@dataclass(frozen=True)
class _Header:
    """Header of a DICOM file: its series, the size of its picture, and mm per pixel (down, across)."""

    series: str
    rows: int
    cols: int
    spacing: tuple[float, float]


def _header(file: Path) -> _Header | None:
    """Read the header of a DICOM file; None if it is not a level of a slide or has no pixel spacing."""

    def is_behind(tag: Any, *_: Any) -> bool:
        return int(tag) > _SHARED_GROUPS

    try:
        from pydicom.filereader import read_partial
        from pydicom.tag import Tag

        with file.open("rb") as stream:
            found = read_partial(stream, stop_when=is_behind, specific_tags=[Tag(name) for name in _WANTED])
        if "VOLUME" not in found.ImageType:
            return None
        shared = found.SharedFunctionalGroupsSequence[0]
        down, across = (float(mm) for mm in shared.PixelMeasuresSequence[0].PixelSpacing)
        rows, cols = int(found.TotalPixelMatrixRows), int(found.TotalPixelMatrixColumns)
        series = str(found.SeriesInstanceUID)
    except Exception:  # pydicom may raise any error for a damaged header; factors then follow from the sizes
        return None
    return _Header(series, rows, cols, (down, across)) if min(down, across) > 0 else None
