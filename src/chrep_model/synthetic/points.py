"""Random points on a map, at a minimum distance from each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .fields import MAP_UM, Field


def spread_out(
    xy: NDArray[np.float64], distance: float | NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Choose a subset of points in which any two are at least the mean of their `distance` apart.

    Random sequential packing in parallel: in each round, a point that precedes all undecided neighbours in a
    random order is kept, and these neighbours are removed.

    Returns
    -------
    int64 indices into `xy`, ascending.
    """
    n = len(xy)
    if n == 0:
        return np.zeros(0, np.int64)
    reach = np.broadcast_to(np.asarray(distance, np.float64), (n,))
    pairs = cKDTree(xy).query_pairs(float(reach.max()), output_type="ndarray")
    gap = np.hypot(*(xy[pairs[:, 0]] - xy[pairs[:, 1]]).T)
    pairs = pairs[gap < (reach[pairs[:, 0]] + reach[pairs[:, 1]]) / 2]
    order = rng.permutation(n)
    first = np.where(order[pairs[:, 0]] < order[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    second = pairs.sum(axis=1) - first
    kept, undecided = np.zeros(n, bool), np.ones(n, bool)
    while undecided.any():
        blocked = np.zeros(n, bool)
        blocked[second] = True
        chosen = undecided & ~blocked
        kept |= chosen
        lost = np.zeros(n, bool)
        lost[second[chosen[first]]] = True
        undecided &= ~(chosen | lost)
        alive = undecided[first] & undecided[second]
        first, second = first[alive], second[alive]
    return np.flatnonzero(kept)


def draw_points(density: Field, spacing: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw random points on a map.

    Parameters
    ----------
    density
        Expected number of points per mm² before packing, a map (rows, cols) with pixels of `MAP_UM`.
    spacing
        Minimum distance between points in µm; 0 = any.
    rng
        Source of randomness.

    Returns
    -------
    float64 (n, 2), (x, y) in µm.
    """
    hits = rng.poisson(density.astype(np.float64).ravel() * (MAP_UM * 1e-3) ** 2)
    rows, cols = np.divmod(np.repeat(np.arange(hits.size), hits), density.shape[1])
    xy = (np.stack([cols, rows], axis=1) + rng.random((len(rows), 2))) * MAP_UM
    return xy[spread_out(xy, spacing, rng)] if spacing > 0 else xy
