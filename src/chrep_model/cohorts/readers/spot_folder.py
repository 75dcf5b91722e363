"""Read Space Ranger's ``spatial`` folder: positions of spots or bins, and the size of their picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chrep_model.cohorts.readers.pictures import Size, find_picture, nearby
from chrep_model.cohorts.readers.source import Options
from chrep_model.cohorts.readers.untrusted_files import inside, only_one, read_json, read_table
from chrep_model.errors import CohortError
from chrep_model.geometry import FloatArray

_POSITIONS = ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
_COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
_COPY_AGAIN = "Copy the folder 'spatial' of Space Ranger's output again."


@dataclass(frozen=True, eq=False)
class Positions:
    """All spots of an array, including those off the tissue.

    Attributes
    ----------
    barcodes : ndarray
        (n,) of str, unique.
    in_tissue : ndarray
        (n,) bool.
    array : ndarray
        (n, 2) int64, (row, col) on the array.
    xy : ndarray
        (n, 2) float64, (x, y) of the centres in px of the full-resolution picture.
    path : Path
    """

    barcodes: np.ndarray
    in_tissue: np.ndarray
    array: np.ndarray
    xy: FloatArray
    path: Path


def spatial_folder(folder: Path) -> Path | None:
    """Return the folder with the positions and scale factors of an output folder; None if there is none."""
    spatial = folder / "spatial"
    return spatial if spatial.is_dir() else None


def read_positions(spatial: Path) -> Positions:
    """Read the table of positions: CSV with or without a header, or Parquet.

    Raises
    ------
    CohortError
        It is missing or damaged, or a barcode occurs twice.
    """
    paths = [spatial / name for name in _POSITIONS if (spatial / name).is_file()]
    paths = paths or [file for name in _POSITIONS for file in inside(spatial, f"*{name}", f"*{name}.gz")]
    if not paths:
        raise CohortError(
            "tissue_positions.csv (or tissue_positions_list.csv, or tissue_positions.parquet) is missing",
            path=spatial,
            remedy=_COPY_AGAIN,
        )
    path = paths[0]
    if path.suffix == ".parquet":
        table = read_table(path, usecols=lambda name: name in _COLUMNS)
    else:
        table = read_table(path, header=None, dtype=str)
        if len(table) and str(table.iloc[0, 0]).strip().lower() == "barcode":
            table = table.iloc[1:].set_axis([str(name).strip() for name in table.iloc[0]], axis=1)
        elif table.shape[1] == len(_COLUMNS):
            table = table.set_axis(list(_COLUMNS), axis=1)
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise CohortError(
            f"this table of positions has no column {', '.join(missing)}", path=path, remedy=_COPY_AGAIN
        )
    try:
        numbers = table[list(_COLUMNS[1:])].to_numpy(dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.full((len(table), 5), np.nan)
    if not len(table) or not np.isfinite(numbers).all():
        what = "some positions are no numbers" if len(table) else "it lists no spot"
        raise CohortError(what, path=path, remedy=_COPY_AGAIN)
    barcodes = table["barcode"].to_numpy(dtype=object)
    if table["barcode"].duplicated().any():
        raise CohortError("barcodes occur more than once in it", path=path, remedy=_COPY_AGAIN)
    return Positions(
        barcodes=barcodes,
        in_tissue=numbers[:, 0] > 0,
        array=numbers[:, 1:3].astype(np.int64),
        xy=np.ascontiguousarray(numbers[:, [4, 3]]),
        path=path,
    )


def read_scale_factors(spatial: Path) -> dict[str, float]:
    """Read scalefactors_json.json; CohortError if it is missing or holds no numbers."""
    path = spatial / "scalefactors_json.json"
    if not path.is_file():
        path = (
            only_one(inside(spatial, "*scalefactors_json.json"), "files with scale factors", spatial) or path
        )
    if not path.is_file():
        raise CohortError("scalefactors_json.json is missing", path=spatial, remedy=_COPY_AGAIN)
    return {key: _number(value, key, path) for key, value in read_json(path).items() if _is_known(key)}


def full_size(spatial: Path, scale: dict[str, float], positions: Positions) -> Size | None:
    """Return the size of the full-resolution picture, computed from a reduced copy; None if it is unknown.

    Reduced copies that were cropped or resized later, so that spots lie outside, are not used.
    """
    from PIL import Image

    for which in ("hires", "lowres"):
        copies = inside(spatial, f"tissue_{which}_image.*", f"*tissue_{which}_image.png")
        factor = scale.get(f"tissue_{which}_scalef")
        if not copies or not factor:
            continue
        try:
            with Image.open(copies[0]) as picture:
                width, height = picture.size
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
        size = Size(width / factor, height / factor, 1.5 / factor)
        reach = positions.xy[positions.in_tissue] if positions.in_tissue.any() else positions.xy
        if (reach.max(axis=0) <= (size.width + size.tolerance, size.height + size.tolerance)).all():
            return size
    return None


def find_section_picture(
    place: Path, name: str, spatial: Path, options: Options, *, up: int, neither: str
) -> Path:
    """Return the full-resolution picture of an output folder, found by its expected size.

    Parameters
    ----------
    place, name
        The output folder and the name of its section.
    spatial
        The folder with positions and scale factors.
    options
    up
        Number of folders above `place` in which the picture is searched for.
    neither
        Description of pictures that are not the right one, for messages.

    Raises
    ------
    CohortError, SlideError
        See `find_picture`; or the folder `spatial` is damaged.
    """
    positions, scale = read_positions(spatial), read_scale_factors(spatial)
    full = full_size(spatial, scale, positions)
    size = "" if full is None else f" ({full})"
    return find_picture(
        place,
        name,
        options,
        among=nearby(place, up=up),
        fits=lambda found: why_not(found, full, positions),
        wanted=f"the microscope's own picture{size}, which Space Ranger got by --image (a TIFF or JPEG; "
        f"{neither})",
    )


def why_not(size: Size, full: Size | None, positions: Positions) -> str:
    """Return why positions cannot refer to a picture of this size; empty if they can."""
    shape = f"it is {size}"
    if full is not None and not full.fits(round(size.width), round(size.height)):
        if full.fits(round(size.height), round(size.width)):
            return f"{shape}, and the spots were placed on one of {full}: it was turned by 90°"
        smaller = size.width < full.width and size.height < full.height
        kind = "a reduced or another picture" if smaller else "another picture"
        return f"{shape}, and the spots were placed on one of {full}: this is {kind}"
    xy = positions.xy[positions.in_tissue]
    if len(xy) and not ((xy >= 0).all() and (xy.max(axis=0) <= (size.width, size.height)).all()):
        right, bottom = xy.max(axis=0)
        return f"{shape}, and spots lie as far as x {right:.0f}, y {bottom:.0f}: it is reduced or another one"
    return ""


def _is_known(key: str) -> bool:
    return key.endswith(("_scalef", "_fullres")) or key in ("bin_size_um", "microns_per_pixel")


def _number(value: Any, key: str, path: Path) -> float:
    if not isinstance(value, int | float) or not 0 < value < 1e9:
        raise CohortError(f"{key} is {value!r}, not a number above zero", path=path, remedy=_COPY_AGAIN)
    return float(value)
