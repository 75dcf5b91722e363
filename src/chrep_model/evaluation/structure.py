"""Maps of a gene's values on the array of spots, and the similarity (SSIM) of two maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 7
"""Side of the windows that SSIM compares, in spots; scikit-image's default."""

_NEAR = 1.25
"""Largest distance of array neighbours, in nearest distances; diagonal spots on a square have 1.41."""


def array_positions(xy: NDArray[np.floating]) -> NDArray[np.int64]:
    """Compute row and column of every spot on its array from the positions.

    The array may be square or hexagonal, stretched, and rotated against the picture. Its axes are the mean
    steps from spots to their nearest neighbours in two directions; positions in units of these steps are
    rounded. The shift of half a spot between rows of a hexagonal array is ignored.

    Parameters
    ----------
    xy : ndarray
        (n, 2) positions, in any unit.

    Returns
    -------
    ndarray
        (n, 2) (row, column) from 0.
    """
    from scipy.spatial import cKDTree

    if len(xy) < 3:
        return np.stack([np.zeros(len(xy), np.int64), np.arange(len(xy))], axis=1)
    distance, index = cKDTree(xy).query(xy, k=min(9, len(xy)))
    near = distance[:, 1:] < _NEAR * np.median(distance[:, 1])
    steps = (xy[index[:, 1:]] - xy[:, None])[near]
    angle = np.arctan2(steps[:, 1], steps[:, 0])
    # Directions agree modulo a quarter turn on a square array, modulo a sixth on a hexagonal one.
    agreement = {fold: np.exp(1j * fold * angle).mean() for fold in (4, 6)}
    fold = max(agreement, key=lambda f: abs(agreement[f]))
    first = np.angle(agreement[fold]) / fold
    axes = np.stack([_mean_step(steps, first + turn, np.pi / fold) for turn in (0, 2 * np.pi / fold)])
    if not np.isfinite(axes).all() or abs(np.linalg.det(axes)) < 1e-9:  # all spots in one line
        axes = np.eye(2) * np.median(distance[:, 1])
    uv = xy @ np.linalg.inv(axes)
    uv = uv - np.angle(np.exp(2j * np.pi * uv).mean(0)) / (2 * np.pi)
    column, row = np.rint(uv).astype(np.int64).T
    row = row - row.min()
    if fold == 6:  # oblique axes: shift rows so that all start in the same column
        column = column + row // 2
    return np.stack([row, column - column.min()], axis=1)


def _mean_step(steps: NDArray[np.floating], angle: float, within: float) -> NDArray[np.floating]:
    """Return the mean of the steps along a direction; steps in the opposite direction are reversed."""
    along = steps @ np.array([np.cos(angle), np.sin(angle)])
    chosen = np.abs(along) > np.hypot(*steps.T) * np.cos(within)
    if not chosen.any():
        return np.full(2, np.nan)
    mean: NDArray[np.floating] = (steps[chosen] * np.sign(along[chosen])[:, None]).mean(0)
    return mean


@dataclass(frozen=True)
class Raster:
    """Positions of a section's spots on its array, as cells of a grid.

    Attributes
    ----------
    cell : ndarray
        (n,) flat index of each spot's cell.
    shape : tuple of int
        Number of rows and columns.
    source : ndarray
        (rows * columns,) index of the spot whose value a cell has: its own, or the nearest for empty cells.
    """

    cell: NDArray[np.int64]
    shape: tuple[int, int]
    source: NDArray[np.int64]

    @classmethod
    def of(cls, xy: NDArray[np.floating]) -> Raster:
        """Build the raster of spots at positions (n, 2)."""
        from scipy.ndimage import distance_transform_edt

        row, column = array_positions(xy).T
        shape = (int(row.max()) + 1, int(column.max()) + 1)
        spot = np.full(shape, -1)
        spot[row, column] = np.arange(len(xy))  # of two spots in one cell the later one counts
        nearest = distance_transform_edt(spot < 0, return_distances=False, return_indices=True)
        return cls(row * shape[1] + column, shape, spot[tuple(nearest)].ravel())

    def similarity(self, truth: NDArray[np.floating], predicted: NDArray[np.floating]) -> NDArray[np.float64]:
        """Compute the SSIM of every gene's predicted and true map (Wang et al. 2004, eq. 13).

        Both maps are scaled by the truth's minimum and range. Only cells with a spot count in the mean. Empty
        cells have the value of the nearest spot in each map, so that they do not increase the similarity.
        Windows are `WINDOW` spots wide, or less for small sections.

        Parameters
        ----------
        truth, predicted : ndarray
            (n, genes), in the same unit.

        Returns
        -------
        ndarray
            (genes,) float64; NaN if the truth is constant, or spots fill fewer than 3 rows or columns.
        """
        from skimage.metrics import structural_similarity as ssim

        side = min(WINDOW, *self.shape)
        side -= 1 - side % 2
        low = truth.min(0).astype(np.float64)
        span = truth.max(0) - low
        out = np.full(truth.shape[1], np.nan)
        if side < 3:
            return out
        for gene in np.flatnonzero(span > 1e-6):
            t, p = (
                ((values[self.source, gene] - low[gene]) / span[gene]).reshape(self.shape)
                for values in (truth, predicted)
            )
            _, map_ = ssim(t, p, win_size=side, data_range=1.0, full=True)  # type: ignore[no-untyped-call]
            out[gene] = map_.ravel()[self.cell].mean()
        return out
