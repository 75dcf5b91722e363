"""Computation of µm per pixel from the known distance between the spots of an array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chrep_model.geometry import FloatArray

# Largest deviation of a spot from the array, in spot distances; rounding and the lens cause less.
_MAX_OFF = 0.25
# Largest relative difference in scale between the two axes of an array.
_MAX_DISTORTION = 0.03


class OtherArray(ValueError):  # noqa: N818 - names a kind of array, not an error
    """Raised if the spots lie on an array of another shape."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """Position of an array in a picture, a linear map from (row, col) to (x, y), and the µm per px.

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
        """Convert array positions (n, 2), (row, col), to (x, y) in px."""
        return np.column_stack([array, np.ones(len(array))]) @ self.matrix


def fit_lattice(array: np.ndarray, xy: FloatArray, row_um: float, col_um: float) -> Lattice | None:
    """Fit a linear map from the rows and columns of an array to the positions of its spots.

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
        None if the spots do not span both axes.

    Raises
    ------
    OtherArray
        The spots form an array whose axes have another ratio, or are not at right angles.
    ValueError
        The positions do not form an array.
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
