"""Find the positions of the spots in a table, by the column names that common programs use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chrep_model.cohorts.tables.names import plain
from chrep_model.errors import CohortError
from chrep_model.geometry import FloatArray

#: Pairs of column names for x and y in px, in lower case without separators.
_PAIRS = (
    ("pxlcolinfullres", "pxlrowinfullres"),
    ("x", "y"),
    ("imagecol", "imagerow"),
    ("pixelx", "pixely"),
    ("xpx", "ypx"),
    ("xcoord", "ycoord"),
    ("spatial1", "spatial2"),
    ("0", "1"),
)
#: Columns of obs that may be positions, but with unknown scale or order: only named in an error message.
_MAYBE = (
    *("pxlcolinfullres", "pxlrowinfullres", "xpixel", "ypixel", "pixelx", "pixely"),
    *("imagecol", "imagerow", "x", "y", "xcentroid", "ycentroid"),
)
_REMEDY = "It must hold one (x, y) per spot, in px of the full-resolution image."


def by_name(columns: Mapping[str, Any], where: str, path: Path) -> FloatArray:
    """Return x and y from a table of positions, found by their column names.

    Parameters
    ----------
    columns : mapping of str to values
        Columns of the table, in any order.
    where : str
        Name of the table, for messages.

    Returns
    -------
    ndarray
        (n, 2) float64, (x, y).

    Raises
    ------
    CohortError
        No known pair of names is present, or the columns are not numbers.
    """
    named = {plain(name): values for name, values in columns.items()}
    for x, y in _PAIRS:
        if x in named and y in named:
            return _numbers(np.column_stack([_flat(named[x]), _flat(named[y])]), where, path)
    listed = ", ".join(list(columns)[:6])
    raise CohortError(
        f"{where} has the columns {listed}: which of them is x and which is y is not known",
        path=path,
        remedy="Call them x and y; they must be px of the full-resolution image.",
    )


def from_array(values: Any, n_spots: int, where: str, path: Path) -> FloatArray:
    """Check an array of positions, (n, 2), or (n, 3) with constant z; return (x, y), (n, 2) float64."""
    xy = _numbers(values, where, path)
    if xy.shape == (n_spots, 3) and n_spots and np.ptp(xy[:, 2]) == 0:
        return np.ascontiguousarray(xy[:, :2])
    if xy.shape != (n_spots, 2):
        raise CohortError(f"{where} has the shape {xy.shape}, not ({n_spots}, 2)", path=path, remedy=_REMEDY)
    return xy


def check_finite(xy: FloatArray, where: str, path: Path) -> None:
    """Check that no position is NaN or infinite; CohortError if one is."""
    wrong = int((~np.isfinite(xy)).any(axis=1).sum())
    if wrong:
        raise CohortError(
            f"{where} is NaN or infinite for {wrong} of {len(xy)} spots", path=path, remedy=_REMEDY
        )


def missing(obs_columns: Iterable[str], obsm_keys: Iterable[str], path: Path) -> CohortError:
    """Return the error for a table without positions; it lists columns that may hold them."""
    maybe = [f"obs['{name}']" for name in obs_columns if plain(name) in _MAYBE]
    maybe += [f"obsm['{key}']" for key in obsm_keys if "spatial" in key.lower() or "coord" in key.lower()]
    remedy = "Store the (x, y) of every spot centre, in px of the full-resolution image, there."
    if maybe:
        remedy += f" They may be in {', '.join(maybe[:4])}: look which is x (to the right) and which is y."
    return CohortError(
        "obsm['spatial'] is missing: nothing says where the spots are", path=path, remedy=remedy
    )


def array_indices(row: Any, col: Any, n_spots: int) -> np.ndarray | None:
    """Return (row, col) of each spot on its array, (n, 2) int64; None if they are not whole numbers."""
    try:
        both = np.column_stack([_flat(row), _flat(col)]).astype(np.float64)
    except (TypeError, ValueError):
        return None
    if both.shape != (n_spots, 2) or not np.isfinite(both).all() or (both != np.round(both)).any():
        return None
    return both.astype(np.int64)


def _flat(values: Any) -> np.ndarray:
    return np.asarray(values).ravel()


def _numbers(values: Any, where: str, path: Path) -> FloatArray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise CohortError(f"{where} does not hold numbers", path=path, remedy=_REMEDY) from None
