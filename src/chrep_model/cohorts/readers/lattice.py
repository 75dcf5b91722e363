"""Compute µm per pixel from the known distance between the spots of an array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chrep_model.geometry import FloatArray

# Rounding to whole pixels and the lens move a spot by less than this share of the distance between spots.
_MAX_OFF = 0.25
# The two axes of an array that was only turned, mirrored and scaled agree to this.
_MAX_DISTORTION = 0.03


class OtherArray(ValueError):  # noqa: N818 - what it is, not what went wrong
    """The spots lie on an array of another shape."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """Position of an array in a picture: maps (row, col) to (x, y), with the µm per px.

    Attributes
    ----------
    matrix : ndarray
        (3, 2) float64: ``[row, col, 1] @ matrix`` is (x, y) in px.
    mpp : float
        µm per px.
    """

    matrix: FloatArray
    mpp: float

    def at(self, array: FloatArray) -> FloatArray:
        """Return (x, y) in px of array positions (n, 2), (row, col)."""
        return np.column_stack([array, np.ones(len(array))]) @ self.matrix


def fit_lattice(array: np.ndarray, xy: FloatArray, row_um: float, col_um: float) -> Lattice | None:
    """Fit the array's rows and columns to the positions of its spots.

    Parameters
    ----------
    array : ndarray
        (n, 2), (row, col) of each spot on its array.
    xy : ndarray
        (n, 2), (x, y) in px.
    row_um, col_um : float
        Distance in µm between neighbouring rows, and between neighbouring columns.

    Returns
    -------
    Lattice or None
        None where the spots do not span both axes.

    Raises
    ------
    OtherArray
        They are an array, but one whose axes have another ratio, or are not at right angles.
    ValueError
        The positions are no array: they scatter.
    """
    design = np.column_stack([np.asarray(array, np.float64), np.ones(len(array))])
    if len(array) < 3 or np.linalg.matrix_rank(design - design.mean(axis=0)) < 2:
        return None
    matrix = np.asarray(np.linalg.lstsq(design, xy, rcond=None)[0], np.float64)
    off = float(np.sqrt(((design @ matrix - xy) ** 2).sum(axis=1).mean()))
    steps = np.linalg.norm(matrix[:2], axis=1)  # px from one row, and one column, to the next
    if steps.min() <= 0 or off > _MAX_OFF * steps.min():
        raise ValueError(f"spots lie {off:.0f} px from where the array has them")
    row, col = matrix[0] / row_um, matrix[1] / col_um  # px per µm along both axes
    ratio, lengths = (steps[0] / row_um) / (steps[1] / col_um), (steps[0] / row_um) * (steps[1] / col_um)
    if abs(ratio - 1) > _MAX_DISTORTION or abs(row @ col) > _MAX_DISTORTION * lengths:
        raise OtherArray("its rows and columns do not lie in the picture as they do on the array")
    return Lattice(matrix, float(1 / np.sqrt(lengths)))
